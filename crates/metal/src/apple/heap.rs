use crate::apple::objects::{AnyThread, Object};
use crate::apple::residency::{Residency, Seat};
use mlx_serving_device::{Buffer, DeviceError, Heap, Memory, Result, Storage, range_within};
use objc2::rc::autoreleasepool;
use objc2::runtime::ProtocolObject;
use objc2_metal::{
    MTLAllocation, MTLBuffer, MTLDevice, MTLGPUFamily, MTLHazardTrackingMode, MTLHeap, MTLHeapDescriptor, MTLHeapType,
    MTLResourceOptions, MTLStorageMode,
};
use std::any::Any;
use std::fmt;
use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// Multiple of bytes at which buffers are bound. Metal wants the alignment of the type that a kernel reads, `uint4` at most.
pub(crate) const BIND: u64 = 16;
/// Multiple of bytes at which buffers are placed: what the oldest GPUs want of a binding.
pub(crate) const ALIGN: u64 = 256;
/// Distance of the bytes that [`Heap::touch`] writes: no system that has Metal has smaller pages.
const PAGE: u64 = 4096;

/// Count of what the device has allocated, shared by all its memory.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) allocations: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

/// Makes memory of all kinds.
pub(crate) struct Allocator {
    pub(crate) device: Object<dyn MTLDevice>,
    pub(crate) residency: Arc<Residency>,
    pub(crate) tally: Arc<Tally>,
}

impl Allocator {
    /// The contract's heap: a placement heap with one buffer over all of it.
    ///
    /// Views of one heap may overlap and are made in the middle of a step, so placing makes no object: a view is bound as the
    /// buffer and an offset, which costs the device the same as a buffer of its own.
    pub(crate) fn heap(&self, len: u64, storage: Storage) -> Result<Arc<MetalMemory>> {
        self.counted(len, storage, "a heap", |options, size| {
            // Shared heaps are Apple GPUs' only; a buffer does for the rest.
            let private = options.contains(MTLResourceOptions::StorageModePrivate);
            if !private && !self.device.supportsFamily(MTLGPUFamily::Apple1) {
                return Some((self.device.newBufferWithLength_options(size, options)?, None));
            }
            let needs = self.device.heapBufferSizeAndAlignWithLength_options(size, options);
            let descriptor = MTLHeapDescriptor::new();
            descriptor.setType(MTLHeapType::Placement);
            descriptor.setSize(needs.size);
            descriptor.setStorageMode(if private { MTLStorageMode::Private } else { MTLStorageMode::Shared });
            descriptor.setHazardTrackingMode(MTLHazardTrackingMode::Untracked);
            let heap = self.device.newHeapWithDescriptor(&descriptor)?;
            // SAFETY: offset 0 is aligned, and the heap has the size that the device asked for.
            let buffer = unsafe { heap.newBufferWithLength_options_offset(size, options, 0) }?;
            Some((buffer, Some(heap)))
        })
    }

    /// The contract's dedicated buffer.
    pub(crate) fn buffer(&self, len: u64, storage: Storage) -> Result<Arc<MetalMemory>> {
        self.counted(len, storage, "a buffer", |options, size| {
            Some((self.device.newBufferWithLength_options(size, options)?, None))
        })
    }

    /// Memory of the backend's own, which counts nowhere.
    pub(crate) fn internal(&self, len: u64, storage: Storage, what: &'static str) -> Result<Arc<MetalMemory>> {
        self.allocate(len, storage, what, &|options, size| {
            Some((self.device.newBufferWithLength_options(size, options)?, None))
        })
        .map(Arc::new)
    }

    fn counted(
        &self,
        len: u64,
        storage: Storage,
        what: &'static str,
        make: impl Fn(MTLResourceOptions, usize) -> Option<Parts>,
    ) -> Result<Arc<MetalMemory>> {
        let mut memory = self.allocate(len, storage, what, &make)?;
        self.tally.allocations.fetch_add(1, Relaxed);
        self.tally.bytes.fetch_add(len, Relaxed);
        memory.tally = Some(self.tally.clone());
        Ok(Arc::new(memory))
    }

