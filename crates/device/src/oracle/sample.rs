use super::observe::PROMPT;
use super::{broken, gumbel, threefry};
use crate::Result;
use crate::ops::{LogitBias, NO_HISTORY_ROW, NO_MASK_ROW, Sample, SampleParams};

/// [`crate::ops::Sample`] on slices: one token for each of `params`, from its row of `logits` (`[rows][vocabulary]`); every choice is
/// noted in `history` (`[history rows][vocabulary]`, empty for none) if the row has one there. A row that has one in `masks` (`[mask rows]`
/// `[words]`, empty for none) chooses among its tokens only. `u32::MAX` where nothing is left to choose.
///
/// Fails on a history row, a mask row or a bias that is not there.
pub fn sample(
    logits: &[f32],
    params: &[SampleParams],
    biases: &[LogitBias],
    masks: &[u32],
    history: &mut [u32],
) -> Result<Vec<u32>> {
    let vocab = logits.len() / params.len();
    let mut tokens = Vec::with_capacity(params.len());
    for (logits, params) in logits.chunks_exact(vocab).zip(params) {
        let (first, count) = (params.bias_first as usize, params.bias_count as usize);
        let own = if count == 0 { Some(&biases[..0]) } else { biases.get(first..first + count) };
        let own = own.ok_or_else(|| broken(format!("sample: biases {first}.. ({count}) of {}", biases.len())))?;
        let mut seen = seen(history, vocab, params)?;
        let mut values = adjust(logits, seen.as_deref(), params, own);
        if let Some(mask) = allowed(masks, vocab, params)? {
            forbid(&mut values, mask);
        }
        let token = choose(&values, params);
        if let (Some(seen), true) = (&mut seen, token != u32::MAX) {
            seen[token as usize] += 1;
        }
        tokens.push(token);
    }
    Ok(tokens)
}

/// The sequence's row of the history.
fn seen<'a>(history: &'a mut [u32], vocab: usize, params: &SampleParams) -> Result<Option<&'a mut [u32]>> {
    if params.history_row == NO_HISTORY_ROW {
        return Ok(None);
    }
    let at = params.history_row as usize * vocab;
    let row = history.get_mut(at..at + vocab);
    row.map(Some).ok_or_else(|| broken(format!("sample: history row {} is not there", params.history_row)))
}

/// The sequence's row of the masks.
fn allowed<'a>(masks: &'a [u32], vocab: usize, params: &SampleParams) -> Result<Option<&'a [u32]>> {
    if params.mask_row == NO_MASK_ROW {
        return Ok(None);
    }
    let words = Sample::mask_words(vocab);
    let row = masks.chunks_exact(words).nth(params.mask_row as usize);
    row.map(Some).ok_or_else(|| broken(format!("sample: mask row {} is not there", params.mask_row)))
}

/// Makes every token impossible whose bit is not set.
fn forbid(values: &mut [f32], mask: &[u32]) {
    for (token, z) in values.iter_mut().enumerate() {
        if mask[token / 32] >> (token % 32) & 1 == 0 {
            *z = f32::NEG_INFINITY;
        }
    }
}

/// Penalties, biases and temperature, in `f32` and in this order.
fn adjust(logits: &[f32], seen: Option<&[u32]>, params: &SampleParams, biases: &[LogitBias]) -> Vec<f32> {
    let mut values = logits.to_vec();
    for (z, &entry) in values.iter_mut().zip(seen.unwrap_or(&[])) {
        if entry != 0 {
            *z = if *z > 0.0 { *z / params.repetition } else { *z * params.repetition };
        }
        let count = entry & !PROMPT;
        if count > 0 {
            *z = *z - params.presence - params.frequency * count as f32;
        }
    }
    for bias in biases {
        if let Some(z) = values.get_mut(bias.token as usize) {
            *z += bias.bias;
        }
    }
    if params.draws() {
        values.iter_mut().for_each(|z| *z /= params.temperature);
    }
    values
}

fn choose(values: &[f32], params: &SampleParams) -> u32 {
    if !params.draws() {
        return ranked(values).first().copied().unwrap_or(u32::MAX);
    }
    let noisy = |token: u32| {
        let [word, _] = threefry([params.seed_low, params.seed_high], [params.position, token]);
        (values[token as usize] + gumbel(word), token)
    };
    let draws = survivors(values, params).into_iter().map(noisy);
    let best = draws.min_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    best.map_or(u32::MAX, |(_, token)| token)
}

