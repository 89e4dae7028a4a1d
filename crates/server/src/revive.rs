//! Loads a model again whose engine has died, a lost device's among them: requests are refused meanwhile, and then served again.

use crate::{AppState, ServedModel};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How often engines are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Wait before the second attempt; doubled for each further one up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// An engine that lived so long was well: the next death waits [`FIRST`] again.
const WELL: Duration = Duration::from_secs(300);

/// Watches the models of `state`, all of which are named by now, for ever. `load` loads the model of that name anew; it blocks, and is
/// called on a thread of its own, after the dead engine has released what it held. A model that cannot be loaded keeps no other waiting.
pub async fn revive<L, E>(state: Arc<AppState>, load: L)
where
    L: Fn(&str) -> Result<ServedModel, E> + Send + Sync + 'static,
    E: std::fmt::Display + Send + 'static,
{
    let load = Arc::new(load);
    // They end with this one.
    let mut watchers = JoinSet::new();
    for place in 0..state.ids().len() {
        watchers.spawn(watch(state.clone(), place, load.clone()));
    }
    while watchers.join_next().await.is_some() {}
}

async fn watch<L, E>(state: Arc<AppState>, place: usize, load: Arc<L>)
where
    L: Fn(&str) -> Result<ServedModel, E> + Send + Sync + 'static,
    E: std::fmt::Display + Send + 'static,
{
    let (mut wait, mut last) = (FIRST, Instant::now());
    loop {
        tokio::time::sleep(LOOK).await;
        let Some((id, reason)) = state.take_lost(place) else { continue };
        tracing::error!(model = id, reason, "the engine has died; the model is loaded again");
        if last.elapsed() > WELL {
            wait = FIRST;
        }
        loop {
            let (load, name) = (load.clone(), id.clone());
            match tokio::task::spawn_blocking(move || load(&name).map_err(|e| e.to_string())).await {
                Ok(Ok(model)) => {
                    state.put_back(place, model);
                    tracing::info!(model = id, "loaded again; new requests are served");
                    break;
                }
                Ok(Err(error)) => tracing::error!(model = id, error, retry_in = ?wait, "loading again failed"),
                Err(error) => tracing::error!(model = id, %error, retry_in = ?wait, "loading again ended early"),
            }
            tokio::time::sleep(wait).await;
            wait = (2 * wait).min(LONGEST);
        }
        last = Instant::now();
    }
}
