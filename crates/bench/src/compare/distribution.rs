//! Distributions of what every request saw, a strip of quantiles an arm.

use super::arm::Run;
use super::number::value;
use super::plot::{Axis, upright};
use serde::Serialize;
use std::fmt::{Error, Write};

/// Quantiles of some milliseconds; null where there are none.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Quantiles {
    pub p1: f64,
    pub p5: f64,
    pub p25: f64,
    pub p50: f64,
    pub p75: f64,
    pub p95: f64,
    pub p99: f64,
}

/// A time that every request has.
#[derive(Debug, Clone, Copy)]
pub(super) enum Time {
    FirstToken,
    BetweenTokens,
}

impl Time {
    pub(super) const ALL: [Time; 2] = [Time::FirstToken, Time::BetweenTokens];

    pub(super) fn name(self) -> &'static str {
        match self {
            Time::FirstToken => "time to first token, ms",
            Time::BetweenTokens => "between tokens, ms",
        }
    }

    /// Quantiles over all runs of an arm, of which each counts the same.
    pub(super) fn of(self, arm: &str, runs: &[Run]) -> Option<Quantiles> {
        let values = |run: &Run| match self {
            Time::FirstToken => run.measured.every_ttft_ms.clone(),
            Time::BetweenTokens => run.measured.every_itl_ms.clone(),
        };
        Quantiles::of(runs.iter().filter(|run| run.arm == arm).flat_map(values).collect())
    }
}

impl Quantiles {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let at = |share: f64| values[(share * last as f64).round() as usize];
        Some(Self {
            p1: at(0.01),
            p5: at(0.05),
            p25: at(0.25),
            p50: at(0.5),
            p75: at(0.75),
            p95: at(0.95),
            p99: at(0.99),
        })
    }
}

/// The strips of some arms on one axis, as HTML.
pub(super) fn strips(arms: &[(&str, Quantiles)]) -> Result<String, Error> {
    let ends: Vec<[f64; 2]> = arms.iter().map(|(_, q)| [q.p1, q.p99]).collect();
    let axis = Axis::of(&ends.iter().map(|ends| ends.as_slice()).collect::<Vec<_>>(), &[]);
    let mut html = String::from("<div class=\"plot\">\n");
    for (arm, q) in arms {
        let texts = [q.p1, q.p5, q.p25, q.p50, q.p75, q.p95, q.p99].map(value);
        let [p1, p5, p25, p50, p75, p95, p99] = &texts;
        let words = format!("1 % {p1}, 5 % {p5}, 25 % {p25}, median {p50}, 75 % {p75}, 95 % {p95}, 99 % {p99}");
        write!(
            html,
            "<div class=\"label\">{arm}</div>\n<svg class=\"strip quantiles\" width=\"100%\" height=\"30\" role=\"img\" aria-label=\"{words}\">\
             <title>{words}</title>"
        )?;
        for (tick, _) in axis.ticks() {
            upright(&mut html, "grid", axis.place(tick), 0, 30)?;
        }
        for (class, from, to, y, height) in
            [("tail", q.p1, q.p99, 14, 2), ("most", q.p5, q.p95, 11, 8), ("middle", q.p25, q.p75, 7, 16)]
        {
            let (x, width) = (axis.place(from), axis.place(to) - axis.place(from));
            write!(
                html,
                "<rect class=\"{class}\" x=\"{x:.2}%\" width=\"{width:.2}%\" y=\"{y}\" height=\"{height}\"/>"
            )?;
        }
        upright(&mut html, "median", axis.place(q.p50), 4, 26)?;
        html.push_str("</svg>\n");
    }
    html.push_str("<div class=\"label\"></div>\n");
    html.push_str(&axis.html("")?);
    html.push_str("</div>\n");
    Ok(html)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_all_values_and_none_of_none() {
        let q = Quantiles::of((0..=100).rev().map(f64::from).collect()).unwrap();
        assert_eq!([q.p1, q.p5, q.p25, q.p50, q.p75, q.p95, q.p99], [1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0]);
        assert_eq!(Quantiles::of(Vec::new()), None);
    }

    #[test]
    fn every_arm_has_a_strip_with_its_quantiles_in_words() {
        let q = |n: f64| Quantiles::of((0..=100).map(|v| n * f64::from(v)).collect()).unwrap();
        let html = strips(&[("plain", q(1.0)), ("blit_queue", q(0.5))]).unwrap();
        assert_eq!(html.matches("class=\"middle\"").count(), 2, "{html}");
        assert!(html.contains("median 25.00") && html.contains("99 % 99.00"), "{html}");
    }
}
