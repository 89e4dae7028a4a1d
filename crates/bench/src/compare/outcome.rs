//! Judgments of a change by its interval.

use super::statistics::{COVERAGE, Median};
use serde::Serialize;

/// Standing of a change beside its aim, by its interval: the median alone says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// The whole interval is beyond the aim.
    Reached,
    /// The whole interval is on one side of zero, and short of the aim.
    NotReached,
    /// The interval spans zero: that anything changed is not shown.
    NoDifference,
    /// The interval spans the aim, or there is none.
    CannotTell,
}

impl Outcome {
    pub(super) fn of(change: &Median, least: f64) -> Option<Self> {
        if least.is_nan() {
            return None;
        }
        // Toward the aim is up.
        let (low, high, aim) = match least < 0.0 {
            true => (-change.high, -change.low, -least),
            false => (change.low, change.high, least),
        };
        Some(if change.coverage < COVERAGE {
            Outcome::CannotTell
        } else if low <= 0.0 && high >= 0.0 {
            Outcome::NoDifference
        } else if low >= aim {
            Outcome::Reached
        } else if high < aim {
            Outcome::NotReached
        } else {
            Outcome::CannotTell
        })
    }
}

/// Direction of a change by its interval, apart from what was aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Direction {
    /// The whole interval is above zero.
    Up,
    /// The whole interval is below zero.
    Down,
    /// The interval spans zero.
    NoneSeen,
    /// There is no interval.
    Unknown,
}

impl Direction {
    pub(super) fn of(change: &Median) -> Self {
        if !change.has_interval() {
            Direction::Unknown
        } else if change.low > 0.0 {
            Direction::Up
        } else if change.high < 0.0 {
            Direction::Down
        } else {
            Direction::NoneSeen
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(low: f64, high: f64, least: f64) -> Option<Outcome> {
        let change = Median { median: (low + high) / 2.0, low, high, coverage: 0.9375 };
        Outcome::of(&change, least)
    }

    #[test]
    fn the_interval_decides_and_not_the_median() {
        for (low, high, least, expected) in [
            (10.0, 15.0, 10.0, Outcome::Reached),
            (8.1, 14.4, 5.0, Outcome::Reached),
            // Its median is beyond the aim.
            (-19.6, 40.2, 5.0, Outcome::NoDifference),
            (-3.0, 3.8, 10.0, Outcome::NoDifference),
            (0.0, 20.0, 10.0, Outcome::NoDifference),
            (0.6, 1.5, 5.0, Outcome::NotReached),
            (-5.0, -1.0, 5.0, Outcome::NotReached),
            (7.9, 21.3, 10.0, Outcome::CannotTell),
            (-87.0, -78.0, -15.0, Outcome::Reached),
            (-32.1, -2.8, -15.0, Outcome::CannotTell),
            (-17.8, 19.0, -15.0, Outcome::NoDifference),
            (11.6, 65.6, -15.0, Outcome::NotReached),
            (-14.0, -2.0, -15.0, Outcome::NotReached),
        ] {
            assert_eq!(outcome(low, high, least), Some(expected), "{low} to {high}, aim {least}");
        }
        assert_eq!(outcome(1.0, 2.0, f64::NAN), None);
        let single = Median::of(&[20.0]);
        assert_eq!(Outcome::of(&single, 10.0), Some(Outcome::CannotTell), "one run has no interval");
    }

    #[test]
    fn direction_and_aim_are_judged_apart() {
        let told =
            |least: f64, changes: &[f64]| crate::compare::samples::finding("memory_pool", least, changes).verdict();
        for (least, changes, said) in [
            (10.0, [11.0, 12.0, 13.0, 14.0, 15.0], "reached"),
            (10.0, [1.0, 2.0, 3.0, 4.0, 5.0], "better, but not as aimed"),
            (10.0, [8.0, 9.0, 11.0, 12.0, 13.0], "better, cannot tell if as aimed"),
            (10.0, [-5.0, -4.0, -3.0, -2.0, -1.0], "worse"),
            (10.0, [-1.0, 0.0, 1.0, 2.0, 3.0], "no difference seen"),
            (10.0, [-30.0, 5.0, 20.0, 30.0, 40.0], "no difference seen"),
            (-15.0, [-5.0, -4.0, -3.0, -2.0, -1.0], "better, but not as aimed"),
            (-15.0, [1.0, 2.0, 3.0, 4.0, 5.0], "worse"),
            (f64::NAN, [1.0, 2.0, 3.0, 4.0, 5.0], "higher"),
            (f64::NAN, [-1.0, -2.0, -3.0, -4.0, -5.0], "lower"),
            (f64::NAN, [-1.0, -2.0, -3.0, -4.0, 5.0], "no difference seen"),
        ] {
            assert_eq!(told(least, &changes), said, "{least}: {changes:?}");
        }
        assert_eq!((told(10.0, &[50.0]), told(f64::NAN, &[50.0])), ("cannot tell", "cannot tell"));
    }
}
