//! Record of what a run has measured so far: written as it goes, and taken up where another process ended.

use crate::error::SoakError;
use crate::judge::{Verdict, judge};
use crate::settings::{MOST_CONCURRENCY, Settings, YEAR_S};
use crate::subject::{Facts, Footprint};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::Path;

/// Events that are kept; what comes after is only counted.
const MAX_EVENTS: usize = 20_000;

/// Largest time of a run, seconds: the longest run, each minute of which was lengthened by answers that take as long again.
const MOST_S: f64 = 2.0 * YEAR_S as f64;
/// Largest count of a window: a file of at most [`Record::MOST_BYTES`] has too few of them for their sum to overflow.
const MOST_COUNT: u64 = 1 << 36;
/// Largest size of a process, bytes; descriptors and threads are fewer.
const MOST_HELD: u64 = 1 << 50;

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
    /// Largest file of a record: a year's, at 1.7 KB a minute, is 0.9 GB.
    const MOST_BYTES: u64 = 1 << 30;

    /// Reads a record.
    ///
    /// # Errors
    /// There is no such file, or it is not a record of a soak run, or one that was damaged.
    pub fn read(path: &Path) -> Result<Self, SoakError> {
        let fault = |reason: String| SoakError::File { path: path.to_owned(), reason };
        // Opening a pipe would wait for whoever writes to it, and a device has no end.
        let told = std::fs::metadata(path).map_err(|e| fault(e.to_string()))?;
        if !told.is_file() {
            return Err(fault("it is not a regular file, and no record of a soak run".into()));
        }
        let (most, mut text) = (Self::MOST_BYTES, String::new());
        let file = std::fs::File::open(path).map_err(|e| fault(e.to_string()))?;
        if told.len() > most
            || file.take(most).read_to_string(&mut text).map_err(|e| fault(e.to_string()))? as u64 == most
        {
            return Err(fault(format!("it is not a record of a soak run: it has {most} bytes or more")));
        }
        let record: Self =
            serde_json::from_str(&text).map_err(|e| fault(format!("it is not a record of a soak run: {e}")))?;
        if record.benchmark != "soak" {
            return Err(fault(format!("it is a record of {:?}, not of a soak run", record.benchmark)));
        }
        record.check().map_err(|reason| fault(format!("it is damaged: {reason}")))?;
        Ok(record)
    }

    /// Refuses values that no run writes: sums or waits made of them would overflow or never end. A clause.
    fn check(&self) -> Result<(), String> {
        let settings = &self.settings;
        within("settings.duration_s", settings.duration_s, 1.0, YEAR_S as f64)?;
        within("settings.phase_s", settings.phase_s, 1e-3, YEAR_S as f64)?;
        within("settings.window_s", settings.window_s, 1e-3, YEAR_S as f64)?;
        within("settings.concurrency", settings.concurrency as f64, 1.0, MOST_CONCURRENCY as f64)?;
        within("references.stuck_after_s", self.references.stuck_after_s, 1.0, YEAR_S as f64)?;
        within("elapsed_s", self.elapsed_s, 0.0, MOST_S)?;
        count("phases", self.phases as u64)?;
        count("events_left_out", self.events_left_out)?;
        for (i, part) in self.parts.iter().enumerate() {
            within(&format!("parts[{i}].begins_s"), part.begins_s, 0.0, MOST_S)?;
        }
        for (i, event) in self.events.iter().enumerate() {
            within(&format!("events[{i}].at_s"), event.at_s, 0.0, MOST_S)?;
        }
        for (i, window) in self.windows.iter().enumerate() {
            if window.part >= self.parts.len() {
                let (part, parts) = (window.part, self.parts.len());
                return Err(format!("windows[{i}] is of part {part}, and there are {parts} parts"));
            }
            window.check().map_err(|reason| format!("windows[{i}].{reason}"))?;
        }
        Ok(())
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

impl Window {
    fn check(&self) -> Result<(), String> {
        within("begins_s", self.begins_s, 0.0, MOST_S)?;
        within("seconds", self.seconds, 0.0, MOST_S)?;
        count("tokens", self.tokens)?;
        for (name, value) in &self.counts {
            count(&format!("counts.{name:?}"), *value)?;
        }
        for held in [Some(self.open), self.closed].into_iter().flatten() {
            let Footprint { resident_bytes, descriptors, threads } = held;
            for value in [resident_bytes, descriptors, threads].into_iter().flatten() {
                if value > MOST_HELD {
                    return Err(format!("open or closed is {value}, more than a process holds"));
                }
            }
        }
        for (i, probe) in self.probes.iter().enumerate() {
            within(&format!("probes[{i}].at_s"), probe.at_s, 0.0, MOST_S)?;
            for (name, value) in [("tok_s", probe.tok_s), ("before_ms", probe.before_ms), ("after_ms", probe.after_ms)]
            {
                within(&format!("probes[{i}].{name}"), value, 0.0, 1e12)?;
            }
        }
        Ok(())
    }
}

fn count(name: &str, value: u64) -> Result<(), String> {
    if value <= MOST_COUNT { Ok(()) } else { Err(format!("{name} is {value}, more than a run counts")) }
}

fn within(name: &str, value: f64, least: f64, most: f64) -> Result<(), String> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(format!("{name} is {value}, and has to be from {least} to {most}"))
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
    write().map_err(|e| {
        // Where it cannot be removed, it could not be made either.
        let _ = std::fs::remove_file(&name);
        SoakError::File { path: path.to_owned(), reason: e.to_string() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_behind_where_a_file_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("taken.json");
        std::fs::create_dir(&taken).unwrap();
        assert!(replace(&taken, b"record").is_err());
        assert!(!dir.path().join("taken.json.part").exists());
        let free = dir.path().join("free.json");
        replace(&free, b"record").unwrap();
        assert_eq!(std::fs::read(&free).unwrap(), b"record");
        assert!(!dir.path().join("free.json.part").exists());
    }
}
