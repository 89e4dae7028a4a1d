use super::embedding::Embedding;
use crate::blueprint::{Blueprint, Division, HeadWeights, LinearSpec, NormSpec, WRAPPED_ROOT, under};
use crate::load::{Loader, Module, Residency};
use crate::state::Scratch;
use crate::{ModelError, Step};
use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_device::ops::{Epilogue, Linear, Norm};
use mlx_serving_device::{DeviceError, Encoder, Op, Result};

const PATH: &str = "lm_head";
/// Its path where the whole model of text lies under `language_model`.
const WRAPPED_PATH: &str = "language_model.lm_head";

/// End of a model: hidden = norm(residual), logits = head(hidden) · multiplier of the wanted rows
#[derive(Debug)]
pub(crate) struct Head {
    /// The norm, with the logits' multiplier in its weight.
    norm: Norm,
    /// The norm where the host applies it.
    pub host_norm: HostNorm,
    /// The embedding's weights again, where they are tied; `None` in a model that has no head.
    module: Option<Module>,
    /// Transfers of its weights.
    pub ready: Residency,
}

impl Head {
    /// Norm in front, under the model's root.
    pub(crate) fn norm(model: &Blueprint) -> NormSpec {
        NormSpec { path: "norm", len: model.hidden }
    }

    /// True if a checkpoint has weights of a head.
    pub(crate) fn is_in(checkpoint: &Checkpoint) -> bool {
        [PATH, WRAPPED_PATH].iter().any(|path| checkpoint.get(&format!("{path}.weight")).is_some())
    }

    /// Its own module, if it has one.
    pub(crate) fn spec(model: &Blueprint) -> Option<LinearSpec> {
        let path = if model.root == WRAPPED_ROOT { WRAPPED_PATH } else { PATH };
        let own = LinearSpec { path, rows: model.vocab, cols: model.hidden, bias: false, division: Division::Anywhere };
        (model.head == Some(HeadWeights::Own)).then_some(own)
    }

    pub(crate) fn load(loader: &mut Loader<'_>, model: &Blueprint, tied: &Embedding) -> Result<Self, ModelError> {
        let spec = Self::norm(model);
        let norm = loader.stream_norm(model.root, &spec, model.multipliers.logits as f32)?;
        let mut weight = loader.on_host(&format!("{}.weight", under(model.root, spec.path)), spec.len)?;
        weight.iter_mut().for_each(|x| *x += model.norm_offset);
        let module = match Self::spec(model) {
            Some(own) => Some(loader.linear("", &own)?),
            None => model.head.map(|_| tied.module.clone()),
        };
        let host_norm = HostNorm { weight, eps: norm.eps };
        Ok(Self { norm, host_norm, module, ready: loader.residency() })
    }

    pub(crate) fn record(&self, encoder: &mut dyn Encoder, step: &Step<'_>, x: &Scratch) -> Result<()> {
        if step.logit_count == 0 {
            return Ok(());
        }
        let Some(module) = &self.module else {
            return Err(DeviceError::Unsupported("logits of a model without a head".into()));
        };
        self.ready.order(encoder)?;
        encoder.record(Op::Linear(Linear {
            input: x.residual.clone(),
            gather: Some(step.logit_rows.clone()),
            rows: step.logit_count,
            norm: Some(self.norm.clone()),
            projections: module.clone(),
            epilogue: Epilogue::Store(x.logits.clone()),
        }))
    }
}

/// An RMS norm on the host: x · weight / sqrt(mean(x²) + ε)
#[derive(Debug)]
pub(crate) struct HostNorm {
    weight: Vec<f32>,
    eps: f32,
}

impl HostNorm {
    /// Applies it to a row in place; its sums are taken from first to last, so that a row's bits are its own.
    pub(crate) fn apply(&self, row: &mut [f32]) {
        let squares: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let scale = 1.0 / (squares / row.len() as f64 + f64::from(self.eps)).sqrt();
        for (x, &weight) in row.iter_mut().zip(&self.weight) {
            *x = (f64::from(*x) * scale * f64::from(weight)) as f32;
        }
    }
}
