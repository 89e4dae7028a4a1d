//! Choice of a token from a row of logits, in passes over chunks of the vocabulary that any worker may take: adjust, count,
//! cut, draw. No pass sorts the vocabulary, and sums are of integers, so that the order of chunks changes nothing.

mod adjust;
mod count;
mod draw;
mod random;

pub(crate) use adjust::{Adjust, Best};
pub(crate) use count::{BINS, Bin, Count, Cut, Filters, cut};
pub(crate) use draw::{Draw, draw_one};
