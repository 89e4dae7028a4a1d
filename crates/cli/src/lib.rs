//! The command line of mlx-serving: arguments, where each value of the configuration came from, and one module a command. The only crate
//! that parses arguments; models and devices are the runtime's.
#![forbid(unsafe_code)]

pub mod args;
mod commands;
mod context;
mod descriptors;
mod failure;
mod load;
mod origins;
mod progress;
mod signals;
mod terminal;

pub use failure::Failure;
pub use mlx_serving_runtime::config;

use args::{Bench, Cli, Command};
use config::{LogLevel, LogLines};
use mlx_serving_runtime::{device, machine};
use std::io::Write;
use tracing_subscriber::EnvFilter;

/// Runs one command line.
///
/// # Errors
/// A command that failed; [`Failure::code`] is the process's exit code.
pub fn run(cli: &Cli) -> Result<(), Failure> {
    let loaded = origins::load(&cli.common)?;
    start_log(&loaded.config.telemetry, &cli.command);
    commands::run(cli, loaded)
}

/// Tells the user of a failure, on standard error.
pub fn report(failure: &Failure) {
    if matches!(failure, Failure::Silent | Failure::Interrupted) {
        return;
    }
    let red = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into()));
    // If standard error is closed there is nobody to tell.
    let _ = writeln!(anstream::stderr(), "{red}error:{red:#} {failure}");
}

/// Log lines go to standard error, in color on a terminal.
fn start_log(telemetry: &config::Telemetry, command: &Command) {
    let (level, loads) = match (command, telemetry.log_level) {
        // Whoever reads an answer wants nothing else on the screen. What is wrong still shows, and everything with -v.
        (Command::Chat(_) | Command::Generate(_), LogLevel::Info) => (LogLevel::Warn, LogLevel::Warn),
        // A benchmark opens a model for each run.
        (Command::Bench(Bench::Compare(_)), LogLevel::Info) => (LogLevel::Info, LogLevel::Warn),
        (_, level) => (level, level),
    };
    let name = |level: LogLevel| format!("{level:?}").to_lowercase();
    let (level, loads) = (name(level), name(loads));
    // The beginning of the names of all crates here; other crates' chatter stays out below their warnings.
    let filter = format!("warn,mlx_serving={level},mlx_serving_runtime={loads},mlx_serving_engine={loads}");
    let filter = EnvFilter::new(filter);
    // Whoever reads the log may go away; the library would report that on standard error too, and panic.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| progress::Log)
        .with_target(false)
        .log_internal_errors(false);
    // A second start in one process (tests) keeps the first log.
    let _ = match telemetry.log_format {
        LogLines::Text => builder
            .with_ansi(anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never)
            .compact()
            .try_init(),
        LogLines::Json => builder.json().try_init(),
    };
}
