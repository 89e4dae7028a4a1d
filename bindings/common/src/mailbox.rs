//! The place that an event loop looks at when anything that it waits for has come.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Wake;

/// Wakes one event loop, however many answers it waits for: once, until the loop says that it has come to look.
pub struct Mailbox {
    notify: Box<dyn Fn() + Send + Sync>,
    /// The loop was notified and has not looked yet.
    notified: AtomicBool,
    wakes: AtomicU64,
}

impl Mailbox {
    /// A mailbox that tells its loop by `notify`, which runs on an engine's thread: it must neither block nor wait for the loop's own lock.
    pub fn new(notify: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { notify: Box::new(notify), notified: AtomicBool::new(false), wakes: AtomicU64::new(0) })
    }

    /// Says that the loop looks now: what comes from here on notifies it again. It then takes from everything that it waits for.
    pub fn rearm(&self) {
        self.notified.store(false, Ordering::SeqCst);
    }

    /// Notifications so far.
    pub fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::Relaxed)
    }
}

impl Wake for Mailbox {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.notified.swap(true, Ordering::SeqCst) {
            self.wakes.fetch_add(1, Ordering::Relaxed);
            (self.notify)();
        }
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mailbox({} wakes)", self.wakes())
    }
}
