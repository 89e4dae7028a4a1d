//! The result as one HTML page that needs nothing else: the outcome, the findings, every run, and how it was measured.

use super::asked::LoadKind;
use super::comparison::{Comparison, VERSION};
use super::distribution::{Time, strips};
use super::figure::Figure;
use super::finding::{Finding, READING, noise};
use super::headline::headline;
use super::number::{sentence, value};
use super::outcome::Outcome;
use super::plot::{Axis, Row, plot};
use super::statistics::{COVERAGE, Median};
use mlx_serving_runtime::machine::{describe, host_memory};
use serde_json::Value;
use std::fmt::{Error, Write};

const STYLE: &str = include_str!("page.css");

impl Comparison {
    /// The result as one HTML page.
    ///
    /// # Errors
    /// Text that cannot be formatted, which does not happen.
    pub fn html(&self) -> Result<String, Error> {
        page(self)
    }
}

fn page(c: &Comparison) -> Result<String, Error> {
    let (model, head) = (escape(&c.model), headline(&c.findings, c.unequal()));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{model}: bench compare</title>\n<style>\n{STYLE}</style></head>\n<body>\n<header>\n\
         <div class=\"quiet\">bench compare: {model} on {}, {}</div>\n<h1>{}</h1>\n",
        escape(&c.device_name()),
        c.origin.date(),
        escape(&head.title)
    );
    if !head.rest.is_empty() {
        writeln!(page, "<p>{}</p>", escape(&head.rest))?;
    }
    match c.unequal() {
        None => writeln!(page, "<p class=\"yes\">Output tokens are equal in all {} runs.</p>", c.runs.len())?,
        Some(arm) => writeln!(page, "<p class=\"no\">Output tokens differ with {arm}: a defect.</p>")?,
    }
    let class = if c.others.quiet() == Some(true) { "quiet" } else { "no" };
    writeln!(page, "<p class=\"{class}\">{}.</p>", prose(&sentence(&c.others.sentence())))?;
    if let Some(regression) = &c.regression {
        let class = if regression.is_within() { "yes" } else { "no" };
        writeln!(page, "<p class=\"{class}\">{}.</p>", prose(&sentence(&regression.sentence())))?;
    }
    page.push_str("</header>\n");
    aims(c, &mut page)?;
    changes(c, &mut page)?;
    runs(c, &mut page)?;
    distributions(c, &mut page)?;
    timeline(c, &mut page)?;
    medians(c, &mut page)?;
    method(c, &mut page)?;
    page.push_str("</body></html>\n");
    Ok(page)
}

/// The findings beside what was aimed at.
fn aims(c: &Comparison, page: &mut String) -> Result<(), Error> {
    page.push_str(
        "<h2>Against the aims</h2>\n<div class=\"wide\"><table>\n<tr><th>With</th><th>Outcome</th><th class=\"n\">Change</th>\
         <th class=\"n\">Interval</th><th>Aim</th><th class=\"n\">Plain</th><th class=\"n\">With it</th></tr>\n",
    );
    for f in &c.findings {
        let (plain, with, change, interval) = (value(f.pair.plain), value(f.pair.with), f.change(), f.interval_text());
        let aim = f.range().unwrap_or_else(|| "none".into());
        writeln!(
            page,
            "<tr><td>{}<br><span class=\"quiet\">{}</span></td><td>{}</td><td class=\"n\">{change}</td><td class=\"n\">{interval}</td>\
             <td>{aim}</td><td class=\"n\">{plain}</td><td class=\"n\">{with}</td></tr>",
            f.arm,
            f.figure,
            mark(f)
        )?;
    }
    writeln!(page, "</table></div>\n<p class=\"note\">{READING}</p>")?;
    if let Some(noise) = noise(&c.findings) {
        writeln!(page, "<p class=\"no\">Noise: {}.</p>", prose(&noise))?;
    }
    if let Some(standing) = &c.standing {
        writeln!(page, "<p>Baseline: {}.</p>", prose(&standing.sentence(&standing.baseline.file)))?;
    }
    Ok(())
}

