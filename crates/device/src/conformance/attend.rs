//! [`Attend`] against the oracle, and against itself with other sequences around and other cuts.

use super::data::{Noise, assert_close, assert_same_bits, for_all};
use super::rig::{download, room, tolerance, try_run, upload};
use crate::ops::{Attend, Batch, Norm, Span};
use crate::oracle::{self, kv_block_values};
use crate::{Buffer, Device, DeviceError, KvSpec, Op, Result};
use proptest::prelude::*;
use std::sync::Arc;

/// Large enough to show.
const EPS: f32 = 0.05;

/// Attention of a layer.
#[derive(Debug, Clone)]
struct Layer {
    heads: usize,
    kv: KvSpec,
    pairs: usize,
    interleaved: bool,
    normed: bool,
    /// Queries have angles of their own.
    grows: bool,
    window: Option<usize>,
    /// Tokens of each sequence.
    lengths: Vec<usize>,
    seed: u32,
}

impl Layer {
    /// Values of a row of queries, keys and values.
    fn width(&self) -> usize {
        (self.heads + 2 * self.kv.heads) * self.kv.head_dim
    }

    fn scale(&self) -> f32 {
        1.0 / (self.kv.head_dim as f32).sqrt()
    }
}

/// A layer with all that its sequences will ever put in, and where their blocks lie.
struct Case {
    layer: Layer,
    /// Queries, keys and values of all rows, by sequence.
    qkv: Vec<Vec<f32>>,
    query_angles: Vec<Vec<f32>>,
    key_angles: Vec<Vec<f32>>,
    norms: [Vec<f32>; 2],
    tables: Vec<Vec<u32>>,
    blocks: usize,
}

/// Run of one sequence's rows: the sequence, and from where to where.
type Piece = (usize, usize, usize);

impl Case {
    fn new(layer: Layer) -> Self {
        let mut noise = Noise::new(layer.seed);
        let norm = |noise: &mut Noise| noise.units(layer.kv.head_dim).iter().map(|x| 1.0 + x / 2.0).collect();
        let norms = [norm(&mut noise), norm(&mut noise)];
        let qkv = layer.lengths.iter().map(|len| noise.units(len * layer.width())).collect();
        let turn = |angle: &f32| [(3.0 * angle).cos(), (3.0 * angle).sin()];
        let mut angles = |len: &usize| noise.units(len * layer.pairs).iter().flat_map(turn).collect::<Vec<f32>>();
        let key_angles: Vec<_> = layer.lengths.iter().map(&mut angles).collect();
        let query_angles = match layer.grows {
            true => key_angles.iter().map(|angles| angles.iter().map(|x| 1.25 * x).collect()).collect(),
            false => key_angles.clone(),
        };
        let needs: Vec<usize> = layer.lengths.iter().map(|len| len.div_ceil(layer.kv.block_tokens)).collect();
        // Some blocks belong to nobody.
        let blocks = needs.iter().sum::<usize>() + 3;
        let mut free = noise.shuffled(blocks).into_iter();
        let tables = needs.iter().map(|need| free.by_ref().take(*need).collect()).collect();
        Self { layer, qkv, query_angles, key_angles, norms, tables, blocks }
    }

    /// The rows of a batch, side by side.
    fn rows(&self, of: &[Vec<f32>], batch: &[Piece]) -> Vec<f32> {
        let rows = |&(sequence, from, to): &Piece| {
            let width = of[sequence].len() / self.layer.lengths[sequence];
            of[sequence][from * width..to * width].iter().copied()
        };
        batch.iter().flat_map(rows).collect()
    }

    /// Spans and block tables of a batch, tables in another order than rows and with rubbish between.
    fn spans(&self, batch: &[Piece]) -> (Vec<Span>, Vec<u32>) {
        let mut tables = vec![u32::MAX; 2];
        let mut starts = vec![0; batch.len()];
        for (start, &(sequence, ..)) in starts.iter_mut().zip(batch).rev() {
            *start = tables.len() as u32;
            tables.extend_from_slice(&self.tables[sequence]);
            tables.push(u32::MAX);
        }
        let mut first_row = 0;
        let span = |(&(_, from, to), table): (&Piece, &u32)| {
            let span = Span { first_row, rows: (to - from) as u32, start: from as u32, table: *table };
            first_row += span.rows;
            span
        };
        (batch.iter().zip(&starts).map(span).collect(), tables)
    }

