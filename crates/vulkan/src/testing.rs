//! Means for tests to break a device, and to count what it does.

use crate::VulkanDevice;
use std::sync::atomic::Ordering::Relaxed;

impl VulkanDevice {
    /// Behaves from now on as after the loss of the device.
    #[doc(hidden)]
    pub fn lose(&self) {
        self.executor.dispatcher.lose("a test asked for it");
    }

    /// Lets the driver refuse the next piece of work for want of memory.
    #[doc(hidden)]
    pub fn refuse_next_piece(&self) {
        self.executor.dispatcher.refuse.store(true, Relaxed);
    }

    /// Sets of recording objects ever made.
    #[doc(hidden)]
    pub fn bundles(&self) -> usize {
        self.recorder.bundles.iter().map(|bundles| bundles.made()).sum()
    }

    /// Pieces ever handed to the driver.
    #[doc(hidden)]
    pub fn pieces(&self) -> u64 {
        self.executor.dispatcher.pieces.load(Relaxed)
    }
}
