//! Plots as inline SVG: places are percentages, so that a plot fills its column and its text keeps its size; colors are the page's.

use super::number::{minus, value};
use super::statistics::Median;
use std::fmt::Write;

/// A value's axis. Values far from those of their own group are outside of it: one of them would squeeze all others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
}

/// One line of a plot.
pub(super) struct Row<'a> {
    /// Name of the line; HTML.
    pub label: &'a str,
    pub values: &'a [f64],
    /// The nearer end of the range that is aimed at.
    pub aim: Option<f64>,
    /// Text behind each value.
    pub unit: &'a str,
}

/// Share of the width that stays free at each end, percent.
const MARGIN: f64 = 4.0;
/// Room for dots above and below the middle of a row, pixels.
const LANES: [i32; 5] = [0, -6, 6, -3, 3];

impl Axis {
    /// The axis of some groups of values, on which `always` are too. Outliers are outside of it where they would leave less than a
    /// fifth of it to the others.
    pub(super) fn of(groups: &[&[f64]], always: &[f64]) -> Self {
        let near: Vec<Vec<f64>> = groups.iter().map(|group| within_fences(group)).collect();
        let near = ends(near.iter().flatten().chain(always));
        let whole = ends(groups.iter().copied().flatten().chain(always));
        // Halves, because the distance of two finite numbers may be infinite.
        let width = |(low, high): (f64, f64)| high / 2.0 - low / 2.0;
        let (low, high) = if width(whole) > 5.0 * width(near) { near } else { whole };
        // Half a percent of a value is noise: less than that must not fill the plot.
        let size = low.abs().max(high.abs());
        let least = if size > 0.0 { (0.005 * size).max(f64::MIN_POSITIVE) } else { 1.0 };
        match (low <= high, high - low < least) {
            (false, _) => Self { low: 0.0, high: 1.0 },
            // What is never below 0 has no axis that is.
            (_, true) if low >= 0.0 => Self { low: (low - least).max(0.0), high: high + least },
            (_, true) => Self { low: low - least, high: high + least },
            _ => Self { low, high },
        }
    }

    fn has(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// Place of a value, percent of the width; beyond the ends at the edge.
    pub(super) fn place(&self, value: f64) -> f64 {
        // Halves, because the distance of two finite numbers may be infinite.
        let share = (value / 2.0 - self.low / 2.0) / (self.high / 2.0 - self.low / 2.0);
        MARGIN + (100.0 - 2.0 * MARGIN) * share.clamp(0.0, 1.0)
    }

    /// At most six round values, with their text.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let width = self.high - self.low;
        let power = 10f64.powf((width / 5.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| width / step <= 5.0);
        let Some(step) = step.filter(|step| step.is_normal()) else { return Vec::new() };
        let decimals = (-step.log10().floor()).clamp(0.0, 4.0) as usize;
        let far = !(0.0005..999_999.5).contains(&self.low.abs().max(self.high.abs()));
        let first = (self.low / step).ceil();
        let ticks = (0..6).map(|i| (first + f64::from(i)) * step).take_while(|tick| *tick <= self.high);
        ticks
            .map(|tick| match far {
                true => (tick, value(tick)),
                // No zero has a sign.
                false => (tick, minus(format!("{:.decimals$}", if tick.abs() < step / 2.0 { 0.0 } else { tick }))),
            })
            .collect()
    }
}

impl Axis {
    /// The axis as SVG, with a unit behind each number.
    pub(super) fn html(&self, unit: &str) -> Result<String, std::fmt::Error> {
        let mut svg = String::from("<svg class=\"axis\" width=\"100%\" height=\"20\" aria-hidden=\"true\">");
        for (tick, text) in self.ticks() {
            let unit = if unit.is_empty() { String::new() } else { format!("\u{a0}{unit}") };
            write!(svg, "<text x=\"{:.2}%\" y=\"14\" text-anchor=\"middle\">{text}{unit}</text>", self.place(tick))?;
        }
        Ok(svg + "</svg>\n")
    }
}

/// The smallest and the largest finite value; the other way round if there is none.
fn ends<'a>(values: impl Iterator<Item = &'a f64>) -> (f64, f64) {
    let finite = values.copied().filter(|v| v.is_finite());
    finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
}

