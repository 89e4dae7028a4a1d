use crate::allocate::{Allocate, Allocation};
use crate::config::{CommandBufferRingConfig, FallbackPolicy};
use crate::frontier::Track;
use crate::observe::intervals::Intervals;
use crate::observe::stats::RingStats;
use crate::submit::{InFlight, Lease, Slot, Submit};
use crate::wiring::Wiring;
use mlx_serving_device::{Device, DeviceError, Point, Result, Status, Storage, Submission};
use mlx_serving_metrics::Histogram;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Fallen back, the ring is tried again after this many steps in a row that ended in time.
const STEPS_TO_RECOVER: u32 = 256;

/// Up to `ring_size` slots in flight, each with its own step inputs, so that one step is encoded while others run. One thread owns
/// it, so it needs no lock.
///
/// A wait for a slot that outlasts `max_wait_ms` makes it fall back to one slot in flight: whatever holds the device up, no more
/// work is piled up behind it. It stays so until [`Self::reset`], which it calls itself once the device keeps time again.
#[derive(Debug)]
pub struct CommandBufferRing {
    device: Arc<dyn Device>,
    /// Slots, dropped before the allocator, which says at its end what is not released.
    slots: Vec<RingSlot>,
    allocate: Arc<dyn Allocate>,
    compute: Track,
    config: CommandBufferRingConfig,
    policy: FallbackPolicy,
    /// The slot to hand out next, if it is free.
    next: usize,
    /// Oldest first: slots complete in the order of submission.
    in_flight: VecDeque<Flying>,
    fallen_back: Option<FallenBack>,
    stats: RingStats,
    /// Seconds of every wait for a slot.
    wait: Histogram,
    intervals: Intervals,
}

#[derive(Debug)]
struct RingSlot {
    inputs: Allocation,
    /// Shared by the slot and whoever records it.
    lease: Lease,
}

/// A slot in flight, known by the value that it signals.
#[derive(Debug)]
struct Flying {
    slot: usize,
    value: u64,
    submission: Arc<dyn Submission>,
}

#[derive(Debug)]
struct FallenBack {
    reason: String,
    /// Steps in a row that have ended in time since; `None` where time does not help.
    in_time: Option<u32>,
}

impl CommandBufferRing {
    /// Submits to the compute queue of `device`, signaling `compute`.
    pub fn new(
        wiring: &Wiring,
        allocate: Arc<dyn Allocate>,
        compute: &Track,
        config: &CommandBufferRingConfig,
    ) -> Self {
        Self {
            device: wiring.device.clone(),
            allocate,
            compute: compute.clone(),
            config: config.clone(),
            policy: wiring.policy,
            slots: Vec::new(),
            next: 0,
            in_flight: VecDeque::new(),
            fallen_back: None,
            stats: RingStats { ring_size: config.ring_size, ..RingStats::default() },
            wait: wiring.metrics.ring_wait.clone(),
            intervals: wiring.intervals.clone(),
        }
    }

    /// Ends a fallback: as many slots in flight as the ring has.
    pub fn reset(&mut self) {
        if self.fallen_back.take().is_some() && self.policy.log {
            tracing::info!(depth = self.depth(), "the command-buffer ring is in use again");
        }
    }

    /// Counts anew. Slots that are out now count as acquired, so that the totals agree once they are free.
    pub fn reset_statistics(&mut self) {
        let total_acquired = (self.in_flight.len() + self.recording()) as u64;
        let total_submitted = self.in_flight.len() as u64;
        self.stats =
            RingStats { ring_size: self.stats.ring_size, total_acquired, total_submitted, ..RingStats::default() };
    }

    /// Slots that are being recorded.
    fn recording(&self) -> usize {
        self.slots.iter().filter(|slot| Arc::strong_count(&slot.lease) > 1).count()
    }

    /// Index of a slot that is neither being recorded nor in flight, from `next` on.
    fn free_slot(&self) -> Option<usize> {
        let count = self.slots.len();
        (0..count).map(|i| (self.next + i) % count).find(|&i| {
            Arc::strong_count(&self.slots[i].lease) == 1 && self.in_flight.iter().all(|flying| flying.slot != i)
        })
    }

    /// Waits at most `limit` until `submission` has ended, and says how. After `max_wait_ms` the ring falls back and goes on
    /// waiting; without graceful fallback the wait ends there.
    fn wait(&mut self, slot: usize, submission: &dyn Submission, limit: Duration) -> Result<()> {
        if submission.status() != Status::Pending {
            self.note_in_time();
            return submission.wait(Duration::ZERO);
        }
        let max_wait = Duration::from_millis(self.config.max_wait_ms);
        let began = Instant::now();
        let mut outcome = submission.wait(max_wait.min(limit));
        let late = is_timeout(&outcome) && limit >= max_wait;
        if late {
            self.stats.timeout_events += 1;
            let reason = format!(
                "slot {slot} did not complete within max_wait_ms, {} ms; raise it if this model's steps take that long",
                self.config.max_wait_ms
            );
            if !self.policy.graceful {
                return Err(DeviceError::CommandFailed(reason));
            }
            self.fall_back(reason, Some(0));
            outcome = submission.wait(limit - max_wait);
        }
        self.note_wait(slot, began.elapsed());
        if !late && !is_timeout(&outcome) {
            self.note_in_time();
        }
        outcome
    }

