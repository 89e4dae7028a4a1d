use super::pass::Pass;
use crate::ModelError;
use crate::blueprint::{AttentionSpec, Division, LinearSpec, NormSpec, QkNorms};
use crate::load::{Loader, Module};
use crate::rope::Rope;
use crate::state::kv_spec;
use mlx_serving_device::ops::{Attend, Epilogue, Norm, Normalize};
use mlx_serving_device::{KvSpec, Op, Result};

/// Causal attention between norms, each where there is one:
///
/// - qkv = (q, k, v)(before(residual))
/// - attended = attention(qkv), with norms on queries and keys
/// - residual += after(o(attended))
#[derive(Debug)]
pub(super) struct Attention {
    before: Option<Norm>,
    /// q, k and v, one after the other.
    qkv: Module,
    /// Norms of queries and keys.
    qk_norms: Option<(QkNorms, [Norm; 2])>,
    o: Module,
    after: Option<Norm>,
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
    /// Values of all query heads, and of all key heads.
    fn widths(&self) -> [usize; 2] {
        [self.heads, self.kv_heads].map(|heads| heads * self.head_dim)
    }

    /// q, k, v, which may be one, then o.
    pub(super) fn linears(&self, hidden: usize) -> Vec<LinearSpec> {
        let [q, kv] = self.widths();
        let division = Division::Anywhere;
        let input = |path, rows| LinearSpec { path, rows, cols: hidden, bias: self.qkv_bias, division };
        let mut all = match self.fused {
            true => vec![input("self_attn.qkv_proj", q + 2 * kv)],
            false => [("self_attn.q_proj", q), ("self_attn.k_proj", kv), ("self_attn.v_proj", kv)]
                .map(|(path, rows)| input(path, rows))
                .into(),
        };
        all.push(LinearSpec { path: "self_attn.o_proj", rows: hidden, cols: q, bias: self.o_bias, division });
        all
    }

    /// Norms of queries and keys, where there are such.
    pub(super) fn qk_norms(&self) -> Option<[NormSpec; 2]> {
        let [q, k] = match self.qk_norms? {
            QkNorms::Heads => [self.head_dim; 2],
            QkNorms::Whole => self.widths(),
        };
        Some([NormSpec { path: "self_attn.q_norm", len: q }, NormSpec { path: "self_attn.k_norm", len: k }])
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
        let before = loader.before(layer, &spec.norms, hidden)?;
        let mut modules =
            spec.linears(hidden).iter().map(|linear| loader.linear(layer, linear)).collect::<Result<Vec<_>, _>>()?;
        let o = modules.pop().unwrap_or_default();
        let qk_norms = match (spec.qk_norms, spec.qk_norms()) {
            (Some(kind), Some([q, k])) => Some((kind, [loader.norm(layer, &q)?, loader.norm(layer, &k)?])),
            _ => None,
        };
        let rope = spec.rope.map(|index| &ropes[index]);
        Ok(Self {
            before,
            qkv: modules.concat(),
            qk_norms,
            o,
            after: loader.after(layer, &spec.norms, hidden)?,
            heads: spec.heads,
            kv: kv_spec(spec),
            rope: spec.rope,
            pairs: rope.map_or(0, Rope::pairs),
            interleaved: rope.is_some_and(|rope| rope.interleaved),
            scale: spec.scale,
            window: spec.window,
        })
    }

    pub(super) fn record(&self, pass: &mut Pass<'_>) -> Result<()> {
        let x = pass.x;
        pass.linear(&x.residual, self.before.as_ref(), &self.qkv, Epilogue::Store(x.qkv.clone()))?;
        let [q_norm, k_norm] = match &self.qk_norms {
            Some((QkNorms::Heads, norms)) => norms.clone().map(Some),
            Some((QkNorms::Whole, norms)) => {
                self.normalize(pass, norms)?;
                [None, None]
            }
            None => [None, None],
        };
        pass.encoder.record(Op::Attend(Attend {
            qkv: x.qkv.clone(),
            heads: self.heads,
            kv: self.kv,
            q_norm,
            k_norm,
            // Nothing is read of angles that turn no pairs.
            query_angles: self.rope.map_or(&x.qkv, |index| &x.angles[index].queries).clone(),
            key_angles: self.rope.map_or(&x.qkv, |index| &x.angles[index].keys).clone(),
            pairs: self.pairs,
            interleaved: self.interleaved,
            cache: pass.cache.clone(),
            batch: pass.batch.clone(),
            scale: self.scale,
            window: self.window,
            out: x.attended.clone(),
        }))?;
        pass.add(&x.attended, &self.o, self.after.as_ref())
    }

    /// Norms all queries, then all keys, where they lie.
    fn normalize(&self, pass: &mut Pass<'_>, [q, k]: &[Norm; 2]) -> Result<()> {
        let [queries, keys] = [self.heads, self.kv.heads].map(|heads| heads * self.kv.head_dim);
        for (first, width, norm) in [(0, queries, q), (queries, keys, k)] {
            pass.encoder.record(Op::Normalize(Normalize {
                input: pass.x.qkv.clone(),
                rows: pass.batch.rows,
                stride: queries + 2 * keys,
                first,
                width,
                norm: norm.clone(),
                target: None,
            }))?;
        }
        Ok(())
    }
}