fn mark(f: &Finding) -> String {
    let class = match f.outcome {
        Some(Outcome::Reached) => "yes",
        Some(_) => "no",
        None => "quiet",
    };
    format!("<span class=\"{class}\">{}</span>", f.verdict())
}

/// The changes of all pairs, with the interval that decides, a plot a finding.
fn changes(c: &Comparison, page: &mut String) -> Result<(), Error> {
    page.push_str(
        "<h2>Changes</h2>\n<p class=\"note\">Dots are pairs of runs, the band is the interval of their median, the upright bar is the median. \
         The aim is reached where the whole band lies in the shaded part.</p>\n",
    );
    for f in &c.findings {
        let changes: Vec<f64> = f.pairs.iter().map(|pair| pair.change).collect();
        let unit = if f.points { "points" } else { "%" };
        let (aim, whole) = (f.aim(), f.aim().into_iter().chain([0.0]).collect::<Vec<_>>());
        let row = Row { label: "", values: &changes, aim, unit };
        writeln!(
            page,
            "<section class=\"finding\">\n<h3>{}: {} {}</h3>\n<p class=\"quiet\">change {} ({}), {}</p>\n{}",
            f.arm,
            f.short(),
            mark(f),
            f.change(),
            f.interval_text(),
            f.aim_text(),
            plot(Axis::of(&[&changes], &whole), &[row])?
        )?;
        if let Some(reason) = &f.reason {
            writeln!(page, "<p class=\"note\">Why: {}.</p>", prose(reason))?;
        }
        page.push_str("</section>\n");
    }
    Ok(())
}

/// Every run, a plot a figure and a line an arm.
fn runs(c: &Comparison, page: &mut String) -> Result<(), Error> {
    page.push_str(
        "<h2>Every run</h2>\n<p class=\"note\">Dots are runs, bands are the intervals of the arms' medians, upright bars are the medians.</p>\n",
    );
    let first_tokens = match c.asked.kind() {
        LoadKind::Questions => Figure::RestoreTtft,
        LoadKind::Conversations => Figure::Ttft,
    };
    for figure in [Figure::Throughput, first_tokens, Figure::ColdTtft, Figure::Utilization, Figure::AllocationsPerToken]
    {
        let of = |arm: &str| c.runs.iter().filter(|r| r.arm == arm).filter_map(|r| figure.of(r)).collect::<Vec<f64>>();
        let groups: Vec<(&str, Vec<f64>)> = c.arms.iter().map(|a| (a.arm, of(a.arm))).collect();
        // How far a number of allocations is from none is what it says.
        let always: &[f64] = if figure == Figure::AllocationsPerToken { &[0.0] } else { &[] };
        let axis = Axis::of(&groups.iter().map(|(_, values)| values.as_slice()).collect::<Vec<_>>(), always);
        let unit = figure.name().split_once(", ").map_or("", |(_, unit)| unit);
        let rows: Vec<Row<'_>> = groups.iter().map(|(label, values)| Row { label, values, aim: None, unit }).collect();
        writeln!(page, "<h3>{}</h3>\n{}", figure.name(), plot(axis, &rows)?)?;
    }
    Ok(())
}

/// Times of every request, a strip an arm.
fn distributions(c: &Comparison, page: &mut String) -> Result<(), Error> {
    page.push_str(
        "<h2>Every request</h2>\n<p class=\"note\">Over all runs of an arm: the thin line has 98 % of the values, the bar 90 %, the box half \
         of them, and the upright bar is the median.</p>\n",
    );
    for time in Time::ALL {
        let arms: Vec<_> = c.arms.iter().filter_map(|a| Some((a.arm, time.of(a.arm, &c.runs)?))).collect();
        writeln!(page, "<h3>{}</h3>\n{}", time.name(), strips(&arms)?)?;
    }
    Ok(())
}

