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

pub use command_line::parse;
pub use failure::Failure;
pub use given::Given;
pub use mlx_serving_runtime::config;

use args::{Cli, Command};
use config::LogLines;
use mlx_serving_runtime::{device, machine};
use std::io::Write;
use tracing_subscriber::EnvFilter;

/// Runs one command line.
///
/// # Errors
/// A command that failed; [`Failure::code`] is the process's exit code.
pub fn run(cli: &Cli) -> Result<(), Failure> {
    let loaded = origins::load(cli)?;
    start_log(&loaded.config.telemetry);
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
    if matches!(failure, Failure::Silent) {
        return;
    }
    let red = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into()));
    // If standard error is closed there is nobody to tell.
    let _ = writeln!(anstream::stderr(), "{red}error:{red:#} {failure}");
}

/// Log lines go to standard error, in color on a terminal.
fn start_log(telemetry: &config::Telemetry) {
    let level = format!("{:?}", telemetry.log_level).to_lowercase();
    // Other crates' chatter stays out below their warnings.
    let filter = EnvFilter::new(format!(
        "warn,mlx_serving={level},mlx_serving_runtime={level},mlx_serving_engine={level},mlx_serving_server={level},mlx_serving_metal_layer={level},mlx_serving_model={level},mlx_serving_hub={level},mlx_serving_cpu={level}"
    ));
    // Whoever reads the log may go away; the library would report that on standard error too, and panic.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
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
