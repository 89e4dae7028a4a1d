//! Recording ops: an encoder turns them into steps, launches of kernels and copies, and on submission a pass writes these into a
//! command buffer.

mod encoder;
mod pass;

pub(crate) use encoder::{MetalCommands, MetalEncoder, Recorder, Step};
pub(crate) use pass::Pass;
