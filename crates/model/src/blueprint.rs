//! The parts of a model as data: an architecture writes it, loading and forward passes follow it.

use crate::rope::Rope;

/// A model: embedding, layers, norm, head.
#[derive(Debug, Clone, PartialEq)]
pub struct Blueprint {
    /// Tokens of the vocabulary.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Longest context that the model was made for, before rotary scaling stretches it.
    pub max_positions: usize,
    /// ε of the RMS norms.
    pub norm_eps: f32,
    /// The layers, first to last.
    pub layers: Vec<LayerSpec>,
    /// Rotary embeddings, which layers name by their index.
    pub ropes: Vec<Rope>,
    /// Module that holds all but the head: `model`, or none in the checkpoints of embedding models that have nothing else.
    pub root: &'static str,
    /// Weights of the head; `None` in a model that makes embeddings and generates nothing.
    pub head: Option<HeadWeights>,
}

/// Weights of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadWeights {
    /// The embedding's.
    Tied,
    /// Its own.
    Own,
}

/// One layer: residual += mixer(norm(residual)), then residual += mlp(norm(residual)).
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    /// Part that lets positions see one another.
    pub mixer: AttentionSpec,
    /// Part that takes every position alone.
    pub mlp: MlpSpec,
}

/// Causal attention of grouped heads.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides the query heads.
    pub kv_heads: usize,
    /// Width of a head, even; need not be hidden width / heads.
    pub head_dim: usize,
    /// Positions that one sees, itself included; `None` sees everything before it.
    pub window: Option<usize>,
    /// Index of the rotary embedding; `None` rotates nothing.
    pub rope: Option<usize>,
    /// RMS norm of each query and key head.
    pub head_norms: bool,
    /// Biases on q, k and v.
    pub qkv_bias: bool,
    /// Bias on o.
    pub o_bias: bool,
}

/// Gated feed-forward network.
#[derive(Debug, Clone, PartialEq)]
pub struct MlpSpec {
    /// Width between gate and down.
    pub width: usize,
    /// Biases on gate, up and down.
    pub bias: bool,
}

/// A linear module, as checkpoints name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearSpec {
    /// Path under the layer.
    pub path: &'static str,
    /// Features out.
    pub rows: usize,
    /// Features in.
    pub cols: usize,
    /// True if there is a bias.
    pub bias: bool,
    /// True if it must lie in one buffer, because a gated op takes it whole.
    pub whole: bool,
}

/// An RMS norm's weight, as checkpoints name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NormSpec {
    /// Path under the layer.
    pub path: &'static str,
    /// Width.
    pub len: usize,
}

impl Blueprint {
    /// Path of the layers, which are numbered under it.
    pub(crate) fn layers_path(&self) -> String {
        under(self.root, "layers")
    }
}

/// Path of a module under `layer`; without a layer, its own.
pub(crate) fn under(layer: &str, path: &str) -> String {
    match layer {
        "" => path.to_owned(),
        layer => format!("{layer}.{path}"),
    }
}
