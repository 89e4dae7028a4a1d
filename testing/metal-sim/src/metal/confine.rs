//! Runs a kernel on copies of the ranges that it was told, each ended by inaccessible pages: in a heap, a stray access would
//! only meet a neighbor.

use super::buffer::Slice;
use super::memory::Mapping;
use std::ops::Range;
use std::{ptr, slice};

/// Longer ranges stay where they are, bytes.
const LONGEST: usize = 1 << 20;

/// A range bound to a kernel.
pub(crate) struct Bound<'a> {
    pub(crate) index: usize,
    pub(crate) slice: &'a Slice,
    /// Bytes of the slice that the kernel was told.
    pub(crate) len: usize,
    pub(crate) writes: bool,
}

impl Bound<'_> {
    fn range(&self) -> Range<usize> {
        self.slice.range.start..self.slice.range.start + self.len
    }

    fn overlaps(&self, other: &Bound<'_>) -> bool {
        let (mine, theirs) =
            (self.slice.bytes.within_mapping(&self.range()), other.slice.bytes.within_mapping(&other.range()));
        ptr::eq(&*self.slice.bytes.mapping, &*other.slice.bytes.mapping)
            && mine.start < theirs.end
            && theirs.start < mine.end
    }
}

/// Copies of ranges, by index.
pub(crate) struct Copies<'a> {
    copies: Vec<(Bound<'a>, Mapping, Vec<u8>)>,
}

impl<'a> Copies<'a> {
    /// Copies what is bound. Ranges that share bytes, and those that are too long, stay where they are.
    pub(crate) fn of(bound: Vec<Bound<'a>>) -> Self {
        let shared: Vec<bool> = (0..bound.len())
            .map(|one| (0..bound.len()).any(|other| one != other && bound[one].overlaps(&bound[other])))
            .collect();
        let alone =
            bound.into_iter().zip(shared).filter(|(range, shared)| !shared && (1..=LONGEST).contains(&range.len));
        let copies = alone.filter_map(|(range, _)| {
            let copy = Mapping::scratch(range.len).ok()?;
            // SAFETY: the range lies in its buffer, whose memory the slice keeps mapped.
            let before = unsafe { slice::from_raw_parts(range.slice.bytes.at(&range.range()), range.len) }.to_vec();
            // SAFETY: the copy is as long, and new.
            unsafe { ptr::copy_nonoverlapping(before.as_ptr(), copy.at(0, range.len), range.len) };
            Some((range, copy, before))
        });
        Self { copies: copies.collect() }
    }

    /// Address and length of the copy for an index.
    pub(crate) fn at(&self, index: usize) -> Option<(*mut u8, usize)> {
        let (range, copy, _) = self.copies.iter().find(|(range, ..)| range.index == index)?;
        Some((copy.at(0, range.len), range.len))
    }

    /// Writes back the bytes that changed, and no others: somebody else may have used those meanwhile.
    pub(crate) fn write_back(self) {
        for (range, copy, before) in self.copies.iter().filter(|(range, ..)| range.writes) {
            // SAFETY: the copy is as long, and the kernel has ended.
            let after = unsafe { slice::from_raw_parts(copy.at(0, range.len), range.len) };
            let target = range.slice.bytes.at(&range.range());
            for at in (0..range.len).filter(|&at| after[at] != before[at]) {
                // SAFETY: within the range, which lies in its buffer.
                unsafe { target.add(at).write(after[at]) };
            }
        }
    }
}
