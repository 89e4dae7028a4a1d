//! Verdicts, from the record alone.

use crate::record::{Idle, Record, Unbalanced, Window};
use crate::speed;
use crate::subject::Footprint;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Growth of the resident size that an allocator may keep though nothing leaks, beside [`RESIDENT_SHARE`] of the size. With the model
/// closed it went up and down between 115 and 165 MiB, with no trend, in the 60 minutes of
/// `benches/records/2026-12-01-soak-rustbook-5m-intel-r-xeon-r-processor.json`; most of the first windows and least of the last are compared.
const RESIDENT_BYTES: u64 = 16 << 20;
/// See [`RESIDENT_BYTES`].
const RESIDENT_SHARE: f64 = 0.02;
/// Windows of a series, without the first round, below which its growth is not judged.
const LEAST_WINDOWS: usize = 4;
/// Seconds in which every kind of traffic has to come.
const ALL_KINDS_S: f64 = 600.0;
/// Counts of what has to happen in a run, or it has not shown what it is for.
const HAPPENS: [&str; 18] = [
    "short",
    "long",
    "shared prefix",
    "sampled",
    "penalized",
    "log-probabilities",
    "stop string",
    "conversation",
    "checked greedy",
    "checked sampled",
    "dropped",
    "read slowly",
    "ended by stop",
    "refused as too long",
    "refused while not loaded",
    "looks at balances",
    "spilled_blocks",
    "restored_blocks",
];

/// Outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing was found.
    Pass,
    /// Something was found.
    Fail,
    /// The machine was too unsteady to say.
    CannotTell,
    /// The run is too short for it, or what it is about was never on.
    NotJudged,
}

impl Outcome {
    /// The outcome in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Fail => "FAIL",
            Outcome::CannotTell => "CANNOT TELL",
            Outcome::NotJudged => "not judged",
        }
    }

    /// True if the run can end with success.
    pub fn is_fine(self) -> bool {
        matches!(self, Outcome::Pass | Outcome::NotJudged)
    }
}

/// Verdict of a check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Name of the check.
    pub check: String,
    /// Outcome.
    pub outcome: Outcome,
    /// A sentence that says by which figures.
    pub sentence: String,
    /// The figures.
    pub figures: Value,
}

impl Verdict {
    pub(crate) fn new(check: &str, outcome: Outcome, sentence: impl Into<String>, figures: Value) -> Self {
        Self { check: check.to_owned(), outcome, sentence: sentence.into(), figures }
    }
}

/// Verdicts of all checks over what a record has.
pub fn judge(record: &Record) -> Vec<Verdict> {
    let counted = |check: &str, fault: &str, of: &[&str], clean: &str| counted(record, check, fault, of, clean);
    vec![
        counted("greedy answers", "wrong greedy", &["checked greedy"], "equal their references"),
        counted("sampled answers", "wrong sampled", &["checked sampled"], "equal their references"),
        // An answer that was dropped is checked, and did not end.
        counted("requests", "failed", &["ended by stop", "ended by length", "failed"], "were answered"),
        counted(
            "refusals",
            "refused wrongly",
            &["refused as too long", "refused while not loaded", "refused wrongly"],
            "were refused for the right reason",
        ),
        grown(record, &RESIDENT),
        grown(record, &DESCRIPTORS),
        grown(record, &THREADS),
        balanced(record, "memory pool", |idle| idle.pool_live.is_some()),
        balanced(record, "command-buffer ring", |idle| idle.ring.is_some()),
        balanced(record, "blit queue", |idle| idle.blit.is_some()),
        balanced(record, "KV blocks", |_| true),
        balanced(record, "open requests", |_| true),
        balanced(record, "device memory", |_| true),
        balanced(record, "optimizations", |_| true),
        stuck(record),
        processes(record),
        speed::judge(record),
        traffic(record),
    ]
}

/// Balances of an idle engine that do not come out.
pub(crate) fn unbalanced(idle: &Idle) -> Vec<Unbalanced> {
    let mut found = Vec::new();
    let mut fault = |check: &str, detail: String| found.push(Unbalanced { check: check.to_owned(), detail });
    if let Some((now, then)) = idle.pool_live.filter(|(now, then)| now != then) {
        fault(
            "memory pool",
            format!("{now} allocations are live without requests, and {then} were when the model was opened"),
        );
    } else if let Some((now, then)) = idle.pool_bytes.filter(|(now, then)| now != then) {
        fault(
            "memory pool",
            format!("{now} bytes are in use without requests, and {then} were when the model was opened"),
        );
    }
    if let Some((free, all)) = idle.ring.filter(|(free, all)| free != all) {
        fault("command-buffer ring", format!("{free} of {all} slots are free without requests"));
    }
    match idle.blit {
        Some((pending, _)) if pending > 0 => {
            fault("blit queue", format!("{pending} transfers are in flight without requests"))
        }
        Some((_, failures)) if failures > 0 => fault("blit queue", format!("{failures} checksums did not agree")),
        _ => {}
    }
    if idle.kv_usage != 0.0 {
        fault("KV blocks", format!("{:.2} % of the KV blocks are held without requests", 100.0 * idle.kv_usage));
    }
    if idle.requests != [0; 3] {
        let [running, waiting, live] = idle.requests;
        fault(
            "open requests",
            format!("{running} run, {waiting} wait and {live} are open though all answers were read or dropped"),
        );
    }
    if !idle.fallen_back.is_empty() {
        fault("optimizations", format!("fallen back: {}", idle.fallen_back.join("; ")));
    }
    found
}

