//! `Linear` as a whole: norms, gathered rows, biases, several matrices and every epilogue, against a plain computation; and its
//! independence of the rows beside a row and of the number of threads.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_cpu::{CpuDevice, CpuOptions, Isa};
use mlx_serving_device::ops::{Activation, Epilogue, Linear, Norm, Projection};
use mlx_serving_device::{
    Arithmetic, Buffer, Device, DeviceError, Float, Op, Result, Storage, Weight, WeightFormat, WeightSource, WeightSpec,
};
use std::sync::Arc;
use std::time::Duration;

const FOUR_BITS: WeightFormat = WeightFormat::Affine { bits: 4, group: 64, scale: Float::Bf16 };
const SIX_BITS: WeightFormat = WeightFormat::Affine { bits: 6, group: 128, scale: Float::F16 };
const DENSE: WeightFormat = WeightFormat::Dense(Float::F32);
/// Features in: more than a segment, so that inputs are made ready, and multiplied, in pieces.
const COLS: usize = 1152;
const EPS: f32 = 1e-5;

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

fn device(isa: Isa, threads: usize, arithmetic: Arithmetic) -> Arc<CpuDevice> {
    CpuDevice::new(&CpuOptions { threads: Some(threads), arithmetic, isa: Some(isa) }).unwrap()
}

fn upload<T: bytemuck::NoUninit>(device: &CpuDevice, values: &[T]) -> Buffer {
    let buffer = device.new_buffer(size_of_val(values) as u64, Storage::Shared).unwrap();
    buffer.write(0, values).unwrap();
    buffer
}

fn run(device: &CpuDevice, op: Linear) -> Result<()> {
    let queue = device.compute_queue();
    let mut encoder = queue.encoder()?;
    encoder.record(Op::Linear(op))?;
    queue.submit(encoder.finish()?, &[], None)?.wait(Duration::from_secs(60))
}

