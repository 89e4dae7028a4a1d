//! The result on a terminal: 80 columns hold it, and where there are fewer, each number gets its line.

use super::comparison::Comparison;
use super::finding::{Finding, READING, noise};
use super::headline::headline;
use super::number::value;
use super::outcome::Outcome;
use anstyle::{AnsiColor, Style};
use std::fmt::Write;
use textwrap::{Options, fill};

const BOLD: Style = Style::new().bold();
const GREEN: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green)));
const YELLOW: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow)));

impl Comparison {
    /// Columns that the table needs.
    pub const COLUMNS: usize = 80;

    /// The table and its notes, in lines of at most `width` columns (at least 40), with ANSI colors.
    ///
    /// # Errors
    /// Text that cannot be formatted, which does not happen.
    pub fn table(&self, width: usize) -> Result<String, std::fmt::Error> {
        table(self, width)
    }
}

fn table(c: &Comparison, width: usize) -> Result<String, std::fmt::Error> {
    // Long lines are hard to read, and in fewer columns than this words break.
    let prose = width.clamp(40, 100);
    let head = headline(&c.findings, c.unequal());
    let mut text = fill(&format!("{BOLD}{}.{BOLD:#}", head.title), prose) + "\n";
    if !head.rest.is_empty() {
        writeln!(text, "{}", fill(&head.rest, prose))?;
    }
    text.push('\n');
    if width >= Comparison::COLUMNS {
        let (plain, with, change) = ("plain", "with it", "change");
        writeln!(text, "{BOLD}{:35} {plain:>7} {with:>7} {change:>9}  interval{BOLD:#}", "")?;
    }
    let mut arm = "";
    for finding in &c.findings {
        if arm != finding.arm {
            arm = finding.arm;
            writeln!(text, "{BOLD}{arm}{BOLD:#}")?;
        }
        line(&mut text, finding, width)?;
    }
    let paragraph = |text: &mut String, words: &str| writeln!(text, "\n{}", fill(words, prose));
    paragraph(&mut text, READING)?;
    let hanging = Options::new(prose).subsequent_indent("  ");
    if c.findings.iter().any(|f| f.reason.is_some()) {
        text.push('\n');
    }
    for f in &c.findings {
        if let Some(reason) = &f.reason {
            writeln!(text, "{}", fill(&format!("{}, {}: {reason}.", f.arm, f.short()), &hanging))?;
        }
    }
    if let Some(noise) = noise(&c.findings) {
        paragraph(&mut text, &format!("{YELLOW}Noise{YELLOW:#}: {noise}."))?;
    }
    let equal = match c.unequal() {
        None => format!("{GREEN}equal{GREEN:#} in all {} runs", c.runs.len()),
        Some(arm) => format!("{YELLOW}different{YELLOW:#} with {arm}"),
    };
    paragraph(&mut text, &format!("Output tokens: {equal}."))?;
    if let Some(standing) = &c.standing {
        writeln!(text, "{}", fill(&format!("Baseline: {}.", standing.sentence(&standing.baseline.file)), prose))?;
    }
    if let Some(regression) = &c.regression {
        let color = if regression.is_within() { GREEN } else { YELLOW };
        writeln!(text, "{}", fill(&format!("{color}Regression{color:#}: {}.", regression.sentence()), prose))?;
    }
    let color = if c.others.quiet() == Some(true) { GREEN } else { YELLOW };
    writeln!(text, "{}", fill(&format!("{color}Other programs{color:#}: {}.", c.others.sentence()), prose))?;
    Ok(text)
}

fn line(text: &mut String, f: &Finding, width: usize) -> std::fmt::Result {
    let (plain, with, change, interval) =
        (value(f.pair.plain), value(f.pair.with), f.change_short(), f.interval_text());
    if width >= Comparison::COLUMNS {
        writeln!(text, "  {:33} {plain:>7} {with:>7} {change:>9}  {interval}", f.figure)?;
    } else {
        let interval = if interval == "none" { "no interval" } else { &interval };
        writeln!(text, "  {}\n    plain {plain}, with it {with}\n    change {change} ({interval})", f.figure)?;
    }
    let color = match f.outcome {
        Some(Outcome::Reached) => GREEN,
        Some(_) => YELLOW,
        None => Style::new(),
    };
    let words = format!("{}: {color}{}{color:#}", f.aim_text(), f.verdict());
    writeln!(text, "{}", fill(&words, Options::new(width).initial_indent("    ").subsequent_indent("      ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::samples::{comparison, extremes};

    fn plain(c: &Comparison, width: usize) -> String {
        anstream::adapter::strip_str(&table(c, width).unwrap()).to_string()
    }

    #[test]
    fn the_table_fits_its_width_whatever_was_found() {
        for c in [comparison(), extremes()] {
            for (asked, most) in [(200, 100), (120, 100), (80, 80), (79, 79), (60, 60), (40, 40)] {
                let text = plain(&c, asked);
                for line in text.lines() {
                    assert!(textwrap::core::display_width(line) <= most, "{asked}: {line:?}");
                }
            }
        }
    }

    #[test]
    fn every_finding_has_its_numbers_and_its_verdict_at_every_width() {
        let c = extremes();
        for width in [120, 80, 60] {
            let text = plain(&c, width);
            for f in &c.findings {
                assert!(text.contains(&value(f.pair.plain)) && text.contains(&f.change_short()), "{text}");
                assert!(text.contains(f.verdict()), "{text}");
            }
            assert!(text.contains("Output tokens: equal") && text.contains("Baseline: plain"), "{text}");
            assert!(text.contains("Regression: ") && text.contains("the machine was"), "{text}");
        }
    }

    #[test]
    fn a_minus_is_the_same_sign_everywhere() {
        for c in [comparison(), extremes()] {
            let text = plain(&c, 80);
            let hyphens = text.match_indices('-').filter(|(at, _)| {
                text[at + 1..].starts_with(|c: char| c.is_ascii_digit())
                    && !text[..*at].ends_with(char::is_alphanumeric)
            });
            assert_eq!(hyphens.count(), 0, "{text}");
            assert!(text.contains('−'), "{text}");
        }
    }
}
