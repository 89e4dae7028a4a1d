//! Mapped memory: poisoned, and ended by pages that nobody may touch.

use super::hazards::History;
use crate::runtime::lock;
use std::io;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Byte that fills new memory, so that a read of uninitialized memory shows.
pub(crate) const POISON: u8 = 0xA5;
/// Address space kept inaccessible behind each mapping: a stray index of up to 32 bits faults.
const GUARD_BEHIND: usize = 4 << 30;
/// Address space kept inaccessible before each mapping.
const GUARD_BEFORE: usize = 64 << 10;

/// Memory of a heap or of a dedicated buffer, and who has used it on the device.
pub(crate) struct Mapping {
    start: *mut u8,
    len: usize,
    /// The reservation, if it is ours to unmap.
    reserved: Option<(*mut u8, usize)>,
    /// True if the mapping counts as the device's.
    counted: bool,
    history: Mutex<History>,
}

// SAFETY: the pointers are to memory that the mapping owns or that its maker promised to keep; all access through them is
// raw and ordered by the rules of the device.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// The system's page, bytes.
pub(crate) fn page() -> usize {
    // SAFETY: asks for a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(page).expect("the system has pages")
}

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

/// Bytes of all mappings of the device.
pub(crate) fn allocated() -> usize {
    ALLOCATED.load(Ordering::Relaxed)
}

impl Mapping {
    /// Maps `len` bytes that end (rounded to 16) at inaccessible pages. Not poisoned yet.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let mut mapping = Self::scratch(len)?;
        mapping.counted = true;
        ALLOCATED.fetch_add(len, Ordering::Relaxed);
        Ok(mapping)
    }

    /// Maps memory like [`Self::new`], but does not count it as allocated.
    pub(crate) fn scratch(len: usize) -> io::Result<Self> {
        let used = len.next_multiple_of(16);
        let body = used.next_multiple_of(page());
        let reserved = GUARD_BEFORE + body + GUARD_BEHIND;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping, of which the middle is made accessible.
        let start = unsafe {
            let base = libc::mmap(ptr::null_mut(), reserved, libc::PROT_NONE, flags, -1, 0);
            if base == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let middle = base.byte_add(GUARD_BEFORE);
            if libc::mprotect(middle, body, libc::PROT_READ | libc::PROT_WRITE) != 0 {
                let error = io::Error::last_os_error();
                libc::munmap(base, reserved);
                return Err(error);
            }
            middle.cast::<u8>().add(body - used)
        };
        // SAFETY: within the reservation just made.
        let base = unsafe { start.sub(GUARD_BEFORE + body - used) };
        Ok(Self { start, len, reserved: Some((base, reserved)), counted: false, history: Mutex::default() })
    }

    /// Views memory that the caller keeps for as long as the mapping lives.
    pub(crate) fn borrowed(start: *mut u8, len: usize) -> Self {
        ALLOCATED.fetch_add(len, Ordering::Relaxed);
        Self { start, len, reserved: None, counted: true, history: Mutex::default() }
    }

    /// Overwrites a range that a new resource takes.
    pub(crate) fn poison(&self, offset: usize, len: usize) {
        // SAFETY: checked against the mapping's length.
        unsafe { ptr::write_bytes(self.at(offset, len), POISON, len) };
    }

    /// The address of `len` bytes at `offset`.
    pub(crate) fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset <= self.len && len <= self.len - offset, "metal-sim: {offset}+{len} of {} bytes", self.len);
        // SAFETY: within the mapping.
        unsafe { self.start.add(offset) }
    }

    pub(crate) fn history(&self) -> std::sync::MutexGuard<'_, History> {
        lock(&self.history)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.counted {
            ALLOCATED.fetch_sub(self.len, Ordering::Relaxed);
        }
        if let Some((base, reserved)) = self.reserved {
            // SAFETY: the reservation is this mapping's own, and nobody refers to it any more.
            unsafe { libc::munmap(base.cast(), reserved) };
        }
    }
}
