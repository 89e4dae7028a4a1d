//! Runs the threads of one threadgroup.

use super::fiber::{Call, Fiber, Wait};
use super::host::LaneValues;
use super::memory::Guarded;
use super::order::Random;
use super::{Function, SIMD_WIDTH};
use std::ops::Range;

/// Position of a threadgroup in its grid, and the numbers of threadgroups and of threads in each. Same layout in
/// sim_entry.h.
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

    /// Description of one thread in errors, by its index in the threadgroup.
    fn thread(&self, index: usize) -> String {
        let [x, y, _] = self.threads.map(|n| n as usize);
        let position = [index % x, index / x % y, index / x / y];
        let (simd, lane) = (index / SIMD_WIDTH, index % SIMD_WIDTH);
        format!("thread {position:?} (lane {lane} of simd-group {simd}) of threadgroup {:?}", self.group)
    }
}

/// Reason for which a threadgroup did not run to its end.
pub(super) enum Failure {
    /// A bad access or operation: by whom, and what.
    Fault(String, super::fault::Fault),
    /// Any other failure, in words.
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
    /// Simd-groups, in the order in which they run.
    simd_groups: Vec<usize>,
    values: Vec<Box<LaneValues>>,
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
        let call =
            Call { entry: function.entry, buffers: buffers.as_ptr(), threadgroup: self.pointers.as_ptr(), group };
        self.grow(if function.meets { group.len() } else { 1 })?;
        let result = if function.meets {
            self.seat(group.len(), random);
            let reverse = random.next() & 1 == 1;
            self.run_together(group, &call, reverse)
        } else {
            self.run_straight(group, &call)
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

    fn grow(&mut self, fibers: usize) -> Result<(), String> {
        while self.fibers.len() < fibers {
            self.fibers.push(Fiber::new(self.fibers.len())?);
        }
        self.values.resize_with(self.values.len().max(fibers.div_ceil(SIMD_WIDTH)), LaneValues::new);
        Ok(())
    }

    /// Gives each of `len` threads its fiber, and the simd-groups their order.
    fn seat(&mut self, len: usize, random: &mut Random) {
        self.simd_groups.clear();
        self.simd_groups.extend(0..len.div_ceil(SIMD_WIDTH));
        random.shuffle(&mut self.simd_groups);
        for thread in 0..len {
            let simd = thread / SIMD_WIDTH;
            let count = lanes_of(simd, len).len();
            self.fibers[thread].seat(thread..thread + 1, &raw mut *self.values[simd], thread % SIMD_WIDTH, count);
        }
    }

    /// Runs all threads on one fiber, one after another.
    fn run_straight(&mut self, group: &Group, call: &Call) -> Result<(), Failure> {
        let fiber = &mut self.fibers[0];
        fiber.seat(0..group.len(), &raw mut *self.values[0], 0, 1);
        // SAFETY: `run`'s caller vouches for the pointers, and the fibers are cleared after an error.
        unsafe { fiber.resume(call) };
        match fiber.wait() {
            Wait::End => Ok(()),
            Wait::Fault(fault) => Err(Failure::Fault(group.thread(fiber.thread()), fault)),
            Wait::Barrier(site) | Wait::Simd(site) => Err(Failure::Rule(format!("{site} is no call that is known"))),
        }
    }

    /// Runs each thread on a fiber of its own; all of them meet at every barrier.
    fn run_together(&mut self, group: &Group, call: &Call, reverse: bool) -> Result<(), Failure> {
        loop {
            for at in 0..self.simd_groups.len() {
                self.run_simd_group(self.simd_groups[at], group, call, reverse)?;
            }
            let first = self.fibers[0].wait();
            if let Some(other) = self.other(0..group.len(), first) {
                return Err(self.divergence(group, 0, other));
            }
            if first == Wait::End {
                return Ok(());
            }
        }
    }

    /// Runs a simd-group until all of its lanes are at a barrier or have ended.
    fn run_simd_group(&mut self, simd: usize, group: &Group, call: &Call, reverse: bool) -> Result<(), Failure> {
        let lanes = lanes_of(simd, group.len());
        loop {
            let mut meeting = None;
            for step in 0..lanes.len() {
                let lane = if reverse { lanes.end - 1 - step } else { lanes.start + step };
                let fiber = &mut self.fibers[lane];
                // SAFETY: `run`'s caller vouches for the pointers, and the fibers are cleared after an error.
                unsafe { fiber.resume(call) };
                match fiber.wait() {
                    Wait::Fault(fault) => return Err(Failure::Fault(group.thread(lane), fault)),
                    Wait::Simd(_) => meeting = Some(lane),
                    Wait::Barrier(_) | Wait::End => {}
                }
            }
            let Some(one) = meeting else { return Ok(()) };
            if let Some(other) = self.other(lanes.clone(), self.fibers[one].wait()) {
                return Err(self.divergence(group, one, other));
            }
        }
    }

    /// A thread that has stopped elsewhere.
    fn other(&self, threads: Range<usize>, wait: Wait) -> Option<usize> {
        threads.into_iter().find(|thread| self.fibers[*thread].wait() != wait)
    }

    fn divergence(&self, group: &Group, one: usize, other: usize) -> Failure {
        let state = |thread: usize| match self.fibers[thread].wait() {
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
