use super::{Norm, broken, rms_norm, rotate};
use crate::ops::Span;
use crate::{KvSpec, Result};
use std::ops::Range;

/// [`crate::ops::Attend`] on slices.
#[derive(Debug, Clone, Copy)]
pub struct Attend<'a> {
    /// `[rows][(heads + 2 · kv heads) · head_dim]`.
    pub qkv: &'a [f32],
    /// Query heads.
    pub heads: usize,
    /// Shape of the cache.
    pub kv: KvSpec,
    /// Norm of each query head.
    pub q_norm: Option<Norm<'a>>,
    /// Norm of each key head.
    pub k_norm: Option<Norm<'a>>,
    /// `[rows][pairs][2]`, for queries.
    pub query_angles: &'a [f32],
    /// The same for keys.
    pub key_angles: &'a [f32],
    /// Pairs rotated.
    pub pairs: usize,
    /// True if a pair is (`x[2i]`, `x[2i + 1]`), false if it is (`x[i]`, `x[i + pairs]`).
    pub interleaved: bool,
    /// Spans, in row order.
    pub spans: &'a [Span],
    /// Runs of block numbers.
    pub block_tables: &'a [u32],
    /// Bound of the positions: all are below it.
    pub max_context: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Positions that a position sees, itself included.
    pub window: Option<usize>,
}

/// Values of one block of the oracle's cache: `[keys, values][kv heads][block tokens][head_dim]`.
pub fn kv_block_values(kv: &KvSpec) -> usize {
    2 * kv.heads * kv.block_tokens * kv.head_dim
}

/// Writes the rows' keys and values to `cache`, then attends: `out` is `[rows][heads · head_dim]`.
///
/// Fails if a span or a block table leads outside of rows, context or cache.
pub fn attend(op: &Attend<'_>, cache: &mut [f32], out: &mut [f32]) -> Result<()> {
    let dim = op.kv.head_dim;
    let rows = out.len() / (op.heads * dim);
    op.spans.iter().try_for_each(|span| op.check(span, rows, cache.len() / kv_block_values(&op.kv)))?;
    for (span, row, position) in op.rows() {
        for head in 0..op.kv.heads {
            let key = op.head(row, op.heads + head, op.k_norm, op.key_angles);
            cache[op.place(span, position, head, 0)].copy_from_slice(&key);
            cache[op.place(span, position, head, 1)].copy_from_slice(op.raw(row, op.heads + op.kv.heads + head));
        }
    }
    for (span, row, position) in op.rows() {
        for head in 0..op.heads {
            let at = (row * op.heads + head) * dim;
            let query = op.head(row, head, op.q_norm, op.query_angles);
            let shared = head / (op.heads / op.kv.heads);
            out[at..at + dim].copy_from_slice(&op.attend_head(&query, span, position, shared, cache));
        }
    }
    Ok(())
}

