//! Findings of the runs about each optimization, beside what was aimed at.

use super::aim::{Target, targets};
use super::arm::{Arm, BLIT, Run};
use super::asked::LoadKind;
use super::figure::Figure;
use super::number::{brief, minus, signed};
use super::outcome::{Direction, Outcome};
use super::statistics::{COVERAGE, Median};
use serde::Serialize;

/// A run, and the mean of the plain runs just before and after it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Pair {
    pub plain: f64,
    pub with: f64,
    /// Per cent, or points of a percentage.
    pub change: f64,
}

impl Pair {
    pub(super) fn new(plain: f64, with: f64, points: bool) -> Self {
        let change = if points { with - plain } else { 100.0 * (with / plain - 1.0) };
        Self { plain, with, change }
    }

    /// The one whose change is the median; of an even number, the lower of the two in the middle. `None` of none.
    fn median(pairs: &[Pair]) -> Option<Pair> {
        let mut sorted = pairs.to_vec();
        sorted.sort_by(|a, b| a.change.total_cmp(&b.change));
        sorted.get(sorted.len().saturating_sub(1) / 2).copied()
    }
}

/// One line of the result.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Finding {
    pub arm: &'static str,
    pub figure: &'static str,
    pub target: &'static str,
    /// The pair with the median change, so that the line adds up.
    #[serde(flatten)]
    pub pair: Pair,
    /// Holds the true median change with probability `coverage`.
    pub interval: Interval,
    /// The change is in points of a percentage rather than percent of the value.
    pub points: bool,
    /// Distance between the plain runs, nine tenths of them, in the change's unit.
    pub plain_spread: f64,
    /// Direction of the change, whatever was aimed at.
    pub direction: Direction,
    /// Null where nothing was aimed at.
    pub outcome: Option<Outcome>,
    /// Reason for missing the aim, as far as the measurements tell.
    pub reason: Option<String>,
    /// All of them, in the order of the runs.
    pub pairs: Vec<Pair>,
    /// Nearer end of what was aimed at.
    #[serde(skip)]
    least: f64,
}

impl Finding {
    /// Judges some pairs of runs; `why` says why an aim was missed.
    pub(super) fn new(
        arm: &'static str,
        target: &Target,
        pairs: Vec<Pair>,
        plain_spread: f64,
        why: impl FnOnce() -> String,
    ) -> Self {
        let change = Median::of(&pairs.iter().map(|pair| pair.change).collect::<Vec<_>>());
        let outcome = Outcome::of(&change, target.least);
        Finding {
            arm,
            figure: target.figure.name(),
            target: target.text,
            pair: Pair::median(&pairs).unwrap_or(Pair::new(f64::NAN, f64::NAN, target.points)),
            interval: Interval { low: change.low, high: change.high, coverage: change.coverage },
            points: target.points,
            plain_spread,
            direction: Direction::of(&change),
            outcome,
            reason: outcome.and_then(|outcome| match outcome {
                Outcome::Reached => None,
                Outcome::NotReached | Outcome::NoDifference => Some(why()),
                Outcome::CannotTell if change.coverage < COVERAGE => {
                    Some("so few repetitions have no interval; give --repetitions at least 5".into())
                }
                Outcome::CannotTell if !(change.low.is_finite() && change.high.is_finite()) => {
                    Some("not every run has this figure".into())
                }
                Outcome::CannotTell => Some("the interval spans the aim".into()),
            }),
            pairs,
            least: target.least,
        }
    }

    /// The figure without its unit.
    pub(super) fn short(&self) -> &'static str {
        self.figure.split(',').next().unwrap_or(self.figure)
    }

    /// The change with its unit, which no line break parts.
    pub(super) fn change(&self) -> String {
        self.change_in(if self.points { "\u{a0}points" } else { "\u{a0}%" })
    }

    /// The change with its unit, in at most nine characters.
    pub(super) fn change_short(&self) -> String {
        self.change_in(if self.points { "\u{a0}pt" } else { "\u{a0}%" })
    }

    fn change_in(&self, unit: &str) -> String {
        let unit = if self.pair.change.is_finite() { unit } else { "" };
        signed(self.pair.change) + unit
    }

    /// The ends of the interval, in at most sixteen characters; "none" of too few repetitions.
    pub(super) fn interval_text(&self) -> String {
        match (self.interval.low, self.interval.high) {
            _ if self.interval.coverage < COVERAGE => "none".into(),
            (low, high) if low.is_finite() && high.is_finite() => format!("{} to {}", signed(low), signed(high)),
            _ => "n/a".into(),
        }
    }

    /// The range that is aimed at, where no line break parts number and unit.
    pub(super) fn range(&self) -> Option<String> {
        self.aim().map(|_| minus(self.target.replace(" %", "\u{a0}%").replace(" points", "\u{a0}points")))
    }

    /// The aim, in words.
    pub(super) fn aim_text(&self) -> String {
        self.range().map_or("no aim, for comparison".into(), |range| format!("aim {range}"))
    }

    /// Direction of the effect, and whether it is as large as was aimed at.
    pub(super) fn verdict(&self) -> &'static str {
        match (self.outcome, self.direction) {
            (Some(Outcome::Reached), _) => "reached",
            (Some(Outcome::NoDifference), _) | (None, Direction::NoneSeen) => "no difference seen",
            (Some(Outcome::NotReached), _) if self.is_better() => "better, but not as aimed",
            (Some(Outcome::NotReached), _) => "worse",
            (Some(Outcome::CannotTell), Direction::Up | Direction::Down) => "better, cannot tell if as aimed",
            (Some(Outcome::CannotTell), _) | (None, Direction::Unknown) => "cannot tell",
            (None, Direction::Up) => "higher",
            (None, Direction::Down) => "lower",
        }
    }

    /// True if the change is toward the aim.
    pub(super) fn is_better(&self) -> bool {
        match self.direction {
            Direction::Up => self.least > 0.0,
            Direction::Down => self.least < 0.0,
            Direction::NoneSeen | Direction::Unknown => false,
        }
    }

    /// The nearer end of what was aimed at; `None` where nothing was.
    pub(super) fn aim(&self) -> Option<f64> {
        (!self.least.is_nan()).then_some(self.least)
    }

    /// Plain runs that lie further apart than the aim, where that may have decided: an aim that was reached all the same was.
    fn noisy(&self) -> bool {
        self.plain_spread.is_finite() && self.plain_spread > self.least.abs() && self.outcome != Some(Outcome::Reached)
    }
}

