//! Copies and steps of one run beside each other, by the device's clock.

use super::number::{brief, value};
use super::plot::Axis;
use mlx_serving_metal_layer::{Activity, Interval};
use mlx_serving_runtime::Model;
use serde::Serialize;
use std::fmt::Write;
use std::time::Duration;

/// Intervals of an excerpt: as many as a picture can show.
const SHOWN: usize = 96;
/// The tracks from top to bottom, with the height at which each begins.
const TRACKS: [(Activity, &str, u32); 3] = [
    (Activity::Step, "steps", 4),
    (Activity::Upload, "to the device", 36),
    (Activity::Download, "from the device", 68),
];
/// Height of a bar, and of the picture.
const BAR: u32 = 24;
const HEIGHT: u32 = 96;

/// Excerpt of a run: the intervals around most of the copies' time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Excerpt {
    pub title: &'static str,
    intervals: Vec<Interval>,
}

/// An interval in JSON: milliseconds from the excerpt's beginning.
#[derive(Serialize)]
pub(super) struct Span {
    activity: Activity,
    from_ms: f64,
    to_ms: f64,
    overlapped_ms: f64,
    bytes: u64,
}

impl Excerpt {
    /// The excerpt of what a model's device did last; `None` if the blit queue copied nothing.
    pub(crate) fn of(title: &'static str, model: &Model) -> Option<Self> {
        Self::from_intervals(title, model.engine().intervals())
    }

    pub(super) fn from_intervals(title: &'static str, mut intervals: Vec<Interval>) -> Option<Self> {
        intervals.sort_by_key(|i| i.from);
        let copied =
            |some: &[Interval]| some.iter().filter(|i| i.activity != Activity::Step).map(length).sum::<Duration>();
        let windows = intervals.windows(SHOWN.min(intervals.len()).max(1));
        let busiest = windows.max_by_key(|some| copied(some)).filter(|some| !copied(some).is_zero())?;
        Some(Self { title, intervals: busiest.to_vec() })
    }

    pub(super) fn spans(&self) -> Vec<Span> {
        let start = self.start();
        let span = |i: &Interval| Span {
            activity: i.activity,
            from_ms: ms(i.from - start),
            to_ms: ms(i.to - start),
            overlapped_ms: ms(i.overlapped),
            bytes: i.bytes,
        };
        self.intervals.iter().map(span).collect()
    }

    fn start(&self) -> Duration {
        self.intervals.first().map_or(Duration::ZERO, |i| i.from)
    }

    /// The picture, as HTML.
    pub(super) fn html(&self) -> Result<String, std::fmt::Error> {
        let start = self.start();
        let at = |time: Duration| ms(time.saturating_sub(start));
        let end = self.intervals.iter().map(|i| at(i.to)).fold(0.0, f64::max);
        let axis = Axis::of(&[&[0.0, end]], &[]);
        let mut html = String::from("<div class=\"plot timeline\">\n<div class=\"label tracks\">");
        for (_, name, _) in TRACKS {
            write!(html, "<span>{name}</span>")?;
        }
        write!(
            html,
            "</div>\n<svg class=\"strip bars\" width=\"100%\" height=\"{HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            self.words()
        )?;
        for i in self.intervals.iter().filter(|i| !i.overlapped.is_zero()) {
            // As strong as the share of the copy's time in which ops ran.
            let (x, width) = place(axis, at(i.from), at(i.to));
            write!(
                html,
                "<rect class=\"overlap\" x=\"{x:.2}%\" width=\"{width:.2}%\" y=\"0\" height=\"{HEIGHT}\" fill-opacity=\"{:.2}\"/>",
                0.4 * overlapped(i)
            )?;
        }
        for i in &self.intervals {
            let Some((_, _, y)) = TRACKS.into_iter().find(|(activity, ..)| *activity == i.activity) else { continue };
            let (x, width) = place(axis, at(i.from), at(i.to));
            let class = if i.activity == Activity::Step { "step" } else { "copy" };
            let title = title(i);
            write!(
                html,
                "<rect class=\"{class}\" x=\"{x:.2}%\" width=\"{width:.2}%\" y=\"{y}\" height=\"{BAR}\"><title>{title}</title></rect>"
            )?;
        }
        html.push_str("</svg>\n<div class=\"label\"></div>\n");
        html.push_str(&axis.html("ms")?);
        writeln!(html, "</div>\n<p class=\"note\">{}.</p>", self.words())?;
        Ok(html)
    }

