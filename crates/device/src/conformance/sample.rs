//! [`Sample`] against the oracle: the same tokens and the same history, always.

use super::data::{Noise, for_all};
use super::rig::{download, room, try_run, upload};
use crate::ops::{LogitBias, MIN_TEMPERATURE, NO_HISTORY_ROW, NO_MASK_ROW, Sample, SampleParams};
use crate::oracle::{self, PROMPT};
use crate::{Device, DeviceError, Op, Result};
use proptest::prelude::*;
use std::sync::Arc;

const GREEDY: SampleParams = SampleParams { seed_low: 1, seed_high: 2, position: 3, ..SampleParams::GREEDY };

/// Inputs of sampling.
#[derive(Debug, Clone, Default)]
struct Rows {
    vocab: usize,
    logits: Vec<f32>,
    params: Vec<SampleParams>,
    biases: Vec<LogitBias>,
    /// Empty for none.
    history: Vec<u32>,
    /// Empty for none.
    masks: Vec<u32>,
}

impl Rows {
    /// Tokens and history afterward.
    fn run(&self, device: &Arc<dyn Device>) -> Result<(Vec<u32>, Vec<u32>)> {
        let rows = self.params.len();
        let history = upload(device, &self.history);
        let op = Sample {
            logits: upload(device, &self.logits),
            vocab: self.vocab,
            rows,
            params: upload(device, &self.params),
            biases: upload(device, &self.biases),
            history: (!self.history.is_empty()).then(|| history.clone()),
            masks: (!self.masks.is_empty()).then(|| upload(device, &self.masks)),
            out: room(device, 4 * rows),
        };
        let out = op.out.clone();
        try_run(device, Op::Sample(op))?;
        Ok((download(&out, rows), download(&history, self.history.len())))
    }

    fn expected(&self) -> (Vec<u32>, Vec<u32>) {
        let mut history = self.history.clone();
        let tokens = oracle::sample(&self.logits, &self.params, &self.biases, &self.masks, &mut history);
        (tokens.expect("valid rows"), history)
    }

    fn compare(&self, device: &Arc<dyn Device>) {
        let (got, want) = (self.run(device).expect("valid rows"), self.expected());
        if let Some(row) = got.0.iter().zip(&want.0).position(|(got, want)| got != want) {
            let (got, want, params) = (got.0[row], want.0[row], self.params[row]);
            panic!("token {got} and not {want} in row {row} for {params:?} over {} logits", self.vocab);
        }
        assert!(got.1 == want.1, "history of {:?} over {} logits", self.params, self.vocab);
    }

    /// The first of the rows alone.
    fn first(&self) -> Self {
        self.alone(0)
    }

    /// One of the rows alone.
    fn alone(&self, row: usize) -> Self {
        let logits = self.logits[row * self.vocab..(row + 1) * self.vocab].to_vec();
        Self { logits, params: vec![self.params[row]], ..self.clone() }
    }

    /// Gives some rows a mask, of many, few, one or no tokens, with anything in the bits beyond the vocabulary.
    fn mask_some(&mut self, noise: &mut Noise) {
        let words = Sample::mask_words(self.vocab);
        let mask_rows = noise.shuffled(self.params.len() + 1);
        self.masks = vec![0; mask_rows.len() * words];
        for (params, mask_row) in self.params.iter_mut().zip(mask_rows) {
            if noise.below(4) == 0 {
                continue;
            }
            params.mask_row = mask_row;
            let mask = &mut self.masks[mask_row as usize * words..(mask_row as usize + 1) * words];
            match noise.below(5) {
                0 => mask.fill_with(|| noise.word()),
                1 => mask.fill_with(|| noise.word() & noise.word() & noise.word() & noise.word()),
                2 => mask.fill_with(|| if noise.below(8) == 0 { 1 << noise.below(32) } else { 0 }),
                3 => mask.fill(u32::MAX),
                _ => {
                    let token = noise.below(self.vocab);
                    mask[token / 32] = 1 << (token % 32);
                }
            }
            if !self.vocab.is_multiple_of(32) {
                mask[words - 1] ^= noise.word() << (self.vocab % 32);
            }
        }
    }
}

