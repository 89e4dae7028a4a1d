use super::adjust::Best;
use super::count::Cut;
use super::random::{gumbel, gumbel_bound, threefry};
use crate::simd::{Kernel, LANES, Simd};
use mlx_serving_device::ops::SampleParams;

/// Last pass: the largest sum of value and Gumbel noise among the survivors of a chunk.
pub(crate) struct Draw<'a> {
    /// Token of the first value.
    pub(crate) first: usize,
    /// Adjusted values.
    pub(crate) values: &'a [f32],
    pub(crate) params: &'a SampleParams,
    pub(crate) cut: Cut,
    /// The best that is known to be reached, perhaps by a token of another chunk: a sixteen that cannot reach it is passed over.
    pub(crate) best: Best,
}

impl Kernel for Draw<'_> {
    type Output = Best;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Best {
        let key = [self.params.seed_low, self.params.seed_high];
        let mut best = self.best;
        for (i, block) in self.values.chunks(LANES).enumerate() {
            let top = block.iter().fold(f32::NEG_INFINITY, |top, &z| if z > top { z } else { top });
            // Just above 25 · ln 2: no noise is larger.
            if top < self.cut.value || top == f32::NEG_INFINITY || top + 18.1 < best.value {
                continue;
            }
            let mut tokens = [0; LANES];
            for (lane, token) in tokens.iter_mut().enumerate() {
                *token = (self.first + i * LANES + lane) as u32;
            }
            let words = threefry(key, self.params.position, tokens);
            let highest = words.iter().fold(0, |highest, &word| if word > highest { word } else { highest });
            if top + gumbel_bound(highest) < best.value {
                continue;
            }
            for ((&value, &token), &word) in block.iter().zip(&tokens).zip(&words) {
                if self.cut.keeps(value, token) && value + gumbel_bound(word) >= best.value {
                    best = best.or(Best { value: value + gumbel(word), token });
                }
            }
        }
        best
    }
}

/// The draw of one token alone.
pub(crate) fn draw_one(params: &SampleParams, best: Best) -> Best {
    let [word] = threefry([params.seed_low, params.seed_high], params.position, [best.token]);
    Best { value: best.value + gumbel(word), token: best.token }
}
