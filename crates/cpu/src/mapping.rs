//! Memory from the operating system: zeroed, and in huge pages where it is large enough and the system gives them.
//! Everything that reaches device memory from the host goes through here.

use std::hint::black_box;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Size and alignment of a huge page on x86-64 and on AArch64 with 4-KiB pages. A proof in C of a product with one token (November 2026, two
/// Zen 4 cores, 278 MB of weights; no record kept) read 30.6 GB/s from huge pages and 28.8 GB/s from small ones.
const HUGE: usize = 2 << 20;
/// The smallest page.
const PAGE: usize = 4096;

/// An anonymous mapping. Host access is bounded here and ordered by the device contract: ops write it from other threads.
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is plain bytes that belong to no thread; the device contract orders access.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of zeros: from [`HUGE`] upwards aligned to it and advised to use huge pages, before the first touch.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        Ok(Self { start: system::map(len)?, len })
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    fn at(&self, range: &Range<usize>) -> *mut u8 {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of a mapping of {} bytes", self.len);
        self.start().wrapping_add(range.start)
    }

    /// Copies `bytes` to `range`, which has their length.
    pub(crate) fn write(&self, range: Range<usize>, bytes: &[u8]) {
        assert_eq!(range.len(), bytes.len());
        let to = self.at(&range);
        // SAFETY: the range lies within the mapping, no `&` to it exists, and rule 5 of the contract orders the access.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    }

    /// Copies `range` into `bytes`, which has its length.
    pub(crate) fn read(&self, range: Range<usize>, bytes: &mut [u8]) {
        assert_eq!(range.len(), bytes.len());
        let from = self.at(&range);
        // SAFETY: as in `write`.
        unsafe { from.copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) }
    }

    /// Lends `range` to `f`.
    pub(crate) fn lend(&self, range: Range<usize>, f: &mut dyn FnMut(&mut [u8])) {
        let (at, len) = (self.at(&range), range.len());
        // SAFETY: the range lies within the mapping; the contract of `Memory::lend` makes this the only access.
        f(unsafe { std::slice::from_raw_parts_mut(at, len) });
    }

    /// Makes the system back `range` with memory now; the contents stay.
    pub(crate) fn touch(&self, range: Range<usize>) {
        let at = self.at(&range);
        for offset in (0..range.len()).step_by(PAGE) {
            // SAFETY: within the mapping; an atomic OR with 0 is a write that changes nothing, whoever else writes. A 0 that the compiler
            // sees would let it drop the write.
            unsafe { AtomicU8::from_ptr(at.wrapping_add(offset)) }.fetch_or(black_box(0), Relaxed);
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        system::unmap(self.start, self.len);
    }
}

#[cfg(all(unix, not(miri)))]
mod system {
    use super::{HUGE, PAGE};
    use std::io;
    use std::ptr::{NonNull, null_mut};

    pub(super) fn map(len: usize) -> io::Result<NonNull<u8>> {
        let len = page_multiple(len).ok_or(io::ErrorKind::OutOfMemory)?;
        if len < HUGE {
            return reserve(len);
        }
        let slack = len.checked_add(HUGE).ok_or(io::ErrorKind::OutOfMemory)?;
        let whole = reserve(slack)?;
        let head = whole.as_ptr().align_offset(HUGE);
        let start = whole.as_ptr().wrapping_add(head);
        release(whole.as_ptr(), head);
        release(start.wrapping_add(len), HUGE - head);
        advise(start, len);
        NonNull::new(start).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    pub(super) fn unmap(start: NonNull<u8>, len: usize) {
        release(start.as_ptr(), page_multiple(len).unwrap_or(len));
    }

    fn page_multiple(len: usize) -> Option<usize> {
        len.max(1).checked_next_multiple_of(page())
    }

    fn page() -> usize {
        // SAFETY: reads a constant of the system.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(page).unwrap_or(PAGE)
    }

    fn reserve(len: usize) -> io::Result<NonNull<u8>> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
        // SAFETY: a new anonymous mapping touches no existing memory.
        let start = unsafe { libc::mmap(null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn release(start: *mut u8, len: usize) {
        if len > 0 {
            // SAFETY: the range is a part of a mapping of ours that nothing refers to.
            unsafe { libc::munmap(start.cast(), len) };
        }
    }

    #[cfg(target_os = "linux")]
    fn advise(start: *mut u8, len: usize) {
        // SAFETY: the range is a mapping of ours; the advice changes no contents, and its refusal costs only speed.
        unsafe { libc::madvise(start.cast(), len, libc::MADV_HUGEPAGE) };
    }

    #[cfg(not(target_os = "linux"))]
    fn advise(_start: *mut u8, _len: usize) {}
}

/// The program's allocator, where there is no `mmap`, and under Miri, which has neither its partial unmapping nor `madvise`.
#[cfg(any(not(unix), miri))]
mod system {
    use super::{HUGE, PAGE};
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use std::io;
    use std::ptr::NonNull;

    pub(super) fn map(len: usize) -> io::Result<NonNull<u8>> {
        let layout = layout(len).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: the layout has a size above 0.
        NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    pub(super) fn unmap(start: NonNull<u8>, len: usize) {
        if let Some(layout) = layout(len) {
            // SAFETY: `map` allocated it with the same layout.
            unsafe { dealloc(start.as_ptr(), layout) };
        }
    }

    fn layout(len: usize) -> Option<Layout> {
        Layout::from_size_align(len.max(1), if len < HUGE { PAGE } else { HUGE }).ok()
    }
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use super::*;

    /// Pages of `mapping` that have memory behind them.
    fn resident(mapping: &Mapping) -> usize {
        let mut pages = vec![0u8; mapping.len / PAGE];
        // SAFETY: the mapping lives, and `pages` has a byte for each of its pages, none of which is smaller than PAGE.
        assert_eq!(unsafe { libc::mincore(mapping.start.as_ptr().cast(), mapping.len, pages.as_mut_ptr()) }, 0);
        pages.iter().filter(|page| **page & 1 == 1).count()
    }

    #[test]
    fn touching_backs_a_range_with_memory_and_keeps_its_contents() {
        let mapping = Mapping::new(64 * PAGE).unwrap();
        mapping.write(3 * PAGE..3 * PAGE + 2, &[7, 8]);
        assert!(resident(&mapping) < 32, "little is resident before");
        mapping.touch(0..mapping.len);
        assert_eq!(resident(&mapping), 64);
        let mut kept = [0; 2];
        mapping.read(3 * PAGE..3 * PAGE + 2, &mut kept);
        assert_eq!(kept, [7, 8]);
    }
}
