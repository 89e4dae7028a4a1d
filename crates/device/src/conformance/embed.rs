//! [`Embed`], [`RopeAngles`], [`struct@Copy`] and [`Observe`] against the oracle.

use super::data::{Noise, assert_close, for_all};
use super::rig::{download, room, run, try_run, upload};
use super::weights::{Source, formats};
use crate::ops::{Copy, Embed, Growth, Observe, RopeAngles, SAMPLED};
use crate::oracle::{self, PROMPT};
use crate::{Device, DeviceError, Float, Op, Result, WeightFormat, WeightSpec};
use proptest::prelude::*;
use std::sync::Arc;

/// Dequantization itself is as exact as `f32`, whatever the arithmetic of products.
const EXACT: f64 = 1e-5;
/// No power of two, so that it shows.
const SCALE: f32 = 1.7;

fn embed(device: &Arc<dyn Device>, table: &[Source], tokens: &[u32], sampled: Option<&[u32]>) -> Result<Vec<f32>> {
    let values = tokens.len() * table[0].spec.cols;
    let op = Embed {
        table: table.iter().map(|part| part.upload(device)).collect(),
        tokens: upload(device, tokens),
        sampled: sampled.map(|sampled| upload(device, sampled)),
        scale: SCALE,
        rows: tokens.len(),
        out: room(device, 4 * values),
    };
    let out = op.out.clone();
    try_run(device, Op::Embed(op))?;
    Ok(download(&out, values))
}

/// Looks up every row of a table in every format.
pub fn tokens_of_every_format(device: &Arc<dyn Device>) {
    for format in formats() {
        let table = [Source::random(WeightSpec { rows: 21, cols: 256, format }, &mut Noise::new(3))];
        let tokens = Noise::new(4).shuffled(21);
        let got = embed(device, &table, &tokens, None).expect("known tokens are embedded");
        let want = oracle::embed(&[table[0].matrix()], &tokens, None, SCALE).expect("known tokens are embedded");
        assert_close(&got, &want, EXACT, format);
    }
}

/// Tokens of the step before, and tables in several parts.
pub fn sampled_tokens_and_split_tables(device: &Arc<dyn Device>) {
    let parts = (prop::collection::vec(1usize..40, 1..4), 1usize..20, any::<u32>());
    for_all(16, parts, |(parts, rows, seed)| {
        let mut noise = Noise::new(seed);
        let format = WeightFormat::Affine { bits: 4, group: 32, scale: Float::F16 };
        let part = |rows: &usize| Source::random(WeightSpec { rows: *rows, cols: 96, format }, &mut noise);
        let table: Vec<Source> = parts.iter().map(part).collect();
        let vocabulary: usize = parts.iter().sum();
        let mut sampled: Vec<u32> = (0..4).map(|_| noise.below(vocabulary) as u32).collect();
        sampled.push(u32::MAX);
        let token = |noise: &mut Noise| match noise.below(2) {
            0 => noise.below(vocabulary) as u32,
            _ => SAMPLED | noise.below(5) as u32,
        };
        let tokens: Vec<u32> = (0..rows).map(|_| token(&mut noise)).collect();
        let got = embed(device, &table, &tokens, Some(&sampled)).expect("known tokens are embedded");
        let matrices: Vec<_> = table.iter().map(Source::matrix).collect();
        let want = oracle::embed(&matrices, &tokens, Some(&sampled), SCALE).expect("known tokens are embedded");
        assert_close(&got, &want, EXACT, (&parts, &tokens, &sampled));
    });
}

/// Tokens outside of the table and references to nothing.
pub fn unknown_tokens_fail(device: &Arc<dyn Device>) {
    let format = WeightFormat::Dense(Float::Bf16);
    let table = [Source::random(WeightSpec { rows: 5, cols: 64, format }, &mut Noise::new(5))];
    let fails =
        |tokens: &[u32], sampled| matches!(embed(device, &table, tokens, sampled), Err(DeviceError::Contract(_)));
    assert!(!fails(&[4, 0], None));
    assert!(fails(&[0, 5], None) && fails(&[u32::MAX >> 1], None));
    assert!(fails(&[SAMPLED], None) && fails(&[SAMPLED | 2], Some(&[1, 2])) && fails(&[SAMPLED], Some(&[5])));
}

