//! Rotary position embedding (arXiv:2104.09864).

/// Values of a head that form the pairs which turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pairing {
    /// (x[i], x[i + pairs]).
    Halves,
    /// (x[2i], x[2i + 1]).
    Interleaved,
}

/// Turns the first 2 · `angles.len()` values of `head`; `angles` holds (cos, sin) of each pair.
pub(crate) fn rotate(head: &mut [f32], angles: &[[f32; 2]], pairing: Pairing) {
    let turn = |x: f32, y: f32, [cos, sin]: [f32; 2]| (x * cos - y * sin, y * cos + x * sin);
    match pairing {
        Pairing::Halves => {
            let (low, high) = head.split_at_mut(angles.len());
            for ((x, y), angle) in low.iter_mut().zip(high).zip(angles) {
                (*x, *y) = turn(*x, *y, *angle);
            }
        }
        Pairing::Interleaved => {
            for (pair, angle) in head.as_chunks_mut::<2>().0.iter_mut().zip(angles) {
                *pair = turn(pair[0], pair[1], *angle).into();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_turn_swaps_the_pair() {
        let angles = [[0.0, 1.0]; 2];
        let mut halves = [1.0, 2.0, 3.0, 4.0, 5.0];
        rotate(&mut halves, &angles, Pairing::Halves);
        assert_eq!(halves, [-3.0, -4.0, 1.0, 2.0, 5.0], "the fifth passes through");
        let mut interleaved = [1.0, 2.0, 3.0, 4.0, 5.0];
        rotate(&mut interleaved, &angles, Pairing::Interleaved);
        assert_eq!(interleaved, [-2.0, 1.0, -4.0, 3.0, 5.0]);
    }
}
