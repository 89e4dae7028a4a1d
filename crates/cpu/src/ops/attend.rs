//! [`Attend`]: keys and values into the cache, then attention, in two phases with a barrier between.

use super::lowering::Lowering;
use crate::kernels::attention::{Attention, Element, Narrow, PAGE, PART, Pages, Tile, TileShape};
use crate::kernels::norm::RmsNorm;
use crate::kernels::rope::{Pairing, rotate};
use crate::pool::Worker;
use crate::scratch::Carver;
use crate::share::{Share, part};
use crate::simd::{Isa, vectorize};
use crate::view::View;
use mlx_serving_device::ops::{Attend, Norm, Span};
use mlx_serving_device::{DeviceError, KvSpec, Result};
use std::ops::Range;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};

/// Query rows (positions × grouped heads) of a tile, about: enough to pay for widening keys and values, few enough for L2. Not
/// measured.
const TILE_ROWS: usize = 64;
/// Tasks per worker below which long sequences are split by parts. Not measured.
const FEW_TASKS: usize = 4;

struct HeadNorm {
    weight: View<f32>,
    eps: f32,
}

/// An [`Attend`] ready to run on a cache of `E`.
pub(crate) struct AttendStep<E> {
    isa: Isa,
    qkv: View<f32>,
    heads: usize,
    kv: KvSpec,
    q_norm: Option<HeadNorm>,
    k_norm: Option<HeadNorm>,
    query_angles: View<[f32; 2]>,
    key_angles: View<[f32; 2]>,
    pairs: usize,
    pairing: Pairing,
    cache: View<E>,
    spans: View<Span>,
    tables: View<u32>,
    rows: usize,
    max_context: usize,
    scale: f32,
    window: usize,
    out: View<f32>,
    /// True if there are so few tasks that long sequences are split by parts.
    split: bool,
    share: Share,
}

/// Piece of the second phase: some positions of one sequence, for one key/value head.
struct Task {
    span: usize,
    head: usize,
    /// Rows of the span.
    queries: Range<usize>,
    /// Part of the keys, if the sequence is split.
    part: Option<usize>,
}

/// Pages of one key/value head of one sequence in the cache.
struct HeadPages<'a, E> {
    cache: &'a [E],
    table: &'a [u32],
    kv: KvSpec,
    head: usize,
}

impl<E: Element> Pages for HeadPages<'_, E> {
    type Value = E;

    #[inline(always)]
    fn page(&self, page: usize) -> (&[E], &[E]) {
        let (keys, values) = place(&self.kv, self.table, self.head, page * PAGE);
        let len = PAGE * self.kv.head_dim;
        (&self.cache[keys..keys + len], &self.cache[values..values + len])
    }
}

/// Offsets in the cache of the 16 tokens that hold `token`: keys, values. A block is keys then values, each head by head.
#[inline(always)]
fn place(kv: &KvSpec, table: &[u32], head: usize, token: usize) -> (usize, usize) {
    let half = kv.heads * kv.block_tokens * kv.head_dim;
    let block = table[token / kv.block_tokens] as usize;
    let page = token % kv.block_tokens / PAGE;
    let keys = 2 * half * block + (head * kv.block_tokens + page * PAGE) * kv.head_dim;
    (keys, keys + half)
}

