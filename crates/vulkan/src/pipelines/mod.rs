//! Compiled kernels: made on first use or in the background, and kept in a file from run to run.

mod cache_file;
mod pipeline;
mod warm;

pub(crate) use pipeline::Pipelines;
pub(crate) use warm::WarmUp;
