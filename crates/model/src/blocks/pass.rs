use crate::state::Scratch;
use mlx_serving_device::ops::{Batch, Epilogue, Linear, Norm, Normalize, Projection};
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

    /// residual += after(modules(input)), or without such a norm residual += modules(input).
    pub(super) fn add(&mut self, input: &Buffer, modules: &[Projection], after: Option<&Norm>) -> Result<()> {
        let x = self.x;
        let Some(norm) = after else { return self.linear(input, None, modules, Epilogue::Add(x.residual.clone())) };
        self.linear(input, None, modules, Epilogue::Store(x.qkv.clone()))?;
        self.encoder.record(Op::Normalize(Normalize {
            input: x.qkv.clone(),
            rows: self.batch.rows,
            stride: x.hidden_width(),
            first: 0,
            width: x.hidden_width(),
            norm: norm.clone(),
            target: Some(x.residual.clone()),
        }))
    }
}