    fn max_context(batch: &[Piece]) -> usize {
        batch.iter().map(|(_, _, to)| *to).max().unwrap_or(0)
    }

    fn oracle(&self, batch: &[Piece], cache: &mut [f32]) -> Vec<f32> {
        let layer = &self.layer;
        let (spans, tables) = self.spans(batch);
        let [q_norm, k_norm] =
            [&self.norms[0], &self.norms[1]].map(|weight| layer.normed.then_some(oracle::Norm { weight, eps: EPS }));
        let op = oracle::Attend {
            qkv: &self.rows(&self.qkv, batch),
            heads: layer.heads,
            kv: layer.kv,
            q_norm,
            k_norm,
            query_angles: &self.rows(&self.query_angles, batch),
            key_angles: &self.rows(&self.key_angles, batch),
            pairs: layer.pairs,
            interleaved: layer.interleaved,
            spans: &spans,
            block_tables: &tables,
            max_context: Self::max_context(batch),
            scale: layer.scale(),
            window: layer.window,
        };
        let rows: usize = batch.iter().map(|(_, from, to)| to - from).sum();
        let mut out = vec![0.0; rows * layer.heads * layer.kv.head_dim];
        oracle::attend(&op, cache, &mut out).expect("a valid batch");
        out
    }

    /// A cache full of rubbish: no bit of what was not written may matter.
    fn cache(&self, device: &Arc<dyn Device>) -> Buffer {
        room(device, self.blocks * device.kv_block_bytes(&self.layer.kv))
    }

    fn op(&self, device: &Arc<dyn Device>, batch: &[Piece], cache: &Buffer) -> Attend {
        let layer = &self.layer;
        let (spans, tables) = self.spans(batch);
        let rows = spans.iter().map(|span| span.rows as usize).sum();
        let positions: Vec<u32> = batch.iter().flat_map(|&(_, from, to)| from as u32..to as u32).collect();
        let [q_norm, k_norm] = [&self.norms[0], &self.norms[1]]
            .map(|weight| layer.normed.then(|| Norm { weight: upload(device, weight), eps: EPS }));
        Attend {
            qkv: upload(device, &self.rows(&self.qkv, batch)),
            heads: layer.heads,
            kv: layer.kv,
            q_norm,
            k_norm,
            query_angles: upload(device, &self.rows(&self.query_angles, batch)),
            key_angles: upload(device, &self.rows(&self.key_angles, batch)),
            pairs: layer.pairs,
            interleaved: layer.interleaved,
            cache: cache.clone(),
            batch: Batch {
                rows,
                sequences: batch.len(),
                max_context: Self::max_context(batch),
                positions: upload(device, &positions),
                spans: upload(device, &spans),
                block_tables: upload(device, &tables),
            },
            scale: layer.scale(),
            window: layer.window,
            out: room(device, 4 * rows * layer.heads * layer.kv.head_dim),
        }
    }

    fn run(&self, device: &Arc<dyn Device>, batch: &[Piece], cache: &Buffer) -> Vec<f32> {
        attend(device, self.op(device, batch, cache)).expect("a valid batch")
    }
}

fn attend(device: &Arc<dyn Device>, op: Attend) -> Result<Vec<f32>> {
    let out = op.out.clone();
    try_run(device, Op::Attend(op))?;
    Ok(download(&out, out.len() as usize / 4))
}