/// Tokens that can be chosen at all, in the order of falling value and rising id: neither NaN nor −∞.
fn ranked(values: &[f32]) -> Vec<u32> {
    let mut tokens: Vec<u32> =
        (0..values.len() as u32).filter(|&token| values[token as usize] > f32::NEG_INFINITY).collect();
    // Zeros of both signs are equal.
    let value = |token: u32| values[token as usize] + 0.0;
    tokens.sort_by(|&a, &b| value(b).total_cmp(&value(a)).then(a.cmp(&b)));
    tokens
}

/// The tokens that pass top-k, top-p and min-p, each taken over the whole distribution of `values` (adjusted logits), likeliest
/// first.
pub fn survivors(values: &[f32], params: &SampleParams) -> Vec<u32> {
    let ranked = ranked(values);
    let Some(&first) = ranked.first() else { return ranked };
    let weight = |token: u32| (f64::from(values[token as usize]) - f64::from(values[first as usize])).exp();
    let total: f64 = ranked.iter().map(|&token| weight(token)).sum();
    let enough = if params.top_p < 1.0 { f64::from(params.top_p) * total } else { f64::INFINITY };
    let most = if params.top_k == 0 { usize::MAX } else { params.top_k as usize };
    let mut before = 0.0;
    let mut kept = Vec::new();
    for token in ranked {
        let likely = kept.is_empty() || (before < enough && weight(token) >= f64::from(params.min_p));
        if kept.len() == most || !likely {
            break;
        }
        before += weight(token);
        kept.push(token);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::MIN_TEMPERATURE;

    const GREEDY: SampleParams = SampleParams { seed_low: 1, seed_high: 2, position: 3, ..SampleParams::GREEDY };
    const RANDOM: SampleParams = SampleParams { temperature: 1.0, ..GREEDY };

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        let logits = [f32::NAN, 1.0, 4.0, 4.0, f32::NEG_INFINITY, -1.0];
        assert_eq!(sample(&logits, &[GREEDY], &[], &[], &mut []).unwrap(), [2]);
        assert_eq!(sample(&[-0.0, 0.0], &[GREEDY], &[], &[], &mut []).unwrap(), [0]);
        let none = [f32::NAN, f32::NEG_INFINITY];
        assert_eq!(sample(&none, &[GREEDY], &[], &[], &mut []).unwrap(), [u32::MAX]);
        assert_eq!(sample(&none, &[RANDOM], &[], &[], &mut []).unwrap(), [u32::MAX]);
    }

    #[test]
    fn below_the_floor_no_temperature_draws() {
        let logits = [-3.0, 1.0, 30.0, 29.999_998];
        for temperature in [f32::NAN, -1.0, 0.0, 1e-45, f32::MIN_POSITIVE, 1e-37, MIN_TEMPERATURE.next_down()] {
            let drawn: Vec<u32> = (0..50)
                .map(|position| SampleParams { temperature, position, ..GREEDY })
                .map(|params| sample(&logits, &[params], &[], &[], &mut []).unwrap()[0])
                .collect();
            assert_eq!(drawn, [2; 50], "temperature {temperature}");
        }
    }

    #[test]
    fn penalties_come_before_the_choice_and_choices_are_noted() {
        let logits = [3.0, 2.0, -1.0, 0.0];
        let choose = |params, mut history: [u32; 4]| {
            let token = sample(&logits, &[SampleParams { history_row: 0, ..params }], &[], &[], &mut history).unwrap();
            (token[0], history)
        };
        assert_eq!(choose(GREEDY, [0; 4]), (0, [1, 0, 0, 0]));
        assert_eq!(choose(SampleParams { repetition: 2.0, ..GREEDY }, [PROMPT, 0, 0, 0]).0, 1);
        let presence = SampleParams { presence: 1.5, ..GREEDY };
        assert_eq!(choose(presence, [PROMPT, 0, 0, 0]).0, 0, "prompts are not counted");
        assert_eq!(choose(presence, [9, 0, 0, 0]).0, 1);
        let frequency = SampleParams { frequency: 0.6, ..GREEDY };
        assert_eq!((choose(frequency, [1, 0, 0, 0]).0, choose(frequency, [2, 0, 0, 0]).0), (0, 1));
        assert!(sample(&logits, &[SampleParams { history_row: 1, ..GREEDY }], &[], &[], &mut [0; 4]).is_err());
    }

    #[test]
    fn biases_belong_to_their_row() {
        let biases = [
            LogitBias { token: 1, bias: 9.0 },
            LogitBias { token: 0, bias: f32::NEG_INFINITY },
            LogitBias { token: 2, bias: 2.0 },
        ];
        let params = SampleParams { bias_first: 1, bias_count: 2, ..GREEDY };
        assert_eq!(sample(&[3.0, 0.0, 1.0], &[params], &biases, &[], &mut []).unwrap(), [2]);
        assert!(sample(&[3.0], &[SampleParams { bias_first: 2, ..params }], &biases, &[], &mut []).is_err());
    }

    #[test]
    fn a_mask_leaves_the_best_of_its_own() {
        let logits = [3.0, 2.0, -1.0, 0.0];
        let masked = |mask_row, masks: &[u32]| {
            [GREEDY, RANDOM].map(|params| {
                let params = SampleParams { mask_row, ..params };
                sample(&logits, &[params], &[], masks, &mut []).map(|tokens| tokens[0])
            })
        };
        assert_eq!(masked(1, &[0b0001, 0b0100]), [Ok(2), Ok(2)]);
        assert_eq!(masked(0, &[0b1010]), [Ok(1), Ok(1)]);
        assert_eq!(masked(0, &[!0b1111]), [Ok(u32::MAX), Ok(u32::MAX)], "bits beyond the vocabulary are no tokens");
        assert!(masked(1, &[1]).iter().all(Result::is_err));
        assert_eq!(masked(NO_MASK_ROW, &[])[0], Ok(0));
        let infinite = LogitBias { token: 0, bias: f32::INFINITY };
        let params = SampleParams { mask_row: 0, bias_count: 1, ..GREEDY };
        assert_eq!(sample(&logits, &[params], &[infinite], &[0b1000], &mut []).unwrap(), [3]);
    }

    #[test]
    fn each_filter_looks_at_the_whole_distribution() {
        // Probabilities 0.4, 0.3, 0.2, 0.1, in another order.
        let values = [0.1f32, 0.4, 0.2, 0.3].map(f32::ln);
        let with = |top_k, top_p, min_p| survivors(&values, &SampleParams { top_k, top_p, min_p, ..RANDOM });
        assert_eq!(with(0, 1.0, 0.0), [1, 3, 2, 0]);
        assert_eq!(with(3, 1.0, 0.0), [1, 3, 2]);
        assert_eq!(with(0, 0.65, 0.0), [1, 3]);
        assert_eq!(with(0, 0.75, 0.0), [1, 3, 2]);
        assert_eq!(with(0, 1.0, 0.45), [1, 3, 2]);
        // Of the three that top-k keeps, two would make up 0.75 of what is left.
        assert_eq!(with(3, 0.75, 0.0), [1, 3, 2]);
        assert_eq!(with(0, 0.0, 0.0), [1], "the likeliest always survives");
    }

    #[test]
    fn draws_follow_the_distribution() {
        let logits = [0.0f32, 1.0, 2.0, f32::NEG_INFINITY];
        const DRAWS: usize = 20_000;
        let params: Vec<_> =
            (0..DRAWS as u32).map(|position| SampleParams { temperature: 0.8, position, ..GREEDY }).collect();
        let tokens = sample(&logits.repeat(DRAWS), &params, &[], &[], &mut []).unwrap();
        let weights = logits.map(|z| f64::from(z / 0.8).exp());
        for (token, weight) in weights.iter().enumerate() {
            let share = tokens.iter().filter(|t| **t as usize == token).count() as f64 / DRAWS as f64;
            let expected = weight / weights.iter().sum::<f64>();
            // Five standard deviations.
            let tolerance = 5.0 * (expected * (1.0 - expected) / DRAWS as f64).sqrt();
            assert!((share - expected).abs() <= tolerance, "token {token}: {share} for {expected}");
        }
    }
}
