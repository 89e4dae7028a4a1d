use crate::kernels::matmul::{AskAhead, Line, TILE, TileLayout};
use crate::simd::{Isa, vectorize};
use crate::view::View;
use mlx_serving_device::{Result, Weight};
use std::ops::Range;

#[cfg(test)]
thread_local! {
    /// Bytes of weights that ops have taken on this thread.
    pub(super) static TOUCHED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// A packed weight in device memory.
pub(super) struct PackedWeight {
    pub(super) layout: TileLayout,
    lines: View<Line>,
}

impl PackedWeight {
    pub(super) fn new(weight: &Weight) -> Result<Self> {
        let layout = TileLayout::new(&weight.spec)?;
        Ok(Self { layout, lines: View::new(&weight.buffer, layout.tiles() * layout.lines)? })
    }

    pub(super) fn rows(&self) -> usize {
        self.layout.spec.rows
    }

    /// Lines of some tiles.
    pub(super) fn tiles(&self, tiles: Range<usize>) -> &[Line] {
        #[cfg(test)]
        TOUCHED.with(|touched| touched.set(touched.get() + tiles.len() * self.layout.lines * size_of::<Line>()));
        // SAFETY: a weight; nothing writes it while ops run.
        unsafe { self.lines.get(tiles.start * self.layout.lines..tiles.end * self.layout.lines) }
    }

    /// Asks memory for up to `bytes` bytes from tile `tile` on.
    pub(super) fn ask_ahead(&self, isa: Isa, tile: usize, bytes: usize) {
        let lines = self.tiles(tile..self.layout.tiles());
        vectorize(isa, AskAhead(&lines[..lines.len().min(bytes / size_of::<Line>())]));
    }

    /// Row `row`, dequantized.
    pub(super) fn row(&self, row: usize, to: &mut [f32]) {
        let tile = row / TILE;
        self.layout.row(self.tiles(tile..tile + 1), row % TILE, to);
    }
}
