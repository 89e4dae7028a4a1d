use crate::record::Label;
use std::collections::HashMap;
use std::time::Duration;

/// Time that a kernel has taken since the device was opened with [`crate::VulkanOptions::profile`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelTime {
    /// Name of the kernel.
    pub kernel: &'static str,
    /// Launches that have ended.
    pub launches: u64,
    /// Time on the device, of all launches together.
    pub time: Duration,
    /// Multiply-adds, about, of all launches together.
    pub work: u64,
}

/// Times by kernel.
#[derive(Debug, Default)]
pub(super) struct Profile(HashMap<&'static str, KernelTime>);

impl Profile {
    pub(super) fn add(&mut self, label: Label, time: Duration) {
        let Label { kernel, work } = label;
        let new = KernelTime { kernel, launches: 0, time: Duration::ZERO, work: 0 };
        let entry = self.0.entry(kernel).or_insert(new);
        *entry = KernelTime { kernel, launches: entry.launches + 1, time: entry.time + time, work: entry.work + work };
    }

    /// The kernels, those that took most first.
    pub(super) fn all(&self) -> Vec<KernelTime> {
        let mut all: Vec<KernelTime> = self.0.values().copied().collect();
        all.sort_by_key(|entry| (std::cmp::Reverse(entry.time), entry.kernel));
        all
    }
}
