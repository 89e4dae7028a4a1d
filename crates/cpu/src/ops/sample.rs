//! [`Sample`]: passes over chunks of all rows, a barrier after each; greedy rows take part in the first and the last only.

use super::lowering::Lowering;
use crate::kernels::sampling::{Adjust, BINS, Best, Bin, Count, Cut, Draw, Filters, cut, draw_one};
use crate::pool::Worker;
use crate::share::part;
use crate::simd::{Isa, vectorize};
use crate::view::View;
use mlx_serving_device::ops::{LogitBias, NO_HISTORY_ROW, NO_MASK_ROW, Sample, SampleParams};
use mlx_serving_device::{DeviceError, Result};
use std::ops::Range;

/// Tokens of a chunk, whole words of a mask: 32 KiB of logits, as much as the nearest cache holds. Not measured.
const CHUNK: usize = 8192;

/// A [`Sample`] ready to run.
pub(crate) struct SampleStep {
    isa: Isa,
    workers: usize,
    logits: View<f32>,
    vocab: usize,
    params: View<SampleParams>,
    biases: View<LogitBias>,
    history: Option<View<u32>>,
    masks: Option<View<u32>>,
    out: View<u32>,
}

/// Results that the passes leave for each other, in shared scratch.
struct Notes {
    /// Adjusted values, [rows][vocab].
    values: View<f32>,
    /// The best of each chunk, [rows][chunks]: by value, then by draw.
    bests: View<Best>,
    draws: View<Best>,
    /// [rows][workers][BINS].
    bins: View<Bin>,
    /// [rows].
    cuts: View<Cut>,
}

impl SampleStep {
    pub(super) fn new(op: &Sample, lowering: &Lowering) -> Result<Self> {
        Ok(Self {
            isa: lowering.isa,
            workers: lowering.workers,
            logits: View::new(&op.logits, op.rows * op.vocab)?,
            vocab: op.vocab,
            params: View::new(&op.params, op.rows)?,
            biases: View::whole(&op.biases)?,
            history: op.history.as_ref().map(View::whole).transpose()?,
            masks: op.masks.as_ref().map(View::whole).transpose()?,
            out: View::new(&op.out, op.rows)?,
        })
    }

    fn rows(&self) -> usize {
        self.params.len()
    }

    fn chunks(&self) -> usize {
        self.vocab.div_ceil(CHUNK)
    }

    /// Lengths of the parts of [`Notes`], bytes.
    fn lengths(&self) -> [usize; 5] {
        let rows = self.rows();
        let bests = size_of::<Best>() * rows * self.chunks();
        let bins = size_of::<Bin>() * BINS * rows * self.workers;
        [4 * rows * self.vocab, bests, bests, bins, size_of::<Cut>() * rows].map(|len| len.next_multiple_of(64))
    }

    pub(super) fn shared_bytes(&self) -> usize {
        self.lengths().iter().sum()
    }

    fn notes(&self, worker: &Worker) -> Result<Notes> {
        let mut at = 0;
        let places = self.lengths().map(|len| {
            at += len;
            at - len
        });
        let rows = self.rows();
        Ok(Notes {
            values: worker.arena(places[0], rows * self.vocab)?,
            bests: worker.arena(places[1], rows * self.chunks())?,
            draws: worker.arena(places[2], rows * self.chunks())?,
            bins: worker.arena(places[3], rows * self.workers * BINS)?,
            cuts: worker.arena(places[4], rows)?,
        })
    }

