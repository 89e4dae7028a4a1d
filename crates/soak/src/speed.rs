//! Drift of the speed: medians over ten minutes, against a calibration that is interleaved.
//!
//! A probe's score is its speed times the time of the fixed computation beside it, so that a machine that became slower changes nothing. A
//! score is divided by the median score of the first ten minutes in which its set of optimizations ran, so that sets that differ in speed can
//! be put together. Each ten minutes have the median of what they have. It is judged within a process.

use crate::judge::{Outcome, Verdict};
use crate::record::{Probe, Record, Window};
use serde_json::json;
use std::collections::BTreeMap;

/// Length of what a median is taken over, seconds.
const BLOCK_S: f64 = 600.0;
/// Largest drift of a median.
pub(crate) const DRIFT: f64 = 0.05;
/// Fewest steady probes of a block, and share of all its probes that they have to be.
const LEAST_PROBES: usize = 8;
const LEAST_SHARE: f64 = 0.5;
/// Fewest probes of a set of optimizations from which its median is taken.
const LEAST_OF_SET: usize = 3;

/// Scores of ten minutes in one process.
struct Block {
    part: usize,
    number: usize,
    /// Scores of the steady probes, by their set of optimizations.
    scores: Vec<(String, f64)>,
    /// All probes, the unsteady ones too.
    probes: usize,
    /// Each score over that of its set.
    normal: Vec<f64>,
}

/// Verdict on the drift of the speed.
pub(crate) fn judge(record: &Record) -> Verdict {
    let mut blocks = blocks(record);
    normalize(&mut blocks);
    let told: Vec<_> = blocks
        .iter()
        .map(|block| {
            json!({
                "part": block.part, "begins_s": block.number as f64 * BLOCK_S, "probes": block.probes,
                "steady": block.scores.len(), "median": median(&block.normal), "margin": margin(&block.normal),
            })
        })
        .collect();
    let figures = json!({ "allowed": DRIFT, "blocks": told });
    let verdict = |outcome, sentence: String| Verdict::new("speed", outcome, sentence, figures.clone());
    // Only what has enough probes is a block to be judged; a last one that has just begun is not.
    let full: Vec<&Block> = blocks.iter().filter(|block| block.probes >= LEAST_PROBES).collect();
    let comparable =
        full.iter().any(|block| full.iter().any(|other| other.part == block.part && other.number > block.number));
    if !comparable {
        return verdict(Outcome::NotJudged, "needs 20 minutes in one process".into());
    }
    let unsteady = full.iter().find(|block| {
        block.scores.len() < LEAST_PROBES || (block.scores.len() as f64) < LEAST_SHARE * block.probes as f64
    });
    if let Some(block) = unsteady {
        let sentence = format!(
            "the calibration itself was unsteady: of {} probes in the ten minutes from {:.0} s, {} had the same machine before and \
             after; run it on a machine that does nothing else",
            block.probes,
            block.number as f64 * BLOCK_S,
            block.scores.len()
        );
        return verdict(Outcome::CannotTell, sentence);
    }
    let drifts = full.iter().filter_map(|block| {
        let drift = median(&block.normal)? - 1.0;
        Some((block, drift, margin(&block.normal)))
    });
    let Some((block, drift, margin)) = drifts.max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())) else {
        return verdict(
            Outcome::NotJudged,
            "no ten minutes can be compared with others of the same optimizations".into(),
        );
    };
    let at = block.number as f64 * BLOCK_S;
    let sentence = format!(
        "medians over ten minutes stay within {:+.1} % of the first (speed ÷ calibration; the furthest from {at:.0} s, known to ±{:.1} %); \
         ±{:.0} % is allowed",
        100.0 * drift,
        100.0 * margin,
        100.0 * DRIFT
    );
    match () {
        () if margin > DRIFT => verdict(
            Outcome::CannotTell,
            format!(
                "the median of the ten minutes from {at:.0} s is known to ±{:.1} % only; run it on a machine that does nothing else",
                100.0 * margin
            ),
        ),
        () if drift.abs() > DRIFT => {
            let way = if drift < 0.0 { "slower" } else { "faster" };
            verdict(
                Outcome::Fail,
                format!(
                    "{:.1} % {way} in the ten minutes from {at:.0} s than in the first (median of speed ÷ calibration, known to ±{:.1} %); \
                     ±{:.0} % is allowed",
                    100.0 * drift.abs(),
                    100.0 * margin,
                    100.0 * DRIFT
                ),
            )
        }
        () => verdict(Outcome::Pass, sentence),
    }
}

