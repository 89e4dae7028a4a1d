use crate::simd::{Kernel, LANES, Simd};
use mlx_serving_device::ops::SampleParams;

/// Bins of a histogram of adjusted values, counted from the largest down: 16 KiB. Not measured.
pub(crate) const BINS: usize = 1024;
/// Bins of one nat; whatever is 64 nats below the largest shares the last bin.
const BINS_PER_NAT: f32 = 16.0;
/// Units of probability mass in the largest token's: sums over 2¹⁸ tokens stay below 2⁶³.
const UNIT: f32 = (1u64 << 44) as f32;

/// Number of tokens that fell into a bin, and their mass.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Bin {
    pub(crate) count: u64,
    pub(crate) mass: u64,
}

/// Second pass: a histogram of a chunk.
pub(crate) struct Count<'a> {
    /// Adjusted values.
    pub(crate) values: &'a [f32],
    /// Largest value of the whole row.
    pub(crate) top: f32,
    /// Histogram that the chunk is added to.
    pub(crate) bins: &'a mut [Bin; BINS],
}

impl Kernel for Count<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut masses = [0.0; LANES];
        for block in self.values.chunks(LANES) {
            let mut padded = [f32::NEG_INFINITY; LANES];
            padded[..block.len()].copy_from_slice(block);
            weigh(simd, &padded, self.top, &mut masses);
            for (&value, &mass) in block.iter().zip(&masses).filter(|(value, _)| **value > f32::NEG_INFINITY) {
                let bin = &mut self.bins[bin_of(value, self.top)];
                bin.count += 1;
                bin.mass += mass as u64;
            }
        }
    }
}

/// Masses of sixteen values, in units.
#[inline(always)]
fn weigh<S: Simd>(simd: S, values: &[f32; LANES], top: f32, to: &mut [f32; LANES]) {
    let below = simd.sub(simd.load(values), simd.splat(top));
    let weights = simd.exp2(simd.mul(below, simd.splat(std::f32::consts::LOG2_E)));
    simd.store(to, simd.mul(weights, simd.splat(UNIT)));
}

/// Bin of a value: equal values share a bin, and a lower value never has a lower one. NaN goes to the first: casts saturate.
#[inline(always)]
fn bin_of(value: f32, top: f32) -> usize {
    (((top - value) * BINS_PER_NAT) as usize).min(BINS - 1)
}

/// The last token that survives the filters, in the order of falling value and rising id.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Cut {
    pub(crate) value: f32,
    pub(crate) token: u32,
}

impl Cut {
    /// Cut that every token survives.
    pub(crate) const NONE: Cut = Cut { value: f32::NEG_INFINITY, token: u32::MAX };

    /// True if a token survives.
    #[inline(always)]
    pub(crate) fn keeps(self, value: f32, token: u32) -> bool {
        value > self.value || (value == self.value && token <= self.token)
    }
}

/// Third: where top-k, top-p and min-p cut, the strictest of the three. `bins` counts all `values` of the row.
pub(crate) struct Filters<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) top: f32,
    pub(crate) bins: &'a [Bin; BINS],
    pub(crate) params: &'a SampleParams,
}

/// See [`Filters`].
pub(crate) fn cut(filters: &Filters<'_>) -> Cut {
    let ranked = ranked_cut(filters);
    let floor = filters.top + filters.params.min_p.ln();
    if ranked.value >= floor { ranked } else { Cut { value: floor, token: u32::MAX } }
}

/// Cut of top-k and top-p: the bin in which the first of them ends is sorted, and walked token by token.
fn ranked_cut(filters: &Filters<'_>) -> Cut {
    let total: u64 = filters.bins.iter().map(|bin| bin.mass).sum();
    let most = if filters.params.top_k == 0 { u64::MAX } else { u64::from(filters.params.top_k) };
    let enough =
        if filters.params.top_p < 1.0 { f64::from(filters.params.top_p) * total as f64 } else { f64::INFINITY };
    let (mut rank, mut mass) = (0, 0);
    for (i, bin) in filters.bins.iter().enumerate() {
        if rank + bin.count >= most || (mass + bin.mass) as f64 >= enough {
            let mut last = Cut::NONE;
            for (value, token) in sorted_bin(filters, i) {
                last = Cut { value, token };
                rank += 1;
                mass += unit_mass(value, filters.top);
                if rank >= most || mass as f64 >= enough {
                    break;
                }
            }
            return last;
        }
        rank += bin.count;
        mass += bin.mass;
    }
    Cut::NONE
}

fn sorted_bin(filters: &Filters<'_>, bin: usize) -> Vec<(f32, u32)> {
    let members = filters.values.iter().enumerate();
    let mut members: Vec<_> = members
        .filter(|(_, value)| **value > f32::NEG_INFINITY && bin_of(**value, filters.top) == bin)
        // Zeros of both signs are equal.
        .map(|(token, value)| (*value + 0.0, token as u32))
        .collect();
    members.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    members
}

fn unit_mass(value: f32, top: f32) -> u64 {
    (((value - top) * std::f32::consts::LOG2_E).exp2() * UNIT) as u64
}
