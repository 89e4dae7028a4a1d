//! Functions of the host that compiled kernels call. Same layouts in sim_sync.h.

use super::{SIMD_WIDTH, fiber};
use crate::faults;
use std::ffi::{CStr, c_char};
use std::fmt;

/// A call at which threads meet, by its place in the MSL.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Site {
    call: *const c_char,
    line: u32,
    column: u32,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: sim_sync.h names sites by string literals of an object that stays loaded.
        let call = unsafe { CStr::from_ptr(self.call) };
        write!(f, "{} (kernel.metal:{}:{})", call.to_string_lossy(), self.line, self.column)
    }
}

/// Value of one lane at a simd operation.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(super) struct LaneValue(pub(super) [u8; 64]);

/// A simd-group's values: two sets, so that one can be filled while the other is read.
pub(super) struct LaneValues(pub(super) [[LaneValue; SIMD_WIDTH]; 2]);

impl LaneValues {
    pub(super) fn new() -> Box<LaneValues> {
        Box::new(LaneValues([[LaneValue([0; 64]); SIMD_WIDTH]; 2]))
    }
}

/// Result of a simd operation, for each lane: all lanes' values, its own index, the number of lanes.
#[repr(C)]
pub(super) struct Lanes {
    pub(super) values: *const u8,
    pub(super) lane: u32,
    pub(super) count: u32,
}

#[repr(C)]
pub(super) struct Host {
    barrier: extern "C" fn(&Site),
    simd: unsafe extern "C" fn(&Site, *const u8, u32) -> Lanes,
    coarse_matrices: extern "C" fn() -> bool,
}

pub(super) static HOST: Host = Host { barrier, simd, coarse_matrices };

extern "C" fn coarse_matrices() -> bool {
    faults::coarse_matrices()
}

extern "C" fn barrier(site: &Site) {
    fiber::wait_at_barrier(*site);
}

/// # Safety
/// `value` has `size` bytes, at most a lane value's.
unsafe extern "C" fn simd(site: &Site, value: *const u8, size: u32) -> Lanes {
    // SAFETY: the caller's promise.
    let value = unsafe { std::slice::from_raw_parts(value, size as usize) };
    fiber::meet(*site, value)
}
