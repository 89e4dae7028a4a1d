//! y = W·x for one tile of 16 weight rows and several tokens at a time.
//!
//! `layout` says how a tile lies in memory, `input` how tokens are made ready for it, `product` multiplies the two. A token's
//! result does not depend on the tokens beside it: each has accumulators of its own and walks through the features in one order.

mod input;
mod layout;
mod micro;
mod pack;
mod product;
#[cfg(test)]
mod tests;

pub(crate) use input::{InputFormat, Prepare, RowNorm};
pub(crate) use layout::{Line, TILE, TileLayout};
pub(crate) use pack::pack;
pub(crate) use product::{AskAhead, Product, multiply, widths};
