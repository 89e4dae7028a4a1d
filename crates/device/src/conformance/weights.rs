//! Weights: layouts, packing, and random matrices of every format for the other cases.

use super::data::Noise;
use super::rig::upload;
use crate::ops::Experts;
use crate::oracle::{Matrix, dequantize};
use crate::{Device, DeviceError, Float, Micro, Weight, WeightFormat, WeightSource, WeightSpec};
use std::sync::Arc;

const FLOATS: [Float; 3] = [Float::F32, Float::F16, Float::Bf16];

/// Lists every format that a backend handles.
pub(super) fn formats() -> Vec<WeightFormat> {
    let mut formats: Vec<WeightFormat> = FLOATS.map(WeightFormat::Dense).to_vec();
    for bits in [2, 3, 4, 5, 6, 8] {
        for group in [32, 64, 128] {
            formats.extend(FLOATS.map(|scale| WeightFormat::Affine { bits, group, scale }));
        }
    }
    formats.extend(Micro::ALL.map(WeightFormat::Micro));
    formats
}

/// A weight as a checkpoint has it.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) spec: WeightSpec,
    values: Vec<u8>,
    scales: Vec<u8>,
    biases: Vec<u8>,
}

impl Source {
    /// Weights of about zero mean and such a size that products stay near 1.
    pub(super) fn random(spec: WeightSpec, noise: &mut Noise) -> Self {
        let (values, side, _) = spec.source_bytes();
        let size = 1.7 / (spec.cols as f32).sqrt();
        match spec.format {
            WeightFormat::Dense(float) => {
                let weights = noise.units(spec.rows * spec.cols);
                let values = narrow(float, weights.iter().map(|w| w * size));
                Self { spec, values, scales: Vec::new(), biases: Vec::new() }
            }
            WeightFormat::Affine { bits, scale, .. } => {
                let steps = ((1u32 << bits) - 1) as f32;
                let spread: Vec<f32> =
                    noise.units(side / scale.size()).iter().map(|x| size * (1.0 + x / 2.0)).collect();
                let codes = (0..values).map(|_| noise.word() as u8).collect();
                let scales = narrow(scale, spread.iter().map(|s| 2.0 * s / steps));
                let biases = narrow(scale, spread.iter().map(|s| s * (0.1 * noise.unit() - 1.0)));
                Self { spec, values: codes, scales, biases }
            }
            WeightFormat::Micro(micro) => {
                // Typical magnitude of a code of random bits.
                let typical = if micro.bits() == 4 { 3.0 } else { 100.0 };
                let code = |noise: &mut Noise| match (micro, noise.word() as u8) {
                    (Micro::Mxfp8, code) if micro.value(code).is_nan() => code ^ 1,
                    (_, codes) => codes,
                };
                let codes = (0..values).map(|_| code(noise)).collect();
                let nearest = |scale: f32| {
                    let off = |byte: &u8| (micro.scale(*byte) - scale).abs();
                    (0..0x7f).min_by(|a, b| off(a).total_cmp(&off(b))).expect("there are scales")
                };
                let scales =
                    noise.units(side).iter().map(|x| nearest(0.6 * size / typical * (1.0 + x / 2.0))).collect();
                Self { spec, values: codes, scales, biases: Vec::new() }
            }
        }
    }

    pub(super) fn source(&self) -> WeightSource<'_> {
        WeightSource { values: &self.values, scales: &self.scales, biases: &self.biases }
    }

    pub(super) fn matrix(&self) -> Matrix {
        dequantize(&self.spec, &self.source()).expect("a random weight is valid")
    }

    /// Packs a weight in one go into device memory.
    pub(super) fn upload(&self, device: &Arc<dyn Device>) -> Weight {
        let layout = device.weight_layout(&self.spec).expect("every format is supported");
        let mut bytes = vec![0; layout.bytes()];
        device.pack_weight(&self.spec, &self.source(), 0..layout.blocks, &mut bytes).expect("a valid weight is packed");
        Weight { spec: self.spec, buffer: upload(device, &bytes) }
    }
}

fn narrow(float: Float, values: impl Iterator<Item = f32>) -> Vec<u8> {
    match float {
        Float::F32 => values.flat_map(f32::to_le_bytes).collect(),
        Float::F16 => values.flat_map(|x| half::f16::from_f32(x).to_le_bytes()).collect(),
        Float::Bf16 => values.flat_map(|x| half::bf16::from_f32(x).to_le_bytes()).collect(),
    }
}

/// A spec with a row too many for whole blocks, usually.
fn odd(format: WeightFormat) -> WeightSpec {
    WeightSpec { rows: 37, cols: 256, format }
}

