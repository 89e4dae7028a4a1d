use mlx_serving_device::ops::{Growth, Span};
use std::f64::consts::TAU;

/// Rotary position embedding (arXiv:2104.09864), with its scaling.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Width of the rotated part of a head; even.
    pub dims: usize,
    /// Base of the frequencies.
    pub theta: f64,
    /// Pairs are neighbors (`x[2i]`, `x[2i + 1]`) rather than halves (`x[i]`, `x[i + dims / 2]`).
    pub interleaved: bool,
    /// Scaling of positions beyond the trained context.
    pub scaling: Scaling,
    /// Growth of rotated queries with their position; keys have none.
    pub growth: Option<Growth>,
}

/// Scaling of rotary positions beyond the trained context.
#[derive(Debug, Clone, PartialEq)]
pub enum Scaling {
    /// No scaling.
    None,
    /// Positions divided by a factor (arXiv:2306.15595).
    Linear {
        /// The factor.
        factor: f64,
    },
    /// The base grows with the sequence (NTK-aware).
    Dynamic {
        /// The growth.
        factor: f64,
        /// Length up to which the base stays.
        max_position: usize,
    },
    /// Long wavelengths stretched, short ones kept, a ramp between (Llama 3.1).
    Llama3 {
        /// The stretching.
        factor: f64,
        /// Pairs that turn less often than this in `original` positions are stretched.
        low: f64,
        /// Pairs that turn more often than this are kept.
        high: f64,
        /// Context before stretching.
        original: f64,
    },
    /// YaRN (arXiv:2309.00071).
    Yarn {
        /// The stretching.
        factor: f64,
        /// Context before stretching.
        original: f64,
        /// Turns at which the ramp begins.
        beta_fast: f64,
        /// Turns at which it ends.
        beta_slow: f64,
        /// Factor of rotated queries and keys: attention's temperature.
        attention: f64,
    },
    /// LongRoPE (arXiv:2402.13753): every pair's wavelength stretched by a factor of its own.
    Long {
        /// Factors of the pairs, those for long contexts.
        factors: Vec<f64>,
        /// Factor of rotated queries and keys.
        attention: f64,
    },
}

impl Rope {
    /// Pairs that turn.
    pub(crate) fn pairs(&self) -> usize {
        self.dims / 2
    }

    /// Angular frequency of each pair, f32 [dims / 2], in a sequence of `length` tokens (only dynamic scaling looks at it).
    pub(crate) fn frequencies(&self, length: usize) -> Vec<f32> {
        let dims = self.dims as f64;
        let plain = |theta: f64| (0..self.dims / 2).map(move |i| theta.powf(-2.0 * i as f64 / dims));
        let scaled: Vec<f64> = match &self.scaling {
            Scaling::None => plain(self.theta).collect(),
            &Scaling::Linear { factor } => plain(self.theta).map(|f| f / factor).collect(),
            &Scaling::Dynamic { factor, max_position } => {
                let stretch = length.max(max_position) as f64 / max_position as f64;
                let growth = (factor * stretch - (factor - 1.0)).powf(dims / (dims - 2.0));
                plain(self.theta * growth).collect()
            }
            &Scaling::Llama3 { factor, low, high, original } => plain(self.theta)
                .map(|f| {
                    let turns = original * f / TAU;
                    if turns < low {
                        f / factor
                    } else if turns < high {
                        let keep = (turns - low) / (high - low);
                        f * (keep + (1.0 - keep) / factor)
                    } else {
                        f
                    }
                })
                .collect(),
            &Scaling::Yarn { factor, original, beta_fast, beta_slow, .. } => {
                let pair_of = |turns: f64| dims * (original / (turns * TAU)).ln() / (2.0 * self.theta.ln());
                let first = pair_of(beta_fast).floor().max(0.0);
                let last = pair_of(beta_slow).ceil().min(dims - 1.0);
                let span = if first == last { 0.001 } else { last - first };
                plain(self.theta)
                    .enumerate()
                    .map(|(i, f)| {
                        let stretch = ((i as f64 - first) / span).clamp(0.0, 1.0);
                        f * (1.0 - stretch) + f / factor * stretch
                    })
                    .collect()
            }
            Scaling::Long { factors, .. } => plain(self.theta).zip(factors).map(|(f, factor)| f / factor).collect(),
        };
        scaled.into_iter().map(|f| f as f32).collect()
    }

    /// Factor of rotated queries and keys: the attention temperature of YaRN and LongRoPE, 1 otherwise.
    pub(crate) fn attention_factor(&self) -> f32 {
        match self.scaling {
            Scaling::Yarn { attention, .. } | Scaling::Long { attention, .. } => attention as f32,
            _ => 1.0,
        }
    }

    /// Context of a model that was made for `positions`. Llama 3 and LongRoPE's models have the stretched context in their configuration.
    pub(crate) fn stretched(&self, positions: usize) -> usize {
        // Positions are u32 on the device, and their top bit is taken.
        const LIMIT: f64 = (1u64 << 30) as f64;
        let times = |factor: f64, from: f64| (factor.max(1.0) * from).min(LIMIT) as usize;
        match self.scaling {
            Scaling::None | Scaling::Llama3 { .. } | Scaling::Long { .. } => positions,
            Scaling::Linear { factor } | Scaling::Dynamic { factor, .. } => times(factor, positions as f64),
            Scaling::Yarn { factor, original, .. } => positions.max(times(factor, original)),
        }
    }

    /// Sequences longer than this have frequencies of their own; `None` where length never matters.
    pub(crate) fn fixed_up_to(&self) -> Option<usize> {
        match self.scaling {
            Scaling::Dynamic { max_position, .. } => Some(max_position),
            _ => None,
        }
    }

    /// Cuts a batch into runs of rows that share frequencies: (rows, length to ask [`Self::frequencies`] for).
    ///
    /// A row belongs to a sequence as long as its prompt, or as long as the row's own position when it lies behind the prompt:
    /// what mlx-lm computes when it takes the prompt in one piece, and independent of how the batch was cut.
    pub(crate) fn runs(&self, spans: &[Span], prompts: &[u32], rows: usize) -> Vec<(usize, usize)> {
        let Some(limit) = self.fixed_up_to() else { return vec![(rows, 0)] };
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for (span, &prompt) in spans.iter().zip(prompts) {
            for position in span.start..span.start + span.rows {
                let length = limit.max(prompt.max(position + 1) as usize);
                match runs.last_mut() {
                    Some((rows, last)) if *last == length => *rows += 1,
                    _ => runs.push((1, length)),
                }
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests;
