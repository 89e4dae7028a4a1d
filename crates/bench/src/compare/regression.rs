//! Regressions: throughput further below a baseline's, or an optimization's below plain's, than it may be.

use super::arm::Arm;
use super::figure::Figure;
use super::finding::Sandwich;
use super::number::{brief, sentence, signed};
use super::quiet::Others;
use super::statistics::Median;
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
        if !change.has_interval() {
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
    /// Reason for which a change past the limit shows nothing; null where it shows something.
    doubt: Option<String>,
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
    /// only are not judged. A baseline was measured at another time: where `others` took so much of the machine that plain may be slower for
    /// that alone, nothing is shown against it. An optimization and plain shared what was left.
    pub(super) fn of(
        max_percent: f64,
        baseline: Option<(&str, Median)>,
        others: Others,
        arms: &[Arm],
        sandwiches: &[Sandwich<'_>],
    ) -> Self {
        let check = |subject, change_percent: Median| Check {
            subject,
            change_percent,
            verdict: Verdict::of(&change_percent, max_percent),
            doubt: None,
        };
        let mut checks: Vec<Check> =
            baseline.into_iter().map(|(file, change)| check(format!("plain against {file}"), change)).collect();
        if others.quiet() == Some(false) {
            for check in checks.iter_mut().filter(|check| check.verdict == Verdict::PastLimit) {
                (check.verdict, check.doubt) = (Verdict::CannotTell, Some(others.sentence()));
            }
        }
        for arm in arms.iter().filter(|arm| arm.is_optimized()) {
            checks.push(check(format!("{} against plain", arm.name()), throughput_change(arm, sandwiches)));
        }
        let has = |verdict| checks.iter().any(|check| check.verdict == verdict);
        let verdict = [Verdict::PastLimit, Verdict::CannotTell].into_iter().find(|verdict| has(*verdict));
        Self { max_percent, verdict: verdict.unwrap_or(Verdict::WithinLimit), checks }
    }

    /// A sentence about what is past the limit; `None` if nothing is shown to be.
    pub(super) fn past(&self) -> Option<String> {
        self.list(|check| check.verdict == Verdict::PastLimit).map(|list| {
            format!(
                "throughput is more than {} % lower, which is the most that may be lost: {list}",
                brief(self.max_percent)
            )
        })
    }

    /// All that was found, without a period.
    pub(super) fn sentence(&self) -> String {
        let unclear = |list: String, advice: &str| {
            format!("whether more than {} % was lost cannot be told of {list}{advice}", brief(self.max_percent))
        };
        let few = self.list(|check| check.verdict == Verdict::CannotTell && check.doubt.is_none());
        let few = few.map(|list| unclear(list, "; give more --repetitions"));
        let doubted = self.checks.iter().filter_map(|check| {
            let doubt = check.doubt.as_deref()?;
            Some(unclear(check.text(), &format!(", because {doubt}; close them and measure again")))
        });
        let found: Vec<String> = self.past().into_iter().chain(doubted).chain(few).collect();
        match found.split_first() {
            None => format!("no throughput is more than {} % lower", brief(self.max_percent)),
            Some((first, rest)) => rest.iter().fold(first.clone(), |all, next| all + ". " + &sentence(next)),
        }
    }

    pub(super) fn is_within(&self) -> bool {
        self.verdict == Verdict::WithinLimit
    }

    fn list(&self, belongs: impl Fn(&Check) -> bool) -> Option<String> {
        let list: Vec<String> = self.checks.iter().filter(|check| belongs(check)).map(Check::text).collect();
        (!list.is_empty()).then(|| list.join(", "))
    }
}

impl Check {
    fn text(&self) -> String {
        let change = &self.change_percent;
        let interval = if change.has_interval() { interval(change) } else { "no interval".into() };
        format!("{} ({interval})", self.subject)
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
            Regression::of(5.0, None, Others(Some(0.01)), &arms, &samples::sandwiches(&arms, &runs))
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
        let quiet = Others(Some(0.05));
        let judged = |change: &[f64]| Regression::of(5.0, Some(("b.json", Median::of(change))), quiet, &arms, &around);
        assert_eq!(judged(&[-3.0, -2.0, -1.0, 0.0, 1.0]).verdict, Verdict::WithinLimit);
        let past = judged(&[-12.0, -11.0, -10.0, -9.0, -8.0]);
        assert!(past.past().is_some_and(|said| said.contains("plain against b.json")), "{past:?}");
        assert_eq!(judged(&[-12.0, -11.0, -10.0, -9.0, 1.0]).verdict, Verdict::CannotTell);
    }

    #[test]
    fn a_machine_that_was_not_quiet_shows_no_loss_against_a_baseline_but_one_against_plain() {
        let slow = |arm: &Arm| if matches!(arm, Arm::One("memory_pool")) { 0.5 } else { 1.0 };
        let change = Median::of(&[-12.0, -11.0, -10.0, -9.0, -8.0]);
        let judged = |others, speed: &dyn Fn(&Arm) -> f64| {
            let (arms, runs) = samples::runs(speed, 0.001);
            Regression::of(5.0, Some(("b.json", change)), Others(others), &arms, &samples::sandwiches(&arms, &runs))
        };
        let noisy = judged(Some(0.37), &|_| 1.0);
        assert_eq!((noisy.verdict, noisy.past()), (Verdict::CannotTell, None));
        let said = noisy.sentence();
        assert!(said.starts_with("whether more than 5 % was lost cannot be told of plain against b.json"), "{said}");
        assert!(said.contains("because the machine was not quiet: other programs took 37 %"), "{said}");
        for unknown in [Some(0.05), None] {
            assert_eq!(judged(unknown, &|_| 1.0).verdict, Verdict::PastLimit, "{unknown:?}");
        }
        let both = judged(Some(0.37), &slow);
        assert!(both.past().is_some_and(|past| !past.contains("b.json") && past.contains("memory_pool")));
        assert!(both.sentence().contains("). Whether more than 5 %"), "{}", both.sentence());
    }
}
