use super::pass::Pass;
use crate::ModelError;
use crate::blueprint::{AttentionSpec, LinearSpec, NormSpec};
use crate::load::{Loader, Module};
use crate::rope::Rope;
use crate::state::kv_spec;
use mlx_serving_device::ops::{Attend, Epilogue, Norm};
use mlx_serving_device::{KvSpec, Op, Result};

/// Causal attention behind a norm:
///
/// - qkv = (q, k, v)(norm(residual))
/// - attended = attention(qkv), with norms on queries and keys where there are such
/// - residual += o(attended)
#[derive(Debug)]
pub(super) struct Attention {
    norm: Norm,
    /// q, k and v, one after the other.
    qkv: Module,
    q_norm: Option<Norm>,
    k_norm: Option<Norm>,
    o: Module,
    heads: usize,
    kv: KvSpec,
    /// Index of the rotary embedding, and what it says of pairs.
    rope: Option<usize>,
    pairs: usize,
    interleaved: bool,
    scale: f32,
    window: Option<usize>,
}

impl AttentionSpec {
    /// Norm in front.
    pub(super) fn norm(&self, hidden: usize) -> NormSpec {
        NormSpec { path: "input_layernorm", len: hidden }
    }

    /// q, k, v, o.
    pub(super) fn linears(&self, hidden: usize) -> [LinearSpec; 4] {
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let input = |path, rows| LinearSpec { path, rows, cols: hidden, bias: self.qkv_bias, whole: false };
        [
            input("self_attn.q_proj", q),
            input("self_attn.k_proj", kv),
            input("self_attn.v_proj", kv),
            LinearSpec { path: "self_attn.o_proj", rows: hidden, cols: q, bias: self.o_bias, whole: false },
        ]
    }

    /// Norms of query and key heads, where there are such.
    pub(super) fn head_norms(&self) -> Option<[NormSpec; 2]> {
        let norm = |path| NormSpec { path, len: self.head_dim };
        self.head_norms.then(|| [norm("self_attn.q_norm"), norm("self_attn.k_norm")])
    }
}

impl Attention {
    pub(super) fn load(
        loader: &mut Loader<'_>,
        spec: &AttentionSpec,
        ropes: &[Rope],
        layer: &str,
        hidden: usize,
    ) -> Result<Self, ModelError> {
        let norm = loader.norm(layer, &spec.norm(hidden))?;
        let [q, k, v, o] = spec.linears(hidden);
        let mut qkv = loader.linear(layer, &q)?;
        qkv.extend(loader.linear(layer, &k)?);
        qkv.extend(loader.linear(layer, &v)?);
        let (q_norm, k_norm) = match spec.head_norms() {
            Some([q, k]) => (Some(loader.norm(layer, &q)?), Some(loader.norm(layer, &k)?)),
            None => (None, None),
        };
        let rope = spec.rope.map(|index| &ropes[index]);
        Ok(Self {
            norm,
            qkv,
            q_norm,
            k_norm,
            o: loader.linear(layer, &o)?,
            heads: spec.heads,
            kv: kv_spec(spec),
            rope: spec.rope,
            pairs: rope.map_or(0, Rope::pairs),
            interleaved: rope.is_some_and(|rope| rope.interleaved),
            scale: 1.0 / (spec.head_dim as f32).sqrt(),
            window: spec.window,
        })
    }

    pub(super) fn record(&self, pass: &mut Pass<'_>) -> Result<()> {
        let x = pass.x;
        pass.linear(&x.residual, Some(&self.norm), &self.qkv, Epilogue::Store(x.qkv.clone()))?;
        pass.encoder.record(Op::Attend(Attend {
            qkv: x.qkv.clone(),
            heads: self.heads,
            kv: self.kv,
            q_norm: self.q_norm.clone(),
            k_norm: self.k_norm.clone(),
            // Nothing is read of angles that turn no pairs.
            angles: self.rope.map_or(&x.qkv, |index| &x.angles[index]).clone(),
            pairs: self.pairs,
            interleaved: self.interleaved,
            cache: pass.cache.clone(),
            batch: pass.batch.clone(),
            scale: self.scale,
            window: self.window,
            out: x.attended.clone(),
        }))?;
        pass.linear(&x.attended, None, &self.o, Epilogue::Add(x.residual.clone()))
    }
}
