//! `soak`: continuous load with every answer checked; its progress, its files, its verdicts.

use crate::args;
use crate::context::{Context, check_file};
use crate::failure::Failure;
use crate::progress::Bar;
use crate::signals;
use mlx_serving_runtime::{Runtime, Source, machine};
use mlx_serving_soak::{Origin, Progress, Record, Served, Settings, SoakError, SystemClock, Verdict, soak};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DURATION: Duration = Duration::from_secs(86_400);
const CONCURRENCY: usize = 10;
/// Time to release the model at the end; one that is stuck must not hold the process up.
const EXIT_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn run(context: &Context, args: &args::Soak, given: &crate::Given) -> Result<(), Failure> {
    let earlier = args.resume.as_deref().map(Record::read).transpose().map_err(unusable)?;
    let output = args.output.as_ref().or(args.resume.as_ref());
    let output = output.ok_or_else(|| Failure::usage("--output names no file"))?;
    let (output, page) = files(output)?;
    let mut config = context.config.clone();
    if let Some(earlier) = earlier.as_ref().filter(|_| given.origin("metal_opts").is_none()) {
        let names = &earlier.settings.optimizations;
        let list = if names.is_empty() { "none".to_owned() } else { names.join(",") };
        config.metal_optimizations.select(&list).map_err(Failure::usage)?;
    }
    let then = earlier.as_ref().map(|earlier| &earlier.settings);
    let duration = then.map_or(DURATION, |then| Duration::from_secs_f64(then.duration_s.clamp(0.0, 1e9)));
    let settings = Settings::new(
        args.duration.unwrap_or(duration),
        args.concurrency.unwrap_or(then.map_or(CONCURRENCY, |then| then.concurrency)),
        &config,
        args.seed.or(then.map(|then| then.seed)).unwrap_or_else(drawn),
    )
    .map_err(unusable)?;
    let model = args.model.model.clone().or_else(|| earlier.as_ref().and_then(|earlier| earlier.origin.model.clone()));
    let source = Source::from(model.as_deref());
    let origin = Origin {
        version: env!("CARGO_PKG_VERSION").into(),
        commit: mlx_serving_bench::COMMIT.into(),
        // Where the binary lies says nothing, and may say whose it is.
        command: std::iter::once("mlx-serving".into())
            .chain(std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()))
            .collect::<Vec<_>>()
            .join(" "),
        model,
        machine: machine::describe(),
    };
    let stopped = Stopped::listen()?;
    let mut subject = Served::new(source, config, settings.clone(), Runtime::new)
        .map_err(|e| Failure::failed(format!("the run could not be started: {e}")))?;
    let mut shown = Shown::new(&settings, &output);
    let clock = SystemClock::start();
    let outcome = soak(&mut subject, &clock, (&settings, &origin), earlier, &|| stopped.asked(), &mut |progress| {
        shown.show(progress);
    });
    shown.bar.finish();
    // An engine that is stuck is left to itself.
    exit_after_timeout(EXIT_TIMEOUT);
    let record = match outcome {
        Ok(record) => record,
        Err(SoakError::Stopped) => return Err(Failure::Interrupted),
        Err(error) => return Err(unusable(error)),
    };
    let written = record.write(&output).and_then(|()| record.write_page(&page));
    let told = tell(&record, written.is_ok().then_some((&*output, &*page)));
    written.map_err(unusable)?;
    told.map_err(Failure::output)?;
    let failed: Vec<&Verdict> = record.verdicts.iter().filter(|verdict| !verdict.outcome.is_fine()).collect();
    let stuck = failed.iter().any(|verdict| verdict.check == "stuck steps");
    let outcome = match failed.as_slice() {
        [] if stopped.asked() => Err(Failure::Interrupted),
        [] => Ok(()),
        failed => Err(Failure::failed(sentences(failed))),
    };
    if stuck {
        // Its thread waits for a device that does not answer: there is no end to wait for.
        std::mem::forget(subject);
    }
    outcome
}

/// Failed checks, a sentence each.
fn sentences(failed: &[&Verdict]) -> String {
    let lines = failed.iter().map(|v| format!("\n  {}: {}: {}", v.outcome.as_str(), v.check, v.sentence));
    let plural = if failed.len() == 1 {
        "1 check did not pass".to_owned()
    } else {
        format!("{} checks did not pass", failed.len())
    };
    format!("{plural}:{}", lines.collect::<String>())
}

/// Files of the record and of the page beside it, if both can be written.
fn files(output: &Path) -> Result<(PathBuf, PathBuf), Failure> {
    if output.extension().is_some_and(|end| end.eq_ignore_ascii_case("html")) {
        return Err(Failure::usage(format!(
            "--output {} names the JSON, and the page is written beside it as HTML: name {}",
            output.display(),
            output.with_extension("json").display()
        )));
    }
    Ok((regular(output)?, regular(&output.with_extension("html"))?))
}