/// A check of things that are counted one by one.
fn counted(record: &Record, check: &str, fault: &str, of: &[&str], clean: &str) -> Verdict {
    let faults = record.count(fault);
    let all: u64 = of.iter().map(|name| record.count(name)).sum();
    let figures = json!({ "checked": all, "faults": faults });
    if faults > 0 {
        let first = record.events.iter().find(|event| event.what == fault);
        let first =
            first.map_or(String::new(), |event| format!("; the first, after {:.0} s, {}", event.at_s, event.detail));
        return Verdict::new(check, Outcome::Fail, format!("{faults} of {all} {}{first}", faulty(fault)), figures);
    }
    match all {
        0 => Verdict::new(check, Outcome::NotJudged, "there were none", figures),
        _ => Verdict::new(check, Outcome::Pass, format!("all {all} {clean}"), figures),
    }
}

fn faulty(fault: &str) -> &'static str {
    match fault {
        "failed" => "failed or were refused",
        "refused wrongly" => "were taken, or refused for another reason",
        _ => "differ from their references",
    }
}

/// Something of the system that a process holds.
struct Held {
    check: &'static str,
    of: fn(&Footprint) -> Option<u64>,
    /// Growth that is allowed at a size.
    allowed: fn(u64) -> u64,
    /// Size of the unit that sentences are in, and its name.
    unit: (u64, &'static str),
}

const RESIDENT: Held = Held {
    check: "resident size",
    of: |footprint| footprint.resident_bytes,
    allowed: |bytes| RESIDENT_BYTES + (RESIDENT_SHARE * bytes as f64) as u64,
    unit: (1 << 20, " MiB"),
};
const DESCRIPTORS: Held =
    Held { check: "descriptors", of: |footprint| footprint.descriptors, allowed: |_| 0, unit: (1, "") };
const THREADS: Held = Held { check: "threads", of: |footprint| footprint.threads, allowed: |_| 0, unit: (1, "") };

/// Growth of what the process holds: within a process, with the same optimizations, from the most that a window of the first quarter held
/// to the least that one of the last did. The first round of all sets warms up and does not count.
fn grown(record: &Record, held: &Held) -> Verdict {
    let mut keys: Vec<(usize, &str)> = Vec::new();
    for window in &record.windows {
        for key in [(window.part, window.optimizations.as_str()), (window.part, CLOSED)] {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    // Growth beyond what is allowed decides which series is the worst.
    let judged = keys.into_iter().filter_map(|(part, set)| {
        let of = |window: &Window| (held.of)(&footprint(window, set)?);
        let series: Vec<u64> = warm(record, part).filter_map(of).collect();
        // In one window a thread may be about to end that is gone in the next.
        let quarter = (series.len() / 4).max(2);
        let (first, last) = (series.get(..quarter)?, series.get(series.len() - quarter..)?);
        let (base, end) = (*first.iter().max()?, *last.iter().min()?);
        let growth = end as i64 - base as i64;
        (series.len() >= LEAST_WINDOWS).then_some((set, base, end, growth, (held.allowed)(base), series.len()))
    });
    let worst = judged.max_by_key(|&(_, _, _, growth, allowed, _)| growth - allowed as i64);
    let Some((set, base, end, growth, allowed, windows)) = worst else {
        let sentence = match record.windows.iter().any(|window| (held.of)(&window.open).is_some()) {
            true => {
                format!("needs {LEAST_WINDOWS} windows after the first round; the run was too short")
            }
            false => "this system does not tell".into(),
        };
        return Verdict::new(held.check, Outcome::NotJudged, sentence, Value::Null);
    };
    let figures =
        json!({ "with": set, "base": base, "end": end, "growth": growth, "allowed": allowed, "windows": windows });
    let (unit, name) = held.unit;
    let show = |value: i64| match unit {
        1 => format!("{value}"),
        _ => format!("{:.1}{name}", value as f64 / unit as f64),
    };
    let sentence = format!(
        "from {} to {} over {windows} windows with {set}: {}{} where {} is allowed",
        show(base as i64),
        show(end as i64),
        if growth > 0 { "+" } else { "" },
        show(growth),
        show(allowed as i64)
    );
    let outcome = if growth > allowed as i64 { Outcome::Fail } else { Outcome::Pass };
    Verdict::new(held.check, outcome, sentence, figures)
}

/// Windows of a process after its first round of all sets: from the first on whose set comes a second time.
fn warm(record: &Record, part: usize) -> impl Iterator<Item = &Window> {
    let windows: Vec<&Window> = record.windows.iter().filter(|window| window.part == part).collect();
    let comes_again = |i: usize| {
        let set = &windows[i].optimizations;
        let before = windows[..i].iter().rposition(|window| window.optimizations == *set);
        // With one set there is no other between.
        before.is_some_and(|before| before + 1 < i || record.settings.optimizations.is_empty())
    };
    let first = (0..windows.len()).find(|&i| comes_again(i)).unwrap_or(windows.len());
    windows.into_iter().skip(first)
}

/// Name of the series of times without a model.
const CLOSED: &str = "no model open";

fn footprint(window: &Window, set: &str) -> Option<Footprint> {
    match set {
        CLOSED => window.closed,
        set => (window.optimizations == set).then_some(window.open),
    }
}

/// A balance, over all times without requests.
fn balanced(record: &Record, check: &str, is_on: fn(&Idle) -> bool) -> Verdict {
    let faults: Vec<(&Window, &Unbalanced)> = record
        .windows
        .iter()
        .flat_map(|window| window.unbalanced.iter().map(move |fault| (window, fault)))
        .filter(|(_, fault)| fault.check == check)
        .collect();
    let looked = |window: &&Window| window.idle.as_ref().is_some_and(is_on);
    let looks: u64 =
        record.windows.iter().filter(looked).filter_map(|window| window.counts.get("looks at balances")).sum();
    let figures = json!({ "looks": looks, "windows_with_faults": faults.len() });
    match (faults.first(), looks) {
        (Some((window, fault)), _) => {
            let sentence = format!(
                "in {} {}; first in that of {:.0} s, with {}: {}",
                faults.len(),
                if faults.len() == 1 { "window" } else { "windows" },
                window.begins_s,
                window.optimizations,
                fault.detail
            );
            Verdict::new(check, Outcome::Fail, sentence, figures)
        }
        (None, 0) => {
            Verdict::new(check, Outcome::NotJudged, "there was no time without requests at which it was on", figures)
        }
        (None, looks) => {
            let moments =
                if looks == 1 { "the one idle moment".to_owned() } else { format!("each of {looks} idle moments") };
            Verdict::new(check, Outcome::Pass, format!("in order at {moments}"), figures)
        }
    }
}

fn stuck(record: &Record) -> Verdict {
    let figures = json!({ "limit_s": record.references.stuck_after_s });
    match record.events.iter().find(|event| event.what == "stuck") {
        Some(event) => {
            let sentence = format!("after {:.0} s of run, {}", event.at_s, event.detail);
            Verdict::new("stuck steps", Outcome::Fail, sentence, figures)
        }
        None if record.windows.iter().all(|window| window.tokens == 0) => {
            Verdict::new("stuck steps", Outcome::NotJudged, "no token came, and none was waited for too long", figures)
        }
        None => {
            let limit = record.references.stuck_after_s;
            let sentence = format!("a token came at least every {limit:.0} s while requests ran");
            Verdict::new("stuck steps", Outcome::Pass, sentence, figures)
        }
    }
}

/// Ends of the processes before the last, which goes on or has just said why it ends.
fn processes(record: &Record) -> Verdict {
    let earlier = record.parts.split_last().map_or(&[][..], |(_, earlier)| earlier);
    let silent = earlier.iter().filter(|part| part.ended.is_none()).count();
    let all = record.parts.len();
    let figures = json!({ "processes": all, "ended_without_saying_why": silent });
    let (outcome, sentence) = match (silent, all) {
        (0, 0..=1) => (Outcome::Pass, "one process ran all of it".into()),
        (0, _) => (Outcome::Pass, format!("each of {all} processes said why it ended")),
        _ => (
            Outcome::CannotTell,
            format!("{silent} of {all} processes ended without saying why: killed, crashed, or the machine went down"),
        ),
    };
    Verdict::new("processes", outcome, sentence, figures)
}

/// Everything that a run is for has happened.
fn traffic(record: &Record) -> Verdict {
    let missing: Vec<&str> = HAPPENS.into_iter().filter(|name| record.count(name) == 0).collect();
    let tokens: u64 = record.windows.iter().map(|window| window.tokens).sum();
    let figures = json!({ "tokens": tokens, "missing": missing });
    let list = missing.join(", ");
    match (missing.is_empty(), record.elapsed_s < ALL_KINDS_S) {
        (true, _) => Verdict::new("traffic", Outcome::Pass, format!("every kind came; {tokens} tokens"), figures),
        (false, true) => {
            let sentence = format!("without {list} so far; in {ALL_KINDS_S:.0} s every kind has to come");
            Verdict::new("traffic", Outcome::NotJudged, sentence, figures)
        }
        (false, false) => Verdict::new("traffic", Outcome::Fail, format!("it never had {list}"), figures),
    }
}
