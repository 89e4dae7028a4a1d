use crate::request::Logprobs;
use mlx_serving_device::Result;
use mlx_serving_model::Scratch;

/// Reads log-probabilities from the logits of the last completed step.
#[derive(Debug)]
pub(crate) struct LogitReader {
    /// A row of logits.
    row: Vec<f32>,
}

impl LogitReader {
    pub(crate) fn new(vocab: usize) -> Self {
        Self { row: vec![0.0; vocab] }
    }

    /// Log-probabilities of `token` and of the `top` most likely at a row of logits.
    pub(crate) fn read(&mut self, scratch: &Scratch, row: u32, token: u32, top: usize) -> Result<Logprobs> {
        scratch.read_logits(row as usize, &mut self.row)?;
        Ok(log_softmax(&self.row, token, top))
    }
}

/// Natural log-probabilities of `token` and of the `top` most likely, from raw logits. As in sampling, NaN counts as −∞: no
/// share, and no place among the likely ones.
fn log_softmax(logits: &[f32], token: u32, top: usize) -> Logprobs {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // Of infinite ones, too.
    let below = |logit: f32| if logit == max { 0.0 } else { f64::from(logit - max) };
    let sum: f64 = logits.iter().copied().filter(possible).map(|logit| below(logit).exp()).sum();
    let log = |id: u32| {
        let logit = Some(logits[id as usize]).filter(possible);
        logit.map_or(f32::NEG_INFINITY, |logit| (below(logit) - sum.ln()) as f32)
    };
    Logprobs { chosen: log(token), top: likeliest(logits, top).into_iter().map(|id| (id, log(id))).collect() }
}

fn possible(logit: &f32) -> bool {
    *logit > f32::NEG_INFINITY
}

/// The `count` tokens of the largest logits, largest first, the smallest id first among equals.
fn likeliest(logits: &[f32], count: usize) -> Vec<u32> {
    // Zeros of both signs are equal.
    let value = |id: u32| logits[id as usize] + 0.0;
    let mut best: Vec<u32> = Vec::with_capacity(count + 1);
    for (id, _) in (0..).zip(logits).filter(|(_, logit)| possible(logit)) {
        // Later ones lose against their equals.
        let better = |other: &u32| value(*other).total_cmp(&value(id)).is_ge();
        if best.len() < count || best.last().is_some_and(|last| !better(last)) {
            best.insert(best.partition_point(better), id);
            best.truncate(count);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_softmax_sums_to_one_and_orders_by_likelihood() {
        let result = log_softmax(&[1.0, 3.0, 2.0, 3.0], 0, 3);
        assert_eq!(result.top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 3, 2]);
        let all = log_softmax(&[1.0, 3.0, 2.0, 3.0], 0, 4);
        let sum: f32 = all.top.iter().map(|t| t.1.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6);
        assert_eq!(all.top[3], (0, all.chosen));
    }

    #[test]
    fn the_likeliest_are_those_of_a_sorted_vocabulary() {
        let logits: Vec<f32> = (0..500u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 25) as f32 - 40.0).collect();
        let mut sorted: Vec<u32> = (0..500).collect();
        sorted.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
        for count in [0, 1, 20, 500, 501] {
            assert_eq!(likeliest(&logits, count), sorted[..count.min(500)]);
        }
    }

    #[test]
    fn logits_that_are_not_finite_count_as_in_sampling() {
        const NONE: f32 = f32::NEG_INFINITY;
        let sound = log_softmax(&[1.0, 2.0], 1, 2);
        let damaged = log_softmax(&[1.0, f32::NAN, 2.0, NONE], 2, 4);
        assert_eq!((damaged.chosen, damaged.top), (sound.chosen, vec![(2, sound.top[0].1), (0, sound.top[1].1)]));
        for token in [1, 3] {
            assert_eq!(log_softmax(&[1.0, f32::NAN, 2.0, NONE], token, 0).chosen, NONE);
        }
        let half = 0.5f32.ln();
        let certain = log_softmax(&[f32::INFINITY, f32::MAX, f32::INFINITY], 0, 3);
        assert_eq!((certain.chosen, certain.top), (half, vec![(0, half), (2, half), (1, NONE)]));
        assert_eq!(log_softmax(&[f32::NAN], 0, 1), Logprobs { chosen: NONE, top: Vec::new() });
        assert_eq!(log_softmax(&[-0.0, 0.0], 0, 2).top, [(0, half), (1, half)]);
    }

    #[test]
    fn no_alternatives_may_be_asked_for() {
        assert!(log_softmax(&[0.0, 1.0], 1, 0).top.is_empty());
    }
}
