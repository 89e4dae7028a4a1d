//! Submissions that the driver was handed, and their end.

use super::clock::{Busy, Clock};
use super::counter::Counter;
use super::profile::Profile;
use super::schedule::Mark;
use crate::find::Gpu;
use crate::record::{Held, Lease, Recorder, Tape};
use ash::vk;
use mlx_serving_device::{DeviceError, Result, Times};
use mlx_serving_kernels::fault;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// End of a submission, for whoever asks.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// 1 when it has ended.
    pub(super) done: Arc<Counter>,
    pub(super) outcome: OnceLock<(Result<()>, Option<Times>)>,
}

/// Belongings of a submission until it has ended.
pub(super) struct Load {
    pub(super) ending: Arc<Ending>,
    pub(super) lease: Lease,
    pub(super) held: Held,
    /// Keeps the pipelines.
    pub(super) recorder: Arc<Recorder>,
    /// True if there are fault words to read.
    pub(super) launched: bool,
    /// Command buffers that the driver has, and since when.
    pub(super) running: Vec<(Tape, Duration)>,
    /// Value of the other queue's semaphore that it depends on, 0 if it does not.
    pub(super) after: u64,
    /// Error with which the driver refused a piece.
    pub(super) refused: Option<DeviceError>,
}

/// A submission of which the driver has everything: it has ended when its queue's semaphore reaches `ticket`.
pub(super) struct Flight {
    pub(super) ticket: u64,
    /// Count of the submissions that went before, on both queues: none depends on one that went later.
    pub(super) number: u64,
    pub(super) signals: Vec<Mark>,
    pub(super) load: Load,
}

impl Load {
    /// Result of the submission, once the device has finished it.
    pub(super) fn outcome(&self) -> Result<()> {
        if let Some(error) = &self.refused {
            return Err(error.clone());
        }
        let words = if self.launched { self.lease.fault.read()? } else { [0, 0] };
        fault::error(words).map_or(Ok(()), Err)
    }

    /// Ends the submission: the memory is released, then the end shows, then its points are reached.
    pub(super) fn end(self, signals: &[Mark], outcome: Result<()>, times: Option<Times>) {
        let Self { ending, lease, held, recorder, .. } = self;
        drop((lease, held, recorder));
        // A submission ends once, so that nothing is there yet.
        let _ = ending.outcome.set((outcome, times));
        signals.iter().for_each(|mark| mark.counter.raise(mark.value));
    }
}

/// Times of one queue.
pub(super) struct Stopwatch {
    /// Bits of a timestamp that count; 0 without timestamps.
    pub(super) bits: u32,
    pub(super) busy: Busy,
    pub(super) profile: Profile,
}

impl Stopwatch {
    /// The times of everything that ran for `load`, which ended at `ended`: (began, ended) where the queue has timestamps.
    pub(super) fn stop(&mut self, gpu: &Gpu, clock: &mut Clock, load: &Load, ended: Duration) -> Option<Times> {
        let mut whole: Option<Times> = None;
        for (tape, handed) in &load.running {
            let within = (*handed, ended);
            let run = match ticks(gpu, tape) {
                [Some(began), Some(stopped)] => clock.run([began, stopped], self.bits, within),
                _ => within,
            };
            let (began, stopped) = self.busy.add(run);
            if let Some(label) = tape.label {
                self.profile.add(label, stopped - began);
            }
            whole = Some((whole.map_or(began, |(first, _)| first), stopped));
        }
        whole.filter(|_| self.bits > 0)
    }

    /// Adds to `busy` what has run of `load` up to `now`.
    pub(super) fn look(&self, gpu: &Gpu, clock: &Clock, load: &Load, now: Duration, busy: &mut Busy) {
        for (tape, handed) in &load.running {
            if let [Some(began), stopped] = ticks(gpu, tape) {
                let time = |ticks| clock.time(ticks, self.bits).map_or(now, |time| time.clamp(*handed, now));
                busy.add((time(began), stopped.map_or(now, time)));
            }
        }
    }
}

/// Ticks of begin and end, as far as they are known.
fn ticks(gpu: &Gpu, tape: &Tape) -> [Option<u64>; 2] {
    // Each a value and whether it is there.
    let mut found = [[0u64; 2]; 2];
    let flags = vk::QueryResultFlags::TYPE_64 | vk::QueryResultFlags::WITH_AVAILABILITY;
    if let Some(queries) = tape.queries {
        // SAFETY: the pool is alive, and has the two queries.
        let outcome = unsafe { gpu.raw.get_query_pool_results(queries, 0, &mut found, flags) };
        if !matches!(outcome, Ok(()) | Err(vk::Result::NOT_READY)) {
            return [None, None];
        }
    }
    found.map(|[ticks, there]| (there != 0).then_some(ticks))
}
