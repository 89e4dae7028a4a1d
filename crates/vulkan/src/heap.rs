use crate::find::Gpu;
use ash::vk;
use mlx_serving_device::{Buffer, DeviceError, Heap, Memory, Result, Storage, range_within};
use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Allocations are whole multiples of this, since kernels read the whole word that has the last byte.
const WHOLE: u64 = 16;
/// Pages that touching writes to.
const PAGE: usize = 4096;

/// Count of what the device has allocated, shared by all its memory.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) allocations: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// Bytes that may be allocated at once, 0 for all that there are.
    pub(crate) limit: u64,
}

/// Allocation of a heap or of a dedicated buffer, with one buffer over all of it.
pub(crate) struct VulkanMemory {
    pub(crate) raw: vk::Buffer,
    memory: vk::DeviceMemory,
    mapped: Option<Mapped>,
    len: u64,
    storage: Storage,
    tally: Arc<Tally>,
    gpu: Arc<Gpu>,
}

/// Address at which the host sees the memory, for as long as it lives.
struct Mapped(*mut u8);

// SAFETY: plain bytes that belong to no thread; ordering rule 5 of the contract keeps accesses apart.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl VulkanMemory {
    /// Allocates `len` bytes.
    pub(crate) fn new(
        gpu: &Arc<Gpu>,
        len: u64,
        storage: Storage,
        what: &'static str,
        tally: &Arc<Tally>,
    ) -> Result<Arc<Self>> {
        gpu.alive()?;
        let refused = |detail: String| DeviceError::OutOfMemory { requested: len, what, detail };
        let most = gpu.survey.max_allocation;
        let size = len.checked_next_multiple_of(WHOLE).filter(|size| *size <= most);
        let size = size.ok_or_else(|| refused(format!("one allocation has {most} bytes at most")))?;
        let used = tally.bytes.load(Relaxed);
        if tally.limit > 0 && used.saturating_add(len) > tally.limit {
            return Err(refused(format!("{used} of the {} bytes set as the limit are in use", tally.limit)));
        }
        let (raw, memory) = allocate(gpu, size, storage).map_err(|e| refused(e.to_string()))?;
        // From here on its drop releases what it has.
        let mut this = Self { raw, memory, mapped: None, len, storage, tally: tally.clone(), gpu: gpu.clone() };
        tally.allocations.fetch_add(1, Relaxed);
        tally.bytes.fetch_add(len, Relaxed);
        if storage == Storage::Shared || gpu.survey.unified() {
            this.mapped = Some(map(gpu, memory).map_err(|e| {
                tally.allocations.fetch_sub(1, Relaxed);
                refused(format!("mapping: {e}"))
            })?);
        }
        Ok(Arc::new(this))
    }

    /// The memory behind a view, if it is `gpu`'s.
    pub(crate) fn of<'a>(buffer: &'a Buffer, gpu: &Arc<Gpu>) -> Result<&'a Self> {
        let memory = buffer.memory_as::<Self>()?;
        if Arc::ptr_eq(&memory.gpu, gpu) { Ok(memory) } else { Err(buffer.foreign()) }
    }

    /// The address of a range that lies within.
    fn address(&self, offset: u64, len: u64) -> Result<*mut u8> {
        range_within(offset, len, self.len)?;
        let hidden = || DeviceError::Contract("host access to private memory".into());
        Ok(self.mapped.as_ref().ok_or_else(hidden)?.0.wrapping_add(offset as usize))
    }
}

impl Drop for VulkanMemory {
    fn drop(&mut self) {
        // SAFETY: submissions hold an `Arc` of the memory that they use, so the device is done with it.
        unsafe {
            self.gpu.raw.destroy_buffer(self.raw, None);
            self.gpu.raw.free_memory(self.memory, None);
        }
        self.tally.bytes.fetch_sub(self.len, Relaxed);
    }
}

impl Memory for VulkanMemory {
    fn len(&self) -> u64 {
        self.len
    }

    fn storage(&self) -> Storage {
        self.storage
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let to = self.address(offset, bytes.len() as u64)?;
        // SAFETY: within the mapping, which no slice of ours overlaps; rule 5 of the contract excludes other accesses.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let from = self.address(offset, bytes.len() as u64)?;
        // SAFETY: as in `write`.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn lend(&self, range: Range<u64>, f: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        let len = range.end.checked_sub(range.start);
        let len = len.ok_or_else(|| DeviceError::Contract(format!("lend of {range:?}")))?;
        let start = self.address(range.start, len)?;
        // SAFETY: within the mapping; rule 5 and the terms of `lend` exclude other accesses.
        f(unsafe { std::slice::from_raw_parts_mut(start, len as usize) });
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl fmt::Debug for VulkanMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VulkanMemory({} bytes, {:?})", self.len, self.storage)
    }
}

