//! Loads a model again whose engine has died, a lost device's among them: requests are refused meanwhile, and then served again.

use crate::AppState;
use crate::state::LostModel;
use mlx_serving_runtime::Generate;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Time between two looks at an engine.
const LOOK: Duration = Duration::from_millis(250);
/// Wait before the second attempt; doubled for each further one up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// An engine that lived so long was well: the next death waits [`FIRST`] again.
const WELL: Duration = Duration::from_secs(300);
/// Time in which requests must have let a dead engine go. They fail at once, so that it is never needed.
const RELEASE: Duration = Duration::from_secs(300);

/// Watches the models of `state`, all of which are named by now, for ever. `load` loads the model of that name again; it blocks, and is
/// called on a thread of its own, after the dead engine has released what it held. A model that cannot be loaded keeps no other waiting.
pub async fn revive<L, E>(state: Arc<AppState>, load: L)
where
    L: Fn(&str) -> Result<Arc<dyn Generate>, E> + Send + Sync + 'static,
    E: std::fmt::Display + Send + 'static,
{
    let load = Arc::new(load);
    // They end with this one.
    let mut watchers = JoinSet::new();
    for slot in 0..state.ids().len() {
        watchers.spawn(watch(state.clone(), slot, load.clone()));
    }
    while watchers.join_next().await.is_some() {}
}

async fn watch<L, E>(state: Arc<AppState>, slot: usize, load: Arc<L>)
where
    L: Fn(&str) -> Result<Arc<dyn Generate>, E> + Send + Sync + 'static,
    E: std::fmt::Display + Send + 'static,
{
    let (mut wait, mut last) = (FIRST, Instant::now());
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(LostModel { id, reason, dead }) = state.take_lost(slot) else { continue };
        tracing::error!(model = id, reason, "the model is loaded again");
        if let Some(dead) = dead {
            let name = id.clone();
            let released = tokio::task::spawn_blocking(move || {
                if !release(dead, RELEASE) {
                    tracing::warn!(model = name, "requests still hold the dead engine, whose memory stays taken");
                }
            });
            if let Err(error) = released.await {
                tracing::error!(model = id, %error, "the dead engine was not released as it should be");
            }
        }
        if last.elapsed() > WELL {
            wait = FIRST;
        }
        loop {
            let (load, name) = (load.clone(), id.clone());
            match tokio::task::spawn_blocking(move || load(&name).map_err(|e| e.to_string())).await {
                Ok(Ok(model)) => {
                    if state.put_back(slot, model) {
                        tracing::info!(model = id, "loaded again; new requests are served");
                    }
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

/// Drops what is shared once nobody else holds it, so that its memory is free afterward; false if others still hold it after `limit`.
fn release<T: ?Sized>(shared: Arc<T>, limit: Duration) -> bool {
    let start = Instant::now();
    // The slot has given it up: once this is the only reference, there will be no other.
    while Arc::strong_count(&shared) > 1 {
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_is_released_when_its_last_request_has_ended() {
        let dead = Arc::new(());
        let request = dead.clone();
        let watched = Arc::downgrade(&dead);
        let releasing = std::thread::spawn(move || release(dead, Duration::from_secs(60)));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!releasing.is_finished(), "a request still holds it");
        drop(request);
        assert!(releasing.join().unwrap() && watched.upgrade().is_none());
        let dead = Arc::new(());
        let _request = dead.clone();
        assert!(!release(dead, Duration::ZERO), "not for ever");
    }
}