/// Blocks hold all rows, and no block is for nothing; a stack's experts begin with one.
pub fn layouts_cover_every_row(device: &Arc<dyn Device>) {
    for format in formats() {
        for rows in [1, 16, 37, 100] {
            let layout = device.weight_layout(&WeightSpec { rows, ..odd(format) }).expect("every format is supported");
            assert_eq!(layout.blocks, rows.div_ceil(layout.rows_per_block), "{format:?}: {layout:?}");
            assert!(layout.bytes() > 0 && layout.bytes() < 1 << 20, "{format:?}: {layout:?}");
            assert!(Experts::FEATURES.is_multiple_of(layout.rows_per_block), "{format:?}: {layout:?}");
        }
    }
}

/// Packing block by block, in any order, or some rows as a matrix of their own, gives the bytes of packing all at once.
pub fn blocks_are_packed_one_by_one(device: &Arc<dyn Device>) {
    for format in formats() {
        let weight = Source::random(odd(format), &mut Noise::new(1));
        let layout = device.weight_layout(&weight.spec).expect("every format is supported");
        let pack = |blocks: std::ops::Range<usize>, fill| {
            let mut bytes = vec![fill; blocks.len() * layout.bytes_per_block];
            device.pack_weight(&weight.spec, &weight.source(), blocks, &mut bytes).expect("a valid weight is packed");
            bytes
        };
        let mut pieces: Vec<_> = (0..layout.blocks).rev().map(|block| pack(block..block + 1, 0xa5)).collect();
        pieces.reverse();
        let whole = pack(0..layout.blocks, 0x5a);
        assert!(pieces.concat() == whole, "{format:?}");
        let starts = (0..layout.blocks).map(|block| block * layout.rows_per_block);
        let alone = starts.map(|start| {
            let rows = start..(start + layout.rows_per_block).min(weight.spec.rows);
            let spec = WeightSpec { rows: rows.len(), ..weight.spec };
            let mut bytes = vec![0xa5; layout.bytes_per_block];
            let source = weight.source().rows(&weight.spec, rows);
            device.pack_weight(&spec, &source, 0..1, &mut bytes).expect("some rows are a matrix");
            bytes
        });
        assert!(alone.collect::<Vec<_>>().concat() == whole, "{format:?}");
    }
}

/// Lengths that contradict each other, and formats that do not exist.
pub fn wrong_sources_and_specs_are_refused(device: &Arc<dyn Device>) {
    let affine = |bits, group| WeightFormat::Affine { bits, group, scale: Float::F16 };
    for (bits, group, cols) in [(7, 64, 256), (4, 48, 96), (4, 64, 100), (4, 64, 0)] {
        let spec = WeightSpec { rows: 4, cols, format: affine(bits, group) };
        assert!(matches!(device.weight_layout(&spec), Err(DeviceError::Unsupported(_))), "{spec:?}");
    }
    for (micro, cols) in [(Micro::Mxfp4, 48), (Micro::Nvfp4, 48), (Micro::Mxfp8, 0)] {
        let spec = WeightSpec { rows: 4, cols, format: WeightFormat::Micro(micro) };
        assert!(matches!(device.weight_layout(&spec), Err(DeviceError::Unsupported(_))), "{spec:?}");
    }
    let weight = Source::random(odd(affine(4, 64)), &mut Noise::new(2));
    let layout = device.weight_layout(&weight.spec).expect("a valid format is supported");
    let mut bytes = vec![0; layout.bytes()];
    let mut pack =
        |source: &WeightSource<'_>, blocks, len| device.pack_weight(&weight.spec, source, blocks, &mut bytes[..len]);
    let (good, len) = (weight.source(), layout.bytes());
    assert!(pack(&good, 0..layout.blocks, len).is_ok());
    assert!(pack(&good, 0..layout.blocks, len - 1).is_err(), "too little room");
    assert!(pack(&good, 1..layout.blocks + 1, len).is_err(), "a block too many");
    let short = WeightSource { values: &good.values[1..], ..good };
    assert!(pack(&short, 0..layout.blocks, len).is_err(), "too few values");
    let without = WeightSource { scales: &[], ..good };
    assert!(pack(&without, 0..layout.blocks, len).is_err(), "no scales");
}

/// Scales and codes that are not numbers, which no kernel would pass on.
pub fn small_floats_that_are_no_numbers_are_refused(device: &Arc<dyn Device>) {
    for micro in Micro::ALL {
        let weight = Source::random(odd(WeightFormat::Micro(micro)), &mut Noise::new(3));
        let layout = device.weight_layout(&weight.spec).expect("every format is supported");
        let pack = |source: &Source| {
            let mut bytes = vec![0; layout.bytes()];
            device.pack_weight(&source.spec, &source.source(), 0..layout.blocks, &mut bytes)
        };
        assert!(pack(&weight).is_ok());
        let mut scale = weight.clone();
        scale.scales[5] = if micro == Micro::Nvfp4 { 0x7f } else { 0xff };
        assert!(matches!(pack(&scale), Err(DeviceError::Contract(why)) if why.contains("scale")), "{micro:?}");
        let mut code = weight.clone();
        code.values[7] = 0xff;
        assert_eq!(pack(&code).is_err(), micro == Micro::Mxfp8, "a code of four bits is always a number");
    }
}
