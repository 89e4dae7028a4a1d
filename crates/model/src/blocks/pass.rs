use crate::state::Scratch;
use mlx_serving_device::ops::{Batch, Epilogue, Linear, Norm, Projection};
use mlx_serving_device::{Buffer, Encoder, Op, Result};

/// One forward pass through one layer: what its blocks record into, and read and write.
pub(crate) struct Pass<'a> {
    pub encoder: &'a mut dyn Encoder,
    pub batch: &'a Batch,
    pub x: &'a Scratch,
    /// This layer's part of the KV cache.
    pub cache: &'a Buffer,
}

impl Pass<'_> {
    /// out = modules(norm(input)), or added to, or gated: see [`Epilogue`].
    pub(super) fn linear(
        &mut self,
        input: &Buffer,
        norm: Option<&Norm>,
        modules: &[Projection],
        epilogue: Epilogue,
    ) -> Result<()> {
        self.encoder.record(Op::Linear(Linear {
            input: input.clone(),
            gather: None,
            rows: self.batch.rows,
            norm: norm.cloned(),
            projections: modules.to_vec(),
            epilogue,
        }))
    }
}
