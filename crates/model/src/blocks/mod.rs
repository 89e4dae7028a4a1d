//! Blocks that models are made of. Each names its modules, loads them, and records its ops.

mod attention;
mod embedding;
mod experts;
mod head;
mod layer;
mod mlp;
mod pass;
mod rotary;

pub(crate) use embedding::Embedding;
pub(crate) use head::Head;
pub(crate) use layer::Layer;
pub(crate) use pass::Pass;
pub(crate) use rotary::Rotary;
