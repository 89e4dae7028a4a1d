//! The `mlx-serving` binary.
#![forbid(unsafe_code)]

use clap::Parser;
use mlx_serving::args::Cli;
use std::process::ExitCode;

/// Gives memory back after large requests, which the system's own allocator on Linux keeps.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match mlx_serving::run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            mlx_serving::report(&failure);
            failure.code()
        }
    }
}
