//! Recording ops: an encoder turns them into launches of kernels and copies, and writes these into command buffers that are used again.

mod bundle;
mod commands;
mod encoder;
mod touch;

pub(crate) use bundle::{Bundles, Label, Lease, Tape};
pub(crate) use encoder::{Held, Recorder, VulkanCommands, VulkanEncoder};