    fn allocate(
        &self,
        len: u64,
        storage: Storage,
        what: &'static str,
        make: &dyn Fn(MTLResourceOptions, usize) -> Option<Parts>,
    ) -> Result<MetalMemory> {
        let refused = |detail: String| DeviceError::OutOfMemory { requested: len, what, detail };
        let longest = self.device.maxBufferLength() as u64;
        if len > longest {
            return Err(refused(format!("a buffer has {longest} bytes at most")));
        }
        // Private memory on unified hardware gains nothing and would keep the host out.
        let private = storage == Storage::Private && !self.device.hasUnifiedMemory();
        let mode = if private { MTLResourceOptions::StorageModePrivate } else { MTLResourceOptions::StorageModeShared };
        // Kernels read whole vectors up to the end.
        let size = len.max(1).next_multiple_of(BIND) as usize;
        let made = autoreleasepool(|_| make(mode | MTLResourceOptions::HazardTrackingModeUntracked, size));
        let (buffer, heap) = made.ok_or_else(|| refused("Metal refused it".into()))?;
        let contents = (!private).then(|| buffer.contents().as_ptr().cast::<u8>());
        let seat = match &heap {
            Some(heap) => self.residency.add(ProtocolObject::from_ref(&**heap)),
            None => self.residency.add(ProtocolObject::from_ref(&*buffer)),
        };
        // SAFETY: both are only ever bound, asked for constants, and released, which Metal allows on any thread.
        let (buffer, heap) = unsafe { (AnyThread::new(buffer), AnyThread::new(heap)) };
        let residency = self.residency.clone();
        // SAFETY: an address; `MetalMemory` says who may use it when.
        let contents = unsafe { AnyThread::new(contents) };
        Ok(MetalMemory { buffer, heap, contents, len, storage, tally: None, residency, seat })
    }
}

type Parts = (Object<dyn MTLBuffer>, Option<Object<dyn MTLHeap>>);

/// A buffer over a whole heap, or a dedicated one.
pub(crate) struct MetalMemory {
    buffer: AnyThread<Object<dyn MTLBuffer>>,
    heap: AnyThread<Option<Object<dyn MTLHeap>>>,
    /// Address at which the host sees the buffer, if it does.
    contents: AnyThread<Option<*mut u8>>,
    len: u64,
    storage: Storage,
    tally: Option<Arc<Tally>>,
    residency: Arc<Residency>,
    seat: Option<Seat>,
}

impl MetalMemory {
    /// Buffer for binding.
    pub(crate) fn buffer(&self) -> &ProtocolObject<dyn MTLBuffer> {
        &self.buffer
    }

    /// Start of a range in the host's address space.
    fn host(&self, offset: u64, len: u64) -> Result<*mut u8> {
        range_within(offset, len, self.len)?;
        match *self.contents {
            Some(start) => Ok(start.wrapping_add(offset as usize)),
            None => Err(DeviceError::Contract(format!("the host cannot reach {self:?}"))),
        }
    }

    fn allocation(&self) -> &ProtocolObject<dyn MTLAllocation> {
        match &*self.heap {
            Some(heap) => ProtocolObject::from_ref(&**heap),
            None => ProtocolObject::from_ref(&**self.buffer),
        }
    }
}

impl Drop for MetalMemory {
    fn drop(&mut self) {
        if let Some(seat) = self.seat.take() {
            autoreleasepool(|_| self.residency.remove(seat, self.allocation()));
        }
        if let Some(tally) = &self.tally {
            tally.bytes.fetch_sub(self.len, Relaxed);
        }
    }
}

impl Memory for MetalMemory {
    fn len(&self) -> u64 {
        self.len
    }

    fn storage(&self) -> Storage {
        self.storage
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let to = self.host(offset, bytes.len() as u64)?;
        // SAFETY: the range lies within the buffer, no `&` to it exists, and rule 5 of the contract orders the access.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let from = self.host(offset, bytes.len() as u64)?;
        // SAFETY: as in `write`.
        unsafe { from.copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn lend(&self, range: Range<u64>, f: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        let len = range.end.checked_sub(range.start);
        let len = len.ok_or_else(|| DeviceError::Contract(format!("lend of {range:?}")))?;
        let at = self.host(range.start, len)?;
        // SAFETY: the range lies within the buffer; the contract of `Memory::lend` makes this the only access.
        f(unsafe { std::slice::from_raw_parts_mut(at, len as usize) });
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl fmt::Debug for MetalMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MetalMemory({} bytes, {:?})", self.len, self.storage)
    }
}

/// A heap: one piece of memory, placed into by its sub-allocator.
#[derive(Debug)]
pub(crate) struct MetalHeap {
    memory: Arc<MetalMemory>,
}

impl MetalHeap {
    pub(crate) fn new(memory: Arc<MetalMemory>) -> Self {
        Self { memory }
    }
}

impl Heap for MetalHeap {
    fn len(&self) -> u64 {
        self.memory.len
    }

    fn place(&self, offset: u64, len: u64) -> Result<Buffer> {
        Buffer::placed(self.memory.clone(), offset, len, ALIGN)
    }

    fn touch(&self, range: Range<u64>) -> Result<()> {
        let len = range.end.saturating_sub(range.start);
        range_within(range.start, len, self.memory.len)?;
        // Private memory is backed from the start.
        let Some(start) = *self.memory.contents else { return Ok(()) };
        for offset in (range.start..range.end).step_by(PAGE as usize) {
            // SAFETY: within the buffer; an atomic OR with 0 is a write that changes nothing, whoever else writes. A 0 that the compiler
            // sees would let it drop the write.
            unsafe { AtomicU8::from_ptr(start.wrapping_add(offset as usize)) }.fetch_or(black_box(0), Relaxed);
        }
        Ok(())
    }
}
