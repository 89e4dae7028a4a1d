use crate::find::{DeviceKind, Gpu, Instance, Survey, ValidationLog, no_driver, show_version};
use crate::heap::{Tally, VulkanHeap, VulkanMemory};
use crate::pipelines::{Pipelines, WarmUp};
use crate::queue::VulkanQueue;
use crate::record::{Bundles, Recorder};
use crate::run::{Executor, KernelTime, VulkanTimeline};
use mlx_serving_device::{
    Arithmetic, Buffer, Counters, Device, DeviceError, DeviceInfo, Heap, KvSpec, Placement, Queue, QueueId, QueueKind,
    Result, Storage, Timeline, WeightLayout, WeightSource, WeightSpec,
};
use mlx_serving_kernels::{Kernel, Lowering, Scratch, assemble_exact};
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Multiply-adds of one piece of a submission: a tenth of a second on a small GPU (0.2 T/s). Drivers reset a device that is busy for
/// seconds (Windows after 2, amdgpu after 10).
const PIECE_WORK: u64 = 20_000_000_000;

/// Options for opening a [`VulkanDevice`].
#[derive(Debug, Clone, Default)]
pub struct VulkanOptions {
    /// Index into [`VulkanDevice::available`]; the first that can be used without a number.
    pub index: Option<usize>,
    /// Arithmetic mode.
    pub arithmetic: Arithmetic,
    /// Use of matrix units by fast arithmetic, where the device offers some; without a value, if they are hardware: a software driver's
    /// are slower than its plain arithmetic.
    pub matrix_units: Option<bool>,
    /// Loads the validation layer; [`VulkanDevice::validation_messages`] says what it found.
    pub validation: bool,
    /// Folder for the driver's compiled kernels, kept from run to run.
    pub pipeline_cache: Option<PathBuf>,
    /// Bytes that heaps and buffers may take together; all that there are without.
    pub memory_limit: Option<u64>,
    /// Multiply-adds that the driver is handed in one piece; a tenth of a second's on a small GPU without.
    pub piece_work: Option<u64>,
    /// Times every launch, for [`VulkanDevice::profile`]; slower, because each is handed over alone.
    pub profile: bool,
}

/// A device of this machine, as [`VulkanDevice::available`] found it.
#[derive(Debug, Clone)]
pub struct Found {
    /// Value for [`VulkanOptions::index`].
    pub index: usize,
    /// The device's own name.
    pub name: String,
    /// Name and version of its driver.
    pub driver: String,
    /// Kind of device.
    pub kind: DeviceKind,
    /// Version of Vulkan that the driver has.
    pub api: String,
    /// Bytes of its own memory.
    pub memory: u64,
    /// Things that are used of it.
    pub used: Vec<String>,
    /// Things that the device lacks; it can be used if nothing.
    pub missing: Vec<String>,
}

/// A GPU, or a driver that emulates one, through Vulkan.
pub struct VulkanDevice {
    info: DeviceInfo,
    warm: WarmUp,
    tally: Arc<Tally>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) executor: Arc<Executor>,
    queues: [Arc<VulkanQueue>; 2],
    gpu: Arc<Gpu>,
}

impl VulkanDevice {
    /// Devices of this machine, the better kinds first, whether they can be used or not.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] without a loader or a driver.
    pub fn available() -> Result<Vec<Found>> {
        let found = Survey::all(&*Instance::new(false)?)?.into_iter().enumerate();
        Ok(found
            .map(|(index, survey)| Found {
                index,
                kind: survey.kind,
                api: show_version(survey.api),
                memory: survey.local_memory(),
                used: survey.used(survey.hardware_matrix_side()),
                missing: survey.missing(),
                name: survey.name,
                driver: survey.driver,
            })
            .collect())
    }

    /// Opens a device.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] without a loader, a driver, a device of that number, or something that the device needs;
    /// each says what to do.
    pub fn open(options: &VulkanOptions) -> Result<Arc<Self>> {
        let instance = Instance::new(options.validation)?;
        let mut survey = choose(Survey::all(&instance)?, options.index)?;
        survey.matrix_side = match options.matrix_units {
            Some(wanted) => survey.matrix_side.filter(|_| wanted),
            None => survey.hardware_matrix_side(),
        };
        let gpu = Gpu::open(instance, survey)?;
        let pipelines = Pipelines::new(&gpu, options.pipeline_cache.as_deref())?;
        let assemble = |lowering| Self::assemble(&gpu, &pipelines, options, lowering);
        assemble_exact(options.arithmetic, gpu.survey.matrix_side, assemble)
    }

    fn assemble(
        gpu: &Arc<Gpu>,
        pipelines: &Arc<Pipelines>,
        options: &VulkanOptions,
        lowering: Lowering,
    ) -> Result<Arc<Self>> {
        let tally = || Arc::new(Tally { limit: options.memory_limit.unwrap_or(0), ..Tally::default() });
        // What the backend needs for itself is not the callers' allocations.
        let own = tally();
        let work = options.piece_work.unwrap_or(PIECE_WORK);
        let info = info(gpu, options.arithmetic, lowering.matrix_side());
        let recorder = Arc::new(Recorder {
            gpu: gpu.clone(),
            lowering,
            pipelines: pipelines.clone(),
            scratch: scratch(gpu, &own),
            bundles: QueueKind::ALL.map(|kind| Bundles::new(gpu, kind, &own)),
            // The first is short, so that the device begins while the rest is still handed over.
            piece_work: [work / 16, work],
            profile: options.profile,
        });
        let executor = Executor::new(gpu, pipelines)?;
        let open = |id| Arc::new(VulkanQueue { id, recorder: recorder.clone(), executor: executor.clone() });
        Ok(Arc::new(Self {
            info,
            warm: WarmUp::default(),
            tally: tally(),
            queues: QueueId::of_new_device().map(open),
            recorder,
            executor,
            gpu: gpu.clone(),
        }))
    }

