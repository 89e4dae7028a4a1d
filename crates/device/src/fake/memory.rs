use super::log::Event;
use super::machine::Machine;
use crate::{Buffer, DeviceError, Heap, Memory, Result, Storage, range_within};
use bytemuck::Pod;
use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, PoisonError, RwLock};

/// Bytes of fresh memory that are filled with ones; filling a large heap would make it resident.
const POISONED: usize = 1 << 20;

/// A piece of memory. The lock is held for copies only, never while somebody else's code runs.
pub(super) struct FakeMemory {
    bytes: RwLock<Vec<u8>>,
    len: u64,
    storage: Storage,
    machine: Arc<Machine>,
}

impl FakeMemory {
    /// Allocates, if budget and faults allow.
    pub(super) fn new(len: u64, storage: Storage, heap: bool, machine: &Arc<Machine>) -> Result<Arc<Self>> {
        machine.alive()?;
        let what = if heap { "a heap" } else { "a buffer" };
        let refused = |detail: &str| {
            machine.note(Event::Refused { bytes: len });
            DeviceError::OutOfMemory { requested: len, what, detail: detail.to_owned() }
        };
        if machine.struck(|s| &mut s.allocations) {
            return Err(refused("by a planted fault"));
        }
        let within = |used: u64| used.checked_add(len).filter(|sum| *sum <= machine.memory_budget);
        if machine.bytes.fetch_update(SeqCst, SeqCst, within).is_err() {
            return Err(refused("beyond the memory budget"));
        }
        machine.allocations.fetch_add(1, SeqCst);
        machine.note(Event::Allocated { bytes: len, storage, heap });
        let mut bytes = vec![0; len as usize];
        let poisoned = bytes.len().min(POISONED);
        bytes[..poisoned].fill(u8::MAX);
        Ok(Arc::new(Self { bytes: RwLock::new(bytes), len, storage, machine: machine.clone() }))
    }

    /// Copies out, for the device.
    pub(super) fn load(&self, offset: u64, to: &mut [u8]) -> Result<()> {
        let range = self.range(offset, to.len() as u64)?;
        to.copy_from_slice(&self.bytes.read().unwrap_or_else(PoisonError::into_inner)[range]);
        Ok(())
    }

    /// Copies in, for the device.
    pub(super) fn store(&self, offset: u64, from: &[u8]) -> Result<()> {
        let range = self.range(offset, from.len() as u64)?;
        self.bytes.write().unwrap_or_else(PoisonError::into_inner)[range].copy_from_slice(from);
        Ok(())
    }

    fn range(&self, offset: u64, len: u64) -> Result<Range<usize>> {
        let range = range_within(offset, len, self.len)?;
        Ok(range.start as usize..range.end as usize)
    }

    /// Fails where the host has no access.
    fn host(&self) -> Result<()> {
        self.machine.alive()?;
        if self.storage == Storage::Shared || self.machine.unified_memory {
            return Ok(());
        }
        Err(DeviceError::Contract("host access to private memory of a discrete device; copy through a queue".into()))
    }
}

impl Drop for FakeMemory {
    fn drop(&mut self) {
        self.machine.bytes.fetch_sub(self.len, SeqCst);
        self.machine.note(Event::Freed { bytes: self.len });
    }
}

impl Memory for FakeMemory {
    fn len(&self) -> u64 {
        self.len
    }

    fn storage(&self) -> Storage {
        self.storage
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.host()?;
        self.store(offset, bytes)
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.host()?;
        self.load(offset, bytes)
    }

    fn lend(&self, range: Range<u64>, f: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        self.host()?;
        let len = range.end.checked_sub(range.start).filter(|len| *len <= self.len);
        let len = len.ok_or_else(|| DeviceError::Contract(format!("lend of {range:?} in memory of {}", self.len)))?;
        let mut bytes = vec![0; len as usize];
        self.load(range.start, &mut bytes)?;
        f(&mut bytes);
        self.store(range.start, &bytes)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl fmt::Debug for FakeMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FakeMemory({} bytes, {:?})", self.len, self.storage)
    }
}

/// A heap: one piece of memory, placed into by its sub-allocator.
#[derive(Debug)]
pub(super) struct FakeHeap {
    memory: Arc<FakeMemory>,
}

impl FakeHeap {
    /// Alignment of placed buffers, as of Metal's.
    pub(super) const ALIGN: u64 = 256;

    pub(super) fn new(memory: Arc<FakeMemory>) -> Self {
        Self { memory }
    }
}

impl Heap for FakeHeap {
    fn len(&self) -> u64 {
        self.memory.len
    }

    fn place(&self, offset: u64, len: u64) -> Result<Buffer> {
        Buffer::placed(self.memory.clone(), offset, len, Self::ALIGN)
    }

    fn touch(&self, range: Range<u64>) -> Result<()> {
        self.memory.machine.alive()?;
        let range = self.memory.range(range.start, range.end.saturating_sub(range.start))?;
        let mut bytes = self.memory.bytes.write().unwrap_or_else(PoisonError::into_inner);
        // Written through a black box: a byte that keeps its value need not be written otherwise.
        bytes[range].iter_mut().step_by(4096).for_each(|byte| *byte = std::hint::black_box(*byte));
        Ok(())
    }
}

/// The first `count` values of a buffer.
pub(super) fn load<T: Pod>(buffer: &Buffer, count: usize) -> Result<Vec<T>> {
    if (count * size_of::<T>()) as u64 > buffer.len() {
        let what = std::any::type_name::<T>();
        return Err(DeviceError::Contract(format!("{count} values of {what} do not fit {buffer:?}")));
    }
    let mut values = vec![T::zeroed(); count];
    buffer.memory_as::<FakeMemory>()?.load(buffer.offset(), bytemuck::cast_slice_mut(&mut values))?;
    Ok(values)
}

/// Loads all values of a buffer.
pub(super) fn load_all<T: Pod>(buffer: &Buffer) -> Result<Vec<T>> {
    load(buffer, buffer.len() as usize / size_of::<T>())
}

/// Writes `values` to the beginning of a buffer.
pub(super) fn store<T: Pod>(buffer: &Buffer, values: &[T]) -> Result<()> {
    buffer.memory_as::<FakeMemory>()?.store(buffer.offset(), bytemuck::cast_slice(values))
}