/// A projection of a model, and what it stands for: [rows][cols].
struct Matrix {
    spec: WeightSpec,
    values: Vec<u8>,
    side: Vec<u8>,
    dequantized: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl Matrix {
    fn new(rows: usize, format: WeightFormat, bias: bool, seed: u32) -> Self {
        let spec = WeightSpec { rows, cols: COLS, format };
        let (len, side, _) = spec.source_bytes();
        let random = noise(seed, len.max(rows * COLS));
        let (values, side, dequantized) = match format {
            WeightFormat::Dense(_) => {
                let plain = random[..rows * COLS].to_vec();
                (bytemuck::cast_slice(&plain).to_vec(), vec![], plain)
            }
            WeightFormat::Micro(_) => unreachable!("no case has small floats"),
            WeightFormat::Affine { bits, group, scale } => {
                // Bytes that begin with 0x3c and 0xbc are about ±0.01 in bf16 and ±1 in f16: neither overflows.
                let values: Vec<u8> = random[..len].iter().map(|x| (x * 1e4) as i32 as u8).collect();
                let side: Vec<u8> = random[..side / 2]
                    .iter()
                    .flat_map(|x| [(x * 1e4) as i32 as u8, if *x > 0.0 { 0x3c } else { 0xbc }])
                    .collect();
                let factors = scale.widen(&side);
                let code = |i: usize| {
                    let bit = |b: usize| {
                        u32::from(values[(i * bits as usize + b) / 8] >> ((i * bits as usize + b) % 8) & 1) << b
                    };
                    (0..bits as usize).map(bit).sum::<u32>() as f32
                };
                let dequantized = (0..rows * COLS).map(|i| factors[i / group as usize] * (code(i) + 1.0)).collect();
                (values, side, dequantized)
            }
        };
        Self { spec, values, side, dequantized, bias: bias.then(|| noise(seed + 1, rows)) }
    }

    fn projection(&self, device: &CpuDevice) -> Projection {
        let layout = device.weight_layout(&self.spec).unwrap();
        let buffer = device.new_buffer(layout.bytes() as u64, Storage::Shared).unwrap();
        // Scale and bias of a group are the same: w = s·(q + 1).
        let source = WeightSource { values: &self.values, scales: &self.side, biases: &self.side };
        buffer.lend(&mut |out| device.pack_weight(&self.spec, &source, 0..layout.blocks, out).unwrap()).unwrap();
        let bias = self.bias.as_ref().map(|bias| upload(device, bias));
        Projection { weight: Weight { spec: self.spec, buffer }, bias }
    }

    fn times(&self, x: &[f64]) -> Vec<f64> {
        let rows = self.dequantized.chunks_exact(COLS).enumerate();
        let dot = |w: &[f32]| w.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum::<f64>();
        rows.map(|(i, w)| dot(w) + self.bias.as_ref().map_or(0.0, |bias| f64::from(bias[i]))).collect()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Finish {
    Store,
    Add,
    Gated,
}

struct Case {
    matrices: Vec<Matrix>,
    norm: Option<Vec<f32>>,
    finish: Finish,
}

impl Case {
    /// Three matrices of different formats, the last with features that fill no tile.
    fn store() -> Self {
        let matrices = vec![
            Matrix::new(48, FOUR_BITS, true, 1),
            Matrix::new(33, SIX_BITS, false, 2),
            Matrix::new(7, DENSE, true, 3),
        ];
        Self { matrices, norm: Some(noise(9, COLS)), finish: Finish::Store }
    }

    fn add() -> Self {
        Self { matrices: vec![Matrix::new(100, FOUR_BITS, false, 4)], norm: None, finish: Finish::Add }
    }

    fn gated() -> Self {
        let matrices = vec![Matrix::new(90, FOUR_BITS, false, 5), Matrix::new(90, FOUR_BITS, true, 6)];
        Self { matrices, norm: Some(noise(8, COLS)), finish: Finish::Gated }
    }

    fn features(&self) -> usize {
        let all: usize = self.matrices.iter().map(|m| m.spec.rows).sum();
        if self.finish == Finish::Gated { all / 2 } else { all }
    }

    /// The op's output for rows `gather` of `x`, [rows][features]; what is added to is 0.5.
    fn run(&self, device: &CpuDevice, x: &[f32], gather: &[u32]) -> Result<Vec<f32>> {
        let out = upload(device, &vec![0.5f32; gather.len() * self.features()]);
        let norm = self.norm.as_ref().map(|weight| Norm { weight: upload(device, weight), eps: EPS });
        let op = Linear {
            input: upload(device, x),
            gather: Some(upload(device, gather)),
            rows: gather.len(),
            norm,
            projections: self.matrices.iter().map(|m| m.projection(device)).collect(),
            epilogue: match self.finish {
                Finish::Store => Epilogue::Store(out.clone()),
                Finish::Add => Epilogue::Add(out.clone()),
                Finish::Gated => Epilogue::Gated(Activation::Silu, out.clone()),
            },
        };
        run(device, op)?;
        out.to_vec()
    }

    /// Output expected for the row `x`, in plain arithmetic: [features].
    fn expected(&self, x: &[f32]) -> Vec<f64> {
        let mut x: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
        if let Some(weight) = &self.norm {
            let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
            x.iter_mut().zip(weight).for_each(|(x, w)| *x *= f64::from(*w) / (mean + f64::from(EPS)).sqrt());
        }
        let products: Vec<Vec<f64>> = self.matrices.iter().map(|m| m.times(&x)).collect();
        match self.finish {
            Finish::Store => products.concat(),
            Finish::Add => products[0].iter().map(|y| y + 0.5).collect(),
            Finish::Gated => products[0].iter().zip(&products[1]).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect(),
        }
    }
}

#[test]
fn agrees_with_plain_arithmetic() {
    let x = noise(77, 20 * COLS);
    for case in [Case::store(), Case::add(), Case::gated()] {
        for isa in Isa::available() {
            for (arithmetic, bound) in [(Arithmetic::Exact, 1e-5), (Arithmetic::Fast, 2e-2)] {
                let gather: Vec<u32> = (0..17).map(|i| (i * 7) % 20).collect();
                let out = case.run(&device(isa, 2, arithmetic), &x, &gather).unwrap();
                for (y, &row) in out.chunks_exact(case.features()).zip(&gather) {
                    let want = case.expected(&x[row as usize * COLS..][..COLS]);
                    let error: f64 = y.iter().zip(&want).map(|(y, want)| (f64::from(*y) - want).powi(2)).sum();
                    let norm: f64 = want.iter().map(|want| want * want).sum();
                    let relative = (error / norm).sqrt();
                    assert!(relative < bound, "{isa:?} {arithmetic:?} row {row}: {relative}");
                }
            }
        }
    }
}

#[test]
fn neither_neighbors_nor_threads_change_a_bit() {
    let x = noise(78, 40 * COLS);
    for case in [Case::store(), Case::add(), Case::gated()] {
        for isa in Isa::available() {
            for arithmetic in [Arithmetic::Fast, Arithmetic::Exact] {
                let all: Vec<u32> = (0..40).collect();
                let together = case.run(&device(isa, 2, arithmetic), &x, &all).unwrap();
                for (threads, rows) in [(1, 1), (3, 2), (2, 7), (1, 13), (3, 25)] {
                    let device = device(isa, threads, arithmetic);
                    let some: Vec<u32> = all[40 - rows..].to_vec();
                    let out = case.run(&device, &x, &some).unwrap();
                    assert!(together.ends_with(&out), "{isa:?} {arithmetic:?}: {rows} rows on {threads} threads");
                }
            }
        }
    }
}

#[test]
fn a_row_that_is_not_there_is_refused() {
    let case = Case::add();
    let device = device(Isa::best(), 2, Arithmetic::Fast);
    let error = case.run(&device, &noise(1, 2 * COLS), &[0, 2]).unwrap_err();
    assert!(matches!(&error, DeviceError::Contract(text) if text.contains("row 2 of 2")), "{error}");
}
