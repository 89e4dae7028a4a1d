use crate::error::driver;
use crate::find::Gpu;
use crate::heap::{Tally, VulkanMemory};
use ash::vk;
use mlx_serving_device::{Memory, QueueKind, Result, Storage};
use mlx_serving_kernels::Launch;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Sets of one descriptor pool.
const SETS: u32 = 64;
/// Descriptors of one pool: no kernel has more bindings than ten, so that a pool is full when its sets are given away.
const DESCRIPTORS: u32 = 10 * SETS;
/// Fault words that are allocated together.
const FAULTS: u64 = 256;
/// Distance of fault words: no device aligns storage buffers to more.
const STRIDE: u64 = 256;

/// A command buffer with the two timestamps of its run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tape {
    pub(crate) commands: vk::CommandBuffer,
    pub(crate) queries: Option<vk::QueryPool>,
    /// Stages in which the queue works, and between which barriers stand.
    pub(super) stages: vk::PipelineStageFlags,
    /// Launch that the bundle was recorded for, in a profile.
    pub(crate) label: Option<Label>,
}

/// The one launch of a piece, in a profile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Label {
    pub(crate) kernel: &'static str,
    pub(crate) work: u64,
}

impl Label {
    pub(super) fn of(launch: &Launch) -> Self {
        Self { kernel: launch.kernel.name, work: launch.work }
    }
}

/// Words in which the kernels of one submission report a fault, and a copy that the host reads.
#[derive(Debug, Clone)]
pub(crate) struct FaultWords {
    pub(super) words: Arc<VulkanMemory>,
    pub(super) readback: Arc<VulkanMemory>,
    pub(super) offset: u64,
}

impl FaultWords {
    /// The words that the last submission left.
    pub(crate) fn read(&self) -> Result<[u32; 2]> {
        let mut bytes = [0; 8];
        self.readback.read(self.offset, &mut bytes)?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Ok([word(0), word(4)])
    }
}

/// Objects that recording one submission takes, used again after it has run.
pub(crate) struct Bundle {
    gpu: Arc<Gpu>,
    pool: vk::CommandPool,
    tapes: Vec<Tape>,
    used: usize,
    descriptors: Vec<vk::DescriptorPool>,
    /// Sets given away.
    sets: usize,
    timestamps: bool,
    stages: vk::PipelineStageFlags,
    pub(crate) fault: FaultWords,
}

impl Bundle {
    fn new(gpu: &Arc<Gpu>, queue: QueueKind, fault: FaultWords) -> Result<Self> {
        let compute = queue == QueueKind::Compute;
        let family = if compute { gpu.queues.compute.family } else { gpu.queues.transfer.family };
        let info = vk::CommandPoolCreateInfo::default()
            .queue_family_index(family)
            .flags(vk::CommandPoolCreateFlags::TRANSIENT);
        // SAFETY: the device is alive and has the family.
        let pool = unsafe { gpu.raw.create_command_pool(&info, None) }.map_err(|e| driver("a command pool", e))?;
        let timestamps = gpu.survey.timestamps(compute);
        // A family for transfers alone has no shaders; any other runs, or follows, kernels.
        let stages = match family == gpu.queues.compute.family {
            true => vk::PipelineStageFlags::COMPUTE_SHADER | vk::PipelineStageFlags::TRANSFER,
            false => vk::PipelineStageFlags::TRANSFER,
        };
        let (tapes, descriptors) = (Vec::new(), Vec::new());
        Ok(Self { gpu: gpu.clone(), pool, tapes, used: 0, descriptors, sets: 0, timestamps, stages, fault })
    }

    /// A command buffer that records, its timestamps reset.
    pub(super) fn begin(&mut self) -> Result<Tape> {
        if self.used == self.tapes.len() {
            let tape = self.new_tape()?;
            self.tapes.push(tape);
        }
        let tape = self.tapes[self.used];
        let info = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: the buffer is not in use: the bundle is taken by one submission at a time and reset in between.
        unsafe { self.gpu.raw.begin_command_buffer(tape.commands, &info) }.map_err(|e| driver("recording", e))?;
        if let Some(queries) = tape.queries {
            // SAFETY: as above; the feature is enabled where there are queries.
            unsafe { self.gpu.raw.reset_query_pool(queries, 0, 2) };
        }
        self.used += 1;
        Ok(tape)
    }

    fn new_tape(&self) -> Result<Tape> {
        let info = vk::CommandBufferAllocateInfo::default().command_pool(self.pool).command_buffer_count(1);
        // SAFETY: the pool is this bundle's own.
        let commands = unsafe { self.gpu.raw.allocate_command_buffers(&info) };
        let commands = commands.map_err(|e| driver("a command buffer", e))?[0];
        let info = vk::QueryPoolCreateInfo::default().query_type(vk::QueryType::TIMESTAMP).query_count(2);
        // SAFETY: the device is alive.
        let queries = self.timestamps.then(|| unsafe { self.gpu.raw.create_query_pool(&info, None) }).transpose();
        let queries = queries.map_err(|e| driver("timestamps", e))?;
        Ok(Tape { commands, queries, stages: self.stages, label: None })
    }

