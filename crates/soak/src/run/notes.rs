//! What a run writes into its record: windows, events, faults.

use super::{Halt, Progress, Run};
use crate::client::Outcome;
use crate::record::Window;
use crate::subject::Footprint;

impl Run<'_> {
    /// Looks at what the process holds.
    pub(super) fn look(&mut self) {
        self.looked_s = self.now();
        self.window.open = self.window.open.least(self.subject.footprint());
    }

    /// Takes over what came of a turn.
    pub(super) fn absorb(&mut self, outcome: Outcome) {
        self.window.tokens += outcome.tokens;
        for (name, count) in outcome.counts {
            *self.window.counts.entry(name).or_default() += count;
        }
        for (what, detail) in outcome.faults {
            let detail = format!("with {}: {detail}", self.window.optimizations);
            self.note(what, detail.clone());
            (self.told)(Progress::Fault(&format!("{what}: {detail}")));
        }
    }

    /// Counts what the engine itself has counted since the last time.
    pub(super) fn count_engine(&mut self) {
        let Some(gauges) = self.subject.gauges() else { return };
        for (name, now) in gauges.counters.into_iter().chain([("steps", gauges.steps)]) {
            let before = self.counters.insert(name, now).unwrap_or(0);
            *self.window.counts.entry(name.to_owned()).or_default() += now.saturating_sub(before);
        }
    }

    pub(super) fn begin_window(&mut self, set: &str) {
        let part = self.record.parts.len() - 1;
        self.window = Window { part, begins_s: self.now(), optimizations: set.to_owned(), ..Window::default() };
    }

    pub(super) fn end_window(&mut self) {
        self.count_engine();
        let now = self.now();
        self.record.elapsed_s = now;
        let mut window = std::mem::take(&mut self.window);
        window.seconds = now - window.begins_s;
        // One that ended before anything happened says nothing.
        if window.open != Footprint::default() || window.tokens > 0 {
            self.record.windows.push(window);
        }
        self.record.judge();
        (self.told)(Progress::Window(&self.record));
    }

    pub(super) fn note(&mut self, what: &str, detail: String) {
        let now = self.now();
        self.record.event(now, what, detail);
    }

    /// Counts a fault, notes it and tells of it.
    pub(super) fn fault(&mut self, what: &str, detail: String) {
        *self.window.counts.entry(what.to_owned()).or_default() += 1;
        let detail = format!("with {}: {detail}", self.window.optimizations);
        (self.told)(Progress::Fault(&format!("{what}: {detail}")));
        self.note(what, detail);
    }

    pub(super) fn broken<T>(&mut self, what: &str, detail: String) -> Result<T, Halt> {
        self.fault(what, detail);
        Err(Halt::Broken)
    }

    /// Nothing has come for too long.
    pub(super) fn stuck<T>(&mut self, clients: String) -> Result<T, Halt> {
        let state = self.subject.gauges().map_or("no engine".into(), |g| {
            let step = g.step_s.map_or("no step is in flight".into(), |s| format!("a step takes {s:.1} s so far"));
            format!("{} run, {} wait, {} steps, {step}", g.running, g.waiting, g.steps)
        });
        let limit = self.record.references.stuck_after_s;
        self.broken("stuck", format!("no token in {limit:.0} s; engine: {state}; requests: {clients}"))
    }
}