/// A buffer and the memory under it.
fn allocate(gpu: &Gpu, size: u64, storage: Storage) -> Result<(vk::Buffer, vk::DeviceMemory), vk::Result> {
    use vk::BufferUsageFlags as Usage;
    let families = gpu.sharing();
    let mut info = vk::BufferCreateInfo::default()
        .size(size)
        .usage(Usage::STORAGE_BUFFER | Usage::TRANSFER_SRC | Usage::TRANSFER_DST);
    if !families.is_empty() {
        info = info.sharing_mode(vk::SharingMode::CONCURRENT).queue_family_indices(&families);
    }
    // SAFETY: the device is alive and `info` is complete.
    let buffer = unsafe { gpu.raw.create_buffer(&info, None) }?;
    // SAFETY: the buffer is this device's.
    let needs = unsafe { gpu.raw.get_buffer_memory_requirements(buffer) };
    let chosen = choose(&gpu.survey.memory, needs.memory_type_bits, storage, gpu.survey.unified());
    let bound = chosen.ok_or(vk::Result::ERROR_OUT_OF_DEVICE_MEMORY).and_then(|index| {
        let info = vk::MemoryAllocateInfo::default().allocation_size(needs.size).memory_type_index(index);
        // SAFETY: the type is one of the device's.
        let memory = unsafe { gpu.raw.allocate_memory(&info, None) }?;
        // SAFETY: both are new, and the memory has the size that the buffer needs.
        let bound = unsafe { gpu.raw.bind_buffer_memory(buffer, memory, 0) };
        // SAFETY: memory that could not be bound is unused.
        bound.map(|()| memory).inspect_err(|_| unsafe { gpu.raw.free_memory(memory, None) })
    });
    // SAFETY: a buffer without memory is unused.
    bound.map(|memory| (buffer, memory)).inspect_err(|_| unsafe { gpu.raw.destroy_buffer(buffer, None) })
}

fn map(gpu: &Gpu, memory: vk::DeviceMemory) -> Result<Mapped, vk::Result> {
    // SAFETY: new memory of a type that the host sees.
    let start = unsafe { gpu.raw.map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty()) }?;
    Ok(Mapped(start.cast()))
}

/// The memory type: the first of those that have most of what is wanted.
fn choose(memory: &vk::PhysicalDeviceMemoryProperties, allowed: u32, storage: Storage, unified: bool) -> Option<u32> {
    use vk::MemoryPropertyFlags as Flags;
    let mapped = Flags::HOST_VISIBLE | Flags::HOST_COHERENT;
    let (needed, liked) = match (storage, unified) {
        (_, true) => (mapped, Flags::DEVICE_LOCAL | Flags::HOST_CACHED),
        (Storage::Shared, false) => (mapped, Flags::HOST_CACHED),
        (Storage::Private, false) => (Flags::DEVICE_LOCAL, Flags::empty()),
    };
    let score = |flags: Flags| {
        let likes = (flags & liked).as_raw().count_ones();
        // Of equals the plainest: mapped card memory is scarce, and its reads are slow.
        (likes, std::cmp::Reverse((flags & !needed & !liked).as_raw().count_ones()))
    };
    let types = memory.memory_types_as_slice().iter().enumerate();
    let fitting = types.filter(|(i, t)| allowed & (1 << i) != 0 && t.property_flags.contains(needed));
    fitting.rev().max_by_key(|(_, t)| score(t.property_flags)).map(|(i, _)| i as u32)
}

/// A heap: one allocation, placed into by its sub-allocator.
#[derive(Debug)]
pub(crate) struct VulkanHeap {
    memory: Arc<VulkanMemory>,
    align: u64,
}

impl VulkanHeap {
    /// `align` is that of [`mlx_serving_device::Device::placement`].
    pub(crate) fn new(memory: Arc<VulkanMemory>, align: u64) -> Self {
        Self { memory, align }
    }
}

impl Heap for VulkanHeap {
    fn len(&self) -> u64 {
        self.memory.len
    }

    fn place(&self, offset: u64, len: u64) -> Result<Buffer> {
        Buffer::placed(self.memory.clone(), offset, len, self.align)
    }

    fn touch(&self, range: Range<u64>) -> Result<()> {
        let len = range.end.checked_sub(range.start).filter(|_| range.end <= self.memory.len);
        let len = len.ok_or_else(|| DeviceError::Contract(format!("touch of {range:?}")))?;
        // What the host cannot see, the driver backs when it allocates.
        let Some(mapped) = &self.memory.mapped else { return Ok(()) };
        for at in (0..len as usize).step_by(PAGE) {
            let byte = mapped.0.wrapping_add(range.start as usize + at);
            // SAFETY: within the mapping; rule 5 of the contract excludes other accesses.
            unsafe { byte.write_volatile(byte.read_volatile()) };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vk::MemoryPropertyFlags as Flags;

    fn types(flags: &[Flags]) -> vk::PhysicalDeviceMemoryProperties {
        let mut memory =
            vk::PhysicalDeviceMemoryProperties { memory_type_count: flags.len() as u32, ..Default::default() };
        for (entry, flags) in memory.memory_types.iter_mut().zip(flags) {
            entry.property_flags = *flags;
        }
        memory
    }

    #[test]
    fn memory_types_fit_their_use() {
        let mapped = Flags::HOST_VISIBLE | Flags::HOST_COHERENT;
        // As NVIDIA's cards have them: plain, card, host, host cached, mapped card.
        let card = types(&[
            Flags::empty(),
            Flags::DEVICE_LOCAL,
            mapped,
            mapped | Flags::HOST_CACHED,
            mapped | Flags::DEVICE_LOCAL,
        ]);
        assert_eq!(choose(&card, !0, Storage::Private, false), Some(1));
        assert_eq!(choose(&card, !0, Storage::Shared, false), Some(3));
        assert_eq!(choose(&card, 0b10111, Storage::Shared, false), Some(2), "what the buffer allows");
        assert_eq!(choose(&card, 0b00011, Storage::Shared, false), None);
        let chip = types(&[
            Flags::DEVICE_LOCAL,
            mapped | Flags::DEVICE_LOCAL,
            mapped | Flags::DEVICE_LOCAL | Flags::HOST_CACHED,
        ]);
        assert_eq!(choose(&chip, !0, Storage::Private, true), Some(2));
        assert_eq!(choose(&chip, !0, Storage::Shared, true), Some(2));
    }
}