    fn fall_back(&mut self, reason: String, in_time: Option<u32>) {
        if self.fallen_back.is_none() && self.policy.log {
            tracing::warn!(reason, "the command-buffer ring falls back to one slot in flight");
        }
        self.fallen_back = Some(FallenBack { reason, in_time });
    }

    fn note_in_time(&mut self) {
        let Some(FallenBack { in_time: Some(steps), .. }) = &mut self.fallen_back else { return };
        *steps += 1;
        if *steps >= STEPS_TO_RECOVER {
            self.reset();
        }
    }

    fn note_wait(&mut self, slot: usize, took: Duration) {
        if self.config.log_wait_events {
            tracing::info!(slot, us = took.as_micros() as u64, "waited for a slot");
        }
        if self.config.track_statistics {
            let us = took.as_secs_f64() * 1e6;
            self.stats.wait_events += 1;
            self.stats.avg_wait_time_us += (us - self.stats.avg_wait_time_us) / self.stats.wait_events as f64;
            self.stats.max_wait_time_us = self.stats.max_wait_time_us.max(us);
            self.wait.observe(took.as_secs_f64());
        }
    }
}

fn is_timeout(outcome: &Result<()>) -> bool {
    matches!(outcome, Err(DeviceError::Timeout { .. }))
}

impl Submit for CommandBufferRing {
    /// Reserves the step inputs of all slots. With graceful fallback, too little memory for them leaves a ring of one slot.
    fn reserve_inputs(&mut self, bytes: u64) -> Result<()> {
        let slots: Result<Vec<RingSlot>> = (0..self.config.ring_size)
            .map(|_| self.allocate.allocate(bytes, Storage::Shared, "step inputs"))
            .map(|inputs| inputs.map(|inputs| RingSlot { inputs, lease: Lease::default() }))
            .collect();
        self.slots = match slots {
            Ok(slots) => slots,
            Err(error) if self.policy.graceful => {
                let inputs = self.allocate.allocate(bytes, Storage::Shared, "step inputs")?;
                self.fall_back(
                    format!("no memory for the step inputs of {} slots: {error}", self.config.ring_size),
                    None,
                );
                vec![RingSlot { inputs, lease: Lease::default() }]
            }
            Err(error) => return Err(error),
        };
        self.next = 0;
        self.stats.ring_size = self.slots.len();
        Ok(())
    }

    fn depth(&self) -> usize {
        if self.fallen_back.is_some() { 1 } else { self.config.ring_size }
    }

    fn acquire(&mut self) -> Result<Slot> {
        while self.in_flight.len() >= self.depth() {
            let Some(Flying { slot, submission, .. }) = self.in_flight.front() else { break };
            let (slot, submission) = (*slot, submission.clone());
            // The step's outcome is for whoever completes it; here only its slot counts.
            let outcome = self.wait(slot, submission.as_ref(), Duration::from_millis(self.config.max_wait_ms));
            if submission.status() == Status::Pending {
                return outcome.and(Err(DeviceError::Contract("a wait ended before its step".into())));
            }
            self.in_flight.pop_front();
        }
        let index = self.free_slot().ok_or_else(|| {
            DeviceError::Contract(format!(
                "{} of {} slots are being recorded and none is free; submit or drop one",
                self.recording(),
                self.slots.len()
            ))
        })?;
        let encoder = self.device.compute_queue().encoder()?;
        self.next = (index + 1) % self.slots.len();
        self.stats.rotations += u64::from(self.next == 0);
        self.stats.total_acquired += 1;
        let slot = &self.slots[index];
        Ok(Slot { index, inputs: (*slot.inputs).clone(), encoder, _lease: slot.lease.clone() })
    }

    fn submit(&mut self, slot: Slot, waits: &[Point]) -> Result<InFlight> {
        let commands = slot.encoder.finish()?;
        let point = self.compute.issue();
        let submission = self.device.compute_queue().submit(commands, waits, Some(point.clone()))?;
        self.stats.total_submitted += 1;
        self.in_flight.push_back(Flying { slot: slot.index, value: point.value, submission: submission.clone() });
        Ok(InFlight { index: slot.index, submission, point })
    }

    fn complete(&mut self, in_flight: &InFlight, limit: Duration) -> Result<()> {
        let outcome = self.wait(in_flight.index, in_flight.submission.as_ref(), limit);
        if in_flight.submission.status() != Status::Pending {
            self.intervals.note_step(in_flight.submission.as_ref());
            self.in_flight.retain(|flying| flying.value > in_flight.point.value);
        }
        outcome
    }

    fn note_discarded(&mut self, rows: u64) {
        self.stats.discarded_steps += rows;
    }

    fn fallen_back(&self) -> Option<String> {
        self.fallen_back.as_ref().map(|f| f.reason.clone())
    }

    fn stats(&self) -> RingStats {
        let (in_flight, recording) = (self.in_flight.len(), self.recording());
        RingStats {
            available_count: self.slots.len().saturating_sub(in_flight + recording),
            in_flight_count: in_flight,
            total_released: self.stats.total_acquired - (in_flight + recording) as u64,
            ..self.stats.clone()
        }
    }
}

#[cfg(test)]
mod tests;
