use super::attention::Attention;
use super::experts::Experts;
use super::mlp::Mlp;
use super::pass::Pass;
use crate::ModelError;
use crate::blueprint::{Blueprint, LayerSpec, LinearSpec, NormSpec, StackSpec};
use crate::load::{Loader, Residency};
use mlx_serving_device::Result;

/// One layer: attention, then a feed-forward network, or experts with one that they share.
#[derive(Debug)]
pub(crate) struct Layer {
    mixer: Attention,
    mlp: Mlp,
    experts: Option<Experts>,
    /// Transfers of its weights.
    pub ready: Residency,
}

impl LayerSpec {
    /// Linear modules of a layer on a residual stream of this width, in the order in which they are loaded.
    pub fn linears(&self, hidden: usize) -> Vec<LinearSpec> {
        let router = self.experts.iter().map(|experts| experts.router(hidden));
        [self.mixer.linears(hidden), self.mlp.linears(hidden)].into_iter().flatten().chain(router).collect()
    }

    /// Stacked matrices of a layer's experts.
    pub fn stacks(&self, hidden: usize) -> Vec<StackSpec> {
        self.experts.iter().flat_map(|experts| experts.stacks(hidden)).collect()
    }

    /// Vectors of a layer that are no norms' and no modules': paths under the layer, and lengths.
    pub fn vectors(&self) -> Vec<(&'static str, usize)> {
        self.experts.iter().filter_map(|experts| experts.bias()).collect()
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
        model.layer_path(i)
    }

    pub(crate) fn load(loader: &mut Loader<'_>, model: &Blueprint, i: usize) -> Result<Self, ModelError> {
        let (spec, path, hidden) = (&model.layers[i], Self::path(model, i), model.hidden);
        Ok(Self {
            mixer: Attention::load(loader, &spec.mixer, &model.ropes, &path, hidden)?,
            mlp: Mlp::load(loader, &spec.mlp, &path, hidden)?,
            experts: spec.experts.as_ref().map(|spec| Experts::load(loader, spec, &path, hidden)).transpose()?,
            ready: loader.residency(),
        })
    }

    pub(crate) fn record(&self, pass: &mut Pass<'_>) -> Result<()> {
        self.ready.order(pass.encoder)?;
        self.mixer.record(pass)?;
        // All that take the residual stream come before what is added to it.
        if let Some(experts) = &self.experts {
            experts.choose(pass, self.mlp.before.as_ref())?;
        }
        self.mlp.record(pass)?;
        self.experts.as_ref().map_or(Ok(()), |experts| experts.add(pass))
    }
}