    pub(super) fn run(&self, worker: &Worker) -> Result<()> {
        let notes = self.notes(worker)?;
        // SAFETY: the host wrote the params before it submitted.
        let params = unsafe { self.params.all() };
        self.each_chunk(worker, |row, tokens, chunk| self.adjust(&notes, &params[row], row, tokens, chunk))?;
        worker.barrier()?;
        if params.iter().any(filtered) {
            for row in (0..self.rows()).filter(|&row| filtered(&params[row])) {
                self.count(&notes, row, worker);
            }
            worker.barrier()?;
        }
        if params.iter().any(SampleParams::draws) {
            for row in part(self.rows(), worker.index, worker.count) {
                self.cut(&notes, &params[row], row);
            }
            worker.barrier()?;
            self.each_chunk(worker, |row, tokens, chunk| {
                self.draw(&notes, &params[row], row, tokens, chunk);
                Ok(())
            })?;
            worker.barrier()?;
        }
        for row in part(self.rows(), worker.index, worker.count) {
            self.finish(&notes, &params[row], row)?;
        }
        Ok(())
    }

    /// Calls `f` with row, tokens and number of every chunk that is this worker's.
    fn each_chunk(&self, worker: &Worker, f: impl Fn(usize, Range<usize>, usize) -> Result<()>) -> Result<()> {
        for item in part(self.rows() * self.chunks(), worker.index, worker.count) {
            let (row, chunk) = (item / self.chunks(), item % self.chunks());
            f(row, chunk * CHUNK..((chunk + 1) * CHUNK).min(self.vocab), item)?;
        }
        Ok(())
    }

    /// Range of the values of some tokens of a row.
    fn at(&self, row: usize, tokens: &Range<usize>) -> Range<usize> {
        row * self.vocab + tokens.start..row * self.vocab + tokens.end
    }

    fn adjust(
        &self,
        notes: &Notes,
        params: &SampleParams,
        row: usize,
        tokens: Range<usize>,
        chunk: usize,
    ) -> Result<()> {
        let history = self.history_row(params)?;
        let at = self.at(row, &tokens);
        // SAFETY: an earlier op wrote logits and history; the chunk's values and its best are this worker's own.
        let (logits, history, to, best) = unsafe {
            let history = history.map(|(history, row)| history.get(row.start + tokens.start..row.start + tokens.end));
            (self.logits.get(at.clone()), history, notes.values.get_mut(at), notes.bests.get_mut(chunk..chunk + 1))
        };
        let (biases, mask) = (self.bias_list(params)?, self.mask(params, &tokens)?);
        best[0] = vectorize(self.isa, Adjust { tokens, logits, history, mask, params, biases, to });
        Ok(())
    }

    /// Counts a worker's part of a row into its own histogram.
    fn count(&self, notes: &Notes, row: usize, worker: &Worker) {
        let tokens = part(self.vocab, worker.index, worker.count);
        let at = (row * self.workers + worker.index) * BINS;
        // SAFETY: the values are finished; the histogram is this worker's own.
        let (values, bins) = unsafe { (notes.values.get(self.at(row, &tokens)), notes.bins.get_mut(at..at + BINS)) };
        let bins = bins.first_chunk_mut().expect("the slice was cut to this length");
        *bins = [Bin::default(); BINS];
        vectorize(self.isa, Count { values, top: self.best(&notes.bests, row).value, bins });
    }

    fn cut(&self, notes: &Notes, params: &SampleParams, row: usize) {
        let cut = if filtered(params) { self.filtered_cut(notes, params, row) } else { Cut::NONE };
        // SAFETY: the row's cut is this worker's own.
        unsafe { notes.cuts.set(row, cut) };
    }

    fn filtered_cut(&self, notes: &Notes, params: &SampleParams, row: usize) -> Cut {
        let at = row * self.workers * BINS;
        // SAFETY: values and histograms are finished.
        let (values, all) =
            unsafe { (notes.values.get(self.at(row, &(0..self.vocab))), notes.bins.get(at..at + self.workers * BINS)) };
        let mut bins = [Bin::default(); BINS];
        for part in all.chunks_exact(BINS) {
            for (sum, bin) in bins.iter_mut().zip(part) {
                sum.count += bin.count;
                sum.mass += bin.mass;
            }
        }
        cut(&Filters { values, top: self.best(&notes.bests, row).value, bins: &bins, params })
    }

