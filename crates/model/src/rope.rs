use mlx_serving_device::ops::Span;
use std::f64::consts::TAU;

/// Rotary position embedding (arXiv:2104.09864) of one model, with its scaling.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rope {
    /// Width of the rotated part of a head; even.
    pub dims: usize,
    /// Base of the frequencies.
    pub theta: f64,
    /// Pairs are neighbors (x[2i], x[2i + 1]) rather than halves (x[i], x[i + dims / 2]).
    pub interleaved: bool,
    /// Scaling of positions beyond the trained context.
    pub scaling: Scaling,
}

/// Scaling of rotary positions beyond the trained context.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scaling {
    /// Not at all.
    None,
    /// Positions divided by `factor` (arXiv:2306.15595).
    Linear { factor: f64 },
    /// The base grows with sequences longer than `max_position` (NTK-aware).
    Dynamic { factor: f64, max_position: usize },
    /// Long wavelengths stretched, short ones kept, a ramp between (Llama 3.1).
    Llama3 { factor: f64, low: f64, high: f64, original: f64 },
    /// YaRN (arXiv:2309.00071); `attention` is a factor of rotated queries and keys.
    Yarn { factor: f64, original: f64, beta_fast: f64, beta_slow: f64, attention: f64 },
}

impl Rope {
    /// Angular frequency of each pair, f32 [dims / 2], in a sequence of `length` tokens (only dynamic scaling looks at it).
    pub(crate) fn frequencies(&self, length: usize) -> Vec<f32> {
        let dims = self.dims as f64;
        let plain = |theta: f64| (0..self.dims / 2).map(move |i| theta.powf(-2.0 * i as f64 / dims));
        let scaled: Vec<f64> = match self.scaling {
            Scaling::None => plain(self.theta).collect(),
            Scaling::Linear { factor } => plain(self.theta).map(|f| f / factor).collect(),
            Scaling::Dynamic { factor, max_position } => {
                let stretch = length.max(max_position) as f64 / max_position as f64;
                let growth = (factor * stretch - (factor - 1.0)).powf(dims / (dims - 2.0));
                plain(self.theta * growth).collect()
            }
            Scaling::Llama3 { factor, low, high, original } => plain(self.theta)
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
            Scaling::Yarn { factor, original, beta_fast, beta_slow, .. } => {
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
        };
        scaled.into_iter().map(|f| f as f32).collect()
    }

    /// Factor of rotated queries and keys: YaRN's attention temperature, 1 otherwise.
    pub(crate) fn attention_factor(&self) -> f32 {
        match self.scaling {
            Scaling::Yarn { attention, .. } => attention as f32,
            _ => 1.0,
        }
    }

    /// Context of a model that was made for `positions`. Llama 3 writes the stretched context into its configuration.
    pub(crate) fn stretched(&self, positions: usize) -> usize {
        // Positions are u32 on the device, and their top bit is taken.
        const LIMIT: f64 = (1u64 << 30) as f64;
        let times = |factor: f64, from: f64| (factor.max(1.0) * from).min(LIMIT) as usize;
        match self.scaling {
            Scaling::None | Scaling::Llama3 { .. } => positions,
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
mod tests {
    use super::*;

    fn rope(scaling: Scaling) -> Rope {
        Rope { dims: 8, theta: 10_000.0, interleaved: false, scaling }
    }

    fn close(found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(expected) {
            assert!((f64::from(*f) - e).abs() <= 1e-6 * e.abs(), "{found:?} is not {expected:?}");
        }
    }

    #[test]
    fn plain_and_linear_follow_the_paper() {
        close(&rope(Scaling::None).frequencies(1), &[1.0, 0.1, 0.01, 0.001]);
        close(&rope(Scaling::Linear { factor: 4.0 }).frequencies(1), &[0.25, 0.025, 0.0025, 0.00025]);
    }

    #[test]
    fn dynamic_grows_its_base_only_beyond_the_trained_context() {
        let dynamic = rope(Scaling::Dynamic { factor: 2.0, max_position: 16 });
        close(&dynamic.frequencies(16), &[1.0, 0.1, 0.01, 0.001]);
        // 32 tokens: 2 · 2 − 1 = 3, to the power 8 / 6, times the base.
        let base = 10_000.0 * 3f64.powf(8.0 / 6.0);
        close(&dynamic.frequencies(32), &[1.0, base.powf(-0.25), base.powf(-0.5), base.powf(-0.75)]);
    }

    #[test]
    fn llama3_keeps_short_wavelengths_and_stretches_long_ones() {
        let llama3 = rope(Scaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 128.0 });
        // Turns in 128 positions: 20.4, 2.04, 0.204, 0.0204; the second lies on the ramp.
        let keep = (12.8 / TAU - 1.0) / 3.0;
        close(&llama3.frequencies(1), &[1.0, 0.1 * (keep + (1.0 - keep) / 8.0), 0.01 / 8.0, 0.001 / 8.0]);
    }

    #[test]
    fn yarn_ramps_between_its_two_betas_and_warms_attention() {
        let yarn =
            rope(Scaling::Yarn { factor: 4.0, original: 4096.0, beta_fast: 32.0, beta_slow: 1.0, attention: 1.25 });
        // Pairs of 32 turns and of 1 turn: floor(1.309) = 1 and ceil(2.814) = 3; pair 2 lies half way.
        close(&yarn.frequencies(1), &[1.0, 0.1, 0.01 * (0.5 + 0.5 / 4.0), 0.001 / 4.0]);
        assert_eq!(yarn.attention_factor(), 1.25);
        assert_eq!(rope(Scaling::None).attention_factor(), 1.0);
    }

    #[test]
    fn scaling_stretches_the_context() {
        assert_eq!(rope(Scaling::None).stretched(4096), 4096);
        assert_eq!(rope(Scaling::Linear { factor: 4.0 }).stretched(4096), 16_384);
        assert_eq!(rope(Scaling::Dynamic { factor: 1e300, max_position: 16 }).stretched(16), 1 << 30);
        assert_eq!(
            rope(Scaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 }).stretched(131_072),
            131_072
        );
        let yarn = |original| Scaling::Yarn { factor: 4.0, original, beta_fast: 32.0, beta_slow: 1.0, attention: 1.0 };
        assert_eq!(rope(yarn(32_768.0)).stretched(32_768), 131_072);
        assert_eq!(rope(yarn(4096.0)).stretched(32_768), 32_768);
    }

    #[test]
    fn rows_share_frequencies_unless_their_sequence_is_long_and_dynamic() {
        let span = |first_row, rows, start| Span { first_row, rows, start, table: 0 };
        let spans = [span(0, 3, 4), span(3, 2, 14), span(5, 2, 30)];
        assert_eq!(rope(Scaling::None).runs(&spans, &[8, 8, 40], 7), [(7, 0)]);
        let dynamic = rope(Scaling::Dynamic { factor: 2.0, max_position: 16 });
        // A short prompt and a decode within the context share; a long prompt's rows all take its whole length.
        assert_eq!(dynamic.runs(&spans, &[8, 8, 40], 7), [(5, 16), (2, 40)]);
        // Recomputed rows behind the prompt each take their own position.
        assert_eq!(dynamic.runs(&spans[2..], &[31], 2), [(1, 31), (1, 32)]);
    }
}
