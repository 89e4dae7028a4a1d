//! What the runs say about each optimisation, beside what was aimed at.

use super::arm::{Arm, Run};
use super::statistics::Median;
use serde::Serialize;

/// Something measured in every run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    Throughput,
    ColdTtft,
    RestoreTtft,
    Utilization,
    Ttft,
    BetweenTokens,
    AllocationsPerToken,
    EncodeMs,
    Overlap,
}

impl Figure {
    /// In the order of tables.
    pub(crate) const ALL: [Figure; 9] = [
        Figure::Throughput,
        Figure::ColdTtft,
        Figure::RestoreTtft,
        Figure::Utilization,
        Figure::Ttft,
        Figure::BetweenTokens,
        Figure::AllocationsPerToken,
        Figure::EncodeMs,
        Figure::Overlap,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Figure::Throughput => "throughput, tok/s",
            Figure::ColdTtft => "cold start to first token, ms",
            Figure::RestoreTtft => "pushed-out prefix to first token, ms",
            Figure::Utilization => "device utilisation, %",
            Figure::Ttft => "time to first token, ms",
            Figure::BetweenTokens => "between tokens, ms",
            Figure::AllocationsPerToken => "device allocations a token",
            Figure::EncodeMs => "host encode time a step, ms",
            Figure::Overlap => "copies overlapped by compute, %",
        }
    }

    /// Its value in a run; `None` where the run has none.
    pub(crate) fn of(self, run: &Run) -> Option<f64> {
        Some(match self {
            Figure::Throughput => run.measured.throughput_tok_s,
            Figure::ColdTtft => run.cold_ttft_ms,
            Figure::RestoreTtft => run.restore_ttft_ms,
            Figure::Utilization => 100.0 * run.measured.device_utilization,
            Figure::Ttft => run.measured.ttft_ms.p50,
            Figure::BetweenTokens => run.measured.itl_ms.p50,
            Figure::AllocationsPerToken => run.measured.allocations_per_token,
            Figure::EncodeMs => run.measured.encode_ms_per_step,
            Figure::Overlap => return run.overlap_ratio.map(|ratio| 100.0 * ratio),
        })
    }
}

/// What the seed document aims at for one figure of one arm.
struct Target {
    figure: Figure,
    text: &'static str,
    /// The nearer end of the range.
    least: f64,
    /// Points of a percentage rather than per cent of the value.
    points: bool,
}

const fn target(figure: Figure, text: &'static str, least: f64, points: bool) -> Target {
    Target { figure, text, least, points }
}

fn targets(arm: &Arm) -> Vec<Target> {
    match arm {
        Arm::One("memory_pool") => vec![target(Figure::Throughput, "+10 to +15 %", 10.0, false)],
        Arm::One("blit_queue") => vec![
            target(Figure::ColdTtft, "−15 to −20 %", -15.0, false),
            target(Figure::RestoreTtft, "−15 to −20 %", -15.0, false),
        ],
        Arm::One(_) => vec![target(Figure::Utilization, "+5 to +10 points", 5.0, true)],
        Arm::All(_) => vec![target(Figure::Throughput, "+40 to +60 %", 40.0, false)],
        Arm::Direct => vec![target(Figure::Throughput, "none: for comparison", f64::NAN, false)],
        Arm::SpillInLine => vec![target(Figure::RestoreTtft, "none: for comparison", f64::NAN, false)],
        Arm::Plain => Vec::new(),
    }
}

/// One line of the result.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Finding {
    pub arm: &'static str,
    pub figure: &'static str,
    pub target: &'static str,
    pub plain: Median,
    pub with: Median,
    /// Per cent, or points of a percentage: each run against the mean of the plain runs just before and after it.
    pub change: Median,
    pub points: bool,
    /// Null where nothing was aimed at.
    pub reached: Option<bool>,
    /// Where it was not: what the measurements say about why.
    pub reason: Option<String>,
}

/// A run between two plain ones.
pub(crate) struct Sandwich<'a> {
    pub arm: &'a Arm,
    pub before: &'a Run,
    pub run: &'a Run,
    pub after: &'a Run,
}

/// The findings about one arm.
pub(crate) fn findings(arm: &Arm, runs: &[Sandwich<'_>]) -> Vec<Finding> {
    let runs: Vec<&Sandwich<'_>> = runs.iter().filter(|s| s.arm == arm).collect();
    let finding = |t: &Target| {
        let value = |run: &Run| t.figure.of(run).unwrap_or(0.0);
        let plain = |s: &Sandwich<'_>| (value(s.before) + value(s.after)) / 2.0;
        let change = |s: &&Sandwich<'_>| match t.points {
            true => value(s.run) - plain(s),
            false => 100.0 * (value(s.run) / plain(s) - 1.0),
        };
        let change = Median::of(&runs.iter().map(change).collect::<Vec<_>>());
        let enough = if t.least < 0.0 { change.median <= t.least } else { change.median >= t.least };
        let reached = (!t.least.is_nan()).then_some(enough);
        Finding {
            arm: arm.name(),
            figure: t.figure.name(),
            target: t.text,
            plain: Median::of(&runs.iter().map(|s| plain(s)).collect::<Vec<_>>()),
            with: Median::of(&runs.iter().map(|s| value(s.run)).collect::<Vec<_>>()),
            change,
            points: t.points,
            reached,
            reason: (reached == Some(false)).then(|| reason(arm, t.figure, &runs)),
        }
    };
    targets(arm).iter().map(finding).collect()
}

/// Why a target is out of reach here, from what was measured.
fn reason(arm: &Arm, figure: Figure, runs: &[&Sandwich<'_>]) -> String {
    let plain = |f: Figure| Median::of(&runs.iter().filter_map(|s| f.of(s.before)).collect::<Vec<_>>()).median;
    let with = |f: Figure| Median::of(&runs.iter().filter_map(|s| f.of(s.run)).collect::<Vec<_>>()).median;
    let busy = plain(Figure::Utilization);
    let most = 100.0 * (100.0 / busy.max(1.0) - 1.0);
    match (arm, figure) {
        (Arm::One("memory_pool"), _) => format!(
            "the plain arm's cache already holds device allocations at {:.3} a token (here {:.3}), and all of the host's work on a step takes {:.3} ms of {:.2} ms between tokens",
            plain(Figure::AllocationsPerToken),
            with(Figure::AllocationsPerToken),
            plain(Figure::EncodeMs),
            plain(Figure::BetweenTokens),
        ),
        (Arm::One("blit_queue"), Figure::ColdTtft) => format!(
            "overlap can hide no more than the shorter of loading and prefill; the first token of a warm engine takes {:.1} ms of the {:.1} ms from cold, and {:.0} % of the copies' time was overlapped",
            plain(Figure::Ttft),
            plain(Figure::ColdTtft),
            with(Figure::Overlap),
        ),
        (Arm::One("blit_queue"), _) => format!(
            "bringing the blocks back takes {:.1} ms where computing them again takes {:.1} ms",
            with(Figure::RestoreTtft),
            plain(Figure::RestoreTtft),
        ),
        _ => format!(
            "with one step at a time the device already computes {busy:.1} % of the time: were it never idle, throughput would rise by {most:.1} % and utilisation by {:.1} points, no more",
            100.0 - busy,
        ),
    }
}