fn layers(lengths: impl Strategy<Value = Vec<usize>>) -> impl Strategy<Value = Layer> {
    let heads = (prop::sample::select(vec![1usize, 2, 3, 7]), 1usize..4);
    let dims = (prop::sample::select(vec![8usize, 20, 24, 64, 80]), 0usize..3, prop::sample::select(vec![16usize, 32]));
    let window = prop::option::of(prop::sample::select(vec![1usize, 5, 17, 64, 100]));
    (heads, dims, any::<(bool, bool, bool)>(), window, lengths, any::<u32>()).prop_map(
        |((group, kv_heads), (head_dim, half, block_tokens), (interleaved, normed, grows), window, lengths, seed)| {
            Layer {
                heads: group * kv_heads,
                kv: KvSpec { heads: kv_heads, head_dim, block_tokens },
                pairs: head_dim * half / 4,
                interleaved,
                normed,
                grows,
                window,
                lengths,
                seed,
            }
        },
    )
}

/// Prompts cut somewhere, then all sequences in one ragged batch: chunks and single tokens.
pub fn any_batch(device: &Arc<dyn Device>) {
    let lengths = prop::collection::vec(2usize..130, 1..5);
    for_all(24, layers(lengths), |layer| {
        let case = Case::new(layer);
        let mut noise = Noise::new(case.layer.seed ^ 1);
        let (cache, mut naive) = (case.cache(device), vec![f32::NAN; case.blocks * kv_block_values(&case.layer.kv)]);
        let lengths = case.layer.lengths.iter().enumerate();
        // Every other sequence decodes its last token.
        let cuts: Vec<Piece> =
            lengths.map(|(i, &len)| (i, if i % 2 == 0 { len - 1 } else { noise.below(len) }, len)).collect();
        let prompts: Vec<Piece> = cuts.iter().filter(|(_, cut, _)| *cut > 0).map(|&(i, cut, _)| (i, 0, cut)).collect();
        for batch in [prompts, cuts].iter().filter(|batch| !batch.is_empty()) {
            let (got, want) = (case.run(device, batch, &cache), case.oracle(batch, &mut naive));
            assert_close(&got, &want, tolerance(device), (&case.layer, batch));
        }
    });
}

/// Contexts that a backend may split into parts: a prompt and a token far from the beginning, with and without a window; and
/// however the whole is cut, the same bits.
pub fn long_contexts(device: &Arc<dyn Device>) {
    for (window, seed) in [(None, 1), (Some(700), 2), (Some(3), 3)] {
        let kv = KvSpec { heads: 1, head_dim: 16, block_tokens: 16 };
        let layer = Layer {
            heads: 2,
            kv,
            pairs: 8,
            interleaved: false,
            normed: false,
            grows: false,
            window,
            lengths: vec![1200, 700],
            seed,
        };
        let case = Case::new(layer);
        let (cache, mut naive) = (case.cache(device), vec![f32::NAN; case.blocks * kv_block_values(&kv)]);
        for batch in [&[(0, 0, 1100)][..], &[(1, 0, 699)], &[(0, 1100, 1101), (1, 699, 700)], &[(0, 1101, 1200)]] {
            let (got, want) = (case.run(device, batch, &cache), case.oracle(batch, &mut naive));
            assert_close(&got, &want, tolerance(device), (&case.layer, batch));
        }
        let (cache, whole) = (case.cache(device), case.run(device, &[(0, 0, 1200)], &case.cache(device)));
        let cuts = [0, 300, 511, 512, 513, 1000, 1001, 1024, 1025, 1199, 1200];
        let pieces = cuts.windows(2).flat_map(|cut| case.run(device, &[(0, cut[0], cut[1])], &cache));
        assert_same_bits(&pieces.collect::<Vec<_>>(), &whole, (&case.layer, cuts));
    }
}

/// A sequence alone, cut at several places, one token at a time, and among others: the same bits.
pub fn company_and_cuts_change_no_bit(device: &Arc<dyn Device>) {
    let lengths = (60usize..150, 20usize..700).prop_map(|(first, second)| vec![first, second]);
    for_all(6, layers(lengths), |layer| {
        let case = Case::new(layer);
        let (len, other) = (case.layer.lengths[0], case.layer.lengths[1]);
        let width = case.layer.heads * case.layer.kv.head_dim;
        let whole = case.run(device, &[(0, 0, len)], &case.cache(device));
        let cut = len / 3;
        for cuts in [vec![0, cut, len], vec![0, 1, cut + 7, len - 1, len], (0..=len).collect()] {
            let cache = case.cache(device);
            let pieces = cuts.windows(2).flat_map(|cut| case.run(device, &[(0, cut[0], cut[1])], &cache));
            assert_same_bits(&pieces.collect::<Vec<_>>(), &whole, (&case.layer, &cuts));
        }
        let cache = case.cache(device);
        case.run(device, &[(1, 0, other / 2)], &cache);
        let first = case.run(device, &[(0, 0, cut), (1, other / 2, other - 1)], &cache);
        let second = case.run(device, &[(1, other - 1, other), (0, cut, len)], &cache);
        let together = [&first[..cut * width], &second[width..]].concat();
        assert_same_bits(&together, &whole, (&case.layer, "among others"));
    });
}