/// The values between Tukey's outer fences: three times the distance of the quartiles beyond them.
fn within_fences(values: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return sorted };
    let quartile = |share: f64| sorted[(share * last as f64).round() as usize];
    let (first, third) = (quartile(0.25), quartile(0.75));
    let reach = 3.0 * (third - first);
    sorted.into_iter().filter(|v| (first - reach..=third + reach).contains(v)).collect()
}

/// A plot: a line a row, the axis below, and a sentence if something is outside of it.
pub(super) fn plot(axis: Axis, rows: &[Row<'_>]) -> Result<String, std::fmt::Error> {
    let mut html = String::from("<div class=\"plot\">\n");
    let ticks = axis.ticks();
    for row in rows {
        writeln!(html, "<div class=\"label\">{}</div>\n{}", row.label, strip(axis, row, &ticks)?)?;
    }
    html.push_str("<div class=\"label\"></div>\n");
    html.push_str(&axis.html("")?);
    html.push_str("</div>\n");
    let outside: Vec<f64> =
        rows.iter().flat_map(|row| row.values).copied().filter(|v| !axis.has(*v) && v.is_finite()).collect();
    if !outside.is_empty() {
        let mut texts: Vec<String> = outside.iter().take(4).map(|v| value(*v)).collect();
        if outside.len() > texts.len() {
            texts.push("…".into());
        }
        let verb = if outside.len() == 1 { "value is" } else { "values are" };
        let texts = texts.join(", ");
        writeln!(html, "<p class=\"note\">{} {verb} outside of the axis (◂ ▸): {texts}.</p>", outside.len())?;
    }
    Ok(html)
}

fn strip(axis: Axis, row: &Row<'_>, ticks: &[(f64, String)]) -> Result<String, std::fmt::Error> {
    let median = Median::of(row.values);
    let interval = match median.has_interval() {
        true => format!("interval {} to {}", value(median.low), value(median.high)),
        false => "no interval".into(),
    };
    let mut svg = format!(
        "<svg class=\"strip\" width=\"100%\" height=\"36\" role=\"img\" aria-label=\"median {}, {interval}\">",
        value(median.median),
    );
    if let Some(aim) = row.aim {
        let at = axis.place(aim);
        let (from, width) = if aim < 0.0 { (0.0, at) } else { (at, 100.0 - at) };
        write!(svg, "<rect class=\"aimed\" x=\"{from:.2}%\" y=\"0\" width=\"{width:.2}%\" height=\"36\"/>")?;
    }
    for (tick, _) in ticks {
        upright(&mut svg, if *tick == 0.0 { "zero" } else { "grid" }, axis.place(*tick), 0, 36)?;
    }
    if let Some(aim) = row.aim {
        upright(&mut svg, "aim", axis.place(aim), 0, 36)?;
    }
    if median.has_interval() {
        let (low, high) = (axis.place(median.low), axis.place(median.high));
        write!(svg, "<line class=\"interval\" x1=\"{low:.2}%\" x2=\"{high:.2}%\" y1=\"18\" y2=\"18\"/>")?;
        for end in [median.low, median.high].into_iter().filter(|end| axis.has(*end)) {
            upright(&mut svg, "cap", axis.place(end), 11, 25)?;
        }
    }
    for (n, v) in row.values.iter().enumerate().filter(|(_, v)| axis.has(**v)) {
        let (x, y) = (axis.place(*v), 18 + LANES[n % LANES.len()]);
        let text = format!("<title>{} {}, number {}</title>", value(*v), row.unit, n + 1);
        write!(svg, "<circle class=\"dot\" cx=\"{x:.2}%\" cy=\"{y}\" r=\"3.5\">{text}</circle>")?;
    }
    if axis.has(median.median) {
        upright(&mut svg, "median", axis.place(median.median), 5, 31)?;
    }
    for (is_low, x, path) in [(true, "0", "M1 18l9 -6v12z"), (false, "100%", "M-1 18l-9 -6v12z")] {
        let beyond = |v: &&f64| v.is_finite() && if is_low { **v < axis.low } else { **v > axis.high };
        let count = row.values.iter().filter(beyond).count();
        if count > 0 {
            let title = format!("<title>{count} outside of the axis</title>");
            write!(
                svg,
                "<svg class=\"outside\" x=\"{x}\" y=\"0\" overflow=\"visible\"><path d=\"{path}\">{title}</path></svg>"
            )?;
        }
    }
    Ok(svg + "</svg>")
}

pub(super) fn upright(svg: &mut String, class: &str, x: f64, from: i32, to: i32) -> std::fmt::Result {
    write!(svg, "<line class=\"{class}\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"{from}\" y2=\"{to}\"/>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: Axis) -> Vec<String> {
        axis.ticks().into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn one_outlier_does_not_squeeze_the_others_and_is_marked_and_counted() {
        let (usual, odd) = ([100.0, 101.0, 102.0, 103.0, 99.0], [104.0, 105.0, 106.0, 107.0, 1700.0]);
        let axis = Axis::of(&[&usual, &odd], &[]);
        assert_eq!(axis, Axis { low: 99.0, high: 107.0 });
        let row = |values| Row { label: "plain", values, aim: None, unit: "tok/s" };
        let html = plot(axis, &[row(&usual), row(&odd)]).unwrap();
        assert_eq!(html.matches("class=\"dot\"").count(), 9);
        assert_eq!(html.matches("class=\"outside\"").count(), 1);
        assert!(html.contains("1 value is outside of the axis (◂ ▸): 1700."), "{html}");
    }

    #[test]
    fn a_group_that_is_far_from_the_others_is_no_outlier() {
        let (slow, fast) = ([18.0, 18.1, 17.9, 18.2, 18.0], [3.0, 3.1, 2.9, 3.2, 3.0]);
        assert_eq!(Axis::of(&[&slow, &fast], &[]), Axis { low: 2.9, high: 18.2 });
        assert_eq!(Axis::of(&[&fast], &[0.0, 40.0]), Axis { low: 0.0, high: 40.0 });
    }

    #[test]
    fn a_value_that_squeezes_nothing_is_no_outlier() {
        let axis = Axis::of(&[&[1.0, 1.0, 1.0, 1.0, 1.5]], &[0.0, 1.0]);
        assert_eq!(axis, Axis { low: 0.0, high: 1.5 });
        assert_eq!(Axis::of(&[&[0.0; 5]], &[0.0]), Axis { low: 0.0, high: 1.0 });
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(texts(Axis { low: -17.0, high: 23.0 }), ["−10", "0", "10", "20"]);
        assert_eq!(texts(Axis { low: 0.011, high: 0.034 }), ["0.015", "0.020", "0.025", "0.030"]);
        assert_eq!(texts(Axis { low: 3900.0, high: 4600.0 }), ["4000", "4200", "4400", "4600"]);
        assert_eq!(texts(Axis { low: 0.0, high: 4e9 }), ["0", "1.0e9", "2.0e9", "3.0e9", "4.0e9"]);
    }

    #[test]
    fn any_values_give_places_within_the_plot() {
        let odd: [&[f64]; 7] =
            [&[], &[0.0], &[5.0; 9], &[f64::NAN], &[1e308, -1e308], &[1e-320, 2e-320], &[f64::INFINITY, 1.0]];
        for values in odd {
            let axis = Axis::of(&[values], &[]);
            assert!(axis.low < axis.high, "{values:?}: {axis:?}");
            assert!(axis.ticks().len() <= 6, "{values:?}");
            let html = plot(axis, &[Row { label: "", values, aim: Some(-3.0), unit: "" }]).unwrap();
            assert!(!html.contains("NaN%") && !html.contains("inf%"), "{html}");
        }
    }
}
