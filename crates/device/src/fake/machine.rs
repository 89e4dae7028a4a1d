use super::log::Event;
use super::options::{FakeOptions, Fault, Latency};
use crate::{Counters, DeviceError, QueueKind, Result};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Events kept.
const LOG_LIMIT: usize = 1 << 16;

/// Clock, settings, counters and log of a device, which all its parts share.
#[derive(Debug)]
pub(super) struct Machine {
    epoch: Instant,
    /// True if ops compute; else they cost only their latency.
    pub(super) compute: bool,
    /// True if the host reaches private memory.
    pub(super) unified_memory: bool,
    /// Bytes that may be allocated at a time.
    pub(super) memory_budget: u64,
    /// Bytes of the longest buffer that an op may refer to.
    pub(super) max_buffer_len: u64,
    settings: Mutex<Settings>,
    changed: Condvar,
    log: Mutex<VecDeque<Event>>,
    pub(super) closing: AtomicBool,
    pub(super) timelines: AtomicU64,
    pub(super) allocations: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) submissions: AtomicU64,
    /// Nanoseconds for which the compute queue ran ops.
    pub(super) busy: AtomicU64,
}

/// Settings of a control.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) latency: Latency,
    pub(super) allocations: Fault,
    pub(super) compute: QueueFaults,
    pub(super) transfer: QueueFaults,
    /// Times that a control has released what hangs.
    pub(super) releases: u64,
    /// Reason for the device's loss, if it is lost.
    pub(super) lost: Option<String>,
}

/// Faults of one queue.
#[derive(Debug, Default)]
pub(super) struct QueueFaults {
    pub(super) fail_copies: Fault,
    pub(super) corrupt_copies: Fault,
    pub(super) fail: Fault,
    pub(super) hang: Fault,
    pub(super) drop_signal: Fault,
}

impl Settings {
    pub(super) fn queue(&mut self, kind: QueueKind) -> &mut QueueFaults {
        match kind {
            QueueKind::Compute => &mut self.compute,
            QueueKind::Transfer => &mut self.transfer,
        }
    }
}

impl Machine {
    pub(super) fn new(options: &FakeOptions) -> Self {
        Self {
            epoch: Instant::now(),
            compute: options.compute,
            unified_memory: options.unified_memory,
            memory_budget: options.memory_budget,
            max_buffer_len: options.max_buffer_len,
            settings: Mutex::new(Settings { latency: options.latency, ..Settings::default() }),
            changed: Condvar::new(),
            log: Mutex::default(),
            closing: AtomicBool::new(false),
            timelines: AtomicU64::new(0),
            allocations: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            submissions: AtomicU64::new(0),
            busy: AtomicU64::new(0),
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    pub(super) fn counters(&self) -> Counters {
        Counters {
            allocations: self.allocations.load(SeqCst),
            bytes_allocated: self.bytes.load(SeqCst),
            submissions: self.submissions.load(SeqCst),
            busy: Duration::from_nanos(self.busy.load(SeqCst)),
        }
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes settings and wakes whoever waits for a change.
    pub(super) fn change(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings());
        self.changed.notify_all();
    }

    /// True if a fault strikes now.
    pub(super) fn struck(&self, fault: impl FnOnce(&mut Settings) -> &mut Fault) -> bool {
        fault(&mut self.settings()).strikes()
    }

    pub(super) fn latency(&self) -> Latency {
        self.settings().latency
    }

    /// Fails once the device is lost.
    pub(super) fn alive(&self) -> Result<()> {
        alive(&self.settings())
    }

    /// Lets time pass; fails at once when the device is lost.
    pub(super) fn sleep(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        let mut settings = self.settings();
        loop {
            alive(&settings)?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            settings = self.changed.wait_timeout(settings, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Hangs until released; fails when the device is lost or dropped.
    pub(super) fn hang(&self) -> Result<()> {
        let mut settings = self.settings();
        let before = settings.releases;
        while settings.releases == before {
            alive(&settings)?;
            if self.closing.load(SeqCst) {
                return Err(DeviceError::Lost("the device was dropped while a submission hung".into()));
            }
            settings = self.changed.wait(settings).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Ends all hanging and waiting for what nobody will signal.
    pub(super) fn close(&self) {
        self.change(|_| self.closing.store(true, SeqCst));
    }

    pub(super) fn note(&self, event: Event) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() == LOG_LIMIT {
            log.pop_front();
        }
        log.push_back(event);
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(super) fn clear_events(&self) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn alive(settings: &Settings) -> Result<()> {
    settings.lost.as_ref().map_or(Ok(()), |reason| Err(DeviceError::Lost(reason.clone())))
}
