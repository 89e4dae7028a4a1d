use super::pass::Pass;
use crate::ModelError;
use crate::blueprint::{Division, ExpertsSpec, LinearSpec, ScoringSpec, StackSpec, under};
use crate::load::{Loader, Module};
use mlx_serving_device::ops::{self, Activation, Epilogue, Norm, Route, Scoring, Stacks};
use mlx_serving_device::{Op, Result, Weight};

/// Experts behind a norm, which is the feed-forward network's:
///
/// - (e, w) = the best of router(before(residual))
/// - residual += Σ w · down_e(silu(gate_e(before(residual))) · up_e(before(residual)))
#[derive(Debug)]
pub(super) struct Experts {
    router: Module,
    scoring: Scoring,
    gate: Weight,
    up: Weight,
    down: Weight,
    count: usize,
    slots: usize,
    renormalize: bool,
    factor: f32,
}

impl ExpertsSpec {
    /// The router.
    pub(super) fn router(&self, hidden: usize) -> LinearSpec {
        LinearSpec { path: self.router, rows: self.count, cols: hidden, bias: false, division: Division::Nowhere }
    }

    /// Gates, ups and downs.
    pub(super) fn stacks(&self, hidden: usize) -> [StackSpec; 3] {
        let [gate, up, down] = self.stacks;
        [(gate, self.width, hidden), (up, self.width, hidden), (down, hidden, self.width)]
            .map(|(path, rows, cols)| StackSpec { path, count: self.count, rows, cols })
    }

    /// Path and length of the bias of the choice.
    pub(super) fn bias(&self) -> Option<(&'static str, usize)> {
        match self.scoring {
            ScoringSpec::Softmax => None,
            ScoringSpec::Sigmoid { bias } => Some((bias, self.count)),
        }
    }
}

impl Experts {
    pub(super) fn load(
        loader: &mut Loader<'_>,
        spec: &ExpertsSpec,
        layer: &str,
        hidden: usize,
    ) -> Result<Self, ModelError> {
        let router = loader.linear(layer, &spec.router(hidden))?;
        let scoring = match spec.bias() {
            None => Scoring::Softmax,
            Some((path, len)) => Scoring::Sigmoid { bias: loader.vector(&under(layer, path), len, |x| x)? },
        };
        let [gate, up, down] = spec.stacks(hidden);
        let [gate, up, down] = [loader.stack(layer, &gate)?, loader.stack(layer, &up)?, loader.stack(layer, &down)?];
        let &ExpertsSpec { count, slots, renormalize, factor, .. } = spec;
        Ok(Self { router, scoring, gate, up, down, count, slots, renormalize, factor })
    }

    /// Records all but the sum.
    pub(super) fn choose(&self, pass: &mut Pass<'_>, before: Option<&Norm>) -> Result<()> {
        let (x, rows) = (&pass.x.experts, pass.batch.rows);
        pass.linear(&pass.x.residual, before, &self.router, Epilogue::Store(x.logits.clone()))?;
        pass.encoder.record(Op::Route(Route {
            logits: x.logits.clone(),
            rows,
            experts: self.count,
            slots: self.slots,
            scoring: self.scoring.clone(),
            renormalize: self.renormalize,
            factor: self.factor,
            chosen: x.chosen.clone(),
            weights: x.weights.clone(),
        }))?;
        let stacks = Stacks::Gated {
            gate: self.gate.clone(),
            up: self.up.clone(),
            activation: Activation::Silu,
            out: x.gated.clone(),
        };
        self.record(pass, before, stacks)
    }

    /// Records the sum of the chosen experts' results, which is added to the residual stream.
    pub(super) fn add(&self, pass: &mut Pass<'_>) -> Result<()> {
        let (weights, out) = (pass.x.experts.weights.clone(), pass.x.residual.clone());
        self.record(pass, None, Stacks::Sum { down: self.down.clone(), weights, out })
    }

    fn record(&self, pass: &mut Pass<'_>, norm: Option<&Norm>, stacks: Stacks) -> Result<()> {
        let x = pass.x;
        let input = match &stacks {
            Stacks::Gated { .. } => &x.residual,
            Stacks::Sum { .. } => &x.experts.gated,
        };
        pass.encoder.record(Op::Experts(ops::Experts {
            input: input.clone(),
            rows: pass.batch.rows,
            chosen: x.experts.chosen.clone(),
            slots: self.slots,
            experts: self.count,
            norm: norm.cloned(),
            stacks,
        }))
    }
}