/// Angles of near and far positions.
pub fn angles_turn_with_position(device: &Arc<dyn Device>) {
    let growth = prop::option::of((0f32..1.0, 1u32..20_000).prop_map(|(beta, every)| Growth { beta, every }));
    let frequencies = (1usize..70, 1usize..30, 0.5f32..2.0, growth, any::<u32>());
    for_all(24, frequencies, |(pairs, rows, scale, growth, seed)| {
        let mut noise = Noise::new(seed);
        let positions: Vec<u32> = (0..rows).map(|_| noise.word() >> (15 + noise.below(17))).collect();
        let inv_freq: Vec<f32> = (0..pairs).map(|i| 10_000f32.powf(-(i as f32) / pairs as f32)).collect();
        let op = RopeAngles {
            positions: upload(device, &positions),
            inv_freq: upload(device, &inv_freq),
            pairs,
            scale,
            growth,
            rows,
            out: room(device, 8 * rows * pairs),
        };
        let out = op.out.clone();
        run(device, Op::RopeAngles(op));
        let want = oracle::rope_angles(&positions, &inv_freq, scale, growth);
        assert_close(&download(&out, 2 * rows * pairs), &want, 1e-6, (&positions, pairs));
    });
}

/// Copies any length at any offset; ranges that share a byte, or of two lengths, are refused when they are recorded.
pub fn copies_copy_and_refuse_overlap(device: &Arc<dyn Device>) {
    for_all(16, (1u64..700_000, 0u64..300, 0u64..300), |(len, from, to)| {
        let bytes: Vec<u8> = (0..from + len).map(|i| (i * 7 % 253) as u8).collect();
        let (source, target) = (upload(device, &bytes), upload(device, &vec![9u8; (to + len + 3) as usize]));
        let copy = Copy {
            from: source.slice(from..from + len).expect("within"),
            to: target.slice(to..to + len).expect("within"),
        };
        run(device, Op::Copy(copy));
        let got = download::<u8>(&target, (to + len + 3) as usize);
        let (before, rest) = got.split_at(to as usize);
        assert!(rest[..len as usize] == bytes[from as usize..], "{len} bytes from {from} to {to}");
        assert!(before.iter().chain(&rest[len as usize..]).all(|byte| *byte == 9), "beyond {len} bytes at {to}");
    });
    let all = room(device, 64);
    let part = |range: std::ops::Range<u64>| all.slice(range).expect("within");
    for (from, to) in [(part(0..33), part(31..64)), (all.clone(), all.clone()), (part(0..8), part(8..17))] {
        let mut encoder = device.compute_queue().encoder().expect("an encoder is granted");
        assert!(matches!(encoder.record(Op::Copy(Copy { from, to })), Err(DeviceError::Contract(_))));
    }
}

/// A row of the history replaces what it held, and no other row changes.
pub fn history_is_written_and_unknown_tokens_fail(device: &Arc<dyn Device>) {
    const VOCAB: usize = 11;
    let observe = |tokens: &[u32], prompt| {
        let history = upload(device, &[7u32; 3 * VOCAB]);
        let tokens = upload(device, tokens);
        let count = tokens.len() as usize / 4;
        let op = Observe { history: history.clone(), vocab: VOCAB, history_row: 1, tokens, count, prompt };
        try_run(device, Op::Observe(op)).map(|()| download::<u32>(&history, 3 * VOCAB))
    };
    let history = observe(&[3, 10, 3, 3, 0, 10, 3], 3).expect("known tokens are noted");
    let mut want = [7u32; 3 * VOCAB];
    want[VOCAB..2 * VOCAB].copy_from_slice(&[1, 0, 0, PROMPT | 2, 0, 0, 0, 0, 0, 0, PROMPT | 1]);
    assert_eq!(history, want);
    assert!(matches!(observe(&[0, 11], 1), Err(DeviceError::Contract(_))));
    assert!(matches!(observe(&[0], 2), Err(DeviceError::Contract(_))), "a prompt longer than its tokens");
}
