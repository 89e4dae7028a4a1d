//! Counts command buffers that refer to an object which they may not keep alive.

use crate::rules;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Held by the object: dropping it while uses are left breaks a rule.
#[derive(Default)]
pub(crate) struct Uses(Arc<AtomicUsize>);

/// Held by a command buffer until it has completed.
pub(crate) struct Use(Arc<AtomicUsize>);

impl Uses {
    pub(crate) fn begin(&self) -> Use {
        self.0.fetch_add(1, Ordering::Relaxed);
        Use(self.0.clone())
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }

    /// Requires that no command uses the object any more, which is being released.
    pub(crate) fn must_be_over(&self, object: &str) {
        let count = self.count();
        rules::require(count == 0, &format!("release of {object}"), || {
            format!("it is in use by commands of uncompleted command buffers ({count} uses)")
        });
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}