/// Interval of a median.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Interval {
    pub low: f64,
    pub high: f64,
    pub coverage: f64,
}

/// The sentence that says how to read a line.
pub(crate) const READING: &str = "Each line is the pair of runs with the median change, where plain is the mean of the plain runs just before and after; \
    the interval is of the changes of all pairs, and it decides.";

/// A run between two plain ones.
pub(crate) struct Sandwich<'a> {
    pub arm: &'a Arm,
    pub before: &'a Run,
    pub run: &'a Run,
    pub after: &'a Run,
}

impl Sandwich<'_> {
    /// The run's figure beside the mean of the plain runs around it; not a number where one of them has none.
    pub(super) fn pair(&self, figure: Figure, points: bool) -> Pair {
        let value = |run: &Run| figure.of(run).unwrap_or(f64::NAN);
        Pair::new((value(self.before) + value(self.after)) / 2.0, value(self.run), points)
    }
}

/// The findings about one arm.
pub(crate) fn findings(arm: &Arm, load: LoadKind, runs: &[Sandwich<'_>]) -> Vec<Finding> {
    let plain = each_once(&runs.iter().map(|s| (s.before, s.after)).collect::<Vec<_>>());
    let runs: Vec<&Sandwich<'_>> = runs.iter().filter(|s| s.arm == arm).collect();
    let finding = |t: &Target| {
        let value = |run: &Run| t.figure.of(run).unwrap_or(f64::NAN);
        let plain_spread = spread(&plain.iter().map(|run| value(run)).collect::<Vec<_>>(), t.points);
        let pairs = runs.iter().map(|s| s.pair(t.figure, t.points)).collect();
        Finding::new(arm.name(), t, pairs, plain_spread, || reason(arm, load, t.figure, &runs))
    };
    targets(arm, load).iter().map(finding).collect()
}

/// The members of pairs of which each begins with the last one's second.
fn each_once<T: Copy>(pairs: &[(T, T)]) -> Vec<T> {
    let last = pairs.last().map(|pair| pair.1);
    pairs.iter().map(|pair| pair.0).chain(last).collect()
}

/// Distance between the ends of the middle nine tenths of the values, percent of the median or in their own unit.
fn spread(values: &[f64], points: bool) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = |share: f64| sorted[(share * last as f64).round() as usize];
    let range = at(0.95) - at(0.05);
    if points { range } else { 100.0 * range / at(0.5) }
}

/// A sentence about findings that noise may have decided; `None` if there are none.
pub(crate) fn noise(findings: &[Finding]) -> Option<String> {
    let mut told: Vec<String> = Vec::new();
    for f in findings.iter().filter(|f| f.noisy()) {
        let unit = if f.points { "points" } else { "%" };
        let text = format!("{} {:.0} {unit}", f.short(), f.plain_spread);
        if !told.contains(&text) {
            told.push(text);
        }
    }
    (!told.is_empty()).then(|| {
        format!(
            "plain runs differ by more than the aim ({}): close other programs, or give more --repetitions and --questions",
            told.join(", ")
        )
    })
}