fn params() -> impl Strategy<Value = SampleParams> {
    let temperature = prop::sample::select(vec![0.0f32, 1e-37, 0.1, 0.7, 1.0, 1.7]);
    let top_k = prop::sample::select(vec![0u32, 1, 2, 40, 5000]);
    let top_p = prop::sample::select(vec![1.0f32, 0.05, 0.5, 0.9, 0.999]);
    let min_p = prop::sample::select(vec![0.0f32, 0.05, 0.7, 1.0]);
    (temperature, top_k, top_p, min_p, any::<[u32; 3]>()).prop_map(
        |(temperature, top_k, top_p, min_p, [seed_low, seed_high, position])| SampleParams {
            temperature,
            top_k,
            top_p,
            min_p,
            seed_low,
            seed_high,
            position,
            ..GREEDY
        },
    )
}

fn rows() -> impl Strategy<Value = Rows> {
    let vocab = prop::sample::select(vec![1usize, 7, 50, 1000, 17_000]);
    // Few steps make ties.
    let logits = (0.0f32..12.0, prop::sample::select(vec![3.0f32, 1e9]), any::<u32>());
    (vocab, prop::collection::vec(params(), 1..6), logits).prop_map(|(vocab, params, (spread, steps, seed))| {
        let mut noise = Noise::new(seed);
        let mut logits = noise.units(vocab * params.len());
        logits.iter_mut().for_each(|z| *z = (*z * steps).round() / steps * spread);
        Rows { vocab, logits, params, ..Rows::default() }
    })
}

/// Draws with every filter and temperature, alone and together, from flat, steep and tied distributions.
pub fn any_row_is_drawn_as_the_oracle_draws(device: &Arc<dyn Device>) {
    for_all(40, rows(), |rows| rows.compare(device));
}

/// Zeros of both signs, infinities and the ends of `f32`, over vocabularies around multiples of what a workgroup may take.
pub fn extreme_values_rank_as_the_oracle_ranks(device: &Arc<dyn Device>) {
    const KINDS: [[f32; 3]; 4] = [
        [0.0, -0.0, f32::NEG_INFINITY],
        [0.0, -0.0, -1.0],
        [f32::MAX, -f32::MAX, -1.0],
        [f32::INFINITY, f32::MAX, f32::NAN],
    ];
    let vocab = prop::sample::select(vec![255usize, 2047, 2048, 2049, 4100]);
    for_all(40, (vocab, prop::collection::vec(params(), 1..6), any::<u32>()), |(vocab, params, seed)| {
        let mut noise = Noise::new(seed);
        let mut logits = Vec::new();
        for _ in &params {
            let kind = KINDS[noise.below(KINDS.len())];
            logits.extend((0..vocab).map(|_| kind[noise.below(kind.len())]));
        }
        Rows { vocab, logits, params, ..Rows::default() }.compare(device);
    });
}

/// Temperatures around the floor below which nothing is drawn, over logits so close that just above it the draw decides.
pub fn temperatures_below_the_floor_draw_nothing(device: &Arc<dyn Device>) {
    const VOCAB: usize = 2100;
    let filters = [(0, 1.0, 0.0), (40, 1.0, 0.0), (0, 0.9, 0.0), (0, 1.0, 0.1), (40, 0.9, 0.1)];
    let rows = |temperatures: &[f32]| {
        let params: Vec<_> = temperatures
            .iter()
            .flat_map(|&temperature| filters.map(|filter| (temperature, filter)))
            .zip(0..)
            .map(|((temperature, (top_k, top_p, min_p)), position)| SampleParams {
                temperature,
                top_k,
                top_p,
                min_p,
                position,
                ..GREEDY
            })
            .collect();
        let logits = Noise::new(5).units(VOCAB).into_iter().map(|z| 1e-5 * z).collect::<Vec<_>>().repeat(params.len());
        Rows { vocab: VOCAB, logits, params, ..Rows::default() }
    };
    let below = rows(&[1e-45, f32::MIN_POSITIVE, 1e-37, 1e-7, MIN_TEMPERATURE.next_down()]);
    below.compare(device);
    let mut greedy = below.clone();
    greedy.params.iter_mut().for_each(|params| params.temperature = 0.0);
    assert_eq!(below.run(device).expect("valid rows").0, greedy.run(device).expect("valid rows").0);
    rows(&[MIN_TEMPERATURE, MIN_TEMPERATURE.next_up(), 2e-6, 1e-5]).compare(device);
}

