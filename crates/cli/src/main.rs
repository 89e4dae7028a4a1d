//! The `mlx-serving` binary.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Gives memory back after large requests, which the system's own allocator on Linux keeps.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mlx_serving::main()
}
