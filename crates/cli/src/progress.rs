//! Progress on standard error, and the log beside it.

use crate::terminal;
use indicatif::{
    BinaryBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, WeakProgressBar,
};
use mlx_serving_runtime::Progress;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The bar that is on the screen, which lines of the log must not tear.
static SHOWN: Mutex<Option<WeakProgressBar>> = Mutex::new(None);

/// Standard error for the log: its lines go above a bar that is shown.
pub(crate) struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let write = || std::io::stderr().write(line);
        let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
        match shown.as_ref().and_then(WeakProgressBar::upgrade) {
            Some(bar) if !bar.is_finished() => bar.suspend(write),
            _ => write(),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// A progress bar on standard error; nothing at all where that is not a terminal.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// A bar that counts bytes.
    pub(crate) fn bytes(what: &str) -> Self {
        // A line that wraps stays on the screen.
        let narrow = terminal::columns(&std::io::stderr()).is_some_and(|columns| columns < 80);
        let bar = Self::new(
            0,
            match narrow {
                true => "{wide_msg} {percent}%",
                false => "{wide_msg} [{bar:12.cyan}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            },
        );
        bar.0.set_message(what.to_owned());
        bar
    }

    /// A bar that counts steps.
    pub(crate) fn steps(total: usize) -> Self {
        Self::new(total as u64, "[{bar:30.cyan}] {pos}/{len} {msg}")
    }

    /// A bar that counts runs of about the same time, and says how much of it is left.
    pub(crate) fn runs(total: usize) -> Self {
        let bar = Self::new(total as u64, "run {pos}/{len} [{wide_bar:.cyan}] {msg:20} {left:>12}");
        bar.0.enable_steady_tick(Duration::from_secs(1));
        bar
    }

    /// A bar that counts seconds of a run.
    pub(crate) fn seconds(total: u64) -> Self {
        let bar = Self::new(total, "{elapsed} [{wide_bar:.cyan}] {percent}% {msg} {eta} left");
        bar.0.enable_steady_tick(Duration::from_secs(1));
        bar
    }

    /// A bar that counts requests, and says how much time is left.
    pub(crate) fn requests(total: usize) -> Self {
        let bar = Self::new(total as u64, "request {pos}/{len} [{wide_bar:.cyan}] {msg} {left:>12}");
        bar.0.enable_steady_tick(Duration::from_secs(1));
        bar
    }

    fn new(total: u64, template: &str) -> Self {
        let target =
            if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ ").with_key("left", left()));
        }
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.downgrade());
        Self(bar)
    }

    /// True where there is no terminal to show it on.
    pub(crate) fn is_hidden(&self) -> bool {
        self.0.is_hidden()
    }

    /// Says something above the bar, or in the log where there is no terminal.
    pub(crate) fn say(&self, text: &str) {
        if self.is_hidden() {
            tracing::info!("{text}");
        } else {
            let width = terminal_size::terminal_size_of(std::io::stderr()).map_or(80, |(width, _)| width.0.into());
            let text = textwrap::fill(text, width);
            // If standard error is closed, nobody wants to know.
            let _ = self.0.suspend(|| writeln!(anstream::stderr(), "{text}"));
        }
    }

    /// Shows what is being done.
    pub(crate) fn doing(&self, what: &'static str) {
        self.0.set_message(what);
    }

    /// Shows how many failed, if any did.
    pub(crate) fn failed(&self, failed: usize) {
        if failed > 0 {
            self.0.set_message(format!("{failed} failed"));
        }
    }

    /// The first of the steps begins: the time before it does not count.
    pub(crate) fn begin(&self) {
        self.0.reset_elapsed();
    }

    /// One more is done.
    pub(crate) fn done(&self) {
        self.0.inc(1);
    }

    /// The next step begins.
    pub(crate) fn step(&self, what: &'static str) {
        self.0.set_message(what);
        self.0.inc(1);
    }

    /// Shows that `done` of `total` is done.
    pub(crate) fn set(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }

    /// Takes the bar off the screen.
    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// Time that is left, by the mean time of what is done; nothing is said before the first is.
fn left() -> impl Fn(&ProgressState, &mut dyn fmt::Write) + Clone + Send + Sync + 'static {
    // Position, and when it was reached.
    let last = Arc::new(Mutex::new((0, Duration::ZERO)));
    move |state, out| {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if state.pos() != last.0 {
            *last = (state.pos(), state.elapsed());
        }
        let (done, at) = *last;
        if done > 0 {
            let all = at.as_secs_f64() / done as f64 * state.len().unwrap_or(done) as f64;
            let left = Duration::from_secs_f64((all - state.elapsed().as_secs_f64()).max(0.0));
            // Nobody is left to be told of a failure.
            let _ = write!(out, "{:#} left", HumanDuration(left));
        }
    }
}

/// Progress of a download: a bar on a terminal, and a line for each file elsewhere.
pub(crate) struct Pull {
    id: String,
    bar: Bar,
    terminal: bool,
    announced: String,
}

impl Pull {
    /// The download of a model.
    pub(crate) fn new(id: &str) -> Self {
        let (bar, terminal) = (Bar::bytes(&format!("pulling {id}")), std::io::stderr().is_terminal());
        Self { id: id.to_owned(), bar, terminal, announced: String::new() }
    }

    /// Shows that `done` of `total` bytes of all files are there, the last of them in `file`.
    pub(crate) fn set(&mut self, file: &str, done: u64, total: u64) {
        self.bar.set(done, total);
        if !self.terminal && self.announced != file {
            file.clone_into(&mut self.announced);
            let line = format!("pulling {}: {file}, {} of {}", self.id, BinaryBytes(done), BinaryBytes(total));
            // If standard error is closed, nobody wants to know.
            let _ = writeln!(anstream::stderr(), "{line}");
        }
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        self.bar.finish();
    }
}

/// Progress of opening a model: its download, if there is one, then its weights.
pub(crate) struct Opening {
    id: String,
    pull: Option<Pull>,
    load: Option<Bar>,
}

impl Opening {
    pub(crate) fn new(id: String) -> Self {
        Self { id, pull: None, load: None }
    }

    pub(crate) fn show(&mut self, progress: Progress<'_>) {
        match progress {
            Progress::Download { file, done, total } => {
                self.pull.get_or_insert_with(|| Pull::new(&self.id)).set(file, done, total);
            }
            Progress::Load { done, total } => {
                self.pull = None;
                let bar = self.load.get_or_insert_with(|| Bar::bytes(&format!("loading {}", self.id)));
                bar.set(done, total);
                if done == total {
                    bar.finish();
                }
            }
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.load.iter().for_each(Bar::finish);
    }
}
