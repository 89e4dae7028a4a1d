//! Compute kernels for GPUs: WGSL in `wgsl/`, with what kernels share in `wgsl/lib/`, translated to SPIR-V and MSL when the crate is built, and [`Lowering`], which turns
//! each op of the contract into launches of them. What a backend adds is memory, queues and pipelines.
//!
//! Every sum is taken in one order that depends on neither batch nor device, so that a row's bits do not depend on its company.
#![forbid(unsafe_code)]

mod attend;
mod copy;
mod embed;
mod exactness;
mod experts;
pub mod fault;
mod hazards;
mod launch;
mod layout;
mod linear;
mod lowering;
mod normalize;
mod observe;
mod params;
mod rope;
mod route;
mod sample;
mod scratch;
mod variant;

pub use exactness::assemble_exact;
pub use hazards::{Hazards, Use};
pub use launch::{Access, Kernel, Launch};
pub use lowering::Lowering;
pub use scratch::Scratch;
