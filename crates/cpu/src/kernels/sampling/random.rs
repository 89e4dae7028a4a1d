//! Counter-based random numbers: Threefry-2x32 (Salmon et al. 2011) with 20 rounds.

const ROTATIONS: [[u32; 4]; 2] = [[13, 15, 26, 6], [17, 29, 16, 24]];

/// First output words of `N` generators with one key, counters (`position`, each of `tokens`).
#[inline(always)]
pub(crate) fn threefry<const N: usize>(key: [u32; 2], position: u32, tokens: [u32; N]) -> [u32; N] {
    let keys = [key[0], key[1], 0x1BD1_1BDA ^ key[0] ^ key[1]];
    let mut a = [position.wrapping_add(keys[0]); N];
    let mut b = tokens;
    b.iter_mut().for_each(|b| *b = b.wrapping_add(keys[1]));
    for round in 0..5 {
        for rotation in ROTATIONS[round % 2] {
            for (a, b) in a.iter_mut().zip(&mut b) {
                *a = a.wrapping_add(*b);
                *b = b.rotate_left(rotation) ^ *a;
            }
        }
        for (a, b) in a.iter_mut().zip(&mut b) {
            *a = a.wrapping_add(keys[(round + 1) % 3]);
            *b = b.wrapping_add(keys[(round + 2) % 3]).wrapping_add(round as u32 + 1);
        }
    }
    a
}

/// A draw from the standard Gumbel distribution: −ln(−ln u), u being the word's upper 23 bits in the middle of their interval.
pub(crate) fn gumbel(word: u32) -> f32 {
    let uniform = ((word >> 9) as f32 + 0.5) / 8_388_608.0;
    -(-uniform.ln()).ln()
}

/// Upper bound of [`gumbel`] of this word and of all below it, and cheap: with u = 1 − e, −ln(−ln u) ≤ −ln e ≤ ln 2 · (number of
/// leading zeros of e, plus one).
#[inline(always)]
pub(crate) fn gumbel_bound(word: u32) -> f32 {
    ((!word).leading_zeros() + 2) as f32 * std::f32::consts::LN_2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Known answers of the Random123 library.
    #[test]
    fn threefry_gives_the_published_answers() {
        assert_eq!(threefry([0; 2], 0, [0]), [0x6b20_0159]);
        assert_eq!(threefry([u32::MAX; 2], u32::MAX, [u32::MAX]), [0x1cb9_96fc]);
        assert_eq!(
            threefry([0x13198a2e, 0x03707344], 0x243f6a88, [0x85a308d3, 0]),
            [0xc492_3a9c, threefry([0x13198a2e, 0x03707344], 0x243f6a88, [0])[0]]
        );
    }

    proptest! {
        #[test]
        fn the_bound_bounds(word: u32, below in 0u32..1000) {
            prop_assert!(gumbel_bound(word) >= gumbel(word.saturating_sub(below)));
        }
    }

    #[test]
    fn the_bound_bounds_at_the_ends() {
        for word in [0, 1, 255, 256, u32::MAX - 256, u32::MAX - 1, u32::MAX] {
            assert!(gumbel_bound(word) >= gumbel(word), "{word}");
            assert!(gumbel(word).is_finite());
        }
    }
}
