//! Medians and their intervals, without assumptions about distributions.

use serde::Serialize;

/// A median, with an interval that holds the true one with probability `coverage`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Median {
    pub median: f64,
    pub low: f64,
    pub high: f64,
    /// Coverage of the interval: 1 − 2⁻⁽ⁿ⁻¹⁾ for the whole range of n values, less for narrower ones.
    pub coverage: f64,
}

/// Intervals are as narrow as this coverage allows.
pub(crate) const COVERAGE: f64 = 0.9;

impl Median {
    /// True if its ends are finite and those of an interval. Of fewer than 5 values they are only the least and the largest.
    pub(crate) fn has_interval(&self) -> bool {
        self.coverage >= COVERAGE && self.low.is_finite() && self.high.is_finite()
    }

    /// Median of some values; the interval is one of order statistics (David and Nagaraja, Order Statistics, section 7.1). All zero
    /// for no values.
    pub(crate) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        if n == 0 {
            return Self::default();
        }
        let median = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0;
        // Probability that the median lies outside the values from the k-th smallest to the k-th largest, k from 0.
        let (mut term, mut tail) = (0.5f64.powi(n as i32), 0.0);
        let (mut k, mut coverage) = (0, 0.0);
        for i in 0..n.div_ceil(2) {
            tail += term;
            term *= (n - i) as f64 / (i + 1) as f64;
            if i > 0 && 1.0 - 2.0 * tail < COVERAGE {
                break;
            }
            (k, coverage) = (i, (1.0 - 2.0 * tail).max(0.0));
        }
        Self { median, low: sorted[k], high: sorted[n - 1 - k], coverage }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_values_give_their_whole_range() {
        let m = Median::of(&[5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!((m.median, m.low, m.high, m.coverage), (3.0, 1.0, 5.0, 0.9375));
    }

    #[test]
    fn more_values_narrow_the_interval() {
        let m = Median::of(&(1..=20).map(f64::from).collect::<Vec<_>>());
        // P(6 ≤ rank ≤ 15) of a binomial with n = 20 and p = ½ is 0.9586.
        assert_eq!((m.median, m.low, m.high), (10.5, 6.0, 15.0));
        assert!((m.coverage - 0.9586).abs() < 1e-4, "{}", m.coverage);
    }

    #[test]
    fn one_value_promises_nothing_and_none_is_zero() {
        assert_eq!(Median::of(&[2.0]), Median { median: 2.0, low: 2.0, high: 2.0, coverage: 0.0 });
        assert_eq!(Median::of(&[]), Median::default());
    }
}
