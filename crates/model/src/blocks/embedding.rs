use crate::blueprint::{Blueprint, Division, LinearSpec, under};
use crate::load::{Loader, Module, Residency};
use crate::state::Scratch;
use crate::{ModelError, Step};
use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_device::ops::Embed;
use mlx_serving_device::{Encoder, Op, Result, Weight};

const PATH: &str = "embed_tokens";

/// Embedding of tokens: residual = table[token] · scale
#[derive(Debug)]
pub(crate) struct Embedding {
    /// The module as a head takes it, where it is tied.
    pub module: Module,
    table: Vec<Weight>,
    scale: f32,
    /// Transfers of its weights.
    pub ready: Residency,
}

impl Embedding {
    /// Its module, under the model's root.
    pub(crate) fn spec(model: &Blueprint) -> LinearSpec {
        LinearSpec { path: PATH, rows: model.vocab, cols: model.hidden, bias: false, division: Division::Anywhere }
    }

    /// True if a checkpoint has its weights under that module.
    pub(crate) fn is_in(checkpoint: &Checkpoint, root: &str) -> bool {
        checkpoint.get(&format!("{}.weight", under(root, PATH))).is_some()
    }

    pub(crate) fn load(loader: &mut Loader<'_>, model: &Blueprint) -> Result<Self, ModelError> {
        let module = loader.linear(model.root, &Self::spec(model))?;
        let table = module.iter().map(|part| part.weight.clone()).collect();
        Ok(Self { module, table, scale: model.embedding_scale(), ready: loader.residency() })
    }

    pub(crate) fn record(&self, encoder: &mut dyn Encoder, step: &Step<'_>, x: &Scratch) -> Result<()> {
        self.ready.order(encoder)?;
        encoder.record(Op::Embed(Embed {
            table: self.table.clone(),
            tokens: step.tokens.clone(),
            sampled: step.sampled.clone(),
            scale: self.scale,
            rows: step.batch.rows,
            out: x.residual.clone(),
        }))
    }
}
