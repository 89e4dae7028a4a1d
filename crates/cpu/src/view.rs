//! Typed access to device memory for ops: the one place where ops turn buffers into slices.

use crate::heap::CpuMemory;
use bytemuck::Pod;
use mlx_serving_device::{Buffer, DeviceError, Result};
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::AtomicU32;

/// A buffer as `len` values of `T`, checked when it is made: this device's memory, aligned, long enough.
pub(crate) struct View<T> {
    start: *mut T,
    len: usize,
    /// Keeps the memory alive.
    buffer: Buffer,
    values: PhantomData<T>,
}

// SAFETY: plain values in memory that belongs to no thread; who makes slices of it answers for the ordering.
unsafe impl<T: Pod + Send> Send for View<T> {}
// SAFETY: as above.
unsafe impl<T: Pod + Sync> Sync for View<T> {}

impl<T: Pod> View<T> {
    /// The first `len` values of `buffer`.
    pub(crate) fn new(buffer: &Buffer, len: usize) -> Result<Self> {
        let memory: &CpuMemory = buffer.memory_as()?;
        let start = memory.address(buffer.offset()).cast::<T>();
        let fits = len.checked_mul(size_of::<T>()).is_some_and(|bytes| bytes as u64 <= buffer.len());
        if !fits || !start.is_aligned() {
            let what = std::any::type_name::<T>();
            return Err(DeviceError::Contract(format!("{len} values of {what} do not fit {buffer:?}")));
        }
        Ok(Self { start, len, buffer: buffer.clone(), values: PhantomData })
    }

    /// Views all of `buffer`: as many values as it holds.
    pub(crate) fn whole(buffer: &Buffer) -> Result<Self> {
        Self::new(buffer, buffer.len() as usize / size_of::<T>())
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// True if the two share a byte.
    pub(crate) fn overlaps<U>(&self, other: &View<U>) -> bool {
        self.buffer.overlaps(&other.buffer)
    }

    fn check(&self, range: &Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.len, "values {range:?} of a view of {}", self.len);
    }

    /// Values to read.
    ///
    /// # Safety
    /// Nobody writes them while the slice lives: not the host (rule 5 of the contract) and not a worker in the same phase.
    pub(crate) unsafe fn get(&self, range: Range<usize>) -> &[T] {
        self.check(&range);
        // SAFETY: within the view; the caller excludes writers.
        unsafe { std::slice::from_raw_parts(self.start.wrapping_add(range.start), range.len()) }
    }

    /// Slice of all values, to read.
    ///
    /// # Safety
    /// Requirements of [`Self::get`].
    pub(crate) unsafe fn all(&self) -> &[T] {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.get(0..self.len) }
    }

    /// Reads one value.
    ///
    /// # Safety
    /// Requirements of [`Self::get`].
    pub(crate) unsafe fn item(&self, at: usize) -> T {
        // SAFETY: the caller's promise is passed on.
        let value = unsafe { self.get(at..at + 1) };
        value[0]
    }

    /// Writes one value.
    ///
    /// # Safety
    /// Requirements of [`Self::get_mut`].
    pub(crate) unsafe fn set(&self, at: usize, value: T) {
        // SAFETY: the caller's promise is passed on.
        let to = unsafe { self.get_mut(at..at + 1) };
        to[0] = value;
    }

    /// Values to write.
    ///
    /// # Safety
    /// Nobody else reads or writes them while the slice lives: the range is one worker's own in this phase.
    #[allow(clippy::mut_from_ref, reason = "device memory is shared by workers, which split it by ranges")]
    pub(crate) unsafe fn get_mut(&self, range: Range<usize>) -> &mut [T] {
        self.check(&range);
        // SAFETY: within the view; the caller excludes all others.
        unsafe { std::slice::from_raw_parts_mut(self.start.wrapping_add(range.start), range.len()) }
    }
}

impl View<u32> {
    /// Views one value as an atomic, for workers that count in it together.
    pub(crate) fn atomic(&self, at: usize) -> &AtomicU32 {
        self.check(&(at..at + 1));
        // SAFETY: within the view and aligned; all workers use it atomically in the same phase.
        unsafe { AtomicU32::from_ptr(self.start.wrapping_add(at)) }
    }
}
