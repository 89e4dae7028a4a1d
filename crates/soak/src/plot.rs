//! Lines over time, drawn as SVG.

use std::fmt::Write as _;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 170.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 24.0;
const TOP: f64 = 10.0;
const RIGHT: f64 = 24.0;
/// Most points that are drawn of a line: more are thinner than a pixel.
const MOST: usize = 1500;

/// Colors of the page.
pub(crate) const COLORS: usize = 6;

/// One line of a plot.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// Name in the legend.
    pub name: String,
    /// Number of its color: the same for the same thing in every plot.
    pub color: usize,
    /// Time in seconds and value; a line is broken where the value is not a number.
    pub points: Vec<(f64, f64)>,
}

/// A plot of lines over the seconds of a run.
#[derive(Debug)]
pub(crate) struct Plot<'a> {
    pub title: &'a str,
    pub unit: &'a str,
    pub lines: Vec<Line>,
    /// End of the axis, seconds.
    pub end_s: f64,
    /// Times at which another process went on, seconds.
    pub gaps: &'a [f64],
    /// The value axis begins at zero.
    pub from_zero: bool,
    /// Values between which a line should stay.
    pub band: Option<(f64, f64)>,
}

impl Plot<'_> {
    /// The plot with its title and legend.
    pub(crate) fn draw(&self) -> String {
        let values = self.lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value).filter(|v| v.is_finite());
        let (mut low, mut high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if !low.is_finite() {
            return format!(
                "<figure><figcaption>{}</figcaption><p class=\"quiet\">Nothing was measured.</p></figure>",
                self.title
            );
        }
        if self.from_zero {
            low = 0.0;
        }
        if let Some((least, most)) = self.band {
            (low, high) = (low.min(least), high.max(most));
        }
        if high - low < 1e-9_f64.max(0.01 * high.abs()) {
            (low, high) = (low - 0.5 * (1.0 + 0.01 * low.abs()), high + 0.5 * (1.0 + 0.01 * high.abs()));
        }
        let step = step((high - low) / 4.0);
        low = (low / step).floor() * step;
        high = (high / step).ceil() * step;
        let x = |s: f64| LEFT + (WIDTH - LEFT - RIGHT) * (s / self.end_s.max(1e-9)).clamp(0.0, 1.0);
        let y = |v: f64| TOP + (HEIGHT - TOP - BOTTOM) * (high - v) / (high - low);
        let mut svg = String::new();
        // Writing to a string does not fail.
        if let Some((least, most)) = self.band {
            let (top, height, width) = (y(most), y(least) - y(most), WIDTH - LEFT - RIGHT);
            let _ = write!(
                svg,
                "<rect class=\"band\" x=\"{LEFT}\" y=\"{top:.1}\" width=\"{width}\" height=\"{height:.1}\"/>"
            );
        }
        let mut tick = low;
        while tick <= high + step / 2.0 {
            let at = y(tick);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                number(tick, step)
            );
            tick += step;
        }
        let unit = times(self.end_s);
        let mut at = 0.0;
        while at <= self.end_s + 1e-6 {
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
                x(at),
                HEIGHT - 6.0,
                time(at)
            );
            at += unit;
        }
        for gap in self.gaps {
            let _ = write!(
                svg,
                "<line class=\"gap\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{TOP}\" y2=\"{1:.0}\"><title>another process goes on</title></line>",
                x(*gap),
                HEIGHT - BOTTOM
            );
        }
        for line in &self.lines {
            let every = line.points.len().div_ceil(MOST).max(1);
            let (mut path, mut pen) = (String::new(), 'M');
            for (s, value) in line.points.iter().step_by(every) {
                if value.is_finite() {
                    let _ = write!(path, "{pen}{:.1} {:.1}", x(*s), y(*value));
                    pen = 'L';
                } else {
                    pen = 'M';
                }
            }
            let color = line.color % COLORS;
            let _ = write!(svg, "<path class=\"c{color}\" d=\"{path}\"/>");
            if line.points.len() <= 150 {
                for (s, value) in line.points.iter().filter(|(_, value)| value.is_finite()) {
                    let _ = write!(
                        svg,
                        "<circle class=\"c{color}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.2\"><title>{}: {} {} at {}</title></circle>",
                        x(*s),
                        y(*value),
                        line.name,
                        number(*value, step / 10.0),
                        self.unit,
                        time(*s)
                    );
                }
            }
        }
        let key = |line: &Line| {
            format!("<span class=\"item\"><span class=\"key c{}\"></span>{}</span>", line.color % COLORS, line.name)
        };
        let legend: Vec<String> = if self.lines.len() > 1 { self.lines.iter().map(key).collect() } else { Vec::new() };
        let unit = if self.unit.is_empty() { String::new() } else { format!(", {}", self.unit) };
        format!(
            "<figure><figcaption><b>{}</b>{unit} <span class=\"legend\">{}</span></figcaption><div class=\"wide\"><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"{}\">{svg}</svg></div></figure>",
            self.title,
            legend.join(" "),
            self.title
        )
    }
}

