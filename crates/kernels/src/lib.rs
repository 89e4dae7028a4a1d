//! Compute kernels for GPUs: WGSL in `wgsl/`, translated to SPIR-V and MSL when the crate is built, and [`Lowering`], which turns
//! each op of the contract into launches of them. What a backend adds is memory, queues and pipelines.
//!
//! Every sum is taken in one order that depends on neither batch nor device, so that a row's bits do not depend on its company.
#![forbid(unsafe_code)]

mod copy;
pub mod fault;
mod launch;
mod lowering;
mod observe;
mod sample;
#[cfg_attr(not(test), expect(dead_code, reason = "the build script's, and the tests'"))]
mod variants;

pub use launch::{Access, Kernel, Launch};
pub use lowering::{Lowering, Traits};
