//! The result as one HTML page: tables, and plots of every run as inline SVG.

use super::Comparison;
use super::finding::{Figure, Outcome, READING, noise};
use super::statistics::Median;
use plotters::prelude::*;
use std::error::Error;
use std::fmt::Write;

const STYLE: &str = "
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1c2330; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid #d9dee6; vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; }
.yes { color: #18794e; font-weight: 600; } .no { color: #a15c00; font-weight: 600; } .why { color: #5b6577; font-size: .9rem; }
.wide { overflow-x: auto; } svg { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
code { background: #eef1f5; padding: .1rem .3rem; border-radius: 3px; }
@media (prefers-color-scheme: dark) { body { color: #dfe4ec; background: #14181f; } th, td { border-color: #333b48; }
  code { background: #232a35; } .why { color: #9aa5b6; } .yes { color: #4cc38a; } .no { color: #f1a10d; } }
";

/// The page.
pub(super) fn html(c: &Comparison) -> Result<String, Box<dyn Error>> {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{model}: bench compare</title><style>{STYLE}</style></head><body>\n\
         <h1>bench compare: {model}</h1>\n",
        model = escape(&c.model)
    );
    let q = &c.questions;
    writeln!(
        page,
        "<p>{} ({}), mlx-serving {}. {} repetitions; every optimized run lies between two plain ones and is compared with \
         their mean. Load: {} requests of {} prompt and {} answer tokens, {} at a time; then a prompt of {} tokens whose \
         blocks were evicted from a KV cache of {} tokens: arms with the blit queue, or that spill synchronously, restore them from host \
         memory, the others compute them again. Intervals hold the true median with a probability of at least {:.0} %.</p>",
        escape(c.device["name"].as_str().unwrap_or("?")),
        escape(c.device["backend"].as_str().unwrap_or("?")),
        env!("CARGO_PKG_VERSION"),
        c.repetitions,
        q.load.questions,
        q.load.prompt_tokens,
        q.load.max_tokens,
        q.load.concurrency,
        q.prefix_tokens,
        q.kv_tokens(),
        100.0 * c.findings.first().map_or(0.0, |f| f.interval.coverage),
    )?;
    match c.unequal() {
        None => writeln!(page, "<p class=\"yes\">Output tokens are equal in all {} runs.</p>", c.runs.len())?,
        Some(arm) => writeln!(page, "<p class=\"no\">Output tokens differ with {arm}: a defect.</p>")?,
    }
    targets(c, &mut page)?;
    medians(c, &mut page)?;
    page += "<h2>Every run</h2>\n";
    for figure in [Figure::Throughput, Figure::ColdTtft, Figure::RestoreTtft, Figure::Utilization] {
        writeln!(page, "<h3>{}</h3>\n{}", figure.name(), plot(c, figure)?)?;
    }
    page += "<p>Points are runs, bars are medians.</p>\n</body></html>\n";
    Ok(page)
}

/// The findings against what was aimed at.
fn targets(c: &Comparison, page: &mut String) -> Result<(), std::fmt::Error> {
    page.push_str(
        "<h2>Against the aims</h2><div class=\"wide\"><table><tr><th>With</th><th>Figure</th><th class=\"n\">Plain</th>\
         <th class=\"n\">With it</th><th class=\"n\">Change</th><th class=\"n\">Interval</th><th>Aim</th><th></th></tr>\n",
    );
    for f in &c.findings {
        let unit = if f.points { "points" } else { "%" };
        let mark = f.outcome.map_or(String::new(), |outcome| {
            let class = if outcome == Outcome::Reached { "yes" } else { "no" };
            format!("<span class=\"{class}\">{}</span>", outcome.name())
        });
        writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td class=\"n\">{:.2}</td><td class=\"n\">{:.2}</td><td class=\"n\">{:+.1} {unit}</td>\
             <td class=\"n\">{:+.1} to {:+.1}</td><td>{}</td><td>{mark}</td></tr>",
            f.arm, f.figure, f.pair.plain, f.pair.with, f.pair.change, f.interval.low, f.interval.high, f.target
        )?;
        if let Some(reason) = &f.reason {
            writeln!(page, "<tr><td></td><td colspan=\"7\" class=\"why\">{}.</td></tr>", escape(reason))?;
        }
    }
    writeln!(page, "</table></div>\n<p class=\"why\">{READING}</p>")?;
    if let Some(noise) = noise(&c.findings) {
        writeln!(page, "<p class=\"no\">Noise: {}.</p>", escape(&noise))?;
    }
    if let Some((file, before, change)) = &c.baseline {
        writeln!(page, "<p>Plain against <code>{}</code>: {change:+.1} % of {before:.2} tok/s.</p>", escape(file))?;
    }
    Ok(())
}

/// All medians of all arms.
fn medians(c: &Comparison, page: &mut String) -> Result<(), std::fmt::Error> {
    page.push_str("<h2>Medians</h2><div class=\"wide\"><table><tr><th></th>");
    for arm in &c.arms {
        write!(page, "<th class=\"n\">{}</th>", arm.arm)?;
    }
    page.push_str("</tr>\n");
    for (i, figure) in Figure::ALL.iter().enumerate() {
        write!(page, "<tr><td>{}</td>", figure.name())?;
        for arm in &c.arms {
            match arm.figures[i].1 {
                Some(Median { median, low, high, .. }) => {
                    write!(
                        page,
                        "<td class=\"n\">{median:.2}<br><span class=\"why\">{low:.2} to {high:.2}</span></td>"
                    )?;
                }
                None => page.push_str("<td class=\"n\">–</td>"),
            }
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
    Ok(())
}

/// One figure of every run: an arm a row.
fn plot(c: &Comparison, figure: Figure) -> Result<String, Box<dyn Error>> {
    const ROW: u32 = 34;
    const INK: RGBColor = RGBColor(37, 99, 172);
    let rows: Vec<(&str, Vec<f64>)> = (c.arms.iter())
        .map(|a| (a.arm, c.runs.iter().filter(|r| r.arm == a.arm).filter_map(|r| figure.of(r)).collect()))
        .collect();
    let all = rows.iter().flat_map(|(_, values)| values);
    let (low, high) = all.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
    let margin = ((high - low) * 0.08).max(high.abs() * 0.01).max(1e-6);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (960, 60 + ROW * rows.len() as u32)).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .x_label_area_size(32)
            .y_label_area_size(150)
            .build_cartesian_2d(low - margin..high + margin, (rows.len() as f64 - 0.5)..-0.5)?;
        let name = |y: &f64| {
            let row = y.round();
            let near = (y - row).abs() < 0.01 && row >= 0.0;
            if near {
                rows.get(row as usize).map_or(String::new(), |(name, _)| (*name).to_owned())
            } else {
                String::new()
            }
        };
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(rows.len() * 2 + 1)
            .y_label_formatter(&name)
            .x_labels(8)
            .label_style(("sans-serif", 14))
            .draw()?;
        for (row, (_, values)) in rows.iter().enumerate() {
            let y = row as f64;
            chart.draw_series(values.iter().map(|v| Circle::new((*v, y), 4, INK.mix(0.45).filled())))?;
            let median = Median::of(values).median;
            chart.draw_series([PathElement::new(vec![(median, y - 0.3), (median, y + 0.3)], INK.stroke_width(3))])?;
        }
        area.present()?;
    }
    Ok(svg)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
