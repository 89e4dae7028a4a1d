use super::pass::Pass;
use crate::ModelError;
use crate::blueprint::{LinearSpec, MlpSpec, NormSpec};
use crate::load::{Loader, Module};
use mlx_serving_device::Result;
use mlx_serving_device::ops::{Activation, Epilogue, Norm};

/// Gated feed-forward network behind a norm:
///
/// residual += down(silu(gate(norm(residual))) · up(norm(residual)))
#[derive(Debug)]
pub(super) struct Mlp {
    norm: Norm,
    /// Gate, then up.
    gate_up: Module,
    down: Module,
}

impl MlpSpec {
    /// Norm in front.
    pub(super) fn norm(&self, hidden: usize) -> NormSpec {
        NormSpec { path: "post_attention_layernorm", len: hidden }
    }

    /// Gate, up, down.
    pub(super) fn linears(&self, hidden: usize) -> [LinearSpec; 3] {
        let input = |path| LinearSpec { path, rows: self.width, cols: hidden, bias: self.bias, whole: true };
        [
            input("mlp.gate_proj"),
            input("mlp.up_proj"),
            LinearSpec { path: "mlp.down_proj", rows: hidden, cols: self.width, bias: self.bias, whole: false },
        ]
    }
}

impl Mlp {
    pub(super) fn load(
        loader: &mut Loader<'_>,
        spec: &MlpSpec,
        layer: &str,
        hidden: usize,
    ) -> Result<Self, ModelError> {
        let norm = loader.norm(layer, &spec.norm(hidden))?;
        let [gate, up, down] = spec.linears(hidden);
        let mut gate_up = loader.linear(layer, &gate)?;
        gate_up.extend(loader.linear(layer, &up)?);
        loader.check_gated(layer, &gate_up)?;
        Ok(Self { norm, gate_up, down: loader.linear(layer, &down)? })
    }

    pub(super) fn record(&self, pass: &mut Pass<'_>) -> Result<()> {
        let x = pass.x;
        let gated = Epilogue::Gated(Activation::Silu, x.gated.clone());
        pass.linear(&x.residual, Some(&self.norm), &self.gate_up, gated)?;
        pass.linear(&x.gated, None, &self.down, Epilogue::Add(x.residual.clone()))
    }
}