/// The next of 1, 2, 5 times a power of ten.
fn step(rough: f64) -> f64 {
    let power = 10_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= rough * 0.999);
    factor.unwrap_or(10.0) * power
}

fn number(value: f64, step: f64) -> String {
    let digits = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{value:.digits$}")
}

/// Distance of the marks of the time axis, seconds.
fn times(end_s: f64) -> f64 {
    let steps = [1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0, 43_200.0, 86_400.0];
    steps.into_iter().find(|step| end_s / step <= 12.0).unwrap_or_else(|| (end_s / 86_400.0 / 12.0).ceil() * 86_400.0)
}

/// A time of a run: 45 s, 12m, 3h20.
pub(crate) fn time(s: f64) -> String {
    let whole = s.round().max(0.0) as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 if whole.is_multiple_of(60) => format!("{}m", whole / 60),
        60..3600 => format!("{}m{:02}", whole / 60, whole % 60),
        _ if (whole / 60).is_multiple_of(60) => format!("{}h", whole / 3600),
        _ => format!("{}h{:02}", whole / 3600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_the_line_is_broken_where_nothing_is() {
        assert_eq!([0.7, 1.3, 3.0, 6.0, 0.013].map(step), [1.0, 2.0, 5.0, 10.0, 0.02]);
        assert_eq!([5.0, 60.0, 90.0, 3600.0, 12_000.0].map(time), ["5 s", "1m", "1m30", "1h", "3h20"]);
        let line = Line { name: "a".into(), color: 7, points: vec![(0.0, 1.0), (10.0, f64::NAN), (20.0, 3.0)] };
        let plot =
            Plot { title: "t", unit: "u", lines: vec![line], end_s: 20.0, gaps: &[10.0], from_zero: true, band: None };
        let drawn = plot.draw();
        assert_eq!(drawn.matches("<circle").count(), 2);
        let path = drawn.split("d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 0));
        assert!(!drawn.contains("NaN") && drawn.contains("class=\"gap\""));
        assert!(drawn.contains("<path class=\"c1\"") && !drawn.contains("class=\"band\""));
        let drawn = Plot { band: Some((0.9, 1.1)), from_zero: false, ..plot }.draw();
        assert!(drawn.contains("<rect class=\"band\""), "{drawn}");
    }

    #[test]
    fn a_plot_of_nothing_or_of_one_value_is_drawn() {
        for points in [vec![], vec![(0.0, f64::NAN)], vec![(0.0, 0.0)], vec![(0.0, 7.0), (1.0, 7.0)], vec![(0.0, 1e12)]]
        {
            let lines = vec![Line { name: "a".into(), color: 0, points }];
            let drawn =
                Plot { title: "t", unit: "", lines, end_s: 0.0, gaps: &[], from_zero: false, band: None }.draw();
            assert!(!drawn.contains("NaN") && !drawn.contains("inf") && drawn.len() < 20_000, "{drawn}");
        }
    }
}