impl Attend<'_> {
    /// Rows, each with its span and position.
    fn rows(&self) -> impl Iterator<Item = (&Span, usize, usize)> {
        self.spans.iter().flat_map(|span| {
            (0..span.rows).map(move |i| (span, (span.first_row + i) as usize, (span.start + i) as usize))
        })
    }

    fn check(&self, span: &Span, rows: usize, blocks: usize) -> Result<()> {
        let end = span.start as usize + span.rows as usize;
        let used = end.div_ceil(self.kv.block_tokens);
        let table = self.block_tables.get(span.table as usize..span.table as usize + used);
        let good = span.first_row as usize + span.rows as usize <= rows
            && end <= self.max_context
            && table.is_some_and(|table| table.iter().all(|&block| (block as usize) < blocks));
        if good { Ok(()) } else { Err(broken(format!("attend: {span:?} in a batch of {rows} rows, {blocks} blocks"))) }
    }

    /// Head `head` of a row of `qkv`: queries, then keys, then values.
    fn raw(&self, row: usize, head: usize) -> &[f32] {
        let at = (row * (self.heads + 2 * self.kv.heads) + head) * self.kv.head_dim;
        &self.qkv[at..at + self.kv.head_dim]
    }

    /// A query or key head, normed and rotated.
    fn head(&self, row: usize, head: usize, norm: Option<Norm<'_>>, angles: &[f32]) -> Vec<f32> {
        let raw = self.raw(row, head);
        let mut head = norm.map_or_else(|| raw.to_vec(), |norm| rms_norm(raw, norm));
        rotate(&mut head, &angles[row * self.pairs * 2..(row + 1) * self.pairs * 2], self.interleaved);
        head
    }

    /// Place in the cache of the key (`half` 0) or value (1) of a position.
    fn place(&self, span: &Span, position: usize, head: usize, half: usize) -> Range<usize> {
        let KvSpec { heads, head_dim, block_tokens } = self.kv;
        let block = self.block_tables[span.table as usize + position / block_tokens] as usize;
        let at = (((2 * block + half) * heads + head) * block_tokens + position % block_tokens) * head_dim;
        at..at + head_dim
    }

    /// Softmax over what the position sees of key/value head `head`, with the maximum taken out.
    fn attend_head(&self, query: &[f32], span: &Span, position: usize, head: usize, cache: &[f32]) -> Vec<f32> {
        let seen = (position + 1).saturating_sub(self.window.unwrap_or(usize::MAX))..position + 1;
        let score = |at: usize| {
            let key = &cache[self.place(span, at, head, 0)];
            let dot: f64 = query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
            dot * f64::from(self.scale)
        };
        let scores: Vec<f64> = seen.clone().map(score).collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut sums = vec![0.0; query.len()];
        for (weight, at) in weights.iter().zip(seen) {
            let values = &cache[self.place(span, at, head, 1)];
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * f64::from(*value));
        }
        sums.iter().map(|sum| (sum / total) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KV: KvSpec = KvSpec { heads: 1, head_dim: 2, block_tokens: 2 };

    fn op<'a>(qkv: &'a [f32], spans: &'a [Span], block_tables: &'a [u32]) -> Attend<'a> {
        Attend {
            qkv,
            heads: 1,
            kv: KV,
            q_norm: None,
            k_norm: None,
            query_angles: &[],
            key_angles: &[],
            pairs: 0,
            interleaved: false,
            spans,
            block_tables,
            max_context: 4,
            scale: 1.0,
            window: None,
        }
    }

    /// Queries of zero weigh everything that is seen equally: the result is the mean of the values so far.
    const QKV: [f32; 18] = [0., 0., 1., 1., 3., 0., 0., 0., 1., 1., 5., 2., 0., 0., 1., 1., 1., 4.];

    #[test]
    fn a_position_sees_itself_and_what_came_before() {
        let spans = [Span { first_row: 0, rows: 3, start: 0, table: 1 }];
        let (mut cache, mut out) = (vec![f32::NAN; 3 * kv_block_values(&KV)], [0.0; 6]);
        attend(&op(&QKV, &spans, &[9, 2, 0]), &mut cache, &mut out).unwrap();
        assert_eq!(out, [3.0, 0.0, 4.0, 1.0, 3.0, 2.0]);
        // Block 2 first, then block 0: keys, then values.
        assert_eq!(cache[16..24], [1., 1., 1., 1., 3., 0., 5., 2.]);
        let windowed = Attend { window: Some(1), ..op(&QKV, &spans, &[9, 2, 0]) };
        attend(&windowed, &mut cache, &mut out).unwrap();
        assert_eq!(out, [3.0, 0.0, 5.0, 2.0, 1.0, 4.0]);
    }

    #[test]
    fn later_rows_find_earlier_ones_in_the_cache() {
        let mut cache = vec![f32::NAN; 2 * kv_block_values(&KV)];
        let mut out = [0.0; 4];
        let first = [Span { first_row: 0, rows: 2, start: 0, table: 0 }];
        attend(&op(&QKV[..12], &first, &[1, 0]), &mut cache, &mut out).unwrap();
        let then = [Span { first_row: 0, rows: 1, start: 2, table: 0 }];
        attend(&op(&QKV[12..], &then, &[1, 0]), &mut cache, &mut out[..2]).unwrap();
        assert_eq!(out[..2], [3.0, 2.0]);
    }

    #[test]
    fn what_leads_outside_is_an_error() {
        let mut cache = vec![0.0; kv_block_values(&KV)];
        let mut try_span = |rows, start, table: &[u32]| {
            attend(&op(&QKV, &[Span { first_row: 0, rows, start, table: 0 }], table), &mut cache, &mut [0.0; 6])
        };
        assert!(try_span(2, 0, &[0]).is_ok());
        assert!(try_span(2, 0, &[1]).is_err(), "no such block");
        assert!(try_span(3, 0, &[0]).is_err(), "the table is too short");
        assert!(try_span(3, 2, &[0, 0, 0]).is_err(), "beyond the context");
        assert!(try_span(4, 0, &[0, 0]).is_err(), "more rows than the batch");
    }
}
