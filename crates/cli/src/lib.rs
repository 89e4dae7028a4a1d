//! The command line of mlx-serving: arguments, where each value of the configuration came from, and one module a command. The only crate
//! that parses arguments; models and devices are the runtime's.
#![forbid(unsafe_code)]

pub mod args;
mod command_line;
mod commands;
mod context;
mod descriptors;
mod failure;
mod given;
mod load;
mod origins;
mod progress;
mod signals;
mod terminal;

pub use command_line::parse;
pub use failure::Failure;
pub use given::Given;
pub use mlx_serving_runtime::config;

use args::{Bench, Cli, Command};
use config::{LogLevel, LogLines};
use mlx_serving_runtime::{device, machine};
use std::io::Write;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Runs this process's command line to its end, and reports a failure on standard error.
pub fn main() -> ExitCode {
    let cli = parse().unwrap_or_else(|error| error.exit());
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure);
            failure.code()
        }
    }
}

/// Runs one command line.
///
/// # Errors
/// A command that failed; [`Failure::code`] is the process's exit code.
pub fn run(cli: &Cli) -> Result<(), Failure> {
    let loaded = origins::load(cli)?;
    start_log(&loaded.config.telemetry, &cli.command);
    warn(cli, &loaded.config);
    commands::run(cli, loaded)
}

/// Logs what is taken and hardly meant, but for commands that report it themselves.
fn warn(cli: &Cli, config: &config::Config) {
    let memory = || machine::host_memory().map(|memory| memory.total);
    let warnings = match &cli.command {
        Command::Doctor(_) => return,
        Command::Serve(_) => config.warnings(memory()),
        Command::Config(_) => Vec::new(),
        command if command.is_unconfigured() => Vec::new(),
        // What bounds a server is not theirs.
        _ => config.warnings(None),
    };
    for warning in command_line::useless(&cli.given).into_iter().chain(command_line::unknown()).chain(warnings) {
        tracing::warn!("{warning}");
    }
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
        // They open a model for each run or phase.
        (Command::Bench(Bench::Compare(_)) | Command::Soak(_), LogLevel::Info) => (LogLevel::Info, LogLevel::Warn),
        (_, level) => (level, level),
    };
    let name = |level: LogLevel| format!("{level:?}").to_lowercase();
    let (level, loads) = (name(level), name(loads));
    // The beginning of the names of all crates here; other crates' chatter stays out below their warnings.
    let mut filter = format!("warn,mlx_serving={level},mlx_serving_runtime={loads},mlx_serving_engine={loads}");
    if let Command::Soak(_) = command {
        // It loses its model on purpose, every few minutes.
        filter += ",mlx_serving_runtime::revive=off";
    }
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
