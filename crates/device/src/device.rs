use crate::{Buffer, Heap, KvSpec, Queue, Result, Storage, Timeline, WeightLayout, WeightSource, WeightSpec};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Arithmetic of matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Arithmetic {
    /// The fastest on the device: where the weights are quantized, activations may be rounded, to 8 bits a group at least; a
    /// 16-bit KV cache.
    #[default]
    Fast,
    /// `f32` activations and an `f32` KV cache.
    Exact,
}

/// Description of a device, for people and for the layers that must adapt.
#[derive(Debug, Clone)]
pub struct DeviceInfo {
    /// `cpu`, `vulkan`, `metal` or `fake`.
    pub backend: &'static str,
    /// The device's own name.
    pub name: String,
    /// Instruction set of its kernels, as `engine.cpu_instructions` names it; `None` where a driver compiles them.
    pub instructions: Option<&'static str>,
    /// Features in use, for `doctor` and records.
    pub features: Vec<String>,
    /// True if host and device share memory: copies to shared storage are pointless.
    pub unified_memory: bool,
    /// Bytes that may be allocated before the system suffers; `u64::MAX` where neither driver nor system tells.
    pub memory_budget: u64,
    /// The longest buffer that an op may refer to, bytes.
    pub max_buffer_len: u64,
    /// Arithmetic mode.
    pub arithmetic: Arithmetic,
    /// Threads or compute units that run ops.
    pub units: usize,
}

/// Counters since the device was made, for statistics and tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Heaps and dedicated buffers ever allocated.
    pub allocations: u64,
    /// Bytes allocated now.
    pub bytes_allocated: u64,
    /// Command buffers submitted.
    pub submissions: u64,
    /// Time during which the compute queue ran ops; a run that goes on counts up to now where the device can tell.
    pub busy: Duration,
}

/// Size and alignment that a placed buffer needs, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Bytes to reserve.
    pub size: u64,
    /// Alignment of the offset, a power of two.
    pub align: u64,
}

/// A device: memory, two queues, timelines, and its own layouts of weights and KV blocks.
pub trait Device: fmt::Debug + Send + Sync {
    /// Description of the device.
    fn info(&self) -> &DeviceInfo;
    /// Counters since the device was made.
    fn counters(&self) -> Counters;
    /// The clock of device timestamps.
    fn now(&self) -> Duration;

    /// Reserves a heap.
    fn new_heap(&self, len: u64, storage: Storage) -> Result<Arc<dyn Heap>>;
    /// Allocates a dedicated buffer. Its first bytes are undefined.
    fn new_buffer(&self, len: u64, storage: Storage) -> Result<Buffer>;
    /// Size and alignment that a buffer of `len` bytes needs inside a heap.
    fn placement(&self, len: u64) -> Placement;

    /// Runs ops. Always the same queue.
    fn compute_queue(&self) -> Arc<dyn Queue>;
    /// Runs copies beside the compute queue where the hardware can. Always the same queue.
    fn transfer_queue(&self) -> Arc<dyn Queue>;
    /// A new timeline at 0.
    fn new_timeline(&self) -> Result<Arc<dyn Timeline>>;

    /// Storage of such a weight on this device.
    fn weight_layout(&self, spec: &WeightSpec) -> Result<WeightLayout>;
    /// Packs some blocks of a weight on the host: `source` is the whole matrix, `out` has the bytes of `blocks`. Safe to call
    /// from any thread.
    fn pack_weight(
        &self,
        spec: &WeightSpec,
        source: &WeightSource<'_>,
        blocks: Range<usize>,
        out: &mut [u8],
    ) -> Result<()>;
    /// Refuses two weights of equal shapes that this device does not multiply as gate and up of one [`crate::ops::Epilogue::Gated`]: to be
    /// asked when a model is loaded, so that none fails at its first step.
    fn check_gated(&self, _gate: &WeightSpec, _up: &WeightSpec) -> Result<()> {
        Ok(())
    }
    /// Bytes of one block (keys and values) of one layer.
    fn kv_block_bytes(&self, spec: &KvSpec) -> usize;
}
