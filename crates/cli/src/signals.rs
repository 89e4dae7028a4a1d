//! Signals that tell the process to stop.

use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Time after the first signal in which others are taken for the same: supervisors send one to the group and one to the process.
pub(crate) const SAME: Duration = Duration::from_millis(500);

/// Signals to stop, as they come.
pub(crate) struct Stops {
    signals: mpsc::UnboundedReceiver<(&'static str, Instant)>,
    first: Option<Instant>,
    /// Time after the first in which others are dropped.
    same: Duration,
}

impl Stops {
    /// The name of the next signal that is one of its own. May be dropped before it is there: none is lost.
    pub(crate) async fn recv(&mut self) -> Option<&'static str> {
        loop {
            let (name, at) = self.signals.recv().await?;
            if self.first.is_none_or(|first| at.saturating_duration_since(first) >= self.same) {
                self.first.get_or_insert(at);
                return Some(name);
            }
            tracing::debug!("{name}: right behind the first signal, and taken for the same");
        }
    }
}

/// Catches signals to stop; those within `same` of the first are dropped. To be called in a runtime.
pub(crate) fn stops(same: Duration) -> Stops {
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
                    tokio::spawn(async move {
                        while signal.recv().await.is_some() && send.send((name, Instant::now())).is_ok() {}
                    });
                }
                Err(error) => tracing::warn!(%error, "{name} cannot be caught"),
            }
        }
    }
    #[cfg(not(unix))]
    tokio::spawn(async move {
        loop {
            match tokio::signal::ctrl_c().await {
                Ok(()) if send.send(("Ctrl-C", Instant::now())).is_ok() => {}
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(%error, "Ctrl-C cannot be caught");
                    // Whoever listens must not think that it came.
                    return std::future::pending().await;
                }
            }
        }
    });
    Stops { signals: receive, first: None, same }
}

/// SIGHUP was ignored when the process started. Only Linux can be asked; elsewhere it was not.
#[cfg(unix)]
fn hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_right_behind_the_first_is_taken_for_the_same() {
        let (send, signals) = mpsc::unbounded_channel();
        let mut stops = Stops { signals, first: None, same: SAME };
        let start = Instant::now();
        for (name, ms) in [("SIGTERM", 0), ("SIGTERM", 2), ("SIGINT", 499), ("SIGHUP", 500), ("SIGINT", 501)] {
            send.send((name, start + Duration::from_millis(ms))).unwrap();
        }
        drop(send);
        assert_eq!(stops.recv().await, Some("SIGTERM"));
        assert_eq!(stops.recv().await, Some("SIGHUP"));
        assert_eq!(stops.recv().await, Some("SIGINT"));
        assert_eq!(stops.recv().await, None);
    }
}
