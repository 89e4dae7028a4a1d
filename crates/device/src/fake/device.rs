use super::control::{FakeControl, Latency, QueueKind};
use super::layout;
use super::memory::{FakeHeap, FakeMemory};
use super::queue::FakeQueue;
use super::state::State;
use super::timeline::FakeTimeline;
use crate::oracle::kv_block_values;
use crate::{
    Arithmetic, Buffer, Counters, Device, DeviceInfo, Heap, KvSpec, Placement, Queue, Result, Storage, Timeline,
    WeightLayout, WeightSource, WeightSpec,
};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Options of a [`FakeDevice`].
#[derive(Debug, Clone, Copy)]
pub struct FakeOptions {
    /// Host and device share memory; on a discrete device the host does not reach [`Storage::Private`].
    pub unified_memory: bool,
    /// Bytes that may be allocated at a time.
    pub memory_budget: u64,
    /// Bytes of the longest buffer that an op may refer to.
    pub max_buffer_len: u64,
    /// Ops compute. Otherwise they are checked and cost their latency only; copies still copy, and sampling writes
    /// [`super::scripted_token`].
    pub compute: bool,
    /// Latencies to begin with.
    pub latency: Latency,
}

impl Default for FakeOptions {
    /// Unified, 4 GiB, computing, as fast as it can.
    fn default() -> Self {
        Self {
            unified_memory: true,
            memory_budget: 4 << 30,
            max_buffer_len: 4 << 30,
            compute: true,
            latency: Latency::default(),
        }
    }
}

/// A device for tests: see [`crate::fake`].
#[derive(Debug)]
pub struct FakeDevice {
    info: DeviceInfo,
    state: Arc<State>,
    compute: Arc<FakeQueue>,
    transfer: Arc<FakeQueue>,
}

impl FakeDevice {
    /// Starts the two queues' threads. Fails where none can be started.
    pub fn new(options: FakeOptions) -> Result<Arc<Self>> {
        let state = Arc::new(State::new(&options));
        let info = DeviceInfo {
            backend: "fake",
            name: "fake device".into(),
            features: Vec::new(),
            unified_memory: options.unified_memory,
            memory_budget: options.memory_budget,
            max_buffer_len: options.max_buffer_len,
            arithmetic: Arithmetic::Exact,
            units: 1,
        };
        let compute = Arc::new(FakeQueue::new(QueueKind::Compute, state.clone())?);
        let transfer = Arc::new(FakeQueue::new(QueueKind::Transfer, state.clone())?);
        Ok(Arc::new(Self { info, state, compute, transfer }))
    }

    /// Its control.
    pub fn control(&self) -> FakeControl {
        FakeControl { state: self.state.clone() }
    }
}

impl Device for FakeDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn counters(&self) -> Counters {
        self.state.counters()
    }

    fn now(&self) -> Duration {
        self.state.now()
    }

    fn new_heap(&self, len: u64, storage: Storage) -> Result<Arc<dyn Heap>> {
        Ok(Arc::new(FakeHeap::new(FakeMemory::new(len, storage, true, &self.state)?)))
    }

    fn new_buffer(&self, len: u64, storage: Storage) -> Result<Buffer> {
        Ok(Buffer::whole(FakeMemory::new(len, storage, false, &self.state)?))
    }

    fn placement(&self, len: u64) -> Placement {
        Placement { size: len.next_multiple_of(FakeHeap::ALIGN), align: FakeHeap::ALIGN }
    }

    fn compute_queue(&self) -> Arc<dyn Queue> {
        self.compute.clone()
    }

    fn transfer_queue(&self) -> Arc<dyn Queue> {
        self.transfer.clone()
    }

    fn new_timeline(&self) -> Result<Arc<dyn Timeline>> {
        self.state.alive()?;
        Ok(Arc::new(FakeTimeline::new(self.state.clone())))
    }

    fn weight_layout(&self, spec: &WeightSpec) -> Result<WeightLayout> {
        layout::weight_layout(spec)
    }

    fn pack_weight(
        &self,
        spec: &WeightSpec,
        source: &WeightSource<'_>,
        blocks: Range<usize>,
        out: &mut [u8],
    ) -> Result<()> {
        layout::pack(spec, source, blocks, out)
    }

    fn kv_block_bytes(&self, spec: &KvSpec) -> usize {
        size_of::<f32>() * kv_block_values(spec)
    }
}
