//! Regressions: throughput further below a baseline's, or an optimization's below plain's, than it may be.

use super::arm::Arm;
use super::figure::Figure;
use super::finding::Sandwich;
use super::number::{brief, signed};
use super::statistics::{COVERAGE, Median};
use serde::Serialize;

/// Judgment of a change by its whole interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// The whole interval is at or above the limit.
    WithinLimit,
    /// The interval spans the limit, or there is none.
    CannotTell,
    /// The whole interval is below the limit.
    PastLimit,
}

impl Verdict {
    fn of(change: &Median, max_percent: f64) -> Self {
        if change.coverage < COVERAGE || !(change.low.is_finite() && change.high.is_finite()) {
            Verdict::CannotTell
        } else if change.high < -max_percent {
            Verdict::PastLimit
        } else if change.low >= -max_percent {
            Verdict::WithinLimit
        } else {
            Verdict::CannotTell
        }
    }
}

/// One comparison with the limit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Check {
    /// The two that are compared, in words.
    subject: String,
    /// Change of throughput, percent.
    change_percent: Median,
    verdict: Verdict,
}

/// All comparisons with the limit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Regression {
    max_percent: f64,
    /// The worst of the checks'.
    verdict: Verdict,
    checks: Vec<Check>,
}

impl Regression {
    /// Judges plain's change against a baseline, if there is one, and every optimization's against plain. Arms that are there for comparison
    /// only are not judged.
    pub(super) fn of(
        max_percent: f64,
        baseline: Option<(&str, Median)>,
        arms: &[Arm],
        sandwiches: &[Sandwich<'_>],
    ) -> Self {
        let check = |subject, change_percent: Median| Check {
            subject,
            change_percent,
            verdict: Verdict::of(&change_percent, max_percent),
        };
        let mut checks: Vec<Check> =
            baseline.into_iter().map(|(file, change)| check(format!("plain against {file}"), change)).collect();
        for arm in arms.iter().filter(|arm| arm.is_optimized()) {
            checks.push(check(format!("{} against plain", arm.name()), throughput_change(arm, sandwiches)));
        }
        let has = |verdict| checks.iter().any(|check| check.verdict == verdict);
        let verdict = [Verdict::PastLimit, Verdict::CannotTell].into_iter().find(|verdict| has(*verdict));
        Self { max_percent, verdict: verdict.unwrap_or(Verdict::WithinLimit), checks }
    }

    /// A sentence about what is past the limit; `None` if nothing is shown to be.
    pub(super) fn past(&self) -> Option<String> {
        self.list(Verdict::PastLimit).map(|list| {
            format!(
                "throughput is more than {} % lower, which is the most that may be lost: {list}",
                brief(self.max_percent)
            )
        })
    }

    /// All that was found, without a period.
    pub(super) fn sentence(&self) -> String {
        let unclear = self.list(Verdict::CannotTell).map(|list| {
            format!(
                "whether more than {} % was lost cannot be told of {list}; give more --repetitions",
                brief(self.max_percent)
            )
        });
        let found: Vec<String> = self.past().into_iter().chain(unclear).collect();
        match found.is_empty() {
            true => format!("no throughput is more than {} % lower", brief(self.max_percent)),
            false => found.join(". "),
        }
    }

    pub(super) fn is_within(&self) -> bool {
        self.verdict == Verdict::WithinLimit
    }

    fn list(&self, verdict: Verdict) -> Option<String> {
        let checks = self.checks.iter().filter(|check| check.verdict == verdict);
        let list: Vec<String> = checks.map(|c| format!("{} ({})", c.subject, interval(&c.change_percent))).collect();
        (!list.is_empty()).then(|| list.join(", "))
    }
}

/// The ends of an interval of percentages.
pub(super) fn interval(change: &Median) -> String {
    format!("{} to {}\u{a0}%", signed(change.low), signed(change.high))
}

/// Change of an arm's throughput against the plain runs around each of its own, percent.
fn throughput_change(arm: &Arm, sandwiches: &[Sandwich<'_>]) -> Median {
    let pairs = sandwiches.iter().filter(|s| s.arm == arm).map(|s| s.pair(Figure::Throughput, false).change);
    Median::of(&pairs.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::samples;

    fn verdict(low: f64, high: f64) -> Verdict {
        Verdict::of(&Median { median: (low + high) / 2.0, low, high, coverage: 0.9375 }, 5.0)
    }

    #[test]
    fn the_whole_interval_decides() {
        for (low, high, expected) in [
            (-4.9, 1.0, Verdict::WithinLimit),
            (2.0, 9.0, Verdict::WithinLimit),
            // Five percent may be lost.
            (-5.0, -5.0, Verdict::WithinLimit),
            (-8.0, -5.0, Verdict::CannotTell),
            (-8.0, -5.1, Verdict::PastLimit),
            (-90.0, -80.0, Verdict::PastLimit),
            (-30.0, 40.0, Verdict::CannotTell),
            (-5.1, 0.0, Verdict::CannotTell),
            (f64::NAN, f64::NAN, Verdict::CannotTell),
        ] {
            assert_eq!(verdict(low, high), expected, "{low} to {high}");
        }
        assert_eq!(Verdict::of(&Median::of(&[-50.0; 3]), 5.0), Verdict::CannotTell, "three runs have no interval");
    }

    #[test]
    fn a_planted_slowdown_of_ten_percent_is_caught_and_a_small_one_is_not() {
        let judged = |slower: f64, noise: f64| {
            let (arms, runs) =
                samples::runs(|arm| if matches!(arm, Arm::One("memory_pool")) { 1.0 - slower } else { 1.0 }, noise);
            Regression::of(5.0, None, &arms, &samples::sandwiches(&arms, &runs))
        };
        let caught = judged(0.10, 0.004);
        assert_eq!(caught.verdict, Verdict::PastLimit);
        let said = caught.past().unwrap();
        assert!(said.contains("memory_pool against plain") && !said.contains("blit_queue"), "{said}");
        let small = judged(0.02, 0.004);
        assert_eq!((small.verdict, small.past()), (Verdict::WithinLimit, None));
        let noisy = judged(0.10, 0.2);
        assert_eq!((noisy.verdict, noisy.past()), (Verdict::CannotTell, None));
        assert!(noisy.sentence().contains("cannot be told of"), "{}", noisy.sentence());
    }

    #[test]
    fn a_baseline_that_was_faster_is_past_the_limit_and_arms_for_comparison_are_not_judged() {
        let (arms, runs) = samples::runs(|arm| if *arm == Arm::Direct { 0.5 } else { 1.0 }, 0.001);
        let around = samples::sandwiches(&arms, &runs);
        let judged = |change: &[f64]| Regression::of(5.0, Some(("b.json", Median::of(change))), &arms, &around);
        assert_eq!(judged(&[-3.0, -2.0, -1.0, 0.0, 1.0]).verdict, Verdict::WithinLimit);
        let past = judged(&[-12.0, -11.0, -10.0, -9.0, -8.0]);
        assert!(past.past().is_some_and(|said| said.contains("plain against b.json")), "{past:?}");
        assert_eq!(judged(&[-12.0, -11.0, -10.0, -9.0, 1.0]).verdict, Verdict::CannotTell);
    }
}