/// Draws often from one nearly flat row, so that the last survivor and the first token cut off would both be seen.
pub fn filters_cut_where_the_oracle_cuts(device: &Arc<dyn Device>) {
    const DRAWS: u32 = 1000;
    const VOCAB: usize = 300;
    let filter = |top_k, top_p, min_p| SampleParams { temperature: 0.9, top_k, top_p, min_p, ..GREEDY };
    let filters = [filter(90, 1.0, 0.0), filter(0, 0.6, 0.0), filter(0, 1.0, 0.5), filter(150, 0.4, 0.3)];
    for (params, seed) in filters.into_iter().zip(0..) {
        let logits = Noise::new(seed).units(VOCAB);
        let params: Vec<_> = (0..DRAWS).map(|position| SampleParams { position, ..params }).collect();
        let logits = logits.repeat(params.len());
        Rows { vocab: VOCAB, logits, params, ..Rows::default() }.compare(device);
    }
}

/// Histories of prompts and answers, biases of some tokens, forbidden ones among them.
pub fn penalties_and_biases_change_the_choice_alike(device: &Arc<dyn Device>) {
    let penalties = (0.5f32..2.0, -1.0f32..1.0, -1.0f32..1.0);
    for_all(24, (rows(), penalties, any::<u32>()), |(mut rows, (repetition, presence, frequency), seed)| {
        let mut noise = Noise::new(seed);
        let history_rows = noise.shuffled(rows.params.len() + 1);
        let entry = |noise: &mut Noise| match noise.below(3) {
            0 => 0,
            _ => (noise.word() & PROMPT) | noise.below(4) as u32,
        };
        rows.history = (0..history_rows.len() * rows.vocab).map(|_| entry(&mut noise)).collect();
        for (params, history_row) in rows.params.iter_mut().zip(history_rows) {
            let bias_first = rows.biases.len() as u32;
            for _ in 0..noise.below(5) {
                let bias = if noise.below(3) == 0 { f32::NEG_INFINITY } else { 4.0 * noise.unit() };
                rows.biases.push(LogitBias { token: noise.below(rows.vocab) as u32, bias });
            }
            let bias_count = rows.biases.len() as u32 - bias_first;
            let history_row = if noise.below(4) == 0 { NO_HISTORY_ROW } else { history_row };
            *params = SampleParams { repetition, presence, frequency, history_row, bias_first, bias_count, ..*params };
        }
        rows.compare(device);
    });
}

/// Masks of many, few and no tokens, beside rows without one, over vocabularies that end within a word.
pub fn masks_leave_the_same_choice_as_the_oracles(device: &Arc<dyn Device>) {
    for_all(40, (rows(), any::<u32>()), |(mut rows, seed)| {
        let mut noise = Noise::new(seed);
        rows.mask_some(&mut noise);
        // Penalties and biases do not bring a forbidden token back.
        rows.history = (0..rows.vocab).map(|_| noise.below(3) as u32).collect();
        for token in 0..noise.below(4) {
            rows.biases.push(LogitBias { token: token as u32, bias: 50.0 });
        }
        rows.params[0].history_row = 0;
        rows.params.iter_mut().for_each(|params| {
            (params.presence, params.repetition, params.bias_count) = (0.5, 1.2, rows.biases.len() as u32);
        });
        rows.compare(device);
    });
}

/// Rows with and without a mask in one op, and each of them alone: the same tokens.
pub fn masked_rows_change_no_other_choice(device: &Arc<dyn Device>) {
    for_all(12, (rows(), any::<u32>()), |(mut rows, seed)| {
        rows.mask_some(&mut Noise::new(seed));
        let together = rows.run(device).expect("valid rows").0;
        for (row, token) in together.into_iter().enumerate() {
            assert_eq!(token, rows.alone(row).run(device).expect("valid rows").0[0], "{:?}", rows.params[row]);
        }
    });
}