impl<E: Element> AttendStep<E> {
    pub(super) fn new(op: &Attend, lowering: &Lowering) -> Result<Self> {
        if !op.kv.block_tokens.is_multiple_of(PAGE) || op.kv.block_tokens == 0 {
            return Err(DeviceError::Unsupported(format!("{:?}: blocks must be multiples of {PAGE} tokens", op.kv)));
        }
        let norm = |norm: &Option<Norm>| {
            let norm = norm
                .as_ref()
                .map(|n| View::new(&n.weight, op.kv.head_dim).map(|weight| HeadNorm { weight, eps: n.eps }));
            norm.transpose()
        };
        let rows = op.batch.rows;
        Ok(Self {
            isa: lowering.isa,
            qkv: View::new(&op.qkv, rows * (op.heads + 2 * op.kv.heads) * op.kv.head_dim)?,
            heads: op.heads,
            kv: op.kv,
            q_norm: norm(&op.q_norm)?,
            k_norm: norm(&op.k_norm)?,
            query_angles: View::new(&op.query_angles, rows * op.pairs)?,
            key_angles: View::new(&op.key_angles, rows * op.pairs)?,
            pairs: op.pairs,
            pairing: if op.interleaved { Pairing::Interleaved } else { Pairing::Halves },
            cache: View::whole(&op.cache)?,
            spans: View::new(&op.batch.spans, op.batch.sequences)?,
            tables: View::whole(&op.batch.block_tables)?,
            rows,
            max_context: op.batch.max_context,
            scale: op.scale,
            window: op.window.unwrap_or(usize::MAX),
            out: View::new(&op.out, rows * op.heads * op.kv.head_dim)?,
            split: op.batch.max_context > PART && op.batch.sequences * op.kv.heads < FEW_TASKS * lowering.workers,
            share: Share::new(lowering.workers),
        })
    }

    /// Shared scratch: a counter for each (sequence, head), then partial results.
    pub(super) fn shared_bytes(&self) -> usize {
        if self.split { 4 * (self.counters() + self.counters() * self.parts() * self.partial_len()) } else { 0 }
    }

    fn counters(&self) -> usize {
        self.spans.len() * self.kv.heads
    }

    fn parts(&self) -> usize {
        self.max_context.div_ceil(PART)
    }

    /// Values of one task's partial result: for each grouped head its maximum, its sum and its weighted values.
    fn partial_len(&self) -> usize {
        self.group() * (2 + self.kv.head_dim.next_multiple_of(PAGE))
    }

    /// Query heads of a key/value head.
    fn group(&self) -> usize {
        self.heads / self.kv.heads
    }

    pub(super) fn run(&self, worker: &mut Worker) -> Result<()> {
        // SAFETY: the host wrote spans and tables before it submitted; ops never do.
        let (spans, tables) = unsafe { (self.spans.all(), self.tables.all()) };
        self.check(spans, tables)?;
        self.write_cache(worker, spans, tables);
        if self.split && worker.index == 0 {
            let counters = worker.arena::<u32>(0, self.counters())?;
            (0..counters.len()).for_each(|i| counters.atomic(i).store(0, Relaxed));
        }
        worker.barrier()?;
        let tasks = self.tasks(spans);
        for range in self.share.take(worker.index, tasks.len(), 1) {
            for task in &tasks[range] {
                self.attend(worker, task, spans, tables)?;
            }
        }
        Ok(())
    }

    /// Refuses spans and tables that lead outside of the buffers: everything below takes them for granted.
    fn check(&self, spans: &[Span], tables: &[u32]) -> Result<()> {
        let blocks = self.cache.len() / (2 * self.kv.heads * self.kv.block_tokens * self.kv.head_dim);
        for span in spans {
            let (first, rows, start) = (span.first_row as usize, span.rows as usize, span.start as usize);
            let table = span.table as usize;
            let used = (start + rows).div_ceil(self.kv.block_tokens);
            let good = first + rows <= self.rows
                && start + rows <= self.max_context
                && table + used <= tables.len()
                && tables[table..table + used].iter().all(|&block| (block as usize) < blocks);
            if !good {
                let text = format!("attend: {span:?} in a batch of {} rows, {blocks} blocks", self.rows);
                return Err(DeviceError::Contract(text));
            }
        }
        Ok(())
    }

    /// First phase: this worker's share of rows.
    fn write_cache(&self, worker: &mut Worker, spans: &[Span], tables: &[u32]) {
        let dim = self.kv.head_dim;
        let mut carver = worker.scratch.carve(Carver::bytes::<f32>(dim) + Carver::bytes::<E>(dim));
        let (key, narrow) = (carver.take::<f32>(dim), carver.take::<E>(dim));
        let mine = part(self.rows * self.kv.heads, worker.index, worker.count);
        for span in spans {
            for i in 0..span.rows as usize {
                let row = span.first_row as usize + i;
                let token = span.start as usize + i;
                let table = &tables[span.table as usize..];
                for head in 0..self.kv.heads {
                    if !mine.contains(&(row * self.kv.heads + head)) {
                        continue;
                    }
                    self.head(row, self.heads + head, self.k_norm.as_ref(), &self.key_angles, key);
                    vectorize(self.isa, Narrow { from: key, to: narrow });
                    self.write_token(table, head, token, narrow, self.values(row, head));
                }
            }
        }
    }

