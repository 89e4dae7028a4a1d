//! Attention against a plain computation, and its independence of how a batch is cut.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_cpu::{CpuDevice, CpuOptions, Isa};
use mlx_serving_device::ops::{Attend, Batch, Span};
use mlx_serving_device::{Arithmetic, Buffer, Device, DeviceError, KvSpec, Op, Result, Storage};
use std::time::Duration;

/// A case: one layer's worth of a model's attention.
#[derive(Clone, Copy)]
struct Case {
    heads: usize,
    kv: KvSpec,
    pairs: usize,
    interleaved: bool,
    window: Option<usize>,
}

const SMALL: Case = Case {
    heads: 7,
    kv: KvSpec { heads: 1, head_dim: 24, block_tokens: 32 },
    pairs: 8,
    interleaved: false,
    window: None,
};
const WIDE: Case = Case {
    heads: 4,
    kv: KvSpec { heads: 2, head_dim: 64, block_tokens: 16 },
    pairs: 32,
    interleaved: true,
    window: Some(100),
};

/// Numbers that look random, the same everywhere.
fn noise(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_769) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn upload<T: bytemuck::NoUninit>(device: &CpuDevice, values: &[T]) -> Buffer {
    let buffer = device.new_buffer(size_of_val(values) as u64, Storage::Shared).unwrap();
    buffer.write(0, values).unwrap();
    buffer
}

fn run(device: &CpuDevice, op: Op) -> Result<()> {
    let queue = device.compute_queue();
    let mut encoder = queue.encoder().unwrap();
    encoder.record(op).unwrap();
    queue.submit(encoder.finish().unwrap(), &[], None).unwrap().wait(Duration::from_secs(60))
}

/// One sequence of `tokens` positions and its cache.
struct Sequence<'a> {
    device: &'a CpuDevice,
    case: Case,
    qkv: Vec<f32>,
    angles: Vec<f32>,
    cache: Buffer,
    table: Vec<u32>,
}

impl<'a> Sequence<'a> {
    fn new(device: &'a CpuDevice, case: Case, tokens: usize) -> Self {
        let blocks = tokens.div_ceil(case.kv.block_tokens);
        // Rubbish in the cache must not matter: all bits set is NaN.
        let cache = upload(device, &vec![u8::MAX; (blocks + 1) * device.kv_block_bytes(&case.kv)]);
        Self {
            device,
            case,
            qkv: noise(7, tokens * (case.heads + 2 * case.kv.heads) * case.kv.head_dim),
            angles: noise(8, tokens * case.pairs).iter().flat_map(|a| [a.cos(), a.sin()]).collect(),
            cache,
            table: (0..blocks as u32).rev().map(|b| b + 1).collect(),
        }
    }

    /// Attends the positions from `start`, in one op.
    fn try_attend(&self, start: usize, rows: usize) -> Result<Vec<f32>> {
        let Case { heads, kv, pairs, interleaved, window } = self.case;
        let width = (heads + 2 * kv.heads) * kv.head_dim;
        let span = Span { first_row: 0, rows: rows as u32, start: start as u32, table: 0 };
        let positions: Vec<u32> = (start as u32..(start + rows) as u32).collect();
        let out = upload(self.device, &vec![0f32; rows * heads * kv.head_dim]);
        let op = Attend {
            qkv: upload(self.device, &self.qkv[start * width..(start + rows) * width]),
            heads,
            kv,
            q_norm: None,
            k_norm: None,
            angles: upload(self.device, &self.angles[start * pairs * 2..(start + rows) * pairs * 2]),
            pairs,
            interleaved,
            cache: self.cache.clone(),
            batch: Batch {
                rows,
                sequences: 1,
                max_context: start + rows,
                positions: upload(self.device, &positions),
                spans: upload(self.device, &[span]),
                block_tables: upload(self.device, &self.table),
            },
            scale: 0.3,
            window,
            out: out.clone(),
        };
        run(self.device, Op::Attend(op))?;
        out.to_vec()
    }

    fn attend(&self, start: usize, rows: usize) -> Vec<f32> {
        self.try_attend(start, rows).unwrap()
    }

