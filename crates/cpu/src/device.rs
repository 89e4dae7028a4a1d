use crate::heap::{CpuHeap, CpuMemory, Tally};
use crate::kernels::matmul::{TileLayout, pack};
use crate::machine;
use crate::ops::Lowering;
use crate::pool::Pool;
use crate::queue::{Activity, CpuQueue};
use crate::simd::Isa;
use crate::timeline::CpuTimeline;
use mlx_serving_device::{
    Arithmetic, Buffer, Counters, Device, DeviceError, DeviceInfo, Heap, KvSpec, Placement, Queue, QueueId, Result,
    Storage, Timeline, WeightLayout, WeightSource, WeightSpec,
};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Options of a [`CpuDevice`].
#[derive(Debug, Clone, Default)]
pub struct CpuOptions {
    /// Worker threads; all that the machine runs at once without a number.
    pub threads: Option<usize>,
    /// Arithmetic mode.
    pub arithmetic: Arithmetic,
    /// Instruction set; the best of the machine without one.
    pub isa: Option<Isa>,
}

/// The processor as a device.
pub struct CpuDevice {
    info: DeviceInfo,
    isa: Isa,
    tally: Arc<Tally>,
    activity: Arc<Activity>,
    compute: Arc<CpuQueue>,
    transfer: Arc<CpuQueue>,
}

impl CpuDevice {
    /// Starts the device's threads: workers for ops, one for copies.
    ///
    /// Fails where the machine lacks the instruction set asked for, or starts no threads.
    pub fn new(options: &CpuOptions) -> Result<Arc<Self>> {
        let isa = options.isa.unwrap_or_else(Isa::best);
        if !Isa::available().contains(&isa) {
            let there: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
            return Err(DeviceError::Unsupported(format!("this processor has no {isa}; it has {}", there.join(", "))));
        }
        let workers = options.threads.unwrap_or_else(machine::threads).max(1);
        let activity =
            Arc::new(Activity { epoch: Instant::now(), submissions: AtomicU64::new(0), compute: Mutex::default() });
        let queue = |id, workers| {
            let pool = Pool::new(workers).map_err(|e| DeviceError::Lost(format!("no worker threads: {e}")))?;
            let lowering = Lowering { isa, arithmetic: options.arithmetic, workers };
            CpuQueue::new(id, pool, Arc::new(lowering), activity.clone())
        };
        let [compute, transfer] = QueueId::of_new_device();
        // All of it: what is free changes, and callers look at it themselves. Where the system does not tell, no bound is made up.
        let memory = machine::host_memory().map_or(u64::MAX, |memory| memory.total);
        let info = DeviceInfo {
            backend: "cpu",
            name: machine::name(),
            instructions: Some(isa.name()),
            features: isa.features().iter().map(ToString::to_string).collect(),
            unified_memory: true,
            memory_budget: memory,
            max_buffer_len: isize::MAX as u64,
            arithmetic: options.arithmetic,
            units: workers,
        };
        Ok(Arc::new(Self {
            info,
            isa,
            tally: Arc::default(),
            compute: queue(compute, workers)?,
            transfer: queue(transfer, 1)?,
            activity,
        }))
    }
}

impl Device for CpuDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn counters(&self) -> Counters {
        Counters {
            allocations: self.tally.allocations.load(Relaxed),
            bytes_allocated: self.tally.bytes.load(Relaxed),
            submissions: self.activity.submissions.load(Relaxed),
            busy: self.activity.compute().until_now(),
        }
    }

    fn now(&self) -> Duration {
        self.activity.epoch.elapsed()
    }

    fn new_heap(&self, len: u64, storage: Storage) -> Result<Arc<dyn Heap>> {
        Ok(Arc::new(CpuHeap::new(CpuMemory::new(len, storage, "a heap", &self.tally)?)))
    }

    fn new_buffer(&self, len: u64, storage: Storage) -> Result<Buffer> {
        Ok(Buffer::whole(CpuMemory::new(len, storage, "a buffer", &self.tally)?))
    }

    fn placement(&self, len: u64) -> Placement {
        Placement { size: len.next_multiple_of(CpuHeap::ALIGN), align: CpuHeap::ALIGN }
    }

    fn compute_queue(&self) -> Arc<dyn Queue> {
        self.compute.clone()
    }

    fn transfer_queue(&self) -> Arc<dyn Queue> {
        self.transfer.clone()
    }

    fn new_timeline(&self) -> Result<Arc<dyn Timeline>> {
        Ok(Arc::new(CpuTimeline::default()))
    }

    fn weight_layout(&self, spec: &WeightSpec) -> Result<WeightLayout> {
        Ok(TileLayout::new(spec)?.weight_layout())
    }

    fn pack_weight(
        &self,
        spec: &WeightSpec,
        source: &WeightSource<'_>,
        blocks: Range<usize>,
        out: &mut [u8],
    ) -> Result<()> {
        pack(self.isa, spec, source, blocks, out)
    }

    fn kv_block_bytes(&self, spec: &KvSpec) -> usize {
        let value = match self.info.arithmetic {
            Arithmetic::Fast => size_of::<u16>(),
            Arithmetic::Exact => size_of::<f32>(),
        };
        2 * spec.heads * spec.head_dim * spec.block_tokens * value
    }
}

impl fmt::Debug for CpuDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuDevice({}, {} threads)", self.info.name, self.info.units)
    }
}