/// Reason for which a target is out of reach here, from what was measured.
fn reason(arm: &Arm, load: LoadKind, figure: Figure, runs: &[&Sandwich<'_>]) -> String {
    let plain = |f: Figure| Median::of(&runs.iter().filter_map(|s| f.of(s.before)).collect::<Vec<_>>()).median;
    let with = |f: Figure| Median::of(&runs.iter().filter_map(|s| f.of(s.run)).collect::<Vec<_>>()).median;
    let busy = plain(Figure::Utilization);
    let most = 100.0 * (100.0 / busy.max(1.0) - 1.0);
    match (arm, figure) {
        (Arm::One(BLIT) | Arm::All(_), _) if load == LoadKind::Conversations => format!(
            "a turn's first token takes {} ms where its prefix is restored and {} ms where it is computed again; between tokens, which no \
             prefix shortens, are {} ms here and {} ms there",
            brief(with(Figure::Ttft)),
            brief(plain(Figure::Ttft)),
            brief(with(Figure::BetweenTokens)),
            brief(plain(Figure::BetweenTokens)),
        ),
        (Arm::One("memory_pool"), _) => format!(
            "{}, and all of the host's work on a step takes {} ms of {} ms between tokens",
            allocations(plain(Figure::AllocationsPerToken), with(Figure::AllocationsPerToken)),
            brief(plain(Figure::EncodeMs)),
            brief(plain(Figure::BetweenTokens)),
        ),
        (Arm::One(BLIT), Figure::ColdTtft) => format!(
            "overlap can hide no more than the shorter of loading and prefill; the first token of a warm engine takes {} ms of the {} ms from cold, and {} % of the copies' time was overlapped",
            brief(plain(Figure::Ttft)),
            brief(plain(Figure::ColdTtft)),
            brief(with(Figure::Overlap)),
        ),
        (Arm::One(BLIT), _) => format!(
            "restoring the blocks takes {} ms where computing them again takes {} ms",
            brief(with(Figure::RestoreTtft)),
            brief(plain(Figure::RestoreTtft)),
        ),
        _ => format!(
            "with one step at a time the device already computes {} % of the time: were it never idle, throughput would rise by {} % and utilization by {} points, no more",
            brief(busy),
            brief(most),
            brief(100.0 - busy),
        ),
    }
}

/// Device allocations a token, without the pool and with it, in words.
fn allocations(plain: f64, with: f64) -> String {
    match plain == 0.0 {
        true => "the plain arm already needs no device allocations (0 a token)".into(),
        false => {
            format!("the plain arm needs {} device allocations a token, and {} with it", brief(plain), brief(with))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_says_what_the_verdict_does_not() {
        assert_eq!(allocations(0.0, 0.0), "the plain arm already needs no device allocations (0 a token)");
        assert_eq!(allocations(0.5, 0.0), "the plain arm needs 0.5 device allocations a token, and 0 with it");
        let seen = crate::compare::samples::finding("memory_pool", 10.0, &[-1.0, 0.0, 1.0, 2.0, 3.0]);
        assert_eq!(seen.reason.as_deref(), Some("so it is"), "that the interval spans zero is the verdict");
    }

    #[test]
    fn a_line_is_a_pair_of_runs_and_adds_up() {
        let pairs = [(100.0, 130.0), (50.0, 55.0), (80.0, 40.0)].map(|(plain, with)| Pair::new(plain, with, false));
        let median = Pair::median(&pairs).unwrap();
        assert_eq!((median.plain, median.with), (50.0, 55.0));
        assert!((median.change - 10.0).abs() < 1e-9);
        assert_eq!(Pair::median(&pairs[..2]).unwrap().plain, 50.0);
        assert_eq!(Pair::median(&[]), None);
        assert_eq!(Pair::new(70.0, 81.0, true).change, 11.0);
    }

    #[test]
    fn noise_is_told_once_of_what_it_may_have_decided() {
        let finding = |outcome, plain_spread, least| Finding {
            arm: "memory_pool",
            figure: Figure::Throughput.name(),
            target: "",
            pair: Pair::new(1.0, 1.0, false),
            interval: Interval { low: 0.0, high: 0.0, coverage: 0.9375 },
            points: false,
            plain_spread,
            direction: Direction::NoneSeen,
            outcome: Some(outcome),
            reason: None,
            pairs: Vec::new(),
            least,
        };
        assert_eq!(noise(&[finding(Outcome::Reached, 90.0, -15.0)]), None);
        assert_eq!(noise(&[finding(Outcome::NotReached, 9.0, 10.0)]), None);
        let noisy = finding(Outcome::NoDifference, 31.0, -15.0);
        let told = noise(&[noisy.clone(), noisy]).unwrap();
        assert_eq!(told.matches("throughput 31 %").count(), 1, "{told}");
    }

    #[test]
    fn a_plain_run_between_two_others_counts_once() {
        assert_eq!(each_once(&[(1, 2), (2, 3), (3, 4)]), [1, 2, 3, 4]);
        assert!(each_once::<u8>(&[]).is_empty());
    }

    #[test]
    fn the_spread_leaves_the_extremes_out() {
        let mut values: Vec<f64> = (0..40).map(|i| 100.0 + f64::from(i) * 0.1).collect();
        values.push(900.0);
        assert!((spread(&values, true) - 3.6).abs() < 1e-9, "{}", spread(&values, true));
        assert!((spread(&values, false) - 100.0 * 3.6 / 102.0).abs() < 1e-9);
        assert_eq!(spread(&[], true), 0.0);
    }
}
