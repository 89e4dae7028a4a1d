use super::embedding::Embedding;
use crate::blueprint::{Blueprint, LinearSpec, NormSpec};
use crate::load::{Loader, Module, Residency};
use crate::state::Scratch;
use crate::{ModelError, Step};
use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_device::ops::{Epilogue, Linear, Norm};
use mlx_serving_device::{Encoder, Op, Result};

const PATH: &str = "lm_head";

/// Head: logits = head(norm(residual)) of the wanted rows
#[derive(Debug)]
pub(crate) struct Head {
    norm: Norm,
    /// Or the embedding's weights again, where they are tied.
    module: Module,
    /// Transfers of its weights.
    pub ready: Residency,
}

impl Head {
    /// Norm in front.
    pub(crate) fn norm(model: &Blueprint) -> NormSpec {
        NormSpec { path: "model.norm", len: model.hidden }
    }

    /// True if a checkpoint has weights of a head.
    pub(crate) fn is_in(checkpoint: &Checkpoint) -> bool {
        checkpoint.get(&format!("{PATH}.weight")).is_some()
    }

    /// Its module; `None` where it is the embedding's.
    pub(crate) fn spec(model: &Blueprint) -> Option<LinearSpec> {
        let own = LinearSpec { path: PATH, rows: model.vocab, cols: model.hidden, bias: false, whole: false };
        (!model.tied).then_some(own)
    }

    pub(crate) fn load(loader: &mut Loader<'_>, model: &Blueprint, tied: &Embedding) -> Result<Self, ModelError> {
        let norm = loader.norm("", &Self::norm(model))?;
        let module = match Self::spec(model) {
            Some(own) => loader.linear("", &own)?,
            None => tied.module.clone(),
        };
        Ok(Self { norm, module, ready: loader.residency() })
    }

    pub(crate) fn record(&self, encoder: &mut dyn Encoder, step: &Step<'_>, x: &Scratch) -> Result<()> {
        if step.logit_count == 0 {
            return Ok(());
        }
        self.ready.order(encoder)?;
        encoder.record(Op::Linear(Linear {
            input: x.residual.clone(),
            gather: Some(step.logit_rows.clone()),
            rows: step.logit_count,
            norm: Some(self.norm.clone()),
            projections: self.module.clone(),
            epilogue: Epilogue::Store(x.logits.clone()),
        }))
    }
}
