//! Choice of one token from one row of logits.

use mlx_serving_device::ops::{LogitBias, SampleParams};

/// What a choice depends on.
pub(crate) struct Choice<'a> {
    pub(crate) logits: &'a [f32],
    pub(crate) params: &'a SampleParams,
    pub(crate) biases: &'a [LogitBias],
    pub(crate) history: Option<&'a [u32]>,
}

/// The chosen token; `u32::MAX` where no logit is finite.
pub(crate) fn choose(choice: &Choice<'_>) -> u32 {
    let p = choice.params;
    let mut z = adjusted(choice);
    if p.temperature > 0.0 {
        z.iter_mut().for_each(|z| *z /= p.temperature);
        keep(&mut z, p);
        for (token, z) in z.iter_mut().enumerate() {
            *z += gumbel(p, token as u32);
        }
    }
    best(&z)
}

/// Logits after penalties and biases.
fn adjusted(choice: &Choice<'_>) -> Vec<f32> {
    let p = choice.params;
    let mut z = choice.logits.to_vec();
    if let Some(history) = choice.history {
        for (z, &entry) in z.iter_mut().zip(history).filter(|(_, entry)| **entry != 0) {
            *z = if *z > 0.0 { *z / p.repetition } else { *z * p.repetition };
            let count = entry & !(1 << 31);
            if count > 0 {
                *z -= p.presence + p.frequency * count as f32;
            }
        }
    }
    for bias in choice.biases {
        if let Some(z) = z.get_mut(bias.token as usize) {
            *z += bias.bias;
        }
    }
    z
}

/// Sends every token that a filter drops to −∞.
fn keep(z: &mut [f32], p: &SampleParams) {
    let mut order: Vec<u32> = (0..z.len() as u32).filter(|&i| z[i as usize] > f32::NEG_INFINITY).collect();
    order.sort_unstable_by(|&a, &b| z[b as usize].total_cmp(&z[a as usize]).then(a.cmp(&b)));
    let Some(&first) = order.first() else { return };
    let top = z[first as usize];
    let mass: f64 = order.iter().map(|&i| f64::from(z[i as usize] - top).exp()).sum();
    let mut before = 0.0;
    for (rank, &i) in order.iter().enumerate() {
        let weight = f64::from(z[i as usize] - top).exp();
        let out = (p.top_k > 0 && rank >= p.top_k as usize)
            || (p.top_p < 1.0 && before >= f64::from(p.top_p) * mass)
            || weight < f64::from(p.min_p);
        before += weight;
        if out {
            z[i as usize] = f32::NEG_INFINITY;
        }
    }
}

fn best(z: &[f32]) -> u32 {
    let mut best = (f32::NEG_INFINITY, u32::MAX);
    for (token, &z) in z.iter().enumerate() {
        if z.is_finite() && (z > best.0 || best.1 == u32::MAX) {
            best = (z, token as u32);
        }
    }
    best.1
}

fn gumbel(p: &SampleParams, token: u32) -> f32 {
    let [word, _] = threefry([p.seed_low, p.seed_high], [p.position, token]);
    let uniform = ((word >> 8) as f32 + 0.5) / 16_777_216.0;
    -(-uniform.ln()).ln()
}

/// Threefry-2x32 with 20 rounds (Salmon et al. 2011).
fn threefry(key: [u32; 2], counter: [u32; 2]) -> [u32; 2] {
    const ROTATIONS: [[u32; 4]; 2] = [[13, 15, 26, 6], [17, 29, 16, 24]];
    let keys = [key[0], key[1], 0x1BD1_1BDA ^ key[0] ^ key[1]];
    let [mut a, mut b] = [counter[0].wrapping_add(keys[0]), counter[1].wrapping_add(keys[1])];
    for round in 0..5 {
        for rotation in ROTATIONS[round % 2] {
            a = a.wrapping_add(b);
            b = b.rotate_left(rotation) ^ a;
        }
        a = a.wrapping_add(keys[(round + 1) % 3]);
        b = b.wrapping_add(keys[(round + 2) % 3]).wrapping_add(round as u32 + 1);
    }
    [a, b]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the Random123 library.
    #[test]
    fn threefry_gives_the_published_answers() {
        assert_eq!(threefry([0; 2], [0; 2]), [0x6b20_0159, 0x99ba_4efe]);
        assert_eq!(threefry([u32::MAX; 2], [u32::MAX; 2]), [0x1cb9_96fc, 0xbb00_2be7]);
        assert_eq!(threefry([0x13198a2e, 0x03707344], [0x243f6a88, 0x85a308d3]), [0xc492_3a9c, 0x483d_f7a0]);
    }
}
