use super::control::FakeControl;
use super::layout;
use super::machine::Machine;
use super::memory::{FakeHeap, FakeMemory};
use super::options::FakeOptions;
use super::queue::FakeQueue;
use super::timeline::FakeTimeline;
use crate::oracle::kv_block_values;
use crate::{
    Arithmetic, Buffer, Counters, Device, DeviceInfo, Heap, KvSpec, Placement, Queue, QueueId, Result, Storage,
    Timeline, WeightLayout, WeightSource, WeightSpec,
};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// A device for tests: see [`crate::fake`].
#[derive(Debug)]
pub struct FakeDevice {
    info: DeviceInfo,
    machine: Arc<Machine>,
    compute: Arc<FakeQueue>,
    transfer: Arc<FakeQueue>,
}

impl FakeDevice {
    /// Starts the two queues' threads. Fails where none can be started.
    pub fn new(options: FakeOptions) -> Result<Arc<Self>> {
        let machine = Arc::new(Machine::new(&options));
        let info = DeviceInfo {
            backend: "fake",
            name: "fake device".into(),
            instructions: None,
            features: Vec::new(),
            unified_memory: options.unified_memory,
            memory_budget: options.memory_budget,
            max_buffer_len: options.max_buffer_len,
            arithmetic: Arithmetic::Exact,
            units: 1,
        };
        let [compute, transfer] = QueueId::of_new_device();
        let (compute, transfer) = (FakeQueue::new(compute, &machine)?, FakeQueue::new(transfer, &machine)?);
        Ok(Arc::new(Self { info, machine, compute: Arc::new(compute), transfer: Arc::new(transfer) }))
    }

    /// Handle that steers this device.
    pub fn control(&self) -> FakeControl {
        FakeControl { machine: self.machine.clone() }
    }
}

impl Device for FakeDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn counters(&self) -> Counters {
        self.machine.counters()
    }

    fn now(&self) -> Duration {
        self.machine.now()
    }

    fn new_heap(&self, len: u64, storage: Storage) -> Result<Arc<dyn Heap>> {
        Ok(Arc::new(FakeHeap::new(FakeMemory::new(len, storage, true, &self.machine)?)))
    }

    fn new_buffer(&self, len: u64, storage: Storage) -> Result<Buffer> {
        Ok(Buffer::whole(FakeMemory::new(len, storage, false, &self.machine)?))
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
        self.machine.alive()?;
        Ok(Arc::new(FakeTimeline::new(self.machine.clone())))
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
