use crate::load::Module;
use mlx_serving_device::ops::{Activation, Attend, Batch, Epilogue, Linear, Norm};
use mlx_serving_device::{Buffer, Encoder, KvSpec, Op, Result};

/// Activations that all layers share, all f32 [rows][…].
#[derive(Debug, Clone)]
pub(crate) struct Activations {
    /// [rows][hidden]: the residual stream.
    pub residual: Buffer,
    /// [rows][(heads + 2 · kv heads) · head_dim]
    pub qkv: Buffer,
    /// [rows][heads · head_dim]
    pub attended: Buffer,
    /// [rows][intermediate]
    pub gated: Buffer,
    /// [rows][pairs][2]
    pub angles: Buffer,
}

/// Sizes that stay the same over the layers of one model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shape {
    pub heads: usize,
    pub kv: KvSpec,
    pub pairs: usize,
    pub interleaved: bool,
}

/// One forward pass through one layer: records its ops.
pub(crate) struct Pass<'a> {
    pub encoder: &'a mut dyn Encoder,
    pub batch: &'a Batch,
    pub x: &'a Activations,
    pub shape: Shape,
    /// This layer's part of the KV cache.
    pub cache: &'a Buffer,
    /// This layer's window.
    pub window: Option<usize>,
}

impl Pass<'_> {
    /// out = modules(norm(input)), or added to, or gated: see [`Epilogue`].
    fn linear(&mut self, input: &Buffer, norm: Option<&Norm>, modules: &[&Module], epilogue: Epilogue) -> Result<()> {
        self.encoder.record(Op::Linear(Linear {
            input: input.clone(),
            gather: None,
            rows: self.batch.rows,
            norm: norm.cloned(),
            projections: modules.iter().flat_map(|m| m.iter().cloned()).collect(),
            epilogue,
        }))
    }

    /// qkv = (q, k, v)(norm(residual))
    pub(crate) fn project(&mut self, norm: &Norm, q: &Module, k: &Module, v: &Module) -> Result<()> {
        self.linear(&self.x.residual.clone(), Some(norm), &[q, k, v], Epilogue::Store(self.x.qkv.clone()))
    }

    /// attended = attention(qkv), with norms on queries and keys where the architecture has them
    pub(crate) fn attend(&mut self, q_norm: Option<&Norm>, k_norm: Option<&Norm>) -> Result<()> {
        self.encoder.record(Op::Attend(Attend {
            qkv: self.x.qkv.clone(),
            heads: self.shape.heads,
            kv: self.shape.kv,
            q_norm: q_norm.cloned(),
            k_norm: k_norm.cloned(),
            angles: self.x.angles.clone(),
            pairs: self.shape.pairs,
            interleaved: self.shape.interleaved,
            cache: self.cache.clone(),
            batch: self.batch.clone(),
            scale: 1.0 / (self.shape.kv.head_dim as f32).sqrt(),
            window: self.window,
            out: self.x.attended.clone(),
        }))
    }

    /// residual += o(attended)
    pub(crate) fn add_attended(&mut self, o: &Module) -> Result<()> {
        self.linear(&self.x.attended.clone(), None, &[o], Epilogue::Add(self.x.residual.clone()))
    }

    /// residual += down(silu(gate(norm(residual))) · up(norm(residual)))
    pub(crate) fn feed_forward(&mut self, norm: &Norm, gate: &Module, up: &Module, down: &Module) -> Result<()> {
        let gated = Epilogue::Gated(Activation::Silu, self.x.gated.clone());
        self.linear(&self.x.residual.clone(), Some(norm), &[gate, up], gated)?;
        self.linear(&self.x.gated.clone(), None, &[down], Epilogue::Add(self.x.residual.clone()))
    }
}
