//! What a run has measured so far: written as it goes, and taken up where another process ended.

use crate::error::SoakError;
use crate::judge::{Verdict, judge};
use crate::settings::Settings;
use crate::subject::{Facts, Footprint};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

/// Events that are kept; what comes after is only counted.
const MAX_EVENTS: usize = 20_000;

/// A whole run, or what there is of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Always `soak`.
    pub benchmark: String,
    /// Program and machine.
    pub origin: Origin,
    /// Settings of all parts.
    pub settings: Settings,
    /// The model and its device.
    pub facts: Facts,
    /// The references that answers are compared with.
    pub references: References,
    /// Time of traffic so far, seconds.
    pub elapsed_s: f64,
    /// Phases that have begun.
    pub phases: usize,
    /// Processes that ran it, one after the other.
    pub parts: Vec<Part>,
    /// Verdicts over what there is.
    pub verdicts: Vec<Verdict>,
    /// Happenings, in order.
    pub events: Vec<Event>,
    /// Events beyond those that are kept.
    pub events_left_out: u64,
    /// Measurements, in order.
    pub windows: Vec<Window>,
}

/// Program and machine of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// Version of the program.
    pub version: String,
    /// Commit that it was built from, or "unknown".
    pub commit: String,
    /// Command line.
    pub command: String,
    /// The model as it was named; null for the bundled one.
    pub model: Option<String>,
    /// The machine, as the system describes it.
    pub machine: Value,
}

/// Answers to every question, computed alone with every optimization off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct References {
    /// Questions.
    pub questions: usize,
    /// Hash over all of them: token ids, text, log-probabilities.
    pub hash: String,
    /// Seconds without a token after which a step counts as stuck: 30, or ten times the longest wait for a first token here.
    pub stuck_after_s: f64,
}

/// A process's part of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Date and time of its start.
    pub started: String,
    /// Time of traffic before it, seconds.
    pub begins_s: f64,
    /// The way it ended; null while it goes on, and for ever where the process ended without saying why.
    pub ended: Option<String>,
}

/// A happening.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Time of traffic, seconds.
    pub at_s: f64,
    /// Its kind: `opened`, `unloaded`, `closed`, `wrong greedy`, `stuck`, …
    pub what: String,
    /// A sentence about it.
    pub detail: String,
}

/// Measurements of about a minute with one set of optimizations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Index of its part.
    pub part: usize,
    /// Its begin, seconds of traffic.
    pub begins_s: f64,
    /// Its length.
    pub seconds: f64,
    /// Optimizations, as `--metal-opts` takes them.
    pub optimizations: String,
    /// Tokens of all answers.
    pub tokens: u64,
    /// Requests by kind, answers by how they ended, faults; engine's counters.
    pub counts: BTreeMap<String, u64>,
    /// The least that the process held while the model was open.
    pub open: Footprint,
    /// The least that it held while no model was; null where there was no such time.
    pub closed: Option<Footprint>,
    /// Balances at the last time without requests; null where there was none.
    pub idle: Option<Idle>,
    /// Balances that did not come out, in sentences.
    pub unbalanced: Vec<Unbalanced>,
    /// Measurements of the speed.
    pub probes: Vec<Probe>,
}

/// A balance that did not come out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unbalanced {
    /// Name of the check.
    pub check: String,
    /// The figures, as a clause.
    pub detail: String,
}

/// Balances of an engine that has no requests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Idle {
    /// Live allocations of the pool (acquired less released) now, and when the model was opened; null with the pool off.
    pub pool_live: Option<(u64, u64)>,
    /// Bytes in use of the pool now, and when the model was opened.
    pub pool_bytes: Option<(u64, u64)>,
    /// Slots of the ring that are free, and all.
    pub ring: Option<(usize, usize)>,
    /// Transfers in flight, and checksums that did not agree.
    pub blit: Option<(usize, u64)>,
    /// Share of KV blocks that somebody holds.
    pub kv_usage: f64,
    /// Requests that run, wait, or are accepted and not ended.
    pub requests: [u64; 3],
    /// Optimizations that are off though they were switched on, with the reason.
    pub fallen_back: Vec<String>,
}

