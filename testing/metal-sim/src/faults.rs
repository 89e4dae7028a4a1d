//! Faults on demand, and what else a test decides about the device. They hold for the whole process: a test that asks
//! for one runs in a process of its own (nextest does that), or calls [`reset`] at its end.

use crate::runtime::lock;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Settings that a test can change about the simulated device.
#[derive(Debug, Clone)]
struct Settings {
    allocation_countdown: Option<u64>,
    command_buffer_countdown: Option<u64>,
    lost: bool,
    signals_withheld: bool,
    delay: Duration,
    working_set: u64,
    unified: bool,
    confined: bool,
    coarse_matrices: bool,
    seed: u64,
}

const PLAIN: Settings = Settings {
    allocation_countdown: None,
    command_buffer_countdown: None,
    lost: false,
    signals_withheld: false,
    delay: Duration::ZERO,
    working_set: 1 << 30,
    unified: true,
    confined: false,
    coarse_matrices: false,
    seed: 0,
};

static SETTINGS: Mutex<Settings> = Mutex::new(PLAIN);

/// Back to a device that works: unified memory, a working set of 1 GiB, seed 0.
pub fn reset() {
    *lock(&SETTINGS) = PLAIN;
}

/// Refuses one allocation of a heap or a dedicated buffer: the next one (`skip` 0) or a later one.
pub fn refuse_allocation(skip: u64) {
    lock(&SETTINGS).allocation_countdown = Some(skip);
}

/// Lets one committed command buffer end in error: the next one to run (`skip` 0) or a later one. Its events are not signaled.
pub fn fail_command_buffer(skip: u64) {
    lock(&SETTINGS).command_buffer_countdown = Some(skip);
}

/// Makes every command buffer end in error from now on, also those that wait for an event now.
pub fn lose_device() {
    lock(&SETTINGS).lost = true;
}

/// Makes command buffers complete without signaling their events while `withheld`.
pub fn withhold_signals(withheld: bool) {
    lock(&SETTINGS).signals_withheld = withheld;
}

/// Makes each command buffer take longer by `delay`, so that several can be seen in flight.
pub fn slow_down(delay: Duration) {
    lock(&SETTINGS).delay = delay;
}

/// Makes products of simd-group matrices round each sum to half while `coarse`, however wide the type of the sums is.
pub fn set_coarse_matrices(coarse: bool) {
    lock(&SETTINGS).coarse_matrices = coarse;
}

/// Sets `recommendedMaxWorkingSetSize`, bytes.
pub fn set_working_set(bytes: u64) {
    lock(&SETTINGS).working_set = bytes;
}

/// Sets `hasUnifiedMemory`.
pub fn set_unified_memory(unified: bool) {
    lock(&SETTINGS).unified = unified;
}

/// Makes kernels that are told the lengths of what is bound run, while `confined`, on copies of just that, ended by inaccessible
/// pages, so that a stray access is caught also in the middle of a heap. Ranges over 1 MiB stay where they are.
pub fn confine_kernels(confined: bool) {
    lock(&SETTINGS).confined = confined;
}

/// Chooses the order in which work runs that nothing orders: dispatches between barriers, threadgroups, and, by short delays,
/// command buffers of different queues. 0 leaves everything in the order of recording.
pub fn set_seed(seed: u64) {
    lock(&SETTINGS).seed = seed;
}

/// True if this allocation is the one to refuse.
pub(crate) fn refuses_allocation() -> bool {
    is_due(&mut lock(&SETTINGS).allocation_countdown)
}

/// True if this command buffer is the one to fail.
pub(crate) fn fails_command_buffer() -> bool {
    is_due(&mut lock(&SETTINGS).command_buffer_countdown)
}

fn is_due(countdown: &mut Option<u64>) -> bool {
    match countdown {
        None => false,
        Some(0) => {
            *countdown = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
    }
}

pub(crate) fn is_lost() -> bool {
    lock(&SETTINGS).lost
}

pub(crate) fn withholds_signals() -> bool {
    lock(&SETTINGS).signals_withheld
}

pub(crate) fn delay() -> Duration {
    lock(&SETTINGS).delay
}

/// Delay of the next command buffer, to mix the queues: less than 100 µs, none for seed 0.
pub(crate) fn jitter() -> Duration {
    static TURN: AtomicU64 = AtomicU64::new(0);
    match seed() {
        0 => Duration::ZERO,
        seed => {
            let turn = TURN.fetch_add(1, Ordering::Relaxed);
            Duration::from_nanos(mixed(seed.wrapping_add(turn.wrapping_mul(STEP))) % 100_000)
        }
    }
}

/// Increment of the state of splitmix64, a generator of random numbers.
pub(crate) const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// The random number of a state, by splitmix64.
pub(crate) fn mixed(state: u64) -> u64 {
    let first = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let second = (first ^ first >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    second ^ second >> 31
}

pub(crate) fn working_set() -> u64 {
    lock(&SETTINGS).working_set
}

pub(crate) fn unified_memory() -> bool {
    lock(&SETTINGS).unified
}

pub(crate) fn coarse_matrices() -> bool {
    lock(&SETTINGS).coarse_matrices
}

pub(crate) fn confines_kernels() -> bool {
    lock(&SETTINGS).confined
}

pub(crate) fn seed() -> u64 {
    lock(&SETTINGS).seed
}