    /// Warnings and errors of the validation layer since the device was opened.
    pub fn validation_messages(&self) -> Vec<String> {
        self.gpu.instance.messages.all()
    }

    /// Messages of the validation layer, to be asked for after the device has been dropped, too.
    pub fn validation_log(&self) -> ValidationLog {
        ValidationLog(self.gpu.instance.messages.clone())
    }

    /// Time of each kernel since the device was opened with [`VulkanOptions::profile`], those that took most first; what has ended counts.
    pub fn profile(&self) -> Vec<KernelTime> {
        self.executor.dispatcher.profile()
    }

    /// Compiles every kernel that the device can run in the background, so that none waits for its first use; dropping the device ends that.
    pub fn warm(&self) {
        let kernels = Kernel::usable(self.recorder.lowering.matrix_side()).collect();
        self.warm.begin(&self.recorder.pipelines, kernels);
    }

    fn memory(&self, len: u64, storage: Storage, what: &'static str) -> Result<Arc<VulkanMemory>> {
        VulkanMemory::new(&self.gpu, len, storage, what, &self.tally)
    }

    fn align(&self) -> u64 {
        self.gpu.survey.limits.min_storage_buffer_offset_alignment.max(16)
    }
}

/// Memory for what lives within one op.
fn scratch(gpu: &Arc<Gpu>, tally: &Arc<Tally>) -> Scratch {
    let (gpu, tally) = (gpu.clone(), tally.clone());
    Scratch::new(move |len| {
        let memory = VulkanMemory::new(&gpu, len, Storage::Private, "scratch memory", &tally)?;
        Ok(Buffer::whole(memory))
    })
}

/// The device of that number, or the first that lacks nothing.
fn choose(mut all: Vec<Survey>, index: Option<usize>) -> Result<Survey> {
    if all.is_empty() {
        return Err(no_driver());
    }
    match index {
        Some(index) if index < all.len() => Ok(all.swap_remove(index)),
        Some(index) => Err(DeviceError::Unsupported(format!(
            "there is no Vulkan device {index}; this machine has 0 to {}",
            all.len() - 1
        ))),
        None => {
            let usable = all.iter().position(|survey| survey.missing().is_empty());
            Ok(all.swap_remove(usable.unwrap_or(0)))
        }
    }
}

fn info(gpu: &Gpu, arithmetic: Arithmetic, matrix_side: Option<u32>) -> DeviceInfo {
    let survey = &gpu.survey;
    let features = [format!("Vulkan {}", show_version(survey.api)), survey.driver.clone()];
    DeviceInfo {
        backend: "vulkan",
        name: survey.name.clone(),
        instructions: None,
        features: features.into_iter().chain(survey.used(matrix_side)).collect(),
        unified_memory: survey.unified(),
        memory_budget: survey.memory_budget(&gpu.instance),
        max_buffer_len: max_buffer_len(survey),
        arithmetic,
        units: 1,
    }
}

/// The longest buffer whose range can be bound wherever it begins: a binding starts up to an alignment (256 bytes at most) before it.
fn max_buffer_len(survey: &Survey) -> u64 {
    let binding: u64 = survey.limits.max_storage_buffer_range.into();
    binding.saturating_sub(256).min(survey.max_allocation.saturating_sub(256)) / 256 * 256
}

impl Device for VulkanDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn counters(&self) -> Counters {
        let dispatcher = &self.executor.dispatcher;
        Counters {
            allocations: self.tally.allocations.load(Relaxed),
            bytes_allocated: self.tally.bytes.load(Relaxed),
            submissions: dispatcher.submissions(),
            busy: dispatcher.busy(),
        }
    }

    fn now(&self) -> Duration {
        self.executor.dispatcher.now()
    }

    fn new_heap(&self, len: u64, storage: Storage) -> Result<Arc<dyn Heap>> {
        Ok(Arc::new(VulkanHeap::new(self.memory(len, storage, "a heap")?, self.align())))
    }

    fn new_buffer(&self, len: u64, storage: Storage) -> Result<Buffer> {
        Ok(Buffer::whole(self.memory(len, storage, "a buffer")?))
    }

    fn placement(&self, len: u64) -> Placement {
        let align = self.align();
        Placement { size: len.next_multiple_of(align), align }
    }

    fn compute_queue(&self) -> Arc<dyn Queue> {
        self.queues[QueueKind::Compute as usize].clone()
    }

    fn transfer_queue(&self) -> Arc<dyn Queue> {
        self.queues[QueueKind::Transfer as usize].clone()
    }

    fn new_timeline(&self) -> Result<Arc<dyn Timeline>> {
        self.gpu.alive()?;
        let dispatcher = Arc::downgrade(&self.executor.dispatcher);
        Ok(Arc::new(VulkanTimeline { counter: Arc::default(), dispatcher }))
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

impl fmt::Debug for VulkanDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VulkanDevice({}, {})", self.info.name, self.gpu.survey.driver)
    }
}
