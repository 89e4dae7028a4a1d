//! A record as a page: verdicts, lines over time, events, counts.

use crate::judge::Outcome;
use crate::plot::{COLORS, Line, Plot, time};
use crate::record::{Record, Window};
use crate::speed::{self, DRIFT};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Events of one kind that the page lists; the record has them all.
const LISTED: usize = 40;

/// Title of the plot whose medians are judged.
const RELATIVE: &str = "Speed ÷ calibration";
/// Name of the series of times without a model.
const NO_MODEL: &str = "no model";

/// The page, whole in one file.
pub(crate) fn page(record: &Record) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>Soak of {0}</title><style>{1}</style></head><body><h1>Soak of {0}</h1>",
        escape(&record.facts.model),
        include_str!("page.css")
    );
    head(record, &mut page);
    verdicts(record, &mut page);
    plots(record, &mut page);
    events(record, &mut page);
    counts(record, &mut page);
    page += "</body></html>\n";
    page
}

fn head(record: &Record, page: &mut String) {
    let missed = record.verdicts.iter().filter(|verdict| !verdict.outcome.is_fine()).count();
    let summary = match missed {
        0 => "<span class=\"pass\">No check failed.</span>".to_owned(),
        1 => "<span class=\"fail\">1 check did not pass.</span>".to_owned(),
        n => format!("<span class=\"fail\">{n} checks did not pass.</span>"),
    };
    let share = 100.0 * record.elapsed_s / record.settings.duration_s;
    let tokens: u64 = record.windows.iter().map(|window| window.tokens).sum();
    let _ = write!(
        page,
        "<p>{summary} {} of run, {share:.0} % of the {} asked for, {tokens} tokens, {} requests at a time.</p>",
        time(record.elapsed_s),
        time(record.settings.duration_s),
        record.settings.concurrency
    );
    let optimizations = match record.settings.optimizations.as_slice() {
        [] => "none".to_owned(),
        names => names.join(", "),
    };
    let parts: Vec<String> = record
        .parts
        .iter()
        .map(|part| {
            format!(
                "{}, from {}: {}",
                date(&part.started),
                time(part.begins_s),
                part.ended.as_deref().unwrap_or("ended without saying why")
            )
        })
        .collect();
    let machine = record.origin.machine.as_object().map(|fields| {
        fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| described(name, value))
            .collect::<Vec<_>>()
            .join(", ")
    });
    let facts = &record.facts;
    let device = format!(
        "{} ({}, {} arithmetic, {})",
        facts.device,
        facts.backend,
        facts.arithmetic,
        several(facts.units as u64, if facts.backend == "cpu" { "thread" } else { "compute unit" })
    );
    page.push_str("<dl>");
    for (name, value) in [
        ("Optimizations toggled", optimizations),
        ("Device", device),
        ("Machine", machine.unwrap_or_default()),
        ("Program", format!("mlx-serving {}, commit {}", record.origin.version, record.origin.commit)),
        ("Command", record.origin.command.clone()),
        ("Seed", record.settings.seed.to_string()),
        ("References", format!("{} questions, hash {}", record.references.questions, record.references.hash)),
        ("Processes", parts.join("; ")),
    ] {
        let value = escape(&value);
        let value = if name == "Command" { format!("<code>{value}</code>") } else { value };
        let _ = write!(page, "<dt>{name}</dt><dd>{value}</dd>");
    }
    page.push_str("</dl>");
}