/// A mask of all tokens is no mask, and beside one of no tokens nothing is chosen or noted, whatever the filters.
pub fn full_masks_are_none_and_empty_ones_choose_nothing(device: &Arc<dyn Device>) {
    for_all(16, (rows(), any::<bool>()), |(mut rows, beyond)| {
        let free = rows.run(device).expect("valid rows").0;
        let words = Sample::mask_words(rows.vocab);
        rows.masks = [vec![u32::MAX; words], vec![0; words]].concat();
        if !rows.vocab.is_multiple_of(32) {
            // Bits beyond the vocabulary mean nothing, set or not.
            let outside = u32::MAX << (rows.vocab % 32);
            rows.masks[words - 1] ^= if beyond { outside } else { 0 };
            rows.masks[2 * words - 1] = if beyond { outside } else { 0 };
        }
        rows.params.iter_mut().for_each(|params| params.mask_row = 0);
        assert_eq!(rows.run(device).expect("valid rows").0, free);
        rows.history = vec![0; rows.vocab];
        rows.params.truncate(1);
        rows.logits.truncate(rows.vocab);
        (rows.params[0].mask_row, rows.params[0].history_row) = (1, 0);
        let (tokens, history) = rows.run(device).expect("valid rows");
        assert_eq!((tokens, history), (vec![u32::MAX], vec![0; rows.vocab]));
    });
}

/// A row among others and alone: the same token.
pub fn company_changes_no_choice(device: &Arc<dyn Device>) {
    for_all(16, rows(), |rows| {
        let (all, alone) = (rows.run(device).expect("valid rows"), rows.first().run(device).expect("valid rows"));
        assert_eq!(all.0[0], alone.0[0], "{:?} over {} logits", rows.params, rows.vocab);
    });
}

/// NaN and −∞ are never chosen, and a row of nothing else is noted nowhere.
pub fn rows_without_a_finite_value_have_no_token(device: &Arc<dyn Device>) {
    let mut logits = vec![f32::NAN; 3 * 9000];
    logits[9000..18_000].fill(f32::NEG_INFINITY);
    logits[18_000 + 8500] = -3.0;
    let drawn = SampleParams { temperature: 1.0, top_k: 3, top_p: 0.9, min_p: 0.1, ..GREEDY };
    for params in [GREEDY, SampleParams { temperature: 1.0, ..GREEDY }, drawn] {
        let params = [0, 1, 2].map(|history_row| SampleParams { history_row, ..params }).to_vec();
        let rows = Rows { vocab: 9000, logits: logits.clone(), params, history: vec![0; 3 * 9000], ..Rows::default() };
        let (tokens, history) = rows.run(device).expect("valid rows");
        assert_eq!(tokens, [u32::MAX, u32::MAX, 8500]);
        assert_eq!((history.iter().sum::<u32>(), history[2 * 9000 + 8500]), (1, 1));
    }
}

/// Things that params refer to and that are not there.
pub fn history_rows_masks_and_biases_outside_are_refused(device: &Arc<dyn Device>) {
    let biases = vec![LogitBias { token: 0, bias: 1.0 }; 2];
    let good = Rows { vocab: 4, logits: vec![0.0; 4], params: vec![GREEDY], biases, ..Rows::default() };
    let with = |params: SampleParams, history: Vec<u32>| {
        let outcome = Rows { params: vec![params], history, ..good.clone() }.run(device);
        outcome.map(|(tokens, _)| tokens[0])
    };
    let biased = |bias_first, bias_count| SampleParams { bias_first, bias_count, ..GREEDY };
    let row_of = |history_row| SampleParams { history_row, ..GREEDY };
    assert_eq!(with(biased(0, 2), vec![]), Ok(0));
    assert_eq!(with(row_of(1), vec![0; 8]), Ok(0));
    for (params, history) in
        [(biased(1, 2), vec![]), (biased(u32::MAX, u32::MAX), vec![]), (row_of(2), vec![0; 8]), (row_of(0), vec![])]
    {
        assert!(matches!(with(params, history), Err(DeviceError::Contract(_))), "{params:?}");
    }
    let masked = |mask_row, masks: Vec<u32>| {
        let params = vec![SampleParams { mask_row, ..GREEDY }];
        Rows { params, masks, ..good.clone() }.run(device).map(|(tokens, _)| tokens[0])
    };
    assert_eq!(masked(1, vec![0, 8]), Ok(3));
    assert_eq!(masked(NO_MASK_ROW, vec![8]), Ok(0));
    for (mask_row, masks) in [(2, vec![1, 1]), (0, vec![]), (u32::MAX - 1, vec![1])] {
        assert!(matches!(masked(mask_row, masks), Err(DeviceError::Contract(_))), "{mask_row}");
    }
}
