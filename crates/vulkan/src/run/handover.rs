use super::counter::Ticket;
use super::dispatcher::{Dispatcher, Submissions};
use super::flight::{Flight, Load};
use super::schedule::{Driver, Entry, Handed};
use crate::error::driver;
use crate::record::Tape;
use ash::vk;
use mlx_serving_device::DeviceError;
use std::sync::atomic::Ordering::Relaxed;

/// Gives pieces to the driver, under the executor's lock.
pub(super) struct Handover<'a> {
    pub(super) dispatcher: &'a Dispatcher,
    pub(super) pending: &'a mut Submissions,
}

impl Handover<'_> {
    /// The value of the other queue's semaphore to wait for. Also for what the host knows to have ended: only the semaphore makes
    /// visible what another queue wrote.
    fn after(&mut self, ticket: Ticket, after: Option<u64>) -> Option<u64> {
        let after = after.unwrap_or(0).max(self.pending.reached[ticket.queue.other() as usize]);
        let waited = &mut self.pending.waited[ticket.queue as usize];
        (after > *waited).then(|| {
            *waited = after;
            after
        })
    }

    fn submit(&mut self, tape: Option<&Tape>, ticket: Ticket, after: Option<u64>) -> Result<(), vk::Result> {
        if self.dispatcher.refuse.swap(false, Relaxed) {
            return Err(vk::Result::ERROR_OUT_OF_DEVICE_MEMORY);
        }
        let (own, other) = (ticket.queue as usize, ticket.queue.other() as usize);
        let (signals, signal_values) = ([self.dispatcher.semaphores[own]], [ticket.value]);
        let (waits, stages) = ([self.dispatcher.semaphores[other]], [vk::PipelineStageFlags::ALL_COMMANDS]);
        let mut values = vk::TimelineSemaphoreSubmitInfo::default().signal_semaphore_values(&signal_values);
        let mut info = vk::SubmitInfo::default().signal_semaphores(&signals);
        // A list that is there and empty is bad style to the validation layer.
        if after.is_some() {
            values = values.wait_semaphore_values(after.as_slice());
            info = info.wait_semaphores(&waits).wait_dst_stage_mask(&stages);
        }
        let commands = tape.map(|tape| tape.commands);
        if commands.is_some() {
            info = info.command_buffers(commands.as_slice());
        }
        let info = info.push_next(&mut values);
        // SAFETY: the lock keeps others from the queues; what the commands use is kept until they have ended.
        unsafe { self.dispatcher.gpu.raw.queue_submit(self.dispatcher.queues[own], &[info], vk::Fence::null()) }
    }
}

impl Driver<Option<Tape>, Load> for Handover<'_> {
    fn hand(&mut self, tape: &Option<Tape>, load: &mut Load, ticket: Ticket, after: Option<u64>) -> Handed {
        let (wait, handed) = (self.after(ticket, after), self.dispatcher.now());
        match self.submit(tape.as_ref(), ticket, wait) {
            Ok(()) => {
                load.after = load.after.max(after.unwrap_or(0));
                self.dispatcher.pieces.fetch_add(1, Relaxed);
                load.running.extend(tape.map(|tape| (tape, handed)));
                Handed::Done
            }
            Err(error) => {
                let error = driver("a submission", error);
                if let DeviceError::Lost(why) = &error {
                    self.dispatcher.gpu.mark_lost(why);
                }
                load.refused = Some(error);
                Handed::Refused
            }
        }
    }

    fn sent(&mut self, entry: Entry<Option<Tape>, Load>, ticket: Ticket) {
        let number = self.pending.sent;
        self.pending.sent += 1;
        let flight = Flight { ticket: ticket.value, number, signals: entry.signals, load: entry.payload };
        self.pending.flights[ticket.queue as usize].push_back(flight);
        self.dispatcher.arrived[ticket.queue as usize].notify_all();
    }
}
