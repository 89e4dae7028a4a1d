//! Devices under the eyes of the validation layer.
#![allow(dead_code, reason = "each test file uses what it needs")]

use mlx_serving_device::{
    Buffer, Counters, Device, DeviceInfo, Heap, KvSpec, Placement, Queue, Result, Storage, Timeline, WeightLayout,
    WeightSource, WeightSpec,
};
use mlx_serving_vulkan::{ValidationLog, VulkanDevice, VulkanOptions};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// A device that fails the test when it goes, if the validation layer said anything, also about how it went.
#[derive(Debug)]
pub(crate) struct Watched {
    device: Option<Arc<VulkanDevice>>,
    log: ValidationLog,
}

impl Watched {
    /// Opens the device; `None`, and says why, on a machine without Vulkan. `MLX_SERVING_REQUIRE_VULKAN=1` makes that a failure.
    pub(crate) fn open(options: VulkanOptions) -> Option<Self> {
        match VulkanDevice::open(&VulkanOptions { validation: true, ..options }) {
            Ok(device) => Some(Self { log: device.validation_log(), device: Some(device) }),
            Err(error) => {
                assert!(!required("MLX_SERVING_REQUIRE_VULKAN"), "Vulkan is required: {error}");
                eprintln!("skipped: {error}");
                None
            }
        }
    }

    /// Opens the device for fast arithmetic with its matrix units, a software driver's, too; `None`, and says why, if it has none
    /// that add exactly. `MLX_SERVING_REQUIRE_MATRIX_UNITS=1` makes that a failure.
    pub(crate) fn with_matrix_units() -> Option<Self> {
        let device = Self::open(VulkanOptions { matrix_units: Some(true), ..VulkanOptions::default() })?;
        if device.info().features.iter().any(|feature| feature.ends_with("matrix units")) {
            return Some(device);
        }
        let why = format!("{} offers no matrix units that add exactly", device.info().name);
        assert!(!required("MLX_SERVING_REQUIRE_MATRIX_UNITS"), "{why}");
        eprintln!("skipped: {why}");
        None
    }

    /// The device itself.
    pub(crate) fn get(&self) -> &Arc<VulkanDevice> {
        self.device.as_ref().expect("only dropping takes it")
    }
}

fn required(what: &str) -> bool {
    std::env::var_os(what).is_some_and(|value| value == "1")
}

impl Drop for Watched {
    fn drop(&mut self) {
        drop(self.device.take());
        let messages = self.log.messages();
        if !std::thread::panicking() {
            assert!(messages.is_empty(), "the validation layer said:\n{}", messages.join("\n"));
        } else if !messages.is_empty() {
            eprintln!("the validation layer said:\n{}", messages.join("\n"));
        }
    }
}

impl Device for Watched {
    fn info(&self) -> &DeviceInfo {
        self.get().info()
    }
    fn counters(&self) -> Counters {
        self.get().counters()
    }
    fn now(&self) -> Duration {
        self.get().now()
    }
    fn new_heap(&self, len: u64, storage: Storage) -> Result<Arc<dyn Heap>> {
        self.get().new_heap(len, storage)
    }
    fn new_buffer(&self, len: u64, storage: Storage) -> Result<Buffer> {
        self.get().new_buffer(len, storage)
    }
    fn placement(&self, len: u64) -> Placement {
        self.get().placement(len)
    }
    fn compute_queue(&self) -> Arc<dyn Queue> {
        self.get().compute_queue()
    }
    fn transfer_queue(&self) -> Arc<dyn Queue> {
        self.get().transfer_queue()
    }
    fn new_timeline(&self) -> Result<Arc<dyn Timeline>> {
        self.get().new_timeline()
    }
    fn weight_layout(&self, spec: &WeightSpec) -> Result<WeightLayout> {
        self.get().weight_layout(spec)
    }
    fn pack_weight(
        &self,
        spec: &WeightSpec,
        source: &WeightSource<'_>,
        blocks: Range<usize>,
        out: &mut [u8],
    ) -> Result<()> {
        self.get().pack_weight(spec, source, blocks, out)
    }
    fn kv_block_bytes(&self, spec: &KvSpec) -> usize {
        self.get().kv_block_bytes(spec)
    }
}
