//! The `mlx-serving` binary.
#![forbid(unsafe_code)]

use clap::Parser;
use mlx_serving::args::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    match mlx_serving::run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            mlx_serving::report(&failure);
            failure.code()
        }
    }
}
