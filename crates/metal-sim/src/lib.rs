//! A simulated Metal device, so that a Metal backend written with `objc2-metal` runs on Linux.
pub mod faults;
mod foundation;
mod metal;
mod rules;
mod runtime;
pub mod shader;

pub use metal::drain;
pub use rules::{leaks, take_violations, violations};
