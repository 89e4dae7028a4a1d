//! Status and commands that an engine's handle and its thread share.

use crate::clock::Clock;
use crate::error::EngineError;
use crate::events::{Backlog, Sender};
use crate::masks::rules::Rules;
use crate::metrics::Metrics;
use crate::request::Request;
use mlx_serving_metal_layer::{Intervals, LayerMetrics, LayerStats, MetalLayer};
use mlx_serving_text::StopMatcher;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Health of an engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// Its thread runs.
    pub alive: bool,
    /// Time that a step has taken so far, not counting time in which this process was stopped; `None` while idle.
    pub step: Option<Duration>,
    /// Steps completed since the start: moves while the engine works.
    pub heartbeat: u64,
    /// Reason for its end, if it has stopped.
    pub reason: Option<String>,
    /// True once all weights are in the device's memory. Requests that come before are taken, and wait.
    pub resident: bool,
}

/// Submissions of an engine so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// Steps.
    pub steps: u64,
    /// Host time from their plans to their submissions.
    pub encoding: Duration,
}

/// Status of an engine, which its thread writes and its handle reads.
#[derive(Debug)]
pub(crate) struct EngineStatus {
    pub metrics: Metrics,
    pub backlog: Arc<Backlog>,
    /// `None` if the configuration hides them.
    pub layer_metrics: Option<LayerMetrics>,
    pub intervals: Intervals,
    /// Requests that may run and wait.
    pub max_live: usize,
    /// Requests accepted and not yet ended.
    live: Arc<AtomicUsize>,
    heartbeat: AtomicU64,
    /// Begin of the step in flight, milliseconds of `clock` plus one; 0 while idle.
    step_since: AtomicU64,
    clock: Clock,
    stats: Mutex<LayerStats>,
    pace: Mutex<Pace>,
    stopped: Mutex<Option<String>>,
    resident: AtomicBool,
    draining: AtomicBool,
}

/// Messages of the handle to the thread.
#[derive(Debug)]
pub(crate) enum Command {
    Submit(Box<Arrival>),
    /// A reader for which a sequence waited has gone on.
    Look,
    Stop,
}

/// A checked request for the engine's thread.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// Without its grammar.
    pub request: Request,
    /// Its grammar.
    pub rules: Option<Arc<dyn Rules>>,
    pub stops: StopMatcher,
    pub events: Sender,
    pub live: Live,
    pub at: Instant,
}

/// Counts a request as live until it is dropped.
#[derive(Debug)]
pub(crate) struct Live(Arc<AtomicUsize>);

impl EngineStatus {
    /// Status of an engine that starts.
    pub(crate) fn new(
        metrics: Metrics,
        backlog: Arc<Backlog>,
        max_live: usize,
        layer: &MetalLayer,
    ) -> std::io::Result<Self> {
        Ok(Self {
            metrics,
            backlog,
            layer_metrics: layer.metrics().cloned(),
            intervals: layer.intervals().clone(),
            max_live,
            live: Arc::default(),
            heartbeat: AtomicU64::new(0),
            step_since: AtomicU64::new(0),
            clock: Clock::start()?,
            stats: Mutex::new(layer.stats()),
            pace: Mutex::default(),
            stopped: Mutex::new(None),
            resident: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        })
    }

    /// Places for as many live requests, if there are so many.
    pub(crate) fn reserve(&self, asked: usize) -> Result<Vec<Live>, EngineError> {
        let limit = self.max_live;
        let with_these = |live: usize| live.checked_add(asked).filter(|&live| live <= limit);
        self.live
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, with_these)
            .map_err(|live| EngineError::Overloaded { live, limit, asked })?;
        let places = (0..asked).map(|_| Live(self.live.clone())).collect();
        // Whoever drains sees these requests as live, or they see that it drains.
        if self.draining() {
            return Err(EngineError::Stopped("it is draining".into()));
        }
        Ok(places)
    }

    /// Requests accepted and not yet ended.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Acquire)
    }

    pub(crate) fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub(crate) fn begin_step(&self) {
        self.step_since.store(self.clock.now().as_millis() as u64 + 1, Ordering::Relaxed);
    }

    /// A step has ended; if `more` are in flight, the next one's time begins.
    pub(crate) fn end_step(&self, more: bool) {
        self.beat();
        if more {
            self.begin_step();
        } else {
            self.step_since.store(0, Ordering::Relaxed);
        }
    }

    /// Shows that the thread works.
    pub(crate) fn beat(&self) {
        self.heartbeat.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_submitted(&self, encoding: Duration) {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        pace.steps += 1;
        pace.encoding += encoding;
    }

    pub(crate) fn pace(&self) -> Pace {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note_resident(&self, resident: bool) {
        self.resident.store(resident, Ordering::Release);
    }

    pub(crate) fn publish(&self, stats: LayerStats) {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }

    pub(crate) fn stats(&self) -> LayerStats {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The engine has ended.
    pub(crate) fn stop(&self, reason: String) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    /// Reason for the engine's end.
    pub(crate) fn reason(&self) -> Option<String> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Health of an engine whose thread is `running`.
    pub(crate) fn health(&self, running: bool) -> Health {
        let since = self.step_since.load(Ordering::Relaxed);
        let now = self.clock.now().as_millis() as u64 + 1;
        let reason = self.reason();
        Health {
            alive: running && reason.is_none(),
            step: (since > 0).then(|| Duration::from_millis(now.saturating_sub(since))),
            heartbeat: self.heartbeat.load(Ordering::Relaxed),
            reason,
            resident: self.resident.load(Ordering::Acquire),
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
impl Live {
    /// A request that no engine counts.
    pub(crate) fn uncounted() -> Self {
        Live(Arc::new(AtomicUsize::new(1)))
    }
}