/// Checks that two sequences that begin alike may read the same blocks: the bits are those of blocks of their own.
pub fn a_shared_prefix_changes_no_bit(device: &Arc<dyn Device>) {
    const SHARED: usize = 48;
    for (window, seed) in [(None, 1), (Some(40), 2)] {
        let kv = KvSpec { heads: 2, head_dim: 24, block_tokens: 16 };
        let lengths = vec![70, 90];
        let layer =
            Layer { heads: 4, kv, pairs: 12, interleaved: false, normed: true, grows: true, window, lengths, seed };
        let mut case = Case::new(layer);
        let angles = 2 * case.layer.pairs;
        let all =
            [(&mut case.qkv, case.layer.width()), (&mut case.query_angles, angles), (&mut case.key_angles, angles)];
        for (rows, width) in all {
            let prefix = rows[0][..SHARED * width].to_vec();
            rows[1][..SHARED * width].copy_from_slice(&prefix);
        }
        let cache = case.cache(device);
        case.run(device, &[(1, 0, SHARED)], &cache);
        let alone = case.run(device, &[(1, SHARED, 90)], &cache);
        let prefix = case.tables[0][..SHARED / kv.block_tokens].to_vec();
        case.tables[1][..prefix.len()].copy_from_slice(&prefix);
        let cache = case.cache(device);
        case.run(device, &[(0, 0, SHARED)], &cache);
        let both = case.run(device, &[(0, SHARED, 70), (1, SHARED, 90)], &cache);
        assert_same_bits(&both[both.len() - alone.len()..], &alone, &case.layer);
    }
}

/// Tables, spans and contexts that lead elsewhere.
pub fn blocks_and_rows_outside_are_refused(device: &Arc<dyn Device>) {
    let kv = KvSpec { heads: 1, head_dim: 8, block_tokens: 16 };
    let layer = Layer {
        heads: 1,
        kv,
        pairs: 0,
        interleaved: false,
        normed: false,
        grows: false,
        window: None,
        lengths: vec![40],
        seed: 7,
    };
    let mut case = Case::new(layer);
    let cache = case.cache(device);
    let refused = |op: Attend| matches!(attend(device, op), Err(DeviceError::Contract(_)));
    let op = || case.op(device, &[(0, 0, 40)], &cache);
    assert!(!refused(op()));
    let with = |change: &dyn Fn(&mut Attend)| {
        let mut op = op();
        change(&mut op);
        refused(op)
    };
    let span = |first_row, rows, start, table| upload(device, &[Span { first_row, rows, start, table }]);
    assert!(with(&|op| op.batch.max_context = 39), "beyond the context");
    assert!(with(&|op| op.batch.spans = span(1, 40, 0, 2)), "more rows than the batch");
    assert!(with(&|op| op.batch.spans = span(0, 40, 0, 5)), "a table that ends too soon");
    assert!(with(&|op| op.batch.spans = span(0, u32::MAX, u32::MAX, u32::MAX)), "nothing but overflow");
    assert!(with(&|op| op.cache = room(device, device.kv_block_bytes(&kv))), "a cache of one block");
    assert!(with(&|op| op.window = Some(0)), "an empty window");
    assert!(with(&|op| op.heads = 0) && with(&|op| op.kv.block_tokens = 0), "nothing to attend");
    case.tables[0][2] = case.blocks as u32;
    assert!(refused(case.op(device, &[(0, 0, 40)], &cache)), "no such block");
}
