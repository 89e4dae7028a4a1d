use super::connections::Connections;
use crate::state::AppState;
use axum::Router;
use std::sync::Arc;
use tokio::runtime::Handle;

/// State that all connections share.
pub(super) struct Server {
    pub router: Router,
    pub state: Arc<AppState>,
    pub connections: Arc<Connections>,
    /// The runtime that serves everything but probes.
    pub api: Handle,
}
