use super::batch::Batch;
use super::check::{holds, require};
use super::linear::Norm;
use crate::{Buffer, KvSpec, Result};

/// `out[r][i]` = (cos, sin) of position(r) · `inv_freq[i]`, each times `scale`. Once a step; every layer's [`Attend`] reads it.
#[derive(Debug, Clone)]
pub struct RopeAngles {
    /// u32 `[rows]`.
    pub positions: Buffer,
    /// f32 `[pairs]`: angular frequency of each rotated pair.
    pub inv_freq: Buffer,
    /// Pairs rotated: half the rotary width.
    pub pairs: usize,
    /// Attention factor of YaRN (arXiv:2309.00071); 1 without.
    pub scale: f32,
    /// Growth of that factor with the position.
    pub growth: Option<Growth>,
    /// Rows.
    pub rows: usize,
    /// f32 `[rows][pairs][2]`.
    pub out: Buffer,
}

/// Growth of a factor with the position (Llama 4): times 1 + `beta` · ln(1 + ⌊position / `every`⌋).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Growth {
    /// Slope over the logarithm, at least 0.
    pub beta: f32,
    /// Positions that share a factor, at least 1: those of the first `every` are as without.
    pub every: u32,
}

impl RopeAngles {
    pub(super) fn validate(&self) -> Result<()> {
        let grows = |growth: Growth| growth.every > 0 && growth.beta >= 0.0 && growth.beta.is_finite();
        require(self.growth.is_none_or(grows), || format!("rope: {:?}", self.growth))?;
        holds("rope positions", &self.positions, self.rows)?;
        holds("rope frequencies", &self.inv_freq, self.pairs)?;
        holds("rope angles", &self.out, self.rows * self.pairs * 2)
    }
}

/// Per row: optional RMS norm of each query and key head, rotary embedding, write of key and value into the paged cache, then
/// causal attention of the query over its sequence's cache (grouped heads), rows of the same batch included.
#[derive(Debug, Clone)]
pub struct Attend {
    /// f32 `[rows][(heads + 2 · kv heads) · head_dim]`: queries, keys, values.
    pub qkv: Buffer,
    /// Query heads; a multiple of `kv.heads`.
    pub heads: usize,
    /// Shape of the cache.
    pub kv: KvSpec,
    /// Norm of each query head, f32 `[head_dim]`.
    pub q_norm: Option<Norm>,
    /// Norm of each key head, f32 `[head_dim]`.
    pub k_norm: Option<Norm>,
    /// f32 `[rows][pairs][2]` from [`RopeAngles`], for queries.
    pub query_angles: Buffer,
    /// The same for keys; the same buffer where queries have no factor of their own.
    pub key_angles: Buffer,
    /// Pairs rotated; pair i is (`x[i]`, `x[i + pairs]`), or (`x[2i]`, `x[2i + 1]`) when `interleaved`. The rest passes through.
    pub pairs: usize,
    /// True if a pair is (`x[2i]`, `x[2i + 1]`), false if it is (`x[i]`, `x[i + pairs]`).
    pub interleaved: bool,
    /// Cache of the layer: blocks of [`crate::Device::kv_block_bytes`] bytes in the backend's layout.
    pub cache: Buffer,
    /// The ragged batch.
    pub batch: Batch,
    /// Factor of the scores, usually 1/√head_dim.
    pub scale: f32,
    /// A position sees itself and the `window − 1` before it; everything before it without.
    pub window: Option<usize>,
    /// f32 `[rows][heads · head_dim]`.
    pub out: Buffer,
}

impl Attend {
    pub(super) fn buffers(&self) -> Vec<&Buffer> {
        let batch = [&self.batch.positions, &self.batch.spans, &self.batch.block_tables];
        let norms = self.q_norm.iter().chain(&self.k_norm).map(|norm| &norm.weight);
        [&self.qkv, &self.query_angles, &self.key_angles, &self.cache, &self.out]
            .into_iter()
            .chain(batch)
            .chain(norms)
            .collect()
    }

    pub(super) fn validate(&self) -> Result<()> {
        let rows = self.batch.rows;
        self.batch.validate()?;
        require(self.kv.heads > 0 && self.heads > 0 && self.heads.is_multiple_of(self.kv.heads), || {
            format!("attend: {} heads over {} kv heads", self.heads, self.kv.heads)
        })?;
        require(self.kv.head_dim > 0 && self.kv.block_tokens > 0, || format!("attend: nothing fits {:?}", self.kv))?;
        require(2 * self.pairs <= self.kv.head_dim, || format!("attend: {} pairs in {:?}", self.pairs, self.kv))?;
        require(self.window != Some(0), || "attend: empty window".into())?;
        holds("attend qkv", &self.qkv, rows * (self.heads + 2 * self.kv.heads) * self.kv.head_dim)?;
        holds("attend query angles", &self.query_angles, rows * self.pairs * 2)?;
        holds("attend key angles", &self.key_angles, rows * self.pairs * 2)?;
        for norm in self.q_norm.iter().chain(&self.k_norm) {
            holds("attend norm", &norm.weight, self.kv.head_dim)?;
        }
        holds("attend out", &self.out, rows * self.heads * self.kv.head_dim)
    }
}
