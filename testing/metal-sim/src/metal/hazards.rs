//! Order of the device's work: every access of untracked memory is checked against earlier ones that conflict.
//!
//! Each command that touches memory is a *step*, numbered within its queue in the order of execution. Steps of a queue are
//! not ordered by their numbers: passes may overlap on a real device. What orders them is a [`Clock`]: the steps known to be
//! complete. Barriers order steps within a pass, fences pass clocks between passes, events and the host's own waits carry
//! all that a queue has done so far.

use super::memory::Mapping;
use crate::runtime::lock;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// Identifies a queue.
pub(crate) type QueueId = u64;

/// Steps that are complete.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    /// Number below which all steps of a queue are complete, by queue.
    below: BTreeMap<QueueId, u64>,
    /// Further runs of steps.
    runs: Vec<(QueueId, Range<u64>)>,
}

impl Clock {
    fn covers(&self, queue: QueueId, step: u64) -> bool {
        self.below.get(&queue).is_some_and(|&below| step < below)
            || self.runs.iter().any(|(of, run)| *of == queue && run.contains(&step))
    }

    /// Adds all steps of `queue` below `step`.
    pub(crate) fn add_below(&mut self, queue: QueueId, step: u64) {
        let below = self.below.entry(queue).or_default();
        *below = step.max(*below);
        self.tidy();
    }

    fn add_run(&mut self, queue: QueueId, run: Range<u64>) {
        match self.runs.iter_mut().find(|(of, known)| *of == queue && known.start <= run.end && run.start <= known.end)
        {
            Some((_, known)) => *known = known.start.min(run.start)..known.end.max(run.end),
            None => self.runs.push((queue, run)),
        }
        self.tidy();
    }

    /// Adds everything that `other` knows.
    pub(crate) fn join(&mut self, other: &Clock) {
        for (&queue, &below) in &other.below {
            self.add_below(queue, below);
        }
        for (queue, run) in &other.runs {
            self.add_run(*queue, run.clone());
        }
    }

    /// Moves runs that continue a queue's first steps into `below`.
    fn tidy(&mut self) {
        let below = &mut self.below;
        let mut moved = true;
        while moved {
            moved = false;
            self.runs.retain(|(queue, run)| {
                let reached = below.entry(*queue).or_default();
                let joins = run.start <= *reached;
                if joins {
                    moved |= run.end > *reached;
                    *reached = run.end.max(*reached);
                }
                !joins
            });
        }
    }
}

/// An access that a step made to a mapping.
#[derive(Clone)]
struct Access {
    queue: QueueId,
    step: u64,
    range: Range<usize>,
    writes: bool,
    what: Arc<str>,
}

/// Accesses of one mapping that a later one may conflict with.
#[derive(Default)]
pub(crate) struct History {
    accesses: Vec<Access>,
}

/// A queue's place in the order; its worker owns it.
pub(crate) struct QueueOrder {
    id: QueueId,
    next: u64,
    clock: Clock,
}

impl QueueOrder {
    pub(crate) fn new(id: QueueId) -> Self {
        Self { id, next: 0, clock: Clock::default() }
    }

    /// Puts everything after this after what `clock` knows.
    pub(crate) fn wait(&mut self, clock: &Clock) {
        self.clock.join(clock);
    }

    /// Clock that an event carries: all that the queue has done, and what that came after.
    pub(crate) fn so_far(&self) -> Clock {
        let mut clock = self.clock.clone();
        clock.add_below(self.id, self.next);
        clock
    }

    /// Begins a pass. `tracks_inside`: the system orders the steps of this pass, too, where it tracks their memory.
    pub(crate) fn pass(&mut self, tracks_inside: bool) -> PassOrder<'_> {
        let clock = self.clock.clone();
        let start = self.next;
        PassOrder { queue: self, start, ordered_below: start, ordered_ranges: Vec::new(), clock, tracks_inside }
    }
}

/// The order within one pass.
pub(crate) struct PassOrder<'a> {
    queue: &'a mut QueueOrder,
    start: u64,
    /// Steps of this pass below this number come before the next step.
    ordered_below: u64,
    /// Barriers on single resources: a mapping by address, a range of it, and the number below which steps come before the next.
    ordered_ranges: Vec<(usize, Range<usize>, u64)>,
    clock: Clock,
    tracks_inside: bool,
}

/// A range of memory that a step is about to touch.
pub(crate) struct Touch<'a> {
    pub(crate) mapping: &'a Mapping,
    pub(crate) range: Range<usize>,
    pub(crate) writes: bool,
    /// True if the system orders passes of one queue that use it.
    pub(crate) tracked: bool,
    /// The name of the buffer.
    pub(crate) name: &'a str,
}