    /// A row's values of key/value head `head`.
    fn values(&self, row: usize, head: usize) -> &[f32] {
        let stride = self.heads + 2 * self.kv.heads;
        let at = (row * stride + self.heads + self.kv.heads + head) * self.kv.head_dim;
        // SAFETY: an earlier op wrote them; this one only reads them.
        unsafe { self.qkv.get(at..at + self.kv.head_dim) }
    }

    /// Copies head `head` (queries, then keys) of a row to `to`, normed and rotated.
    fn head(&self, row: usize, head: usize, norm: Option<&HeadNorm>, angles: &View<[f32; 2]>, to: &mut [f32]) {
        let dim = self.kv.head_dim;
        let at = (row * (self.heads + 2 * self.kv.heads) + head) * dim;
        // SAFETY: earlier ops wrote queries, keys, angles and norms; this one only reads them.
        let (from, angles) =
            unsafe { (self.qkv.get(at..at + dim), angles.get(row * self.pairs..(row + 1) * self.pairs)) };
        let to = &mut to[..dim];
        match norm {
            None => to.copy_from_slice(from),
            Some(norm) => {
                // SAFETY: a weight; nothing writes it while ops run.
                let weight = unsafe { norm.weight.all() };
                vectorize(self.isa, RmsNorm { row: from, weight, eps: norm.eps, to });
            }
        }
        rotate(to, angles, self.pairing);
    }

    fn write_token(&self, table: &[u32], head: usize, token: usize, key: &[E], values: &[f32]) {
        let dim = self.kv.head_dim;
        let (keys_at, values_at) = place(&self.kv, table, head, token);
        let lane = token % PAGE;
        // SAFETY: the values of one token and head are written by one worker, and read after the barrier.
        let to = unsafe { self.cache.get_mut(values_at + lane * dim..values_at + (lane + 1) * dim) };
        vectorize(self.isa, Narrow { from: values, to });
        for (i, x) in key.iter().enumerate() {
            // SAFETY: as above; a single value, because its neighbors are other tokens' and perhaps other workers'.
            unsafe { self.cache.set(keys_at + i * PAGE + lane, *x) };
        }
    }

    /// The tasks of the second phase, the same on every worker.
    fn tasks(&self, spans: &[Span]) -> Vec<Task> {
        let mut tasks = Vec::new();
        let queries = (TILE_ROWS / self.group()).max(1);
        for (span, s) in spans.iter().enumerate() {
            let rows = s.rows as usize;
            for head in 0..self.kv.heads {
                if self.split && rows == 1 {
                    let parts = self.split_parts(s);
                    tasks.extend(parts.map(|part| Task { span, head, queries: 0..1, part: Some(part) }));
                } else {
                    let tiles = (0..rows).step_by(queries);
                    tasks.extend(tiles.map(|q| Task { span, head, queries: q..rows.min(q + queries), part: None }));
                }
            }
        }
        tasks
    }

    /// The keys that the row at `position` sees.
    fn sees(&self, position: usize) -> Range<usize> {
        (position + 1).saturating_sub(self.window)..position + 1
    }

    /// The parts that a single row sees.
    fn split_parts(&self, span: &Span) -> Range<usize> {
        let sees = self.sees(span.start as usize);
        sees.start / PART..sees.end.div_ceil(PART)
    }

