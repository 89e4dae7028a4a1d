//! Compiled kernels: made from MSL on first use, and kept in a file from run to run.

mod archive;
mod pipeline;

pub(crate) use pipeline::Pipelines;
