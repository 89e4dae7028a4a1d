//! Speeds of a part of the work on answers, its prefill or its decode.

use crate::measured::ratio;
use std::time::Instant;

/// Part of the work on one answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Part {
    /// Tokens that were computed in it.
    pub tokens: f64,
    pub from: Instant,
    pub to: Instant,
}

/// Speed of parts that may run at the same time.
#[derive(Debug, Default)]
pub(crate) struct Speed {
    tokens: f64,
    intervals: Vec<(Instant, Instant)>,
}

impl Speed {
    /// Speed with one part more; a part without tokens has no time in which they were computed.
    pub(crate) fn with(mut self, part: Part) -> Self {
        if part.tokens > 0.0 {
            self.tokens += part.tokens;
            self.intervals.push((part.from, part.to));
        }
        self
    }

    /// Tokens over the time in which at least one part ran, a second; `None` without any such time. Time that several parts share counts
    /// once, so that answers that wait for each other are not taken for answers that are computed together.
    pub(crate) fn tok_s(mut self) -> Option<f64> {
        self.intervals.sort_unstable();
        let (mut covered, mut end) = (0.0, None::<Instant>);
        for (from, to) in self.intervals {
            let from = end.map_or(from, |end| from.max(end));
            covered += to.saturating_duration_since(from).as_secs_f64();
            end = Some(end.map_or(to, |end| to.max(end)));
        }
        (covered > 0.0).then(|| ratio(self.tokens, covered))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn shared_time_counts_once_and_idle_time_does_not_count() {
        let start = Instant::now();
        let speed = |parts: &[(f64, u64, u64)]| {
            let at = |s| start + Duration::from_secs(s);
            let parts = parts.iter().map(|&(tokens, from, to)| Part { tokens, from: at(from), to: at(to) });
            parts.fold(Speed::default(), Speed::with).tok_s()
        };
        assert_eq!(speed(&[(30.0, 0, 3)]), Some(10.0));
        assert_eq!(speed(&[(30.0, 2, 4), (10.0, 0, 1), (20.0, 1, 3)]), Some(15.0), "4 s, in any order");
        assert_eq!(speed(&[(30.0, 0, 9), (6.0, 2, 3)]), Some(4.0), "one within another");
        assert_eq!(speed(&[(5.0, 0, 1), (5.0, 100, 101)]), Some(5.0), "nothing ran in between");
        assert_eq!(speed(&[(0.0, 0, 9), (5.0, 0, 1)]), Some(5.0), "nothing was computed in the first");
        assert_eq!((speed(&[]), speed(&[(5.0, 1, 1)])), (None, None));
    }
}
