use crate::gpu::Gpu;
use crate::heap::{Tally, VulkanMemory};
use mlx_serving_device::{Buffer, Memory, Result, Storage};
use std::sync::{Arc, Mutex, PoisonError};

/// Alignment of what is given, and the least that is allocated.
const ALIGN: u64 = 256;
const LEAST: u64 = 1 << 20;

/// Memory for what lives within one op. Ops run in order, so all of them share it.
pub(crate) struct Scratch {
    gpu: Arc<Gpu>,
    tally: Arc<Tally>,
    memory: Mutex<Option<Arc<VulkanMemory>>>,
}

impl Scratch {
    pub(crate) fn new(gpu: &Arc<Gpu>, tally: &Arc<Tally>) -> Self {
        Self { gpu: gpu.clone(), tally: tally.clone(), memory: Mutex::default() }
    }

    /// All of the scratch memory, for one op.
    pub(crate) fn for_op(&self) -> OpScratch<'_> {
        OpScratch { scratch: self, memory: self.lock().clone(), used: 0 }
    }

    /// Memory of at least `len` bytes for this op and those to come; what runs keeps the old one.
    fn grow(&self, len: u64) -> Result<Arc<VulkanMemory>> {
        let mut memory = self.lock();
        let had = memory.as_ref().map_or(0, |memory| memory.len());
        if let Some(memory) = memory.as_ref().filter(|memory| memory.len() >= len) {
            return Ok(memory.clone());
        }
        let len = len.max(2 * had).max(LEAST);
        let new = VulkanMemory::new(&self.gpu, len, Storage::Private, "scratch memory", &self.tally)?;
        Ok(memory.insert(new).clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<VulkanMemory>>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One op's view of the scratch memory.
pub(crate) struct OpScratch<'a> {
    scratch: &'a Scratch,
    memory: Option<Arc<VulkanMemory>>,
    used: u64,
}

impl OpScratch<'_> {
    /// `len` bytes that nothing else of the op has.
    pub(crate) fn take(&mut self, len: u64) -> Result<Buffer> {
        let end = self.used.saturating_add(len);
        if self.memory.as_ref().is_none_or(|memory| memory.len() < end) {
            // Twice what the op has had: what it has already stays in the old memory, the next op may fit at once.
            self.memory = Some(self.scratch.grow(end)?);
            self.used = 0;
        }
        let start = self.used;
        self.used = (start + len).next_multiple_of(ALIGN);
        let memory: Arc<dyn Memory> = match &self.memory {
            Some(memory) => memory.clone(),
            None => self.scratch.grow(len)?,
        };
        Buffer::whole(memory).slice(start..start + len)
    }
}
