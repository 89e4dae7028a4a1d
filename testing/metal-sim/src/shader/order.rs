//! Orders that follow from a seed.

/// A generator of numbers (SplitMix64): enough to shuffle with.
pub(super) struct Random(u64);

impl Random {
    /// Different for each `stream` of a seed.
    pub(super) fn new(seed: u64, stream: u64) -> Random {
        Random(seed ^ stream.wrapping_mul(0xD134_2543_DE82_EF95))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(super) fn shuffle(&mut self, items: &mut [usize]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// The numbers below `n`, each once, without a table: steps of a stride that has no factor in common with `n`.
pub(super) struct Permutation {
    n: u64,
    stride: u64,
    start: u64,
}

impl Permutation {
    /// Draws a permutation of the numbers below `n`, which is below 2³².
    pub(super) fn new(n: u64, random: &mut Random) -> Permutation {
        let mut stride = 1;
        if n > 1 {
            stride = random.below(n);
            while gcd(stride, n) != 1 {
                stride = (stride + 1) % n;
            }
        }
        Permutation { n, stride, start: random.below(n.max(1)) }
    }

    pub(super) fn at(&self, i: u64) -> u64 {
        (self.start + i * self.stride) % self.n
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if a == 0 { b } else { gcd(b % a, a) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permutation_meets_every_number_once_and_differs_by_seed() {
        for n in [1, 2, 12, 97, 210] {
            let all = |seed| {
                let p = Permutation::new(n, &mut Random::new(seed, 0));
                (0..n).map(|i| p.at(i)).collect::<Vec<_>>()
            };
            let mut sorted = all(3);
            sorted.sort_unstable();
            assert_eq!(sorted, (0..n).collect::<Vec<_>>());
            assert_eq!(all(3), all(3));
            assert!(n < 12 || (0..8).any(|seed| all(seed) != all(3)));
        }
    }
}
