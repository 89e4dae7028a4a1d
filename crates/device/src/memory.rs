use crate::{DeviceError, Result};
use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Reach of a piece of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Storage {
    /// Host and device.
    Shared,
    /// The device alone: the host copies in and out through a queue. On unified memory a backend may treat it as shared.
    Private,
}

/// A piece of device memory: a heap's, or a dedicated buffer's. Backends downcast it with [`Memory::as_any`].
pub trait Memory: fmt::Debug + Send + Sync + 'static {
    /// Length in bytes.
    fn len(&self) -> u64;
    /// True for no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Reach of the memory.
    fn storage(&self) -> Storage;
    /// Copies `bytes` to `offset`. Fails on memory that the host cannot reach. Ordering rule 5 of the crate applies.
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()>;
    /// Copies from `offset` into `bytes`. Fails on memory that the host cannot reach. Ordering rule 5 applies.
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()>;
    /// Lends a range to `f` for writing in place; `f` must not read what it has not written. Ordering rule 5 applies, and no
    /// other host access may overlap the call.
    fn lend(&self, range: Range<u64>, f: &mut dyn FnMut(&mut [u8])) -> Result<()>;
    /// Returns `self` as [`Any`], for the backend to downcast.
    fn as_any(&self) -> &dyn Any;
}

/// A large reservation from which buffers are placed. The offsets are chosen by the sub-allocator above it.
pub trait Heap: fmt::Debug + Send + Sync {
    /// Length in bytes.
    fn len(&self) -> u64;
    /// True for no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Views `len` bytes at `offset`; both obey [`crate::Device::placement`].
    fn place(&self, offset: u64, len: u64) -> Result<Buffer>;
    /// Makes the operating system back a range with memory now, rather than at first use.
    fn touch(&self, range: Range<u64>) -> Result<()>;
}

/// A range of device memory. Cloning is cheap and makes another view of the same bytes.
#[derive(Clone)]
pub struct Buffer {
    memory: Arc<dyn Memory>,
    offset: u64,
    len: u64,
}

/// Checks that `len` bytes at `offset` lie within memory of `total` bytes; their range.
///
/// # Errors
/// [`DeviceError::Contract`] if they do not.
pub fn range_within(offset: u64, len: u64, total: u64) -> Result<Range<u64>> {
    match offset.checked_add(len) {
        Some(end) if end <= total => Ok(offset..end),
        _ => Err(DeviceError::Contract(format!("access at {offset} of {len} bytes in memory of {total}"))),
    }
}

impl Buffer {
    /// Views `len` bytes at `offset` of a heap's memory, where buffers are placed at multiples of `align`: [`Heap::place`] of a backend
    /// whose heaps are one piece of memory.
    ///
    /// # Errors
    /// [`DeviceError::Contract`] for an offset that is no multiple, or a range that leads outside.
    pub fn placed(memory: Arc<dyn Memory>, offset: u64, len: u64, align: u64) -> Result<Self> {
        if !offset.is_multiple_of(align) {
            return Err(DeviceError::Contract(format!("placement at {offset}, which is not a multiple of {align}")));
        }
        range_within(offset, len, memory.len())?;
        Ok(Self { memory, offset, len })
    }

    /// Views a whole piece of memory.
    pub fn whole(memory: Arc<dyn Memory>) -> Self {
        let len = memory.len();
        Self { memory, offset: 0, len }
    }

    /// Views `range` (bytes, relative to this view).
    pub fn slice(&self, range: Range<u64>) -> Result<Self> {
        if range.start > range.end || range.end > self.len {
            return Err(DeviceError::Contract(format!("slice {range:?} of a buffer of {} bytes", self.len)));
        }
        Ok(Self { memory: self.memory.clone(), offset: self.offset + range.start, len: range.end - range.start })
    }

    /// The memory behind the view.
    pub fn memory(&self) -> &Arc<dyn Memory> {
        &self.memory
    }
    /// The memory behind the view, as the backend's own type.
    ///
    /// # Errors
    /// [`DeviceError::Contract`] if it is another device's.
    pub fn memory_as<M: Memory>(&self) -> Result<&M> {
        self.memory.as_any().downcast_ref().ok_or_else(|| self.foreign())
    }
    /// Refusal of a view of another device's memory.
    pub fn foreign(&self) -> DeviceError {
        DeviceError::Contract(format!("{self:?} belongs to another device"))
    }
    /// Offset into [`Self::memory`], bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }
    /// Length, bytes.
    pub fn len(&self) -> u64 {
        self.len
    }
    /// True for a view of no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies plain values to byte `offset` of the view.
    pub fn write<T: bytemuck::NoUninit>(&self, offset: u64, values: &[T]) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        self.check(offset, bytes.len() as u64)?;
        self.memory.write(self.offset + offset, bytes)
    }

    /// Copies plain values from byte `offset` of the view.
    pub fn read<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(&self, offset: u64, values: &mut [T]) -> Result<()> {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(values);
        self.check(offset, bytes.len() as u64)?;
        self.memory.read(self.offset + offset, bytes)
    }

    /// Reads the whole view as plain values.
    pub fn to_vec<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(&self) -> Result<Vec<T>> {
        let mut values = vec![T::zeroed(); self.len as usize / size_of::<T>()];
        self.read(0, &mut values)?;
        Ok(values)
    }

    /// Lends the whole view for writing in place (see [`Memory::lend`]).
    pub fn lend(&self, f: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        self.memory.lend(self.offset..self.offset + self.len, f)
    }

    /// True if the two views share a byte.
    pub fn overlaps(&self, other: &Buffer) -> bool {
        Arc::ptr_eq(&self.memory, &other.memory)
            && self.offset < other.offset + other.len
            && other.offset < self.offset + self.len
    }

    fn check(&self, offset: u64, len: u64) -> Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(DeviceError::Contract(format!("access at {offset} of {len} bytes in a buffer of {}", self.len))),
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({}+{} of {:?})", self.offset, self.len, self.memory)
    }
}