    /// The same for all positions, plainly, in f64.
    fn expected(&self, tokens: usize) -> Vec<f64> {
        let Case { heads, kv, window, .. } = self.case;
        let mut out = Vec::new();
        for row in 0..tokens {
            for head in 0..heads {
                let shared = head / (heads / kv.heads);
                let query = self.head(row, head, true);
                let first = (row + 1).saturating_sub(window.unwrap_or(usize::MAX));
                let keys: Vec<_> = (first..=row).map(|t| self.head(t, heads + shared, true)).collect();
                let dot = |key: &Vec<f64>| key.iter().zip(&query).map(|(a, b)| a * b).sum::<f64>() * 0.3;
                let weights: Vec<f64> = keys.iter().map(|key| dot(key).exp()).collect();
                let sum: f64 = weights.iter().sum();
                let values: Vec<_> = (first..=row).map(|t| self.head(t, heads + kv.heads + shared, false)).collect();
                out.extend(
                    (0..kv.head_dim).map(|i| values.iter().zip(&weights).map(|(v, w)| v[i] * w).sum::<f64>() / sum),
                );
            }
        }
        out
    }

    fn head(&self, row: usize, head: usize, turn: bool) -> Vec<f64> {
        let Case { heads, kv, pairs, interleaved, .. } = self.case;
        let at = (row * (heads + 2 * kv.heads) + head) * kv.head_dim;
        let from: Vec<f64> = self.qkv[at..at + kv.head_dim].iter().map(|x| f64::from(*x)).collect();
        let mut to = from.clone();
        for i in (0..pairs).filter(|_| turn) {
            let (x, y) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + pairs) };
            let (cos, sin) = (self.angles[(row * pairs + i) * 2], self.angles[(row * pairs + i) * 2 + 1]);
            to[x] = from[x] * f64::from(cos) - from[y] * f64::from(sin);
            to[y] = from[y] * f64::from(cos) + from[x] * f64::from(sin);
        }
        to
    }
}

fn each_device(f: impl Fn(&CpuDevice)) {
    for isa in Isa::available() {
        for arithmetic in [Arithmetic::Exact, Arithmetic::Fast] {
            for threads in 1..=3 {
                f(&CpuDevice::new(&CpuOptions { threads: Some(threads), arithmetic, isa: Some(isa) }).unwrap());
            }
        }
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn agrees_with_a_plain_computation() {
    each_device(|device| {
        let tolerance = if device.info().arithmetic == Arithmetic::Exact { 2e-6 } else { 2e-3 };
        for case in [SMALL, WIDE] {
            let sequence = Sequence::new(device, case, 150);
            for (got, want) in sequence.attend(0, 150).iter().zip(sequence.expected(150)) {
                assert!((f64::from(*got) - want).abs() < tolerance, "{got} for {want} on {device:?}");
            }
        }
    });
}

#[test]
fn how_a_prompt_is_cut_changes_no_bit() {
    // Long enough for several parts of the keys.
    const TOKENS: usize = 1100;
    each_device(|device| {
        for case in [SMALL, WIDE] {
            let whole = Sequence::new(device, case, TOKENS).attend(0, TOKENS);
            let cut = Sequence::new(device, case, TOKENS);
            let mut chunks = Vec::new();
            for start in (0..TOKENS - 3).step_by(61) {
                chunks.extend(cut.attend(start, 61.min(TOKENS - 3 - start)));
            }
            for start in TOKENS - 3..TOKENS {
                chunks.extend(cut.attend(start, 1));
            }
            assert!(whole.iter().all(|x| x.is_finite()), "{device:?}");
            assert_eq!(bits(&whole), bits(&chunks), "{device:?}");
        }
    });
}

#[test]
fn a_table_that_leads_nowhere_is_an_error() {
    let device = CpuDevice::new(&CpuOptions::default()).unwrap();
    let mut sequence = Sequence::new(&device, SMALL, 40);
    sequence.table[1] = 99;
    assert!(matches!(sequence.try_attend(0, 40), Err(DeviceError::Contract(_))));
}
