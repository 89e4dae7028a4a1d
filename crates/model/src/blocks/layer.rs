use super::attention::Attention;
use super::mlp::Mlp;
use super::pass::Pass;
use crate::ModelError;
use crate::blueprint::{Blueprint, LayerSpec, LinearSpec, NormSpec};
use crate::load::{Loader, Residency};
use mlx_serving_device::Result;

/// One layer: attention, then a feed-forward network.
#[derive(Debug)]
pub(crate) struct Layer {
    mixer: Attention,
    mlp: Mlp,
    /// Transfers of its weights.
    pub ready: Residency,
}

impl LayerSpec {
    /// Linear modules of a layer on a residual stream of this width, in the order in which they are loaded.
    pub fn linears(&self, hidden: usize) -> Vec<LinearSpec> {
        [self.mixer.linears(hidden), self.mlp.linears(hidden)].concat()
    }

    /// Norms of a layer on a residual stream of this width.
    pub fn norms(&self, hidden: usize) -> Vec<NormSpec> {
        let around = [self.mixer.norms, self.mlp.norms].map(|norms| [norms.before, norms.after]);
        let around = around.into_iter().flatten().flatten().map(|path| NormSpec { path, len: hidden });
        around.chain(self.mixer.qk_norms().into_iter().flatten()).collect()
    }
}

impl Layer {
    /// Path of a model's layer number `i`.
    pub(crate) fn path(model: &Blueprint, i: usize) -> String {
        format!("{}.{i}", model.layers_path())
    }

    pub(crate) fn load(loader: &mut Loader<'_>, model: &Blueprint, i: usize) -> Result<Self, ModelError> {
        let (spec, path, hidden) = (&model.layers[i], Self::path(model, i), model.hidden);
        Ok(Self {
            mixer: Attention::load(loader, &spec.mixer, &model.ropes, &path, hidden)?,
            mlp: Mlp::load(loader, &spec.mlp, &path, hidden)?,
            ready: loader.residency(),
        })
    }

    pub(crate) fn record(&self, pass: &mut Pass<'_>) -> Result<()> {
        self.ready.order(pass.encoder)?;
        self.mixer.record(pass)?;
        self.mlp.record(pass)
    }
}