    fn attend(&self, worker: &mut Worker, task: &Task, spans: &[Span], tables: &[u32]) -> Result<()> {
        let span = &spans[task.span];
        let shape = TileShape { rows: task.queries.len() * self.group(), head_dim: self.kv.head_dim };
        let partials = match task.part {
            Some(_) => Some((worker.arena::<u32>(0, self.counters())?, self.partials(worker)?)),
            None => None,
        };
        let mut tile = Tile::new(shape, &mut worker.scratch.carve(shape.bytes()));
        self.load_queries(&mut tile, task, span);
        // SAFETY: this phase only reads the cache.
        let cache = unsafe { self.cache.all() };
        let pages = HeadPages { cache, table: &tables[span.table as usize..], kv: self.kv, head: task.head };
        let parts = task.part.map_or_else(|| tile.parts(), |part| part..part + 1);
        vectorize(self.isa, Attention { tile: &mut tile, pages: &pages, parts });
        if let (Some(part), Some((counters, partials))) = (task.part, partials) {
            let pair = task.span * self.kv.heads + task.head;
            self.store_partial(&tile, &partials, pair, part);
            let parts = self.split_parts(span);
            // Acquire and release: whoever comes last sees the partial results of all.
            if counters.atomic(pair).fetch_add(1, AcqRel) as usize + 1 < parts.len() {
                return Ok(());
            }
            tile.forget();
            self.merge_partials(&mut tile, &partials, pair, parts);
        }
        self.store(&tile, task, span);
        Ok(())
    }

    fn load_queries(&self, tile: &mut Tile<'_>, task: &Task, span: &Span) {
        let (group, width) = (self.group(), tile.width());
        for (i, query) in task.queries.clone().enumerate() {
            let sees = self.sees(span.start as usize + query);
            for g in 0..group {
                let row = i * group + g;
                let to = &mut tile.queries[row * width..(row + 1) * width];
                let (from, head) = (span.first_row as usize + query, task.head * group + g);
                self.head(from, head, self.q_norm.as_ref(), &self.query_angles, to);
                to.iter_mut().for_each(|x| *x *= self.scale * std::f32::consts::LOG2_E);
                tile.sees[2 * row] = sees.start as u32;
                tile.sees[2 * row + 1] = sees.end as u32;
            }
        }
    }

    fn store(&self, tile: &Tile<'_>, task: &Task, span: &Span) {
        let (group, dim) = (self.group(), self.kv.head_dim);
        for (i, query) in task.queries.clone().enumerate() {
            let row = span.first_row as usize + query;
            let at = (row * self.heads + task.head * group) * dim;
            // SAFETY: the heads of a row that share a key/value head belong to one task.
            let out = unsafe { self.out.get_mut(at..at + group * dim) };
            for (g, out) in out.chunks_exact_mut(dim).enumerate() {
                tile.finish(i * group + g, out);
            }
        }
    }

    fn partials(&self, worker: &Worker) -> Result<View<f32>> {
        let counters = self.counters();
        worker.arena::<f32>(4 * counters, counters * self.parts() * self.partial_len())
    }

    /// Range of a task's partial result.
    fn partial_at(&self, pair: usize, part: usize) -> Range<usize> {
        let at = (pair * self.parts() + part) * self.partial_len();
        at..at + self.partial_len()
    }

    fn store_partial(&self, tile: &Tile<'_>, partials: &View<f32>, pair: usize, part: usize) {
        // SAFETY: this task's own range; others read it after the counter says that it is written.
        let to = unsafe { partials.get_mut(self.partial_at(pair, part)) };
        for (g, to) in to.chunks_exact_mut(2 + tile.width()).enumerate() {
            let (top, sum, values) = tile.partial(g);
            (to[0], to[1]) = (top, sum);
            to[2..].copy_from_slice(values);
        }
    }

    fn merge_partials(&self, tile: &mut Tile<'_>, partials: &View<f32>, pair: usize, parts: Range<usize>) {
        for part in parts {
            // SAFETY: the counter has shown that all tasks of this pair have written theirs.
            let from = unsafe { partials.get(self.partial_at(pair, part)) };
            for (g, from) in from.chunks_exact(2 + tile.width()).enumerate() {
                tile.merge(g, from[0], from[1], &from[2..]);
            }
        }
    }
}
