//! Accepting connections, and the end of the server.

use crate::front;
use crate::register::Register;
use crate::{AppState, router};
use axum::Router;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Time to write the last words of answers that are cut.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What all connections share.
pub(crate) struct Shared {
    pub router: Router,
    pub state: Arc<AppState>,
    pub register: Arc<Register>,
    /// Where everything but probes is served.
    pub api: Handle,
}

/// Serves until `shutdown` resolves; then refuses new requests and gives those accepted `grace` until the last byte of their answers
/// is out. What is not is cut: streams get an error event, whole answers 503.
///
/// # Errors
/// The listener cannot be used, or the thread that accepts cannot be started.
pub async fn serve(
    listener: TcpListener,
    state: Arc<AppState>,
    shutdown: impl Future<Output = ()>,
    grace: Duration,
) -> io::Result<()> {
    state.origins.bound_to(listener.local_addr()?.ip());
    let register = Register::new(state.limits.connections);
    let shared = Shared { router: router(state.clone()), state, register, api: Handle::current() };
    let shared = Arc::new(shared);
    let (_open, end) = oneshot::channel::<()>();
    let (fail, mut failed) = oneshot::channel::<io::Error>();
    let listener = listener.into_std()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let front = shared.clone();
    std::thread::Builder::new().name("front".into()).spawn(move || {
        let outcome = runtime.block_on(async move {
            tokio::select! { outcome = front::accept(listener, front) => outcome.err(), _ = end => None }
        });
        // Whoever serves has ended if nobody wants to know.
        let _ = outcome.map(|error| fail.send(error));
    })?;
    tokio::select! {
        () = shutdown => {}
        error = &mut failed => {
            return Err(error.unwrap_or_else(|_| io::Error::other("the thread that accepts connections has ended early")));
        }
    }
    drain(&shared.state, grace).await;
    shared.register.close_all();
    Ok(())
}

async fn drain(state: &AppState, grace: Duration) {
    state.drain();
    if ended(state, grace).await {
        return;
    }
    let answers = state.live();
    tracing::warn!(answers, ?grace, "the time to end is over; the answers that were not out are cut");
    state.cut.send_replace(true);
    ended(state, LAST_WORDS).await;
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