    /// The excerpt in words.
    fn words(&self) -> String {
        let (mut steps, mut copies, mut bytes, mut copied, mut over) = (0, 0, 0, Duration::ZERO, Duration::ZERO);
        for i in &self.intervals {
            match i.activity {
                Activity::Step => steps += 1,
                Activity::Upload | Activity::Download => {
                    (copies, bytes, copied, over) =
                        (copies + 1, bytes + i.bytes, copied + length(i), over + i.overlapped);
                }
            }
        }
        let share = if copied.is_zero() { 0.0 } else { 100.0 * over.as_secs_f64() / copied.as_secs_f64() };
        let kib = brief(bytes as f64 / 1024.0);
        let (copied, share) = (brief(ms(copied)), brief(share.round()));
        let count = |n: usize, one: &str, more: &str| format!("{n} {}", if n == 1 { one } else { more });
        let (steps, copies) = (count(steps, "step", "steps"), count(copies, "copy", "copies"));
        format!("{steps}, {copies} of {kib} KiB in {copied} ms, {share}\u{a0}% of that while ops ran")
    }
}

fn title(i: &Interval) -> String {
    let took = value(ms(length(i)));
    match i.activity {
        Activity::Step => format!("step, {took} ms"),
        Activity::Upload | Activity::Download => {
            let direction = if i.activity == Activity::Upload { "to" } else { "from" };
            let (kib, share) = (brief(i.bytes as f64 / 1024.0), brief((100.0 * overlapped(i)).round()));
            format!("{kib} KiB {direction} the device, {took} ms, {share} % of it while ops ran")
        }
    }
}

/// Place and width, percent of the picture's; what is short is still seen.
fn place(axis: Axis, from: f64, to: f64) -> (f64, f64) {
    let (from, to) = (axis.place(from), axis.place(to));
    (from, (to - from).max(0.15))
}

fn length(i: &Interval) -> Duration {
    i.to.saturating_sub(i.from)
}

/// Share of a copy's time in which ops ran.
fn overlapped(i: &Interval) -> f64 {
    let time = length(i);
    if time.is_zero() { 0.0 } else { (i.overlapped.as_secs_f64() / time.as_secs_f64()).min(1.0) }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::samples::{interval, intervals};

    #[test]
    fn an_excerpt_is_where_most_is_copied_and_there_is_none_without_copies() {
        let mut all: Vec<Interval> = (0..500).map(|n| interval(Activity::Step, n * 100, n * 100 + 90, 0)).collect();
        assert_eq!(Excerpt::from_intervals("", all.clone()), None);
        assert_eq!(Excerpt::from_intervals("", Vec::new()), None);
        all.push(interval(Activity::Upload, 30_000, 30_050, 20));
        all.push(interval(Activity::Download, 100, 110, 0));
        let excerpt = Excerpt::from_intervals("", all).unwrap();
        assert_eq!(excerpt.intervals.len(), SHOWN);
        assert!(excerpt.intervals.iter().any(|i| i.activity == Activity::Upload));
        assert!(excerpt.words().contains("95 steps, 1 copy of"), "{}", excerpt.words());
    }

    #[test]
    fn the_picture_has_a_bar_an_interval_and_shades_what_overlaps() {
        let excerpt = Excerpt::from_intervals("", intervals()).unwrap();
        let html = excerpt.html().unwrap();
        let count = |class: &str| html.matches(&format!("<rect class=\"{class}\"")).count();
        assert_eq!((count("step"), count("copy"), count("overlap")), (3, 3, 2));
        assert!(html.contains("to the device, 0.0400 ms, 50 % of it while ops ran"), "{html}");
        let spans = serde_json::to_value(excerpt.spans()).unwrap();
        assert_eq!((spans[0]["from_ms"].as_f64(), &spans[1]["activity"]), (Some(0.0), &"upload".into()));
    }

    #[test]
    fn clocks_that_go_wrong_do_not_break_the_picture() {
        let backwards = vec![interval(Activity::Upload, 50, 10, 90), interval(Activity::Upload, 60, 70, 900)];
        let html = Excerpt::from_intervals("", backwards).unwrap().html().unwrap();
        assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
    }
}
