use crate::mapping::Mapping;
use mlx_serving_device::{Buffer, DeviceError, Heap, Memory, Result, Storage, range_within};
use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Count of the device's allocations, shared by all its memory.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) allocations: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

/// Mapping of a heap or of a dedicated buffer.
pub(crate) struct CpuMemory {
    mapping: Mapping,
    len: u64,
    storage: Storage,
    tally: Arc<Tally>,
}

impl CpuMemory {
    pub(crate) fn new(len: u64, storage: Storage, what: &'static str, tally: &Arc<Tally>) -> Result<Arc<Self>> {
        let refused = |detail: String| DeviceError::OutOfMemory { requested: len, what, detail };
        let bytes = usize::try_from(len).map_err(|_| refused("more than the address space".into()))?;
        let mapping = Mapping::new(bytes).map_err(|e| refused(e.to_string()))?;
        tally.allocations.fetch_add(1, Relaxed);
        tally.bytes.fetch_add(len, Relaxed);
        Ok(Arc::new(Self { mapping, len, storage, tally: tally.clone() }))
    }

    /// Address of byte `offset`; the caller keeps to the length.
    pub(crate) fn address(&self, offset: u64) -> *mut u8 {
        debug_assert!(offset <= self.len);
        self.mapping.start().wrapping_add(offset as usize)
    }

    fn range(&self, offset: u64, len: u64) -> Result<Range<usize>> {
        let range = range_within(offset, len, self.len)?;
        Ok(range.start as usize..range.end as usize)
    }
}

impl Drop for CpuMemory {
    fn drop(&mut self) {
        self.tally.bytes.fetch_sub(self.len, Relaxed);
    }
}

impl Memory for CpuMemory {
    fn len(&self) -> u64 {
        self.len
    }

    fn storage(&self) -> Storage {
        self.storage
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.mapping.write(self.range(offset, bytes.len() as u64)?, bytes);
        Ok(())
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.mapping.read(self.range(offset, bytes.len() as u64)?, bytes);
        Ok(())
    }

    fn lend(&self, range: Range<u64>, f: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        let len = range.end.checked_sub(range.start);
        let len = len.ok_or_else(|| DeviceError::Contract(format!("lend of {range:?}")))?;
        self.mapping.lend(self.range(range.start, len)?, f);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl fmt::Debug for CpuMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuMemory({} bytes, {:?})", self.len, self.storage)
    }
}

/// A heap: one mapping, placed into by its sub-allocator.
#[derive(Debug)]
pub(crate) struct CpuHeap {
    memory: Arc<CpuMemory>,
}

impl CpuHeap {
    /// Placed buffers start on a cache line, which is also the widest vector.
    pub(crate) const ALIGN: u64 = 64;

    pub(crate) fn new(memory: Arc<CpuMemory>) -> Self {
        Self { memory }
    }
}

impl Heap for CpuHeap {
    fn len(&self) -> u64 {
        self.memory.len
    }

    fn place(&self, offset: u64, len: u64) -> Result<Buffer> {
        Buffer::placed(self.memory.clone(), offset, len, Self::ALIGN)
    }

    fn touch(&self, range: Range<u64>) -> Result<()> {
        let len = range.end.saturating_sub(range.start);
        self.memory.mapping.touch(self.memory.range(range.start, len)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(len: u64) -> (Arc<CpuMemory>, Arc<Tally>) {
        let tally = Arc::new(Tally::default());
        (CpuMemory::new(len, Storage::Shared, "test", &tally).unwrap(), tally)
    }

    #[test]
    fn counts_bytes_until_the_last_view_goes() {
        let (memory, tally) = memory(5 << 20);
        let heap = CpuHeap::new(memory);
        let view = heap.place(64, 128).unwrap();
        drop(heap);
        assert_eq!(tally.bytes.load(Relaxed), 5 << 20);
        view.write(0, &[7u8; 128]).unwrap();
        assert_eq!(view.to_vec::<u8>().unwrap(), [7; 128]);
        drop(view);
        assert_eq!(tally.bytes.load(Relaxed), 0);
        assert_eq!(tally.allocations.load(Relaxed), 1);
    }

    #[test]
    fn refuses_what_lies_outside() {
        let (memory, _) = memory(4096);
        assert!(memory.write(4090, &[0; 7]).is_err());
        assert!(memory.read(u64::MAX, &mut [0; 2]).is_err());
        assert!(memory.lend(Range { start: 9, end: 8 }, &mut |_| ()).is_err());
        let heap = CpuHeap::new(memory);
        assert!(heap.place(4096, 1).is_err());
        assert!(heap.place(32, 1).is_err(), "not aligned");
        assert!(heap.touch(0..4097).is_err());
    }

    #[test]
    fn touching_keeps_the_contents() {
        let (memory, _) = memory(3 << 20);
        memory.write((2 << 20) + 5, &[1, 2, 3]).unwrap();
        let heap = CpuHeap::new(memory.clone());
        heap.touch(0..3 << 20).unwrap();
        let mut found = [9; 4];
        memory.read((2 << 20) + 5, &mut found).unwrap();
        assert_eq!(found, [1, 2, 3, 0]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri takes memory from its own process, and ends where there is not enough")]
    fn refuses_more_than_there_is() {
        let tally = Arc::new(Tally::default());
        let error = CpuMemory::new(1 << 60, Storage::Shared, "a test", &tally).unwrap_err();
        assert!(matches!(error, DeviceError::OutOfMemory { requested: 0x1000_0000_0000_0000, .. }), "{error}");
        assert_eq!(tally.bytes.load(Relaxed), 0);
    }
}