/// A number of things.
fn several(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// A date and time to the second.
fn date(started: &str) -> String {
    let time = started.parse::<jiff::Timestamp>();
    time.map_or_else(|_| started.to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// A field of the machine's description, with its unit.
fn described(name: &str, value: &Value) -> String {
    let text = || value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match name {
        "cores" => value.as_u64().map_or_else(text, |cores| several(cores, "core")),
        "memory" => {
            let kib = value.as_str().and_then(|text| text.strip_suffix(" kB")?.parse::<f64>().ok());
            kib.map_or_else(text, |kib| format!("{:.1} GiB", kib / f64::from(1 << 20)))
        }
        _ => text(),
    }
}

fn verdicts(record: &Record, page: &mut String) {
    page.push_str("<h2>Checks</h2><div class=\"wide\"><table><tr><th>Outcome</th><th>Check</th><th>Result</th></tr>");
    for verdict in &record.verdicts {
        let class = match verdict.outcome {
            Outcome::Pass => "pass",
            Outcome::Fail => "fail",
            Outcome::CannotTell => "cannot",
            Outcome::NotJudged => "quiet",
        };
        let _ = write!(
            page,
            "<tr><td class=\"{class}\">{}</td><td>{}</td><td>{}</td></tr>",
            verdict.outcome.as_str(),
            escape(&verdict.check),
            escape(&verdict.sentence)
        );
    }
    page.push_str("</table></div>");
}

fn plots(record: &Record, page: &mut String) {
    const MIB: f64 = (1 << 20) as f64;
    let gaps: Vec<f64> = record.parts.iter().skip(1).map(|part| part.begins_s).collect();
    let mut plot = |title: &str, unit: &str, from_zero: bool, lines: Vec<Line>| {
        let band = title.starts_with(RELATIVE).then_some((1.0 - DRIFT, 1.0 + DRIFT));
        page.push_str(&Plot { title, unit, lines, end_s: record.elapsed_s, gaps: &gaps, from_zero, band }.draw());
    };
    let windows = |name: &str, color: usize, value: &dyn Fn(&Window) -> Option<f64>| Line {
        name: name.to_owned(),
        color,
        points: record.windows.iter().filter_map(|w| Some((w.begins_s + w.seconds / 2.0, value(w)?))).collect(),
    };
    plot(
        "Resident size, least of each window",
        "MiB",
        true,
        by_set(record, &|w| w.open.resident_bytes.map(|b| b as f64 / MIB), &|w| {
            w.closed?.resident_bytes.map(|b| b as f64 / MIB)
        }),
    );
    let allowed = format!(
        "{RELATIVE} of the steady probes; medians of ten minutes may leave the first by ±{:.0} %",
        100.0 * DRIFT
    );
    plot(&allowed, "first ten minutes = 1", false, colored(record, speed::relative(record)));
    let mut speeds: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for window in &record.windows {
        let steady = window.probes.iter().filter(|probe| probe.is_steady());
        speeds.entry(window.optimizations.clone()).or_default().extend(steady.map(|probe| (probe.at_s, probe.tok_s)));
    }
    plot("Speed of the probes", "tokens/s", false, colored(record, speeds));
    let calibrations = |name: &str, color: usize, value: fn(&crate::record::Probe) -> f64| Line {
        name: name.to_owned(),
        color,
        points: record.windows.iter().flat_map(|w| &w.probes).map(|probe| (probe.at_s, value(probe))).collect(),
    };
    plot(
        "Calibration, the same computation each time",
        "ms",
        true,
        vec![
            calibrations("before the probe", 0, |probe| probe.before_ms),
            calibrations("after it", 1, |probe| probe.after_ms),
        ],
    );
    plot(
        "Tokens of all traffic",
        "tokens/s",
        true,
        vec![windows("tokens", 0, &|w| (w.seconds > 0.0).then(|| w.tokens as f64 / w.seconds))],
    );
    plot(
        "Memory pool without requests",
        "MiB in use",
        true,
        vec![windows("in use", 0, &|w| Some(w.idle.as_ref()?.pool_bytes?.0 as f64 / MIB))],
    );
    plot(
        "Descriptors, least of each window",
        "",
        false,
        by_set(record, &|w| w.open.descriptors.map(|n| n as f64), &|w| w.closed?.descriptors.map(|n| n as f64)),
    );
    plot(
        "Threads, least of each window",
        "",
        false,
        by_set(record, &|w| w.open.threads.map(|n| n as f64), &|w| w.closed?.threads.map(|n| n as f64)),
    );
    let rate = |name: &'static str, color: usize| {
        windows(name.trim_end_matches("_blocks"), color, &move |w| Some(*w.counts.get(name)? as f64))
    };
    plot(
        "KV blocks spilled and restored in each window",
        "blocks",
        true,
        vec![rate("spilled_blocks", 0), rate("restored_blocks", 1)],
    );
}

/// A value of the windows, a line for each set of optimizations, and one for the times without a model.
fn by_set(
    record: &Record,
    open: &dyn Fn(&Window) -> Option<f64>,
    closed: &dyn Fn(&Window) -> Option<f64>,
) -> Vec<Line> {
    let mut lines: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for window in &record.windows {
        let at = window.begins_s + window.seconds / 2.0;
        if let Some(value) = open(window) {
            lines.entry(window.optimizations.clone()).or_default().push((at, value));
        }
        if let Some(value) = closed(window) {
            lines.entry(NO_MODEL.into()).or_default().push((at, value));
        }
    }
    colored(record, lines)
}

/// Lines of sets of optimizations, in the order of their phases: each has its color in every plot.
fn colored(record: &Record, lines: BTreeMap<String, Vec<(f64, f64)>>) -> Vec<Line> {
    let sets = record.settings.sets();
    let color = |set: &str| sets.iter().position(|other| other == set).unwrap_or(COLORS - 1);
    let line = |(set, points): (String, _)| Line { color: color(&set), name: short(&set), points };
    let mut lines: Vec<Line> = lines.into_iter().map(line).collect();
    lines.sort_by_key(|line| line.color);
    lines
}

/// A set of optimizations in a legend.
fn short(set: &str) -> String {
    match set {
        "none" => "plain".to_owned(),
        set if set.contains(',') => "all together".to_owned(),
        set => escape(set),
    }
}

fn events(record: &Record, page: &mut String) {
    let mut kinds: BTreeMap<&str, Vec<&crate::record::Event>> = BTreeMap::new();
    for event in &record.events {
        kinds.entry(&event.what).or_default().push(event);
    }
    page.push_str("<h2>Events</h2>");
    let lines = kinds.iter().enumerate().map(|(color, (what, events))| Line {
        name: escape(what),
        color,
        points: events
            .iter()
            .scan(0.0, |n, event| {
                *n += 1.0;
                Some((event.at_s, *n))
            })
            .collect(),
    });
    let plot = Plot {
        title: "Events so far",
        unit: "",
        lines: lines.collect(),
        end_s: record.elapsed_s,
        gaps: &[],
        from_zero: true,
        band: None,
    };
    page.push_str(&plot.draw());
    let usual = ["opened", "unloaded"];
    for (what, events) in kinds.iter().filter(|(what, _)| !usual.contains(what)) {
        let _ = write!(page, "<h3>{} ({})</h3><ul>", escape(what), events.len());
        for event in events.iter().take(LISTED) {
            let _ = write!(page, "<li>{}: {}</li>", time(event.at_s), escape(&event.detail));
        }
        page.push_str("</ul>");
    }
    if record.events_left_out > 0 {
        let _ = write!(page, "<p class=\"quiet\">{} more events were only counted.</p>", record.events_left_out);
    }
}

fn counts(record: &Record, page: &mut String) {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, count) in record.windows.iter().flat_map(|window| &window.counts) {
        *sums.entry(name).or_default() += count;
    }
    page.push_str("<h2>Counts</h2><div class=\"wide\"><table>");
    for (name, sum) in sums {
        let _ = write!(page, "<tr><td>{}</td><td class=\"n\">{sum}</td></tr>", escape(&name.replace('_', " ")));
    }
    page.push_str("</table></div>");
}

/// Text as it can stand in a page.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_have_units_and_dates_are_of_the_second() {
        assert_eq!(described("cores", &2.into()), "2 cores");
        assert_eq!(described("cores", &1.into()), "1 core");
        assert_eq!(described("memory", &"24684096 kB".into()), "23.5 GiB");
        assert_eq!(described("memory", &"much".into()), "much");
        assert_eq!(described("arch", &"x86_64".into()), "x86_64");
        assert_eq!(date("2026-12-01T06:27:06.123456Z"), "2026-12-01 06:27:06 UTC");
        assert_eq!(date("yesterday"), "yesterday");
    }
}
