//! Runs the threads of one threadgroup.

use super::fiber::{Call, Fiber, Wait};
use super::host::Slots;
use super::memory::Guarded;
use super::object::Entry;
use super::order::Random;
use super::{Function, SIMD_WIDTH};
use std::ops::Range;

/// Where a threadgroup stands in its grid. Same layout in sim_entry.h.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Group {
    pub(super) group: [u32; 3],
    pub(super) groups: [u32; 3],
    pub(super) threads: [u32; 3],
}

impl Group {
    fn len(&self) -> usize {
        self.threads.iter().map(|n| *n as usize).product()
    }

    /// How an error calls one thread, by its index in the threadgroup.
    fn thread(&self, index: usize) -> String {
        let [x, y, _] = self.threads.map(|n| n as usize);
        let position = [index % x, index / x % y, index / x / y];
        let (simd, lane) = (index / SIMD_WIDTH, index % SIMD_WIDTH);
        format!("thread {position:?} (lane {lane} of simd-group {simd}) of threadgroup {:?}", self.group)
    }
}

/// Why a threadgroup did not run to its end.
pub(super) enum Failure {
    /// A bad access or operation: by whom, and what.
    Fault(String, super::fault::Fault),
    /// Anything else, in words.
    Rule(String),
}

impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Failure::Rule(message)
    }
}

/// Fibers and threadgroup memory, for one threadgroup after another.
#[derive(Default)]
pub(super) struct Stage {
    fibers: Vec<Fiber>,
    /// What each fiber waits for.
    waits: Vec<Wait>,
    /// Simd-groups, in the order in which they run.
    simd_groups: Vec<usize>,
    slots: Vec<Box<Slots>>,
    memory: Vec<Guarded>,
    pointers: Vec<*mut u8>,
}

impl Stage {
    /// Addresses of the last threadgroup's memory, by index.
    pub(super) fn threadgroup_memory(&self) -> &[*mut u8] {
        &self.pointers
    }

    /// Runs every thread of `group` with `threadgroup` bytes of memory by index.
    ///
    /// # Safety
    /// `buffers` has an entry for each buffer argument of the function, valid for what its kernel may do.
    pub(super) unsafe fn run(
        &mut self,
        function: &Function,
        group: &Group,
        buffers: &[*mut u8],
        threadgroup: &[usize],
        random: &mut Random,
    ) -> Result<(), Failure> {
        self.poison(threadgroup)?;
        let call = |entry: Entry, threads: Range<usize>| Call {
            entry,
            buffers: buffers.as_ptr(),
            threadgroup: self.pointers.as_ptr(),
            group,
            first: threads.start as u32,
            end: threads.end as u32,
        };
        let len = group.len();
        let whole = call(function.entry, 0..len);
        let result = if function.meets {
            self.prepare(len, random)?;
            let reverse = random.next() & 1 == 1;
            self.run_together(group, whole, reverse)
        } else {
            self.prepare(1, random)?;
            self.run_straight(group, whole)
        };
        if result.is_err() {
            // Those that wait would otherwise go on with this call in the next one.
            self.fibers.clear();
        }
        result
    }

    fn poison(&mut self, threadgroup: &[usize]) -> Result<(), String> {
        while self.memory.len() < threadgroup.len() {
            self.memory.push(Guarded::new()?);
        }
        self.pointers.clear();
        self.pointers.extend(self.memory.iter_mut().zip(threadgroup).map(|(memory, len)| memory.poisoned(*len)));
        Ok(())
    }

    /// Seats one fiber for each of `len` threads.
    fn prepare(&mut self, len: usize, random: &mut Random) -> Result<(), String> {
        while self.fibers.len() < len {
            self.fibers.push(Fiber::new(self.fibers.len())?);
        }
        let simd_groups = len.div_ceil(SIMD_WIDTH);
        self.slots.resize_with(self.slots.len().max(simd_groups), Slots::new);
        self.simd_groups.clear();
        self.simd_groups.extend(0..simd_groups);
        random.shuffle(&mut self.simd_groups);
        self.waits.clear();
        self.waits.resize(len, Wait::End);
        for (simd, slots) in self.slots.iter_mut().take(simd_groups).enumerate() {
            let lanes = lanes_of(simd, len);
            for (lane, fiber) in self.fibers[lanes.clone()].iter().enumerate() {
                fiber.seat(&raw mut **slots, lane as u32, lanes.len() as u32);
            }
        }
        Ok(())
    }

    /// One fiber runs all threads, one after another.
    fn run_straight(&mut self, group: &Group, call: Call) -> Result<(), Failure> {
        let fiber = &mut self.fibers[0];
        // SAFETY: `run`'s caller vouches for the pointers, and the fibers are cleared after an error.
        match unsafe { fiber.resume(call) } {
            Wait::End => Ok(()),
            Wait::Fault(fault) => Err(Failure::Fault(group.thread(fiber.thread() as usize), fault)),
            Wait::Barrier(site) | Wait::Simd(site) => Err(Failure::Rule(format!("{site} is no call that is known"))),
        }
    }

    /// A fiber for each thread; all of them meet at every barrier.
    fn run_together(&mut self, group: &Group, call: Call, reverse: bool) -> Result<(), Failure> {
        loop {
            for at in 0..self.simd_groups.len() {
                self.run_simd_group(self.simd_groups[at], group, call, reverse)?;
            }
            let first = self.waits[0];
            if let Some(other) = self.waits.iter().position(|w| *w != first) {
                return Err(self.divergence(group, 0, other));
            }
            if first == Wait::End {
                return Ok(());
            }
        }
    }

    /// Until all of the simd-group's lanes are at a barrier or have ended.
    fn run_simd_group(&mut self, simd: usize, group: &Group, call: Call, reverse: bool) -> Result<(), Failure> {
        let lanes = lanes_of(simd, self.waits.len());
        loop {
            for step in 0..lanes.len() {
                let lane = if reverse { lanes.end - 1 - step } else { lanes.start + step };
                let own = Call { first: lane as u32, end: lane as u32 + 1, ..call };
                // SAFETY: `run`'s caller vouches for the pointers, and the fibers are cleared after an error.
                let wait = unsafe { self.fibers[lane].resume(own) };
                self.waits[lane] = wait;
                if let Wait::Fault(fault) = wait {
                    return Err(Failure::Fault(group.thread(lane), fault));
                }
            }
            let waits = &self.waits[lanes.clone()];
            let Some(simd) = waits.iter().position(|w| matches!(w, Wait::Simd(_))) else { return Ok(()) };
            if let Some(other) = waits.iter().position(|w| *w != waits[simd]) {
                return Err(self.divergence(group, lanes.start + simd, lanes.start + other));
            }
        }
    }

    fn divergence(&self, group: &Group, one: usize, other: usize) -> Failure {
        let state = |thread: usize| match self.waits[thread] {
            Wait::Barrier(site) | Wait::Simd(site) => format!("{} waits at {site}", group.thread(thread)),
            Wait::End | Wait::Fault(_) => format!("{} has ended", group.thread(thread)),
        };
        Failure::Rule(format!("threads diverge where they must meet: {}, {}", state(one), state(other)))
    }
}

/// Threads of a simd-group among `len`.
fn lanes_of(simd: usize, len: usize) -> Range<usize> {
    simd * SIMD_WIDTH..len.min((simd + 1) * SIMD_WIDTH)
}