/// Scores of the steady probes over those of the first ten minutes of their set and process, or of all of them where that is too short:
/// by set, with the time of each.
pub(crate) fn relative(record: &Record) -> BTreeMap<String, Vec<(f64, f64)>> {
    let steady = |window: &Window| window.probes.iter().copied().filter(Probe::is_steady).collect::<Vec<_>>();
    let bases = normalize(&mut blocks(record));
    let mut scores: BTreeMap<(usize, &str), Vec<f64>> = BTreeMap::new();
    for window in &record.windows {
        let of_set = scores.entry((window.part, &window.optimizations)).or_default();
        of_set.extend(steady(window).iter().map(Probe::score));
    }
    let mut found: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for window in &record.windows {
        let key = (window.part, window.optimizations.clone());
        let base = bases.get(&key).copied().or_else(|| median(scores.get(&(key.0, &*key.1))?));
        let points = steady(window).into_iter().filter_map(|probe| Some((probe.at_s, probe.score() / base?)));
        found.entry(key.1).or_default().extend(points);
    }
    found
}

fn blocks(record: &Record) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for window in &record.windows {
        let begins = record.parts.get(window.part).map_or(0.0, |part| part.begins_s);
        for probe in &window.probes {
            let number = ((probe.at_s - begins) / BLOCK_S).max(0.0) as usize;
            let (part, at) = (window.part, blocks.last());
            if at.is_none_or(|block| (block.part, block.number) != (part, number)) {
                blocks.push(Block { part, number, scores: Vec::new(), probes: 0, normal: Vec::new() });
            }
            let Some(block) = blocks.last_mut() else { continue };
            block.probes += 1;
            if probe.is_steady() {
                block.scores.push((window.optimizations.clone(), probe.score()));
            }
        }
    }
    blocks
}

/// Divides each score by the median of its set in the first block that has enough of them; these medians, by process and set.
fn normalize(blocks: &mut [Block]) -> BTreeMap<(usize, String), f64> {
    let mut bases: BTreeMap<(usize, String), f64> = BTreeMap::new();
    for block in blocks {
        let mut sets: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (set, score) in &block.scores {
            sets.entry(set).or_default().push(*score);
        }
        for (set, scores) in sets {
            if let Some(median) = median(&scores).filter(|_| scores.len() >= LEAST_OF_SET) {
                bases.entry((block.part, set.to_owned())).or_insert(median);
            }
        }
        let normal =
            block.scores.iter().filter_map(|(set, score)| Some(score / bases.get(&(block.part, set.clone()))?));
        block.normal = normal.filter(|score| score.is_finite()).collect();
    }
    bases
}

/// The median; `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.get(sorted.len().saturating_sub(1) / 2)?, sorted.get(sorted.len() / 2)?);
    Some((low + high) / 2.0)
}

/// Two standard errors of the median, from the spread of the values.
fn margin(values: &[f64]) -> f64 {
    let Some(center) = median(values) else { return f64::INFINITY };
    let off: Vec<f64> = values.iter().map(|value| (value - center).abs()).collect();
    // The median deviation is 0.6745 of a normal distribution's standard deviation; a median's error is 1.2533 of a mean's.
    let deviation = median(&off).unwrap_or(0.0) / 0.6745;
    2.0 * 1.2533 * deviation / (values.len() as f64).sqrt()
}
