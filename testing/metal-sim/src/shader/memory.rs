//! Threadgroup memory between inaccessible pages.

use std::ptr;

/// Byte that fills fresh memory: a large `uint`, as `float` -2.9e-16, as `half` -0.022; nothing that is zero.
const POISON: u8 = 0xA5;
const PAGE: usize = 4096;
/// Bytes that one argument may have, and before which a page is inaccessible.
const USABLE: usize = super::MAX_THREADGROUP_MEMORY;
/// Address space after the memory, so that any 32-bit index of 4-byte elements ends there.
const RESERVED: usize = 16 << 30;
/// Alignment of every argument: vectors are loaded whole.
const ALIGNMENT: usize = 16;

/// Memory that ends, but for rounding to 16 bytes, where the inaccessible pages begin.
pub(super) struct Guarded {
    start: *mut u8,
}

impl Guarded {
    /// # Errors
    /// No address space is left.
    pub(super) fn new() -> Result<Guarded, String> {
        let error = |what: &str| format!("{what} for threadgroup memory: {}", std::io::Error::last_os_error());
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping, which touches no other memory.
        let start = unsafe { libc::mmap(ptr::null_mut(), PAGE + USABLE + RESERVED, libc::PROT_NONE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(error("no address space"));
        }
        let memory = Guarded { start: start.cast() };
        // SAFETY: the range lies inside the new mapping.
        let failed = unsafe { libc::mprotect(start.add(PAGE), USABLE, libc::PROT_READ | libc::PROT_WRITE) } != 0;
        if failed { Err(error("no memory")) } else { Ok(memory) }
    }

    /// `len` bytes of poison, at most `USABLE`.
    pub(super) fn poisoned(&mut self, len: usize) -> *mut u8 {
        let len = len.next_multiple_of(ALIGNMENT).min(USABLE);
        // SAFETY: the bytes are the last ones of the accessible part.
        unsafe {
            let memory = self.start.add(PAGE + USABLE - len);
            ptr::write_bytes(memory, POISON, len);
            memory
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours; its users are gone with the threadgroup.
        unsafe { libc::munmap(self.start.cast(), PAGE + USABLE + RESERVED) };
    }
}
