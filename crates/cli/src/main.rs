//! The `mlx-serving` binary.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Gives memory back after large requests, which the system's own allocator on Linux keeps.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = mlx_serving::parse().unwrap_or_else(|error| error.exit());
    match mlx_serving::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            mlx_serving::report(&failure);
            failure.code()
        }
    }
}