    /// A descriptor set that lasts until the bundle is reset.
    pub(super) fn set(&mut self, layout: vk::DescriptorSetLayout) -> Result<vk::DescriptorSet> {
        let filling = self.sets / SETS as usize;
        if filling == self.descriptors.len() {
            let pool = self.new_descriptors()?;
            self.descriptors.push(pool);
        }
        let (pool, layouts) = (self.descriptors[filling], [layout]);
        let info = vk::DescriptorSetAllocateInfo::default().descriptor_pool(pool).set_layouts(&layouts);
        // SAFETY: the pool is this bundle's own, the layout lives as long as the device's pipelines.
        let sets =
            unsafe { self.gpu.raw.allocate_descriptor_sets(&info) }.map_err(|e| driver("a descriptor set", e))?;
        self.sets += 1;
        Ok(sets[0])
    }

    fn new_descriptors(&self) -> Result<vk::DescriptorPool> {
        let sizes = [vk::DescriptorPoolSize { ty: vk::DescriptorType::STORAGE_BUFFER, descriptor_count: DESCRIPTORS }];
        let info = vk::DescriptorPoolCreateInfo::default().max_sets(SETS).pool_sizes(&sizes);
        // SAFETY: the device is alive.
        unsafe { self.gpu.raw.create_descriptor_pool(&info, None) }.map_err(|e| driver("a descriptor pool", e))
    }

    /// Makes everything ready for the next submission.
    fn reset(&mut self) -> Result<(), vk::Result> {
        // SAFETY: nothing of it is in use: its submission has ended, or was never made.
        unsafe { self.gpu.raw.reset_command_pool(self.pool, vk::CommandPoolResetFlags::empty()) }?;
        for pool in self.descriptors.iter().take(self.sets.div_ceil(SETS as usize)) {
            // SAFETY: as above.
            unsafe { self.gpu.raw.reset_descriptor_pool(*pool, vk::DescriptorPoolResetFlags::empty()) }?;
        }
        (self.used, self.sets) = (0, 0);
        Ok(())
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        // SAFETY: a bundle is dropped after its submission has ended.
        unsafe {
            self.gpu.raw.destroy_command_pool(self.pool, None);
            self.descriptors.iter().for_each(|pool| self.gpu.raw.destroy_descriptor_pool(*pool, None));
            self.tapes.iter().filter_map(|t| t.queries).for_each(|pool| self.gpu.raw.destroy_query_pool(pool, None));
        }
    }
}

/// The bundles of one queue.
pub(crate) struct Bundles {
    gpu: Arc<Gpu>,
    queue: QueueKind,
    tally: Arc<Tally>,
    free: Mutex<Vec<Bundle>>,
    /// The last group of fault words, and how many of them are given away.
    fault_words: Mutex<Option<(FaultWords, u64)>>,
    made: AtomicUsize,
}

impl Bundles {
    /// `tally` counts what fault words take; it is not the device's.
    pub(crate) fn new(gpu: &Arc<Gpu>, queue: QueueKind, tally: &Arc<Tally>) -> Arc<Self> {
        let (free, fault_words, made) = (Mutex::default(), Mutex::default(), AtomicUsize::new(0));
        Arc::new(Self { gpu: gpu.clone(), queue, tally: tally.clone(), free, fault_words, made })
    }

    /// A bundle for one submission; it is returned when the lease drops.
    pub(super) fn take(self: &Arc<Self>) -> Result<Lease> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bundle = match free {
            Some(bundle) => bundle,
            None => {
                let bundle = Bundle::new(&self.gpu, self.queue, self.new_fault_words()?)?;
                self.made.fetch_add(1, Relaxed);
                bundle
            }
        };
        Ok(Lease { bundle: Some(bundle), home: self.clone() })
    }

    /// Bundles ever made.
    pub(crate) fn made(&self) -> usize {
        self.made.load(Relaxed)
    }

    fn new_fault_words(&self) -> Result<FaultWords> {
        let mut last = self.fault_words.lock().unwrap_or_else(PoisonError::into_inner);
        let (group, used) = match last.take() {
            Some((group, used)) if used < FAULTS => (group, used),
            _ => {
                let room = |storage| VulkanMemory::new(&self.gpu, FAULTS * STRIDE, storage, "fault words", &self.tally);
                let (words, readback) = (room(Storage::Private)?, room(Storage::Shared)?);
                (FaultWords { words, readback, offset: 0 }, 0)
            }
        };
        *last = Some((group.clone(), used + 1));
        Ok(FaultWords { offset: used * STRIDE, ..group })
    }
}

/// A bundle in use.
pub(crate) struct Lease {
    bundle: Option<Bundle>,
    home: Arc<Bundles>,
}

impl Deref for Lease {
    type Target = Bundle;
    fn deref(&self) -> &Bundle {
        self.bundle.as_ref().expect("only dropping empties a lease")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Bundle {
        self.bundle.as_mut().expect("only dropping empties a lease")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut bundle) = self.bundle.take() else { return };
        // A bundle that cannot be reset is dropped, and another one made when it is missed.
        if bundle.reset().is_ok() {
            self.home.free.lock().unwrap_or_else(PoisonError::into_inner).push(bundle);
        }
    }
}
