use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A bound on bytes that are held at once.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    limit: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limit })
    }

    /// More than half of it is used.
    pub(crate) fn over_half(&self) -> bool {
        self.used.load(Ordering::Acquire) > self.limit / 2
    }

    /// An empty share.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        Share { budget: self.clone(), bytes: AtomicUsize::new(0) }
    }
}

/// Part of a budget; released when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    bytes: AtomicUsize,
}

impl Share {
    /// Its bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }

    /// Takes more; false, and nothing taken, if the budget has not so much.
    pub(crate) fn grow(&self, more: usize) -> bool {
        let taken = self.budget.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
            used.checked_add(more).filter(|&used| used <= self.budget.limit)
        });
        if taken.is_ok() {
            self.bytes.fetch_add(more, Ordering::AcqRel);
        }
        taken.is_ok()
    }

    /// Holds `bytes` from now on, even where that is more than the budget has: they are there already.
    pub(crate) fn settle(&self, bytes: usize) {
        let before = self.bytes.swap(bytes, Ordering::AcqRel);
        self.budget.used.fetch_add(bytes, Ordering::AcqRel);
        self.budget.used.fetch_sub(before, Ordering::AcqRel);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes(), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_exceed_the_budget_and_are_released() {
        let budget = Budget::new(100);
        let (a, b) = (budget.share(), budget.share());
        assert!(a.grow(60) && !b.grow(41) && b.grow(40) && !a.grow(1));
        assert!(budget.over_half() && !a.grow(usize::MAX));
        drop(b);
        assert!(a.grow(40));
        a.settle(10);
        assert!(!budget.over_half());
        drop(a);
        assert_eq!(budget.used.load(Ordering::Acquire), 0);
    }
}
