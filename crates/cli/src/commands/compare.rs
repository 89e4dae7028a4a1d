//! `bench compare`: progress of a comparison on the terminal, its files, its table.

use crate::args;
use crate::context::{Context, check_file, write_file};
use crate::failure::Failure;
use crate::progress::{Bar, Opening};
use indicatif::HumanDuration;
use mlx_serving_bench::{Compare, Comparison, Progress, compare};
use mlx_serving_runtime::Source;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) fn run(context: &Context, args: &args::Compare) -> Result<(), Failure> {
    let settings = Compare {
        optimizations: args.optimizations.clone(),
        repetitions: args.repetitions,
        load: args.load.into(),
        questions: args.questions,
        prompt_tokens: args.size.prompt_tokens,
        max_tokens: args.size.max_tokens,
        concurrency: args.size.concurrency,
        prefix_tokens: args.prefix_tokens,
        conversations: args.conversations,
        turns: args.turns,
        baseline: args.baseline.clone(),
        max_regression: args.max_regression,
        command: std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
    };
    let files = args.output.as_deref().map(files).transpose()?;
    let source = Source::from(args.model.model.as_deref());
    let mut shown = Shown::Opening(Opening::new(source.id()));
    let comparison = compare(&context.config, &source, &settings, &mut |progress| shown.show(progress))?;
    drop(shown);
    let told = tell(&comparison, args.json, files.as_ref());
    match (told, fault(&comparison)) {
        (told, None) => told,
        (Err(Failure::Silent), _) => Err(Failure::Silent),
        (told, Some(fault)) => {
            if let Err(error) = told {
                tracing::error!("{error}");
            }
            Err(fault)
        }
    }
}

/// The worst that a comparison found.
fn fault(comparison: &Comparison) -> Option<Failure> {
    let unequal = comparison.unequal().map(|arm| {
        Failure::failed(format!(
            "the outputs of {arm} differ from those of plain: an optimization changed an answer, which is a defect; please report it with this result"
        ))
    });
    unequal.or_else(|| comparison.past_limit().map(Failure::Regressed))
}

/// Progress on the screen.
enum Shown {
    /// The model's download.
    Opening(Opening),
    /// The runs: a bar, how many there are, how many are over.
    Runs(Bar, usize, usize),
}

impl Shown {
    fn show(&mut self, progress: Progress<'_>) {
        match (progress, self) {
            (Progress::Opening(progress), Shown::Opening(opening)) => opening.show(progress),
            (Progress::Planned { model, arms, repetitions, runs }, shown) => {
                let bar = Bar::runs(runs);
                bar.say(&format!("{runs} runs of {model}: {arms} arms, {repetitions} times each, between plain runs"));
                bar.doing("warming up");
                *shown = Shown::Runs(bar, runs, 0);
            }
            (Progress::WarmedUp { took }, Shown::Runs(bar, runs, _)) => {
                bar.begin();
                bar.say(&estimate(took, *runs));
            }
            (Progress::Begun { arm }, Shown::Runs(bar, ..)) => bar.doing(arm),
            (Progress::Measured { arm, throughput_tok_s }, Shown::Runs(bar, runs, over)) => {
                *over += 1;
                if bar.is_hidden() {
                    tracing::info!(run = *over, of = *runs, arm, tok_s = throughput_tok_s, "measured");
                }
                bar.done();
            }
            _ => {}
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Shown::Runs(bar, ..) = self {
            bar.finish();
        }
    }
}

/// The files of a result, its JSON and its report, if they can be written.
fn files(output: &Path) -> Result<(PathBuf, PathBuf), Failure> {
    if output.extension().is_some_and(|end| end.eq_ignore_ascii_case("html")) {
        return Err(Failure::usage(format!(
            "--output {} names the JSON, and the report is written beside it as HTML: name {}",
            output.display(),
            output.with_extension("json").display()
        )));
    }
    // A folder has no name beside it that would do.
    check_file(output)?;
    let page = output.with_extension("html");
    check_file(&page)?;
    Ok((output.to_owned(), page))
}

/// Estimate of the time that all runs take, by that of the first.
fn estimate(warm_up: Duration, runs: usize) -> String {
    let all = HumanDuration(warm_up * runs as u32);
    format!("about {all}: {runs} times the {:.1} s of the warm-up, which was a plain run", warm_up.as_secs_f64())
}

/// Columns of standard output; as many as the table needs where it is no terminal.
fn width() -> usize {
    terminal_size::terminal_size_of(std::io::stdout())
        .map_or(Comparison::COLUMNS, |(terminal_size::Width(width), _)| width.into())
}

/// Files first, then the terminal, which is told even if the files cannot be written.
fn tell(comparison: &Comparison, json: bool, files: Option<&(PathBuf, PathBuf)>) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(&comparison.json()).map_err(Failure::failed)?;
    let written = files.map_or(Ok(()), |(path, page)| write(comparison, &text, path, page));
    let mut out = anstream::stdout();
    if json { writeln!(out, "{text}") } else { write!(out, "{}", comparison.table(width()).map_err(Failure::failed)?) }
        .map_err(Failure::output)?;
    written
}

fn write(comparison: &Comparison, json: &str, path: &Path, page: &Path) -> Result<(), Failure> {
    write_file(path, json.as_bytes())?;
    write_file(page, comparison.html().map_err(Failure::failed)?.as_bytes())?;
    tracing::info!("wrote {} and {}", path.display(), page.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_written_are_wrong_usage() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for bad in [at("x.html"), at("x.HTML"), dir.path().to_owned(), PathBuf::from("/dev/null/x.json")] {
            assert!(matches!(files(&bad), Err(Failure::Usage(_))), "{}", bad.display());
        }
        std::fs::create_dir(at("y.html")).unwrap();
        assert!(matches!(files(&at("y.json")), Err(Failure::Usage(_))), "the report is a folder");
        std::fs::write(at("z.json"), "earlier").unwrap();
        assert_eq!(files(&at("z.json")).unwrap(), (at("z.json"), at("z.html")));
        assert_eq!(std::fs::read_to_string(at("z.json")).unwrap(), "earlier");
        assert!(!at("z.html").exists(), "nothing is left of the check");
    }
}
