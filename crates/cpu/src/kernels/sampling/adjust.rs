use crate::simd::{Kernel, LANES, Simd};
use mlx_serving_device::ops::{LogitBias, SampleParams};
use std::ops::Range;

/// The best token so far: the highest value, the smallest id among equals.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Best {
    pub(crate) value: f32,
    /// `u32::MAX` for none.
    pub(crate) token: u32,
}

impl Best {
    /// No token yet.
    pub(crate) const NONE: Best = Best { value: f32::NEG_INFINITY, token: u32::MAX };

    /// The better of the two, whichever was found first.
    #[inline(always)]
    pub(crate) fn or(self, other: Best) -> Best {
        let wins = other.value > self.value || (other.value == self.value && other.token < self.token);
        if other.token != u32::MAX && (wins || self.token == u32::MAX) { other } else { self }
    }
}

/// First pass: penalties, biases, temperature and mask; the largest result.
pub(crate) struct Adjust<'a> {
    /// The tokens of this chunk.
    pub(crate) tokens: Range<usize>,
    /// Logits of these tokens.
    pub(crate) logits: &'a [f32],
    /// History of these tokens, if the sequence has one.
    pub(crate) history: Option<&'a [u32]>,
    /// A bit for each of these tokens, if not all are allowed.
    pub(crate) mask: Option<&'a [u32]>,
    pub(crate) params: &'a SampleParams,
    pub(crate) biases: &'a [LogitBias],
    /// Destination of the adjusted values.
    pub(crate) to: &'a mut [f32],
}

impl Kernel for Adjust<'_> {
    type Output = Best;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Best {
        self.to.copy_from_slice(self.logits);
        if let Some(history) = self.history {
            for (to, history) in self.to.chunks_mut(LANES).zip(history.chunks(LANES)) {
                if history.iter().fold(0, |any, entry| any | entry) != 0 {
                    to.iter_mut().zip(history).for_each(|(z, entry)| *z = penalize(*z, *entry, self.params));
                }
            }
        }
        for bias in self.biases.iter().filter(|b| self.tokens.contains(&(b.token as usize))) {
            self.to[bias.token as usize - self.tokens.start] += bias.bias;
        }
        if self.params.draws() {
            self.to.iter_mut().for_each(|z| *z /= self.params.temperature);
        }
        if let Some(mask) = self.mask {
            self.to.chunks_mut(32).zip(mask).for_each(|(values, &word)| forbid(values, word));
        }
        best(self.to, self.tokens.start)
    }
}

/// Makes tokens impossible whose bits are not set.
#[inline(always)]
fn forbid(values: &mut [f32], word: u32) {
    if word == 0 {
        values.fill(f32::NEG_INFINITY);
    } else if word != u32::MAX {
        for (bit, z) in values.iter_mut().enumerate() {
            *z = if word >> bit & 1 == 1 { *z } else { f32::NEG_INFINITY };
        }
    }
}

#[inline(always)]
fn penalize(z: f32, entry: u32, params: &SampleParams) -> f32 {
    if entry == 0 {
        return z;
    }
    let z = if z > 0.0 { z / params.repetition } else { z * params.repetition };
    let count = entry & !(1 << 31);
    if count > 0 { z - params.presence - params.frequency * count as f32 } else { z }
}

/// The largest finite value; `first` is the token of the first.
#[inline(always)]
fn best(values: &[f32], first: usize) -> Best {
    let mut best = Best::NONE;
    for (i, block) in values.chunks(4 * LANES).enumerate() {
        // NaN never compares, so it never wins.
        let top = block.iter().fold(f32::NEG_INFINITY, |top, &z| if z > top { z } else { top });
        if top > best.value {
            let at = block.iter().position(|&z| z == top).unwrap_or(0);
            best = Best { value: top, token: (first + i * 4 * LANES + at) as u32 };
        }
    }
    best
}
