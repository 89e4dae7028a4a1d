//! The mlx-serving binary.
#![forbid(unsafe_code)]

fn main() {}