/// The regular file that a name leads to, through links, or that can be made there: another would be replaced by one.
fn regular(path: &Path) -> Result<PathBuf, Failure> {
    let there = std::fs::symlink_metadata(path).is_ok();
    if there && !path.is_file() {
        return Err(Failure::usage(format!(
            "--output {}: it exists and is not a regular file; name another file",
            path.display()
        )));
    }
    check_file(path)?;
    if !there {
        return Ok(path.to_owned());
    }
    path.canonicalize().map_err(|e| Failure::usage(format!("--output {}: {e}; name another file", path.display())))
}

fn unusable(error: SoakError) -> Failure {
    match error {
        SoakError::Setting(_) => Failure::usage(error),
        SoakError::File { .. } | SoakError::Subject(_) | SoakError::Stopped => Failure::failed(error),
    }
}

/// A seed from the time of day.
fn drawn() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64 >> 10)
}

/// Ends the process if it has not ended by itself soon.
fn exit_after_timeout(limit: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        tracing::error!("the model could not be stopped in time; the process ends without it");
        std::process::exit(1);
    });
}

/// The verdicts on standard output, and the files that were written.
fn tell(record: &Record, written: Option<(&Path, &Path)>) -> std::io::Result<()> {
    let mut out = anstream::stdout();
    writeln!(
        out,
        "{:.0} s of run; windows: {}; processes: {}; seed: {}",
        record.elapsed_s,
        record.windows.len(),
        record.parts.len(),
        record.settings.seed
    )?;
    for verdict in &record.verdicts {
        writeln!(out, "{:12} {:20} {}", verdict.outcome.as_str(), verdict.check, verdict.sentence)?;
    }
    written.map_or(Ok(()), |(output, page)| writeln!(out, "{} and {}", output.display(), page.display()))
}

/// Signals to stop, heard on a thread of their own.
struct Stopped(Arc<AtomicBool>);

impl Stopped {
    fn listen() -> Result<Self, Failure> {
        let asked = Arc::new(AtomicBool::new(false));
        let heard = asked.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Failure::failed(format!("signals cannot be caught: {e}")))?;
        let (ready, caught) = std::sync::mpsc::channel();
        let listen = move || {
            runtime.block_on(async {
                let mut stops = signals::stops(signals::SAME);
                // Whoever waits for it is there.
                let _ = ready.send(());
                while let Some(signal) = stops.recv().await {
                    if heard.swap(true, Ordering::AcqRel) {
                        tracing::warn!(
                            "a second signal ({signal}): stopping at once; the last minute is not in the record"
                        );
                        std::process::exit(130);
                    }
                    tracing::info!("{signal}: the run ends here; a second signal ends it immediately");
                }
            });
        };
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(listen)
            .map_err(|e| Failure::failed(format!("signals cannot be caught: {e}")))?;
        // If its thread ends at once, no signal is caught, and the default action ends the process.
        let _ = caught.recv();
        Ok(Self(asked))
    }

    fn asked(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Progress on the screen, and the record in its file.
struct Shown<'a> {
    bar: Bar,
    duration_s: f64,
    output: &'a Path,
    /// Traffic has begun.
    begun: bool,
}

impl<'a> Shown<'a> {
    fn new(settings: &Settings, output: &'a Path) -> Self {
        Self { bar: Bar::seconds(settings.duration_s as u64), duration_s: settings.duration_s, output, begun: false }
    }

    fn show(&mut self, progress: Progress<'_>) {
        match progress {
            Progress::References => self.bar.doing("computing the references"),
            Progress::Lengthened => {
                tracing::info!(
                    "{} s are too short for all sets of optimizations: the run goes on until each had its turn",
                    self.duration_s
                );
            }
            Progress::Begun(record) => self.write(record),
            Progress::Running(record) => {
                if !std::mem::replace(&mut self.begun, true) && self.bar.is_hidden() {
                    tracing::info!("the references are computed, and traffic has begun");
                }
                self.bar.doing("");
                self.bar.set(record.elapsed_s as u64, self.duration_s as u64);
            }
            Progress::Window(record) => {
                self.write(record);
                if self.bar.is_hidden() {
                    line(record);
                }
            }
            Progress::Fault(sentence) => self.bar.say(&format!("FAULT {sentence}")),
        }
    }

    fn write(&self, record: &Record) {
        if let Err(error) = record.write(self.output) {
            tracing::error!("{error}; the run goes on, and the next minute tries again");
        }
    }
}

/// A window in a line of the log.
fn line(record: &Record) {
    let Some(window) = record.windows.last() else { return };
    let mib = window.open.resident_bytes.map(|bytes| bytes >> 20);
    let failed = record.verdicts.iter().filter(|verdict| !verdict.outcome.is_fine()).count();
    tracing::info!(
        s = record.elapsed_s.round(),
        of = record.settings.duration_s,
        optimizations = window.optimizations,
        tok_s = (window.tokens as f64 / window.seconds.max(1e-3)).round(),
        resident_mib = mib,
        failed,
        "soak"
    );
}