impl PassOrder<'_> {
    /// Orders all steps so far before those to come.
    pub(crate) fn barrier(&mut self) {
        self.ordered_below = self.queue.next;
    }

    /// Orders accesses of one resource so far before those to come.
    pub(crate) fn barrier_on(&mut self, mapping: &Mapping, range: Range<usize>) {
        self.ordered_ranges.push((address(mapping), range, self.queue.next));
    }

    /// Orders everything that the queue did before this pass.
    pub(crate) fn queue_barrier(&mut self) {
        self.clock.add_below(self.queue.id, self.start);
    }

    /// Clock that a fence updated now carries.
    pub(crate) fn fence(&self) -> Clock {
        let mut clock = self.clock.clone();
        clock.add_run(self.queue.id, self.start..self.queue.next);
        clock
    }

    /// Orders what a fence carries before the steps to come.
    pub(crate) fn wait(&mut self, clock: &Clock) {
        self.clock.join(clock);
    }

    /// Takes the next step. The error names a conflicting access that nothing orders before it.
    pub(crate) fn step(&mut self, what: &str, touches: &[Touch<'_>]) -> Result<(), String> {
        let step = self.queue.next;
        self.queue.next += 1;
        let what: Arc<str> = what.into();
        for touch in touches.iter().filter(|touch| !touch.range.is_empty()) {
            let mut history = touch.mapping.history();
            if let Some(other) = history.accesses.iter().find(|other| {
                (other.writes || touch.writes)
                    && other.range.start < touch.range.end
                    && touch.range.start < other.range.end
                    && !self.is_before(other, step, touch)
            }) {
                let verb = |writes| if writes { "writes" } else { "reads" };
                return Err(format!(
                    "{what} {} {} at {:?}, which no barrier, fence or event orders after: {} {} {:?}",
                    verb(touch.writes),
                    touch.name,
                    touch.range,
                    other.what,
                    verb(other.writes),
                    other.range,
                ));
            }
            // What this access covers and comes after need not be remembered: whoever conflicts with it conflicts with this.
            let pass = &*self;
            history.accesses.retain(|other| {
                let covered = touch.range.start <= other.range.start && other.range.end <= touch.range.end;
                !(covered && (touch.writes || !other.writes) && pass.is_before(other, step, touch))
            });
            let access = Access {
                queue: self.queue.id,
                step,
                range: touch.range.clone(),
                writes: touch.writes,
                what: what.clone(),
            };
            history.accesses.push(access);
        }
        Ok(())
    }

    fn is_before(&self, other: &Access, step: u64, touch: &Touch<'_>) -> bool {
        if other.queue == self.queue.id {
            if other.step >= self.start {
                let tracked = touch.tracked && self.tracks_inside;
                return other.step == step
                    || tracked
                    || other.step < self.ordered_below
                    || self.is_ordered_by_resource(other, touch);
            }
            if touch.tracked {
                return true;
            }
        }
        self.clock.covers(other.queue, other.step)
    }

    /// True if a barrier on a resource that has all bytes in question lies between.
    fn is_ordered_by_resource(&self, other: &Access, touch: &Touch<'_>) -> bool {
        let both = other.range.start.max(touch.range.start)..other.range.end.min(touch.range.end);
        self.ordered_ranges.iter().any(|(mapping, range, below)| {
            *mapping == address(touch.mapping)
                && range.start <= both.start
                && both.end <= range.end
                && other.step < *below
        })
    }
}

fn address(mapping: &Mapping) -> usize {
    std::ptr::from_ref(mapping).addr()
}

static HOST: Mutex<Clock> = Mutex::new(Clock { below: BTreeMap::new(), runs: Vec::new() });

/// Steps that the host has seen complete: work that it commits from now on comes after them.
pub(crate) fn host() -> Clock {
    lock(&HOST).clone()
}

/// The host has seen that `clock` is complete.
pub(crate) fn host_saw(clock: &Clock) {
    lock(&HOST).join(clock);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(mapping: &Mapping, range: Range<usize>, writes: bool) -> Touch<'_> {
        Touch { mapping, range, writes, tracked: false, name: "buffer" }
    }

    #[test]
    fn runs_join_with_what_comes_before_them() {
        let mut clock = Clock::default();
        clock.add_run(1, 10..12);
        clock.add_run(1, 4..10);
        clock.add_run(2, 5..6);
        assert!(clock.covers(1, 4) && clock.covers(1, 11) && !clock.covers(1, 3) && !clock.covers(1, 12));
        assert_eq!(clock.runs, [(1, 4..12), (2, 5..6)]);
        clock.add_below(1, 4);
        assert!(clock.covers(1, 0) && clock.covers(1, 11) && !clock.covers(2, 0));
        assert_eq!((clock.below[&1], clock.runs.len()), (12, 1));
    }

    #[test]
    fn a_chain_of_fences_stays_small() {
        let mapping = Mapping::new(256).expect("memory");
        let (mut queue, mut fence) = (QueueOrder::new(0), Clock::default());
        for _ in 0..1000 {
            let mut pass = queue.pass(false);
            pass.wait(&fence);
            pass.step("write", &[touch(&mapping, 0..64, true), touch(&mapping, 64..256, false)]).expect("ordered");
            pass.barrier();
            pass.step("read", &[touch(&mapping, 0..64, false)]).expect("ordered");
            fence = pass.fence();
        }
        assert_eq!((fence.runs.len(), fence.below[&0]), (0, 2000));
        assert_eq!(mapping.history().accesses.len(), 3, "the last write, the last read of it, and the last other read");
    }

    #[test]
    fn a_conflict_shows_whichever_side_runs_first() {
        for first_writes in [false, true] {
            let mapping = Mapping::new(64).expect("memory");
            let (mut left, mut right) = (QueueOrder::new(1), QueueOrder::new(2));
            left.pass(false).step("left", &[touch(&mapping, 0..8, first_writes)]).expect("nothing before it");
            let conflict = right.pass(false).step("right", &[touch(&mapping, 7..9, !first_writes)]);
            assert!(conflict.is_err_and(|text| text.contains("left")));
            right.wait(&left.so_far());
            right.pass(false).step("right", &[touch(&mapping, 7..9, true)]).expect("an event between");
        }
    }
}
