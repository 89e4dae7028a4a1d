use super::check::{holds, require};
use crate::{Buffer, Result, Weight};

/// RMS norm: x · weight / sqrt(mean(x²) + eps).
#[derive(Debug, Clone)]
pub struct Norm {
    /// f32 `[width]`.
    pub weight: Buffer,
    /// Added to the mean of squares.
    pub eps: f32,
}

/// A weight matrix of a [`Linear`], with its bias.
#[derive(Debug, Clone)]
pub struct Projection {
    /// (features out, features in).
    pub weight: Weight,
    /// f32 `[features out]`.
    pub bias: Option<Buffer>,
}

/// Activation of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x · sigmoid(x).
    Silu,
    /// x · (1 + tanh(√(2/π) · (x + 0.044715 · x³))) / 2 (arXiv:1606.08415, section 2).
    GeluTanh,
}

/// Destination of the products.
#[derive(Debug, Clone)]
pub enum Epilogue {
    /// `out[r]` = the projections' results side by side; f32 `[rows][Σ features]`.
    Store(Buffer),
    /// `out[r]` += the projections' results side by side; f32 `[rows][Σ features]`.
    Add(Buffer),
    /// Exactly two projections, gate and up: `out[r]` = activation(`gate[r]`) · `up[r]`; f32 `[rows][features]`.
    Gated(Activation, Buffer),
}

/// y = W·norm(x) + bias for every row, with an epilogue.
#[derive(Debug, Clone)]
pub struct Linear {
    /// f32 `[input rows][features in]`.
    pub input: Buffer,
    /// u32 `[rows]`: which input row each output row takes; all in order without it.
    pub gather: Option<Buffer>,
    /// Rows out.
    pub rows: usize,
    /// Norm on the way in.
    pub norm: Option<Norm>,
    /// At least one; all with the same number of features in.
    pub projections: Vec<Projection>,
    /// Treatment of the results.
    pub epilogue: Epilogue,
}

impl Linear {
    /// Features in.
    pub fn cols(&self) -> usize {
        self.projections[0].weight.spec.cols
    }

    /// Sum of the projections' features out.
    pub fn features(&self) -> usize {
        self.projections.iter().map(|p| p.weight.spec.rows).sum()
    }

    fn out(&self) -> &Buffer {
        match &self.epilogue {
            Epilogue::Store(out) | Epilogue::Add(out) | Epilogue::Gated(_, out) => out,
        }
    }

    pub(super) fn buffers(&self) -> Vec<&Buffer> {
        let weights = self.projections.iter().flat_map(|p| std::iter::once(&p.weight.buffer).chain(&p.bias));
        let norm = self.norm.iter().map(|norm| &norm.weight);
        weights.chain(norm).chain(&self.gather).chain([&self.input, self.out()]).collect()
    }

    pub(super) fn validate(&self) -> Result<()> {
        require(self.rows > 0 && !self.projections.is_empty(), || "linear: nothing to do".into())?;
        let cols = self.cols();
        require(self.projections.iter().all(|p| p.weight.spec.cols == cols), || "linear: features in differ".into())?;
        require(!self.input.overlaps(self.out()), || "linear: the output overlaps the input".into())?;
        match &self.gather {
            Some(gather) => holds("linear gather", gather, self.rows)?,
            None => holds("linear input", &self.input, self.rows * cols)?,
        }
        if let Some(norm) = &self.norm {
            holds("linear norm", &norm.weight, cols)?;
        }
        for p in &self.projections {
            if let Some(bias) = &p.bias {
                holds("linear bias", bias, p.weight.spec.rows)?;
            }
        }
        match &self.epilogue {
            Epilogue::Store(out) | Epilogue::Add(out) => holds("linear out", out, self.rows * self.features()),
            Epilogue::Gated(_, out) => {
                let [gate, up] = &self.projections[..] else {
                    return require(false, || "linear: a gate needs two projections".into());
                };
                require(gate.weight.spec.rows == up.weight.spec.rows, || "linear: gate and up differ".into())?;
                holds("linear out", out, self.rows * gate.weight.spec.rows)
            }
        }
    }
}
