/// Threefry-2x32 with 20 rounds (Salmon et al. 2011): two random words for a key and a counter.
pub fn threefry(key: [u32; 2], counter: [u32; 2]) -> [u32; 2] {
    const ROTATIONS: [u32; 8] = [13, 15, 26, 6, 17, 29, 16, 24];
    let keys = [key[0], key[1], key[0] ^ key[1] ^ 0x1BD1_1BDA];
    let mut x = [counter[0].wrapping_add(keys[0]), counter[1].wrapping_add(keys[1])];
    for round in 0..20 {
        x[0] = x[0].wrapping_add(x[1]);
        x[1] = x[1].rotate_left(ROTATIONS[round % 8]) ^ x[0];
        if round % 4 == 3 {
            let injection = round / 4 + 1;
            x[0] = x[0].wrapping_add(keys[injection % 3]);
            x[1] = x[1].wrapping_add(keys[(injection + 1) % 3]).wrapping_add(injection as u32);
        }
    }
    x
}

/// A draw from the standard Gumbel distribution, −ln(−ln u), in `f32`: u is the middle of the interval that the word's upper 23
/// bits name.
pub fn gumbel(word: u32) -> f32 {
    let u = ((word >> 9) as f32 + 0.5) / 8_388_608.0;
    -(-u.ln()).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threefry_gives_the_known_answers_of_random123() {
        assert_eq!(threefry([0; 2], [0; 2]), [0x6b20_0159, 0x99ba_4efe]);
        assert_eq!(threefry([u32::MAX; 2], [u32::MAX; 2]), [0x1cb9_96fc, 0xbb00_2be7]);
        assert_eq!(threefry([0x1319_8a2e, 0x0370_7344], [0x243f_6a88, 0x85a3_08d3]), [0xc492_3a9c, 0x483d_f7a0]);
    }

    #[test]
    fn gumbel_noise_has_its_mean_and_is_finite() {
        assert!(gumbel(0).is_finite() && gumbel(u32::MAX).is_finite());
        let draws = 10_000;
        let sum: f64 = (0..draws).map(|i| f64::from(gumbel(threefry([1, 2], [3, i])[0]))).sum();
        // Euler's constant; the standard deviation is π/√6, and five of them of the mean are 0.064.
        assert!((sum / f64::from(draws) - 0.5772).abs() < 0.064, "{sum}");
    }
}
