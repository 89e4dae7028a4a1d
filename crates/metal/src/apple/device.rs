use crate::MetalOptions;
use crate::apple::find::{info, matrix_side, system_default};
use crate::apple::heap::{ALIGN, Allocator, MetalHeap, Tally};
use crate::apple::objects::{Object, refused};
use crate::apple::pipelines::Pipelines;
use crate::apple::queue::MetalQueue;
use crate::apple::record::Recorder;
use crate::apple::residency::Residency;
use crate::apple::run::{Flights, SubmitQueue, now};
use crate::apple::timeline::MetalTimeline;
use mlx_serving_device::{
    Buffer, Counters, Device, DeviceError, DeviceInfo, Heap, KvSpec, Placement, Queue, QueueId, Result, Storage,
    Timeline, WeightLayout, WeightSource, WeightSpec,
};
use mlx_serving_kernels::{Kernel, Lowering, Scratch, assemble_exact};
use objc2::rc::autoreleasepool;
use objc2_metal::MTLDevice;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Metal's own limit of command buffers that exist in a queue.
const COMMAND_BUFFERS: usize = 64;
/// Multiply-adds of a tenth of a second on a GPU of 1 TFLOPS.
const PIECE_WORK: u64 = 50_000_000_000;

/// The system's default GPU.
pub struct MetalDevice {
    info: DeviceInfo,
    device: Object<dyn MTLDevice>,
    allocator: Arc<Allocator>,
    flights: Arc<Flights>,
    recorder: Arc<Recorder>,
    compute: Arc<MetalQueue>,
    transfer: Arc<MetalQueue>,
}

impl MetalDevice {
    /// True if this system has a Metal device.
    pub fn available() -> bool {
        autoreleasepool(|_| system_default().is_some())
    }

    /// Opens the system's default device.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] where there is none; what Metal refuses otherwise.
    pub fn open(options: &MetalOptions) -> Result<Arc<Self>> {
        autoreleasepool(|_| Self::open_in_pool(options))
    }

    /// Compiles every kernel that the device can run in the background, so that none waits for its first use.
    pub fn warm(&self) {
        let kernels = Kernel::usable(self.recorder.lowering.matrix_side());
        let recorder = Arc::downgrade(&self.recorder);
        let work = move || {
            for kernel in kernels {
                let Some(recorder) = recorder.upgrade() else { return };
                if let Err(error) = recorder.pipelines.get(kernel) {
                    tracing::warn!(kernel = kernel.name, %error, "a kernel was not compiled");
                }
            }
        };
        // Without the thread, kernels are compiled on first use.
        drop(std::thread::Builder::new().name("metal-warm".into()).spawn(work));
    }

    fn open_in_pool(options: &MetalOptions) -> Result<Arc<Self>> {
        let none = || DeviceError::Unsupported("this system has no Metal device; use another with --device".into());
        let device = system_default().ok_or_else(none)?;
        let pipelines = Arc::new(Pipelines::new(&device, options.pipeline_cache.as_deref()));
        let side = match options.matrix_side {
            None => matrix_side(&device),
            side => side,
        };
        let assemble = |lowering| Self::assemble(&device, &pipelines, options, lowering);
        assemble_exact(options.arithmetic, side, assemble)
    }

    fn assemble(
        device: &Object<dyn MTLDevice>,
        pipelines: &Arc<Pipelines>,
        options: &MetalOptions,
        lowering: Lowering,
    ) -> Result<Arc<Self>> {
        let queue = || {
            let queue = device.newCommandQueueWithMaxCommandBufferCount(COMMAND_BUFFERS);
            queue.ok_or_else(|| refused("command queue"))
        };
        let queues = [queue()?, queue()?];
        let residency = Arc::new(Residency::new(device, queues.clone()));
        let info = info(device, options.arithmetic, lowering.matrix_side(), residency.has_sets());
        let tally = Arc::new(Tally::default());
        let allocator = Arc::new(Allocator { device: device.clone(), residency, tally });
        let own = allocator.clone();
        let scratch = Scratch::new(move |len| {
            let memory = own.internal(len, Storage::Private, "scratch")?;
            Ok(Buffer::whole(memory))
        });
        let recorder =
            Arc::new(Recorder { lowering, pipelines: pipelines.clone(), scratch, max_buffer_len: info.max_buffer_len });
        let flights = Arc::new(Flights::default());
        let piece_work = options.piece_work.unwrap_or(PIECE_WORK);
        let open = |id: QueueId, queue| {
            let submit_queue = SubmitQueue::new(id.kind, queue, device, &allocator, flights.clone(), piece_work)?;
            Ok(MetalQueue::new(id, submit_queue, recorder.clone(), flights.clone()))
        };
        let ([compute, transfer], ids) = (queues, QueueId::of_new_device());
        let (compute, transfer) = (open(ids[0], compute)?, open(ids[1], transfer)?);
        Ok(Arc::new(Self { info, device: device.clone(), allocator, flights, recorder, compute, transfer }))
    }
}

impl Device for MetalDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn counters(&self) -> Counters {
        let (submissions, busy) = self.flights.counters();
        let tally = &self.allocator.tally;
        Counters {
            allocations: tally.allocations.load(Relaxed),
            bytes_allocated: tally.bytes.load(Relaxed),
            submissions,
            busy,
        }
    }

    fn now(&self) -> Duration {
        now()
    }

    fn new_heap(&self, len: u64, storage: Storage) -> Result<Arc<dyn Heap>> {
        self.flights.alive()?;
        Ok(Arc::new(MetalHeap::new(self.allocator.heap(len, storage)?)))
    }

    fn new_buffer(&self, len: u64, storage: Storage) -> Result<Buffer> {
        self.flights.alive()?;
        Ok(Buffer::whole(self.allocator.buffer(len, storage)?))
    }

    fn placement(&self, len: u64) -> Placement {
        Placement { size: len.next_multiple_of(ALIGN), align: ALIGN }
    }

    fn compute_queue(&self) -> Arc<dyn Queue> {
        self.compute.clone()
    }

    fn transfer_queue(&self) -> Arc<dyn Queue> {
        self.transfer.clone()
    }

    fn new_timeline(&self) -> Result<Arc<dyn Timeline>> {
        self.flights.alive()?;
        Ok(Arc::new(MetalTimeline::new(&self.device)?))
    }

    fn weight_layout(&self, spec: &WeightSpec) -> Result<WeightLayout> {
        self.recorder.lowering.weight_layout(spec)
    }

    fn pack_weight(
        &self,
        spec: &WeightSpec,
        source: &WeightSource<'_>,
        blocks: Range<usize>,
        out: &mut [u8],
    ) -> Result<()> {
        self.recorder.lowering.pack_weight(spec, source, blocks, out)
    }

    fn check_gated(&self, gate: &WeightSpec, up: &WeightSpec) -> Result<()> {
        self.recorder.lowering.check_gated(gate, up)
    }

    fn kv_block_bytes(&self, spec: &KvSpec) -> usize {
        self.recorder.lowering.kv_block_bytes(spec)
    }
}

impl fmt::Debug for MetalDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MetalDevice({})", self.info.name)
    }
}
