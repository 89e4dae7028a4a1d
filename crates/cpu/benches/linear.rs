//! Speed of one `Linear` by instruction set: weights read (GB/s) for one token, products (GMAC/s) for many.
//!
//!     cargo bench -p mlx-serving-cpu --bench linear [-- ISA...]
//!
//! The best of many short runs, because a machine that does other things too is never faster than it is.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for a terminal")]

use mlx_serving_cpu::{CpuDevice, CpuOptions, Isa};
use mlx_serving_device::ops::{Epilogue, Linear, Projection};
use mlx_serving_device::{
    Arithmetic, Buffer, Device, Float, Micro, Op, Storage, Weight, WeightFormat, WeightSource, WeightSpec,
};
use std::time::{Duration, Instant};

const RUNS: usize = 300;
const LONG_ENOUGH: Duration = Duration::from_secs(2);

fn zeros(device: &CpuDevice, bytes: usize) -> Buffer {
    device.new_buffer(bytes as u64, Storage::Shared).unwrap()
}

/// A weight of noise, and how long packing it took.
fn weight(device: &CpuDevice, spec: WeightSpec) -> (Weight, Duration) {
    let (values, side, _) = spec.source_bytes();
    let values: Vec<u8> = (0..values as u32).map(|i| (i.wrapping_mul(2_654_435_769) >> 24) as u8).collect();
    // Small in any of the three types.
    let side = vec![0x11; side];
    let source = WeightSource { values: &values, scales: &side, biases: &side };
    let layout = device.weight_layout(&spec).unwrap();
    let buffer = zeros(device, layout.bytes());
    let mut took = Duration::MAX;
    for _ in 0..3 {
        let began = Instant::now();
        let mut pack = |out: &mut [u8]| device.pack_weight(&spec, &source, 0..layout.blocks, out).unwrap();
        buffer.lend(&mut pack).unwrap();
        took = took.min(began.elapsed());
    }
    (Weight { spec, buffer }, took)
}

/// The shortest run of one command buffer of `ops` linears.
fn best(device: &CpuDevice, weights: &[Weight], rows: usize) -> Duration {
    let spec = weights[0].spec;
    let input = zeros(device, 4 * rows * spec.cols);
    input.write(0, &(0..rows * spec.cols).map(|i| (i % 97) as f32 / 97.0 - 0.5).collect::<Vec<_>>()).unwrap();
    let out = zeros(device, 4 * rows * spec.rows);
    let (began, mut best) = (Instant::now(), Duration::MAX);
    for _ in 0..RUNS {
        let queue = device.compute_queue();
        let mut encoder = queue.encoder().unwrap();
        for weight in weights {
            let projections = vec![Projection { weight: weight.clone(), bias: None }];
            let epilogue = Epilogue::Store(out.clone());
            let op = Linear { input: input.clone(), gather: None, rows, norm: None, projections, epilogue };
            encoder.record(Op::Linear(op)).unwrap();
        }
        let before = device.counters().busy;
        queue.submit(encoder.finish().unwrap(), &[], None).unwrap().wait(Duration::from_secs(60)).unwrap();
        best = best.min(device.counters().busy - before);
        if began.elapsed() > LONG_ENOUGH {
            break;
        }
    }
    best
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    println!("isa       threads  mode   format           pack GB/s  1 token GB/s  12 tokens GMAC/s  256 tokens GMAC/s");
    for isa in Isa::available() {
        let name = format!("{isa:?}").to_lowercase();
        if !wanted.is_empty() && !wanted.contains(&name) {
            continue;
        }
        for (threads, arithmetic) in [(1, Arithmetic::Fast), (2, Arithmetic::Fast), (2, Arithmetic::Exact)] {
            let device = CpuDevice::new(&CpuOptions { threads: Some(threads), arithmetic, isa: Some(isa) }).unwrap();
            let affine = |bits| WeightFormat::Affine { bits, group: 64, scale: Float::Bf16 };
            let small = Micro::ALL.map(WeightFormat::Micro);
            for format in
                [affine(4), affine(3), affine(6), affine(8), WeightFormat::Dense(Float::Bf16)].into_iter().chain(small)
            {
                let spec = WeightSpec { rows: 4864, cols: 896, format };
                // Together they exceed the caches.
                let (weights, packing): (Vec<_>, Vec<_>) = (0..24).map(|_| weight(&device, spec)).unzip();
                let bytes = weights[0].buffer.len() as f64;
                let rate = |amount: f64, time: Duration| amount / time.as_secs_f64() / 1e9;
                let macs =
                    |rows: usize| rate((rows * spec.rows * spec.cols) as f64, best(&device, &weights[..1], rows));
                let packing = packing.into_iter().min().unwrap_or_default();
                let format = match format {
                    WeightFormat::Affine { bits, .. } => format!("{bits} bits"),
                    WeightFormat::Micro(micro) => format!("{micro:?}"),
                    WeightFormat::Dense(float) => format!("{float:?}"),
                };
                println!(
                    "{name:9} {threads:7}  {:5}  {format:16} {:9.2} {:13.1} {:17.1} {:18.1}",
                    format!("{arithmetic:?}").to_lowercase(),
                    rate(bytes, packing),
                    rate(24.0 * bytes, best(&device, &weights, 1)),
                    macs(12),
                    macs(256),
                );
            }
        }
    }
}