/// Copies and steps of one run with the blit queue.
fn timeline(c: &Comparison, page: &mut String) -> Result<(), Error> {
    page.push_str("<h2>Copies and steps</h2>\n");
    let Some((arm, excerpts)) = c.excerpts() else {
        page.push_str("<p class=\"note\">No run had the blit queue copy anything.</p>\n");
        return Ok(());
    };
    writeln!(
        page,
        "<p class=\"note\">Excerpts of the first run with {arm}, where most was copied, by the device's clock. A step is drawn from its first op \
         to its last; a wait for copies in between is within. Copies are shaded by the share of their time in which ops ran, which is the \
         device's own count.</p>"
    )?;
    for excerpt in excerpts {
        writeln!(page, "<section>\n<h3>{}</h3>\n{}</section>", excerpt.title, excerpt.html()?)?;
    }
    Ok(())
}

/// All medians of all arms.
fn medians(c: &Comparison, page: &mut String) -> Result<(), Error> {
    page.push_str(
        "<h2>Medians</h2>\n<p class=\"note\">Each is the median of one arm's own runs, with its interval. The changes above are medians \
         of pairs, so they are not the quotients of these.</p>\n<div class=\"wide\"><table>\n<tr><th>Figure</th>",
    );
    for arm in &c.arms {
        write!(page, "<th class=\"n\">{}</th>", arm.arm)?;
    }
    page.push_str("</tr>\n");
    // Questions have nothing in common that could be found again.
    let is_told = |figure: Figure| figure != Figure::Reused || c.asked.kind() == LoadKind::Conversations;
    for (i, figure) in Figure::ALL.iter().enumerate().filter(|(_, figure)| is_told(**figure)) {
        write!(page, "<tr><td>{}</td>", figure.name())?;
        for arm in &c.arms {
            match arm.figures[i].1 {
                Some(m @ Median { median, low, high, .. }) => {
                    let interval = match m.has_interval() {
                        true => format!("{} to {}", value(low), value(high)),
                        false => "no interval".into(),
                    };
                    let median = value(median);
                    write!(page, "<td class=\"n\">{median}<br><span class=\"quiet\">{interval}</span></td>")?;
                }
                None => page.push_str("<td class=\"n quiet\">n/a</td>"),
            }
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
    Ok(())
}

/// Lists what was run where, so that somebody else can run it again.
fn method(c: &Comparison, page: &mut String) -> Result<(), Error> {
    let machine = describe();
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let memory = host_memory().map(|memory| format!("{:.2} GiB", memory.total as f64 / f64::from(1 << 30)));
    let machine = ["cpu", "cores", "memory", "os", "arch"].map(|key| match (key, &machine[key]) {
        ("memory", _) => memory.clone().unwrap_or_default(),
        (_, Value::Null) => String::new(),
        ("cores", cores) => format!("{cores} cores"),
        (_, v) => text(v),
    });
    let machine: Vec<&str> = machine.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    let arms: Vec<String> = c.arms.iter().map(|a| format!("{}: <code>{}</code>", a.arm, a.metal_opts)).collect();
    let optimizations = serde_json::to_string_pretty(&c.settings["metal_optimizations"]).map_err(|_| Error)?;
    let rows = [
        ("Date", c.origin.date()),
        ("Command", format!("<code>{}</code>", escape(&c.origin.command))),
        ("Version", format!("mlx-serving {VERSION}")),
        ("Commit", escape(&c.origin.commit)),
        ("Model", escape(&c.model)),
        ("Device", escape(&c.device_name())),
        ("Machine", escape(&machine.join(", "))),
        ("Threads", if c.threads == 0 { "one a core".into() } else { c.threads.to_string() }),
        ("Arithmetic", escape(&text(&c.settings["arithmetic"]))),
        ("Load", c.asked.words()),
        ("KV cache", format!("{} tokens", c.asked.kv_tokens())),
        ("Other programs", sentence(&c.others.sentence())),
        ("Repetitions", c.repetitions.to_string()),
        ("Arms", arms.join("<br>")),
    ];
    page.push_str("<h2>How it was measured</h2>\n<dl>\n");
    for (name, what) in rows {
        writeln!(page, "<dt>{name}</dt><dd>{what}</dd>")?;
    }
    writeln!(
        page,
        "</dl>\n<p class=\"note\">Every run of an arm lies between two plain ones and is compared with their mean. Arms with the blit queue, or \
         that spill synchronously, restore evicted blocks from host memory; the others compute them again. {}.</p>\n<details><summary>Settings of the optimizations, where an arm has them on</summary>\
         <pre>{}</pre></details>",
        intervals(c),
        escape(&optimizations)
    )
}

/// A sentence about the intervals, without a period.
fn intervals(c: &Comparison) -> String {
    match c.findings.first().map(|f| f.interval.coverage) {
        Some(coverage) if coverage >= COVERAGE => {
            format!("Intervals hold the true median with a probability of {:.1}\u{a0}%", 100.0 * coverage)
        }
        _ => "Changes have no intervals: those need 5 repetitions".into(),
    }
}

/// Text whose options of the command line stand out, and break nowhere.
fn prose(text: &str) -> String {
    let word = |word: &str| {
        if word.starts_with("--") { format!("<code class=\"option\">{word}</code>") } else { word.to_owned() }
    };
    let text = escape(text).replace(" %", "\u{a0}%");
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Compare;
    use crate::compare::samples::{comparison, extremes, few};

    /// The text that a reader sees: the page without its style and its tags.
    fn text(page: &str) -> String {
        let body = &page[page.find("<body>").unwrap()..];
        body.split('<').filter_map(|part| part.split_once('>')).map(|(_, text)| text.to_owned() + " ").collect()
    }

    #[test]
    fn the_page_says_what_came_out_and_how_it_was_measured() {
        let mut c = comparison();
        c.origin.command = "mlx-serving bench compare -o 'a <b>.json'".into();
        let page = c.html().unwrap();
        let head = headline(&c.findings, None).title;
        assert!(page.contains(&format!("<h1>{head}</h1>")), "{page}");
        for (name, what) in [
            ("Date", "2026-11-30 12:00 UTC"),
            ("Command", "<code>mlx-serving bench compare -o 'a &lt;b&gt;.json'</code>"),
            ("Commit", "0123456789ab"),
            ("Version", env!("CARGO_PKG_VERSION")),
            ("Threads", "one a core"),
            ("Repetitions", "5"),
            ("Device", "a CPU (cpu)"),
        ] {
            let row = page.split(&format!("<dt>{name}</dt>")).nth(1).unwrap_or_else(|| panic!("no {name}"));
            assert!(row.split("</dd>").next().unwrap().contains(what), "{name}: {row:.200}");
        }
        for title in [
            "Against the aims",
            "Changes",
            "Every run",
            "Every request",
            "Copies and steps",
            "Medians",
            "How it was measured",
        ] {
            assert_eq!(page.matches(&format!("<h2>{title}</h2>")).count(), 1, "{title}");
        }
        assert!(text(&page).contains("they are not the quotients of these"));
    }

    #[test]
    fn the_page_shows_distributions_the_timeline_and_allocations_of_every_arm() {
        let c = comparison();
        let page = c.html().unwrap();
        let part = |from: &str, to: &str| page.split(from).nth(1).unwrap().split(to).next().unwrap().to_owned();
        let requests = part("<h2>Every request</h2>", "<h2>");
        assert_eq!(requests.matches("class=\"strip quantiles\"").count(), 2 * c.arms.len(), "{requests}");
        let copies = part("<h2>Copies and steps</h2>", "<h2>");
        for class in ["step", "copy", "overlap"] {
            assert!(copies.contains(&format!("<rect class=\"{class}\"")), "{copies}");
        }
        assert!(copies.contains("the first run with blit_queue"), "{copies}");
        let allocations = part("<h3>device allocations a token</h3>", "<h3>");
        assert_eq!(allocations.matches("class=\"strip\"").count(), c.arms.len(), "{allocations}");
        assert!(allocations.contains(">0.0<") && !allocations.contains('−'), "its axis begins at 0: {allocations}");
        let mut talk = comparison();
        talk.asked = Compare { load: LoadKind::Conversations, ..Compare::default() }.asked().unwrap();
        let reused = "<td>prompt tokens not computed again, %</td>";
        assert!(talk.html().unwrap().contains(reused) && !page.contains(reused));
        assert!(extremes().html().unwrap().contains("No run had the blit queue copy anything"));
    }

    #[test]
    fn the_page_says_if_the_machine_was_not_quiet_and_what_was_lost() {
        let page = comparison().html().unwrap();
        assert!(
            page.contains(
                "<p class=\"no\">The machine was not quiet: other programs took 37\u{a0}% of its cores' time.</p>"
            ),
            "{page}"
        );
        assert!(text(&page).contains("cannot be told of plain against before.json (−6.0 to −1.0"), "{page}");
    }

    #[test]
    fn the_page_needs_no_other_file_and_fits_a_phone() {
        let page = comparison().html().unwrap();
        for part in ["http", "<script", "<link", "src=", "@import", "url("] {
            assert!(!page.contains(part), "{part}");
        }
        assert!(
            page.contains("width=device-width")
                && page.contains("prefers-color-scheme: dark")
                && page.contains("@media print")
        );
        assert_eq!(page.matches("<table>").count(), page.matches("<div class=\"wide\"><table>").count());
        // Plots fill their column: none has a width of its own, and none a color.
        let plots = page.matches("<svg class=\"strip\" width=\"100%\"").count();
        assert!(plots > 20 && page.matches("class=\"interval\"").count() == plots, "{plots}");
        assert!(!page.contains("viewBox") && !page[page.find("<body>").unwrap()..].contains("fill=\"#"));
    }

    #[test]
    fn so_few_repetitions_have_no_interval_anywhere() {
        let c = few();
        let (page, table) = (c.html().unwrap(), anstream::adapter::strip_str(&c.table(80).unwrap()).to_string());
        // Plain has a run more around every other one, and intervals of its own.
        let changes = page.split("<h2>Changes</h2>").nth(1).unwrap().split("<h2>").next().unwrap();
        assert!(!changes.contains("class=\"interval\"") && changes.contains(", no interval\""), "{changes}");
        let words = text(&page);
        assert!(words.contains("Changes have no intervals") && !words.contains("a probability of"), "{words}");
        assert!(words.contains("before.json (no interval)"), "{words}");
        for f in &c.findings {
            assert_eq!(f.interval_text(), "none");
            assert!(f.interval.coverage < COVERAGE && f.interval.low.is_finite());
        }
        assert!(table.lines().any(|line| line.ends_with("  none")), "{table}");
        assert!(!table.contains("(−3.2 to −3.2"), "{table}");
        assert!(text(&comparison().html().unwrap()).contains("with a probability of 93.8\u{a0}%."));
    }

    #[test]
    fn a_minus_is_the_same_sign_everywhere_on_the_page() {
        for c in [comparison(), extremes()] {
            let text = text(&c.html().unwrap());
            let hyphens = text.match_indices('-').filter(|(at, _)| {
                text[at + 1..].starts_with(|c: char| c.is_ascii_digit())
                    && !text[..*at].ends_with(char::is_alphanumeric)
            });
            assert_eq!(hyphens.count(), 0, "{text}");
            assert!(text.contains("−15 to −20\u{a0}%"), "{text}");
        }
    }

    #[test]
    fn outliers_are_marked_and_counted_and_what_is_missing_says_so() {
        let page = extremes().html().unwrap();
        assert!(page.contains("class=\"outside\"") && page.contains("outside of the axis (◂ ▸)"));
        assert!(page.contains("n/a") && !page.contains("NaN") && !page.contains("inf "));
        let mut unequal = comparison();
        unequal.runs[3].all_outputs_hash = "other".into();
        assert!(
            unequal
                .html()
                .unwrap()
                .contains("<h1>The outputs differ with synchronous spilling, which is a defect</h1>")
        );
    }
}
