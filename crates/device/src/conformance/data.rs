//! Numbers that look random and are the same everywhere, and how far two lists of them are apart.

use crate::oracle::threefry;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// A stream of numbers.
pub(super) struct Noise {
    seed: u32,
    at: u32,
}

impl Noise {
    pub(super) fn new(seed: u32) -> Self {
        Self { seed, at: 0 }
    }

    pub(super) fn word(&mut self) -> u32 {
        self.at += 1;
        threefry([self.seed, 0], [self.at, 0])[0]
    }

    /// Draws a number from 0 to `bound`, exclusive.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.word() as usize % bound
    }

    /// Draws a number from −1 to 1.
    pub(super) fn unit(&mut self) -> f32 {
        (self.word() >> 8) as f32 / 8_388_608.0 - 1.0
    }

    pub(super) fn units(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.unit()).collect()
    }

    /// The numbers below `len` in some order.
    pub(super) fn shuffled(&mut self, len: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..len as u32).collect();
        for i in (1..len).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

/// Fails unless the relative L2 error of `got` is within `tolerance`, and all of it is finite.
pub(super) fn assert_close(got: &[f32], want: &[f32], tolerance: f64, what: impl std::fmt::Debug) {
    assert_eq!(got.len(), want.len(), "{what:?}");
    assert!(got.iter().all(|x| x.is_finite()), "{what:?}: {got:?}");
    let square = |x: f64| x * x;
    let error: f64 = got.iter().zip(want).map(|(g, w)| square(f64::from(*g) - f64::from(*w))).sum();
    let size: f64 = want.iter().map(|w| square(f64::from(*w))).sum();
    let relative = (error / size.max(f64::MIN_POSITIVE)).sqrt();
    assert!(relative <= tolerance, "relative error {relative:.2e}, at most {tolerance:.0e} allowed: {what:?}");
}

/// Fails unless both are the same bits.
pub(super) fn assert_same_bits(got: &[f32], want: &[f32], what: impl std::fmt::Debug) {
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    if let Some(at) = bits(got).iter().zip(bits(want)).position(|(g, w)| *g != w) {
        panic!("value {at} is {:e} and not {:e}: {what:?}", got[at], want[at]);
    }
    assert_eq!(got.len(), want.len(), "{what:?}");
}

/// Runs `test` on `cases` values, the same ones each time, and on simpler ones when it fails.
pub(super) fn for_all<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value)) {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 64, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let outcome = TestRunner::new_with_rng(config, rng).run(&strategy, |value| {
        test(value);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
