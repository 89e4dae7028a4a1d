//! The log of a library: warnings on standard error, unless the options say otherwise or the program has a log of its own.

use mlx_serving_runtime::config::{LogLines, Telemetry};
use std::io;
use tracing_subscriber::EnvFilter;

/// Starts the log of a process that has no engine yet: warnings.
pub fn start_default() {
    start(&Telemetry::default(), false);
}

/// Starts the log, once a process. `level` is the one that was asked for.
pub(crate) fn start(telemetry: &Telemetry, asked: bool) {
    let level = if asked { format!("{:?}", telemetry.log_level).to_lowercase() } else { "warn".to_owned() };
    let filter = EnvFilter::new(format!("warn,mlx_serving={level}"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(false)
        .log_internal_errors(false);
    // The first engine's log is the process's.
    let _ = match telemetry.log_format {
        LogLines::Text => builder.compact().try_init(),
        LogLines::Json => builder.json().try_init(),
    };
}
