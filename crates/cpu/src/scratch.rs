use bytemuck::{AnyBitPattern, NoUninit, Pod, Zeroable};

/// A cache line, so that scratch is aligned for the widest vector.
#[repr(C, align(64))]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Block([u8; 64]);

/// Working memory of one worker, kept between ops. Its contents mean nothing at the start of an op.
#[derive(Default)]
pub(crate) struct Scratch {
    blocks: Vec<Block>,
}

impl Scratch {
    /// Lends at least `bytes` bytes, to be carved up.
    pub(crate) fn carve(&mut self, bytes: usize) -> Carver<'_> {
        let blocks = bytes.div_ceil(64);
        if self.blocks.len() < blocks {
            self.blocks.resize(blocks, Block::zeroed());
        }
        Carver { rest: &mut self.blocks }
    }
}

/// Hands out slices of a [`Scratch`], each on a cache line of its own.
pub(crate) struct Carver<'a> {
    rest: &'a mut [Block],
}

impl<'a> Carver<'a> {
    /// Bytes that a slice of `len` values takes.
    pub(crate) const fn bytes<T>(len: usize) -> usize {
        (len * size_of::<T>()).next_multiple_of(64)
    }

    /// The next `len` values.
    pub(crate) fn take<T: AnyBitPattern + NoUninit>(&mut self, len: usize) -> &'a mut [T] {
        let blocks = Self::bytes::<T>(len) / 64;
        let (taken, rest) = std::mem::take(&mut self.rest).split_at_mut(blocks);
        self.rest = rest;
        &mut bytemuck::cast_slice_mut(taken)[..len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_aligned_and_apart() {
        let mut scratch = Scratch::default();
        let mut carver = scratch.carve(Carver::bytes::<f32>(3) + Carver::bytes::<i8>(65));
        let (a, b) = (carver.take::<f32>(3), carver.take::<i8>(65));
        a.fill(1.0);
        b.fill(-1);
        assert_eq!(a, [1.0; 3]);
        assert!(a.as_ptr().addr().is_multiple_of(64) && b.as_ptr().addr().is_multiple_of(64));
    }
}