/// One measurement of the speed: the same questions at once on an idle engine, between two calibrations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Its time, seconds of traffic.
    pub at_s: f64,
    /// Generated tokens a second.
    pub tok_s: f64,
    /// Time of the fixed computation right before it, ms.
    pub before_ms: f64,
    /// Time of the fixed computation right after it, ms.
    pub after_ms: f64,
}

impl Probe {
    /// Largest difference of the two calibrations beyond which something else disturbed the machine between them.
    const STEADY: f64 = 0.10;

    /// Tokens in the time of one fixed computation, whatever the machine's own speed: speed ÷ calibration.
    pub fn score(&self) -> f64 {
        self.tok_s * (self.before_ms + self.after_ms) / 2000.0
    }

    /// True if the machine's own speed was the same before and after.
    pub fn is_steady(&self) -> bool {
        let (low, high) = (self.before_ms.min(self.after_ms), self.before_ms.max(self.after_ms));
        low > 0.0 && high <= low * (1.0 + Self::STEADY)
    }
}

impl Record {
    /// Reads a record.
    ///
    /// # Errors
    /// There is no such file, or it is no record of a soak run.
    pub fn read(path: &Path) -> Result<Self, SoakError> {
        let fault = |reason: String| SoakError::File { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|e| fault(e.to_string()))?;
        let record: Self =
            serde_json::from_str(&text).map_err(|e| fault(format!("it is no record of a soak run: {e}")))?;
        if record.benchmark != "soak" {
            return Err(fault(format!("it is a record of {:?}, not of a soak run", record.benchmark)));
        }
        Ok(record)
    }

    /// Writes the record as JSON, and a page beside it: each whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), SoakError> {
        let text = serde_json::to_string(self)
            .map_err(|e| SoakError::File { path: path.to_owned(), reason: e.to_string() })?;
        replace(path, text.as_bytes())
    }

    /// Writes the page.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_page(&self, path: &Path) -> Result<(), SoakError> {
        replace(path, crate::page::page(self).as_bytes())
    }

    /// Things in which another run differs from this one, in sentences: nothing that goes on may change.
    pub(crate) fn differences(&self, settings: &Settings, origin: &Origin) -> Vec<String> {
        let then = serde_json::to_value(&self.settings).unwrap_or_default();
        // Through its text, as the other went: numbers may lose their last digit there.
        let text = serde_json::to_string(settings).unwrap_or_default();
        let now = serde_json::from_str(&text).unwrap_or_default();
        let mut found = Vec::new();
        differ("settings", &then, &now, &mut found);
        differ("machine", &self.origin.machine, &origin.machine, &mut found);
        for (name, then, now) in
            [("version", &self.origin.version, &origin.version), ("commit", &self.origin.commit, &origin.commit)]
        {
            if then != now {
                found.push(format!("{name} was {then} and is {now}"));
            }
        }
        found
    }

    /// Notes an event.
    pub(crate) fn event(&mut self, at_s: f64, what: &str, detail: impl Into<String>) {
        if self.events.len() < MAX_EVENTS {
            self.events.push(Event { at_s, what: what.to_owned(), detail: detail.into() });
        } else {
            self.events_left_out += 1;
        }
    }

    /// Sum of a count over all windows.
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.windows.iter().filter_map(|window| window.counts.get(name)).sum()
    }

    /// Judges anew.
    pub(crate) fn judge(&mut self) {
        self.verdicts = judge(self);
    }
}

/// Names every value in which two differ.
fn differ(name: &str, then: &Value, now: &Value, found: &mut Vec<String>) {
    match (then, now) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            for key in keys {
                let value = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
                differ(&format!("{name}.{key}"), &value(a), &value(b), found);
            }
        }
        (a, b) if a == b => {}
        (a, b) => found.push(format!("{name} was {a} and is {b}")),
    }
}

/// Writes a file beside its place and moves it there: whoever reads it finds the old one or the new one.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), SoakError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    let write = || {
        let mut file = std::fs::File::create(&name)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&name, path)
    };
    write().map_err(|e| SoakError::File { path: path.to_owned(), reason: e.to_string() })
}
