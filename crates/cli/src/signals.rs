//! Signals that tell the process to stop.

use tokio::sync::mpsc;

/// The name of each signal to stop, as it comes. To be called in a runtime.
pub(crate) fn stops() -> mpsc::UnboundedReceiver<&'static str> {
    let (send, receive) = mpsc::unbounded_channel();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut caught = vec![("SIGINT", SignalKind::interrupt()), ("SIGTERM", SignalKind::terminate())];
        // Who started it with nohup wants it to outlive the terminal.
        if !hangup_ignored() {
            caught.push(("SIGHUP", SignalKind::hangup()));
        }
        for (name, kind) in caught {
            match signal(kind) {
                Ok(mut signal) => {
                    let send = send.clone();
                    tokio::spawn(async move { while signal.recv().await.is_some() && send.send(name).is_ok() {} });
                }
                Err(error) => tracing::warn!(%error, "{name} cannot be caught"),
            }
        }
    }
    #[cfg(not(unix))]
    tokio::spawn(async move {
        loop {
            match tokio::signal::ctrl_c().await {
                Ok(()) if send.send("Ctrl-C").is_ok() => {}
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(%error, "Ctrl-C cannot be caught");
                    // Whoever listens must not think that it came.
                    return std::future::pending().await;
                }
            }
        }
    });
    receive
}

/// SIGHUP was ignored when the process started. Only Linux can be asked; elsewhere it was not.
#[cfg(unix)]
fn hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
