//! The server's life: a thread that accepts, and the end.

use super::accept;
use super::connections::Connections;
use super::server::Server;
use crate::state::AppState;
use axum::Router;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Time to write the final events of answers that are cut off.
const FINAL_EVENTS: Duration = Duration::from_secs(1);

/// Serves until `shutdown` resolves, and then for the time that it says at most.
///
/// # Errors
/// The listener cannot be used, or the thread that accepts cannot be started.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    state: Arc<AppState>,
    shutdown: impl Future<Output = Duration>,
) -> io::Result<()> {
    state.origins.bound_to(listener.local_addr()?.ip());
    let connections = Connections::new(state.limits.connections);
    let server = Arc::new(Server { router, state, connections, api: Handle::current() });
    let (_open, end) = oneshot::channel::<()>();
    let (fail, mut failed) = oneshot::channel::<io::Error>();
    let listener = listener.into_std()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let accepting = server.clone();
    std::thread::Builder::new().name("accept".into()).spawn(move || {
        let outcome = runtime.block_on(async move {
            tokio::select! { outcome = accept::accept(listener, accepting) => outcome.err(), _ = end => None }
        });
        // Nobody listens any more if the server has ended meanwhile.
        let _ = outcome.map(|error| fail.send(error));
    })?;
    let grace = tokio::select! {
        grace = shutdown => grace,
        error = &mut failed => {
            return Err(error.unwrap_or_else(|_| io::Error::other("the thread that accepts connections has ended early")));
        }
    };
    drain(&server.state, grace).await;
    server.connections.close_all();
    Ok(())
}

async fn drain(state: &AppState, grace: Duration) {
    state.drain();
    if ended(state, grace).await {
        return;
    }
    let answers = state.live();
    tracing::warn!(answers, ?grace, "the grace is over; the answers that were not out are cut");
    state.cut_off.send_replace(true);
    ended(state, FINAL_EVENTS).await;
}

/// Waits until no request is live; false if that takes longer than `limit`.
async fn ended(state: &AppState, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while state.live() > 0 {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    true
}
