use super::pass::Pass;
use crate::ModelError;
use crate::blueprint::{Division, LinearSpec, MlpPath, MlpSpec};
use crate::load::{Loader, Module};
use mlx_serving_device::Result;
use mlx_serving_device::ops::{Activation, Epilogue, Norm};

/// Gated feed-forward network between norms, each where there is one:
///
/// residual += after(down(activation(gate(before(residual))) · up(before(residual))))
#[derive(Debug)]
pub(super) struct Mlp {
    pub(super) before: Option<Norm>,
    /// Gate, then up; none beside experts that share nothing.
    gate_up: Module,
    activation: Activation,
    down: Module,
    after: Option<Norm>,
}

impl MlpSpec {
    /// Gate and up, which may be one, then down; nothing where the width is 0.
    pub(super) fn linears(&self, hidden: usize) -> Vec<LinearSpec> {
        if self.width == 0 {
            return Vec::new();
        }
        let [both, gate, up, down] = match self.path {
            MlpPath::Own => ["mlp.gate_up_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"],
            MlpPath::Shared => [
                "mlp.shared_experts.gate_up_proj",
                "mlp.shared_experts.gate_proj",
                "mlp.shared_experts.up_proj",
                "mlp.shared_experts.down_proj",
            ],
        };
        let linear = |path, rows, cols, division| LinearSpec { path, rows, cols, bias: self.bias, division };
        let mut all = match self.fused {
            true => vec![linear(both, 2 * self.width, hidden, Division::Halves)],
            false => [gate, up].map(|path| linear(path, self.width, hidden, Division::Nowhere)).into(),
        };
        all.push(linear(down, hidden, self.width, Division::Anywhere));
        all
    }
}

impl Mlp {
    pub(super) fn load(
        loader: &mut Loader<'_>,
        spec: &MlpSpec,
        layer: &str,
        hidden: usize,
    ) -> Result<Self, ModelError> {
        let before = loader.before(layer, &spec.norms, hidden)?;
        let mut gate_up = Module::new();
        let mut linears = spec.linears(hidden);
        let down = linears.pop();
        for linear in &linears {
            gate_up.extend(loader.linear(layer, linear)?);
        }
        if let [gate, up] = &gate_up[..] {
            loader.check_gated(layer, &gate.weight.spec, &up.weight.spec)?;
        }
        let down = down.map_or(Ok(Module::new()), |down| loader.linear(layer, &down))?;
        Ok(Self {
            before,
            gate_up,
            activation: spec.activation,
            down,
            after: loader.after(layer, &spec.norms, hidden)?,
        })
    }

    pub(super) fn record(&self, pass: &mut Pass<'_>) -> Result<()> {
        if self.gate_up.is_empty() {
            return Ok(());
        }
        let x = pass.x;
        let gated = Epilogue::Gated(self.activation, x.gated.clone());
        pass.linear(&x.residual, self.before.as_ref(), &self.gate_up, gated)?;
        pass.add(&x.gated, &self.down, self.after.as_ref())
    }
}