    fn draw(&self, notes: &Notes, params: &SampleParams, row: usize, tokens: Range<usize>, chunk: usize) {
        let likeliest = self.best(&notes.bests, row);
        if !params.draws() || likeliest == Best::NONE {
            return;
        }
        // SAFETY: values and cuts are finished; the chunk's draw is this worker's own.
        let (values, cut, to) = unsafe {
            (notes.values.get(self.at(row, &tokens)), notes.cuts.item(row), notes.draws.get_mut(chunk..chunk + 1))
        };
        let best = draw_one(params, likeliest);
        to[0] = vectorize(self.isa, Draw { first: tokens.start, values, params, cut, best });
    }

    /// The best of all chunks of a row.
    fn best(&self, bests: &View<Best>, row: usize) -> Best {
        // SAFETY: the pass that wrote them is over.
        let bests = unsafe { bests.get(row * self.chunks()..(row + 1) * self.chunks()) };
        bests.iter().fold(Best::NONE, |best, &other| best.or(other))
    }

    fn finish(&self, notes: &Notes, params: &SampleParams, row: usize) -> Result<()> {
        let likeliest = self.best(&notes.bests, row);
        let chosen = if params.draws() && likeliest != Best::NONE { self.best(&notes.draws, row) } else { likeliest };
        // SAFETY: the row's token is this worker's own.
        unsafe { self.out.set(row, chosen.token) };
        if let Some((history, at)) = self.history_row(params)?.filter(|_| chosen.token != u32::MAX) {
            let at = at.start + chosen.token as usize;
            // SAFETY: a history row belongs to one sequence, which has one row in a batch.
            unsafe { history.set(at, history.item(at) + 1) };
        }
        Ok(())
    }

    /// View and range of the history of a row with penalties.
    fn history_row(&self, params: &SampleParams) -> Result<Option<(&View<u32>, Range<usize>)>> {
        if params.history_row == NO_HISTORY_ROW {
            return Ok(None);
        }
        let at = params.history_row as usize * self.vocab;
        let history = self.history.as_ref().filter(|history| at + self.vocab <= history.len());
        let history = history
            .ok_or_else(|| DeviceError::Contract(format!("sample: history row {} is not there", params.history_row)))?;
        Ok(Some((history, at..at + self.vocab)))
    }

    /// Words of a row's mask for the tokens of a chunk, if it has one.
    fn mask(&self, params: &SampleParams, tokens: &Range<usize>) -> Result<Option<&[u32]>> {
        if params.mask_row == NO_MASK_ROW {
            return Ok(None);
        }
        let words = Sample::mask_words(self.vocab);
        let at = params.mask_row as usize * words;
        let masks = self.masks.as_ref().filter(|masks| at + words <= masks.len());
        let masks =
            masks.ok_or_else(|| DeviceError::Contract(format!("sample: mask row {} is not there", params.mask_row)))?;
        // SAFETY: whoever wrote the masks did so before this op could run.
        Ok(Some(unsafe { masks.get(at + tokens.start / 32..at + Sample::mask_words(tokens.end)) }))
    }

    fn bias_list(&self, params: &SampleParams) -> Result<&[LogitBias]> {
        let first = params.bias_first as usize;
        let end = first + params.bias_count as usize;
        if params.bias_count == 0 {
            return Ok(&[]);
        }
        if end > self.biases.len() {
            let text = format!("sample: biases {first}..{end} of {}", self.biases.len());
            return Err(DeviceError::Contract(text));
        }
        // SAFETY: the host wrote the biases before it submitted.
        Ok(unsafe { self.biases.get(first..end) })
    }
}

/// True if a row's survivors must be found.
fn filtered(params: &SampleParams) -> bool {
    params.draws() && (params.top_k > 0 || params.top_p < 1.0 || params.min_p > 0.0)
}
