//! The parts of a model as data: an architecture writes it, loading and forward passes follow it.

use crate::rope::Rope;
use mlx_serving_device::ops::Activation;

/// [`Blueprint::root`] in checkpoints whose whole model of text lies under `language_model`, as mlx-lm writes them; the head does too.
pub(crate) const WRAPPED_ROOT: &str = "language_model.model";

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
    /// Added to the weight of every norm when it is loaded, in the f32 that it has on the device: 1 where checkpoints hold what the weight
    /// differs from 1 by.
    pub norm_offset: f32,
    /// Factors between the parts.
    pub multipliers: Multipliers,
    /// The layers, first to last.
    pub layers: Vec<LayerSpec>,
    /// Rotary embeddings, which layers name by their index.
    pub ropes: Vec<Rope>,
    /// Module that holds all but the head: `model`, one of its names in models of more than text, or none in the checkpoints of embedding
    /// models that have nothing else.
    pub root: &'static str,
    /// Weights of the head; `None` in a model that makes embeddings and generates nothing.
    pub head: Option<HeadWeights>,
}

/// Factors between the parts of a model, 1 in most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Multipliers {
    /// Of the embedding.
    pub embedding: f64,
    /// Of what each part of a layer adds to the residual stream.
    pub residual: f64,
    /// Of the logits.
    pub logits: f64,
}

/// Weights of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadWeights {
    /// The embedding's.
    Tied,
    /// Its own.
    Own,
}

/// One layer: residual += mixer(residual), then residual += mlp(residual), each between its norms.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    /// Part that lets positions see one another.
    pub mixer: AttentionSpec,
    /// Part that takes every position alone; beside experts, what all positions share.
    pub mlp: MlpSpec,
    /// Experts, of which each position has some; they take what `mlp` takes, and their results are added.
    pub experts: Option<ExpertsSpec>,
}

/// RMS norms around a part of a layer, by their paths under the layer: after(part(before(residual))).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Norms {
    /// Norm in front.
    pub before: Option<&'static str>,
    /// Norm behind, before the result is added.
    pub after: Option<&'static str>,
}

/// RMS norms of queries and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorms {
    /// Of each head by itself.
    Heads,
    /// Of all query heads together, and of all key heads.
    Whole,
}

/// Causal attention of grouped heads.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionSpec {
    /// Norms around it.
    pub norms: Norms,
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
    /// Factor of the scores, usually 1/√head_dim.
    pub scale: f32,
    /// Norms of queries and keys.
    pub qk_norms: Option<QkNorms>,
    /// q, k and v are one tensor.
    pub fused: bool,
    /// Biases on q, k and v.
    pub qkv_bias: bool,
    /// Bias on o.
    pub o_bias: bool,
}

/// Gated feed-forward network.
#[derive(Debug, Clone, PartialEq)]
pub struct MlpSpec {
    /// Norms around it.
    pub norms: Norms,
    /// Width between gate and down; 0 beside experts that share nothing.
    pub width: usize,
    /// Activation of the gate.
    pub activation: Activation,
    /// Path under the layer.
    pub path: MlpPath,
    /// Biases on gate, up and down.
    pub bias: bool,
    /// Gate and up are one tensor.
    pub fused: bool,
}

/// Path of a feed-forward network under its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MlpPath {
    /// `mlp`
    Own,
    /// `mlp.shared_experts`
    Shared,
}

/// Gated feed-forward networks of which each position has those that its router chooses.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertsSpec {
    /// Networks.
    pub count: usize,
    /// Networks of a position.
    pub slots: usize,
    /// Width of each between gate and down, a multiple of 16.
    pub width: usize,
    /// Scores by which they are chosen.
    pub scoring: ScoringSpec,
    /// The weights of a position's experts are divided by their sum.
    pub renormalize: bool,
    /// Factor of the weights.
    pub factor: f32,
    /// Path of the router under the layer.
    pub router: &'static str,
    /// Paths of the stacked gates, ups and downs under the layer.
    pub stacks: [&'static str; 3],
}

/// Scores by which experts are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoringSpec {
    /// Probabilities over all experts.
    Softmax,
    /// Of each expert by itself, plus a bias for the choice alone.
    Sigmoid {
        /// Path of the bias under the layer.
        bias: &'static str,
    },
}

/// Matrices of all experts, stacked, as checkpoints name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StackSpec {
    /// Path under the layer.
    pub path: &'static str,
    /// Matrices.
    pub count: usize,
    /// Features out of each.
    pub rows: usize,
    /// Features in.
    pub cols: usize,
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
    /// Places where its rows may be divided.
    pub division: Division,
}

/// Places where the rows of a linear module may be divided into weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Division {
    /// Wherever a buffer ends.
    Anywhere,
    /// Nowhere: a gated op takes it whole.
    Nowhere,
    /// In the middle and nowhere else: a gate, and what it is multiplied with.
    Halves,
}

/// An RMS norm's weight, as checkpoints name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NormSpec {
    /// Path under the layer.
    pub path: &'static str,
    /// Width.
    pub len: usize,
}

impl Multipliers {
    /// No factors.
    pub const NONE: Self = Self { embedding: 1.0, residual: 1.0, logits: 1.0 };
}

impl Blueprint {
    /// Factor of the embedding where the residual stream is kept divided by its own multiplier, so that what parts add has none. Norms see
    /// no difference but in their ε: [`Self::stream_eps`].
    pub(crate) fn embedding_scale(&self) -> f32 {
        (self.multipliers.embedding / self.multipliers.residual) as f32
    }

    /// ε of the norms of that stream.
    pub(crate) fn stream_eps(&self) -> f32 {
        (f64::from(self.norm_eps) / self.multipliers.residual.powi(2)) as f32
    }

    /// Path of the layers, which are numbered under it.
    pub(crate) fn layers_path(&self) -> String {
        under(self.root, "layers")
    }

    /// Path of layer number `i`.
    pub(crate) fn layer_path(&self, i: usize) -> String {
        format!("{}.{i}", self.layers_path())
    }
}

/// Path of a module under `layer`; without a layer, its own.
pub(crate) fn under(layer: &str, path: &str) -> String {
    match layer {
        "" => path.to_owned(),
        layer => format!("{layer}.{path}"),
    }
}
