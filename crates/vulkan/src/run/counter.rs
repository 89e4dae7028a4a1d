use mlx_serving_device::QueueKind;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A place in the work handed to the driver: a value of the queue's semaphore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) queue: QueueKind,
    pub(super) value: u64,
}

/// Distance of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Reached already.
    Reached,
    /// Reached when the driver comes to the ticket.
    Handed(Ticket),
    /// Open: it is not known who will raise it.
    Open,
}

/// A counter that only rises, and what the driver was handed that will raise it.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    value: AtomicU64,
    handed: Mutex<Vec<(u64, Ticket)>>,
    changed: Condvar,
}

impl Counter {
    pub(super) fn value(&self) -> u64 {
        self.value.load(SeqCst)
    }

    pub(super) fn progress(&self, value: u64) -> Progress {
        if self.value() >= value {
            return Progress::Reached;
        }
        let handed = self.lock();
        // Once more: who raises the counter forgets what it had been handed.
        if self.value() >= value {
            return Progress::Reached;
        }
        let raising = handed.iter().find(|(raised, _)| *raised >= value);
        raising.map_or(Progress::Open, |(_, ticket)| Progress::Handed(*ticket))
    }

    /// Notes that the driver's coming to `ticket` will raise the counter to `value`.
    pub(super) fn hand(&self, value: u64, ticket: Ticket) {
        self.lock().push((value, ticket));
        self.changed.notify_all();
    }

    /// Raises the counter; a lower value changes nothing.
    pub(super) fn raise(&self, value: u64) {
        let mut handed = self.lock();
        let value = self.value.fetch_max(value, SeqCst).max(value);
        handed.retain(|(raised, _)| *raised > value);
        drop(handed);
        self.changed.notify_all();
    }

    /// Sleeps while `value` is open, at most for `limit`.
    pub(super) fn sleep(&self, value: u64, limit: Duration) {
        let handed = self.lock();
        let open =
            |handed: &mut Vec<(u64, Ticket)>| self.value() < value && handed.iter().all(|(raised, _)| *raised < value);
        drop(self.changed.wait_timeout_while(handed, limit, open).unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(u64, Ticket)>> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn says_what_will_raise_it() {
        let counter = Counter::default();
        let ticket = |value| Ticket { queue: QueueKind::Compute, value };
        assert_eq!(counter.progress(0), Progress::Reached);
        counter.hand(2, ticket(7));
        counter.hand(4, ticket(8));
        assert_eq!(counter.progress(1), Progress::Handed(ticket(7)));
        assert_eq!(counter.progress(3), Progress::Handed(ticket(8)));
        assert_eq!(counter.progress(5), Progress::Open);
        counter.raise(3);
        counter.raise(1);
        assert_eq!((counter.value(), counter.progress(3)), (3, Progress::Reached));
        assert_eq!(counter.lock().len(), 1, "what is over is forgotten");
    }

    #[test]
    fn sleepers_wake_when_it_is_raised_and_when_it_is_handed_over() {
        let counter = Arc::new(Counter::default());
        std::thread::scope(|scope| {
            let sleepers: Vec<_> = (1..=4)
                .map(|value| {
                    scope.spawn({
                        let counter = counter.clone();
                        move || counter.sleep(value, Duration::from_secs(60))
                    })
                })
                .collect();
            counter.hand(4, Ticket { queue: QueueKind::Transfer, value: 1 });
            sleepers.into_iter().for_each(|s| s.join().unwrap());
        });
        counter.sleep(5, Duration::from_millis(1));
        assert_eq!(counter.progress(5), Progress::Open);
    }
}
