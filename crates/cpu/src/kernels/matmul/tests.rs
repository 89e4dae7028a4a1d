use super::*;
use crate::simd::{Isa, vectorize};
use bytemuck::Zeroable as _;
use half::{bf16, f16};
use mlx_serving_device::oracle::dequantize;
use mlx_serving_device::{Arithmetic, Float, Micro, WeightFormat, WeightSource, WeightSpec};
use proptest::prelude::*;

/// A checkpoint's tensors and the values that they stand for.
struct Weight {
    spec: WeightSpec,
    values: Vec<u8>,
    scales: Vec<u8>,
    biases: Vec<u8>,
    dequantized: Vec<f32>,
}

/// Numbers that look random, the same everywhere.
struct Noise(u32);

impl Noise {
    fn bits(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    /// Draws a value between −1 and 1.
    fn value(&mut self) -> f32 {
        self.bits() as f32 / u32::MAX as f32 * 2.0 - 1.0
    }
}

fn bytes(float: Float, value: f32) -> Vec<u8> {
    match float {
        Float::F32 => value.to_le_bytes().to_vec(),
        Float::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
        Float::Bf16 => bf16::from_f32(value).to_le_bytes().to_vec(),
    }
}

impl Weight {
    fn random(spec: WeightSpec, seed: u32) -> Self {
        let mut noise = Noise(seed.wrapping_mul(2_654_435_769) | 1);
        let mut weight = Self { spec, values: vec![], scales: vec![], biases: vec![], dequantized: vec![] };
        let count = spec.rows * spec.cols;
        match spec.format {
            WeightFormat::Dense(float) => {
                weight.values = (0..count).flat_map(|_| bytes(float, noise.value())).collect();
                weight.dequantized = float.widen(&weight.values);
            }
            WeightFormat::Micro(micro) => {
                let mut number = |of: fn(Micro, u8) -> f32, most: u32| loop {
                    let byte = (noise.bits() >> 16 & most) as u8;
                    if of(micro, byte).is_finite() {
                        break byte;
                    }
                };
                weight.values = (0..count * micro.bits() / 8).map(|_| number(Micro::value, 0xff)).collect();
                // Between 1/8 and 16.
                let scale = if micro == Micro::Nvfp4 { 0x20 } else { 0x7c };
                weight.scales = (0..count / micro.group()).map(|_| scale + number(Micro::scale, 7)).collect();
                let source = WeightSource { values: &weight.values, scales: &weight.scales, biases: &[] };
                weight.dequantized = dequantize(&spec, &source).unwrap().values;
            }
            WeightFormat::Affine { bits, group, scale } => {
                let groups = count / group as usize;
                weight.scales = (0..groups).flat_map(|_| bytes(scale, noise.value() / f32::from(bits))).collect();
                weight.biases = (0..groups).flat_map(|_| bytes(scale, noise.value())).collect();
                let (s, b) = (scale.widen(&weight.scales), scale.widen(&weight.biases));
                weight.values = vec![0; count * bits as usize / 8];
                for i in 0..count {
                    let q = noise.bits() >> 16 & ((1 << bits) - 1);
                    for bit in (0..bits as usize).filter(|bit| q >> bit & 1 == 1) {
                        let at = i * bits as usize + bit;
                        weight.values[at / 8] |= 1 << (at % 8);
                    }
                    weight.dequantized.push(s[i / group as usize] * q as f32 + b[i / group as usize]);
                }
            }
        }
        weight
    }

    fn pack(&self, isa: Isa) -> (TileLayout, Vec<Line>) {
        let layout = TileLayout::new(&self.spec).unwrap();
        let mut lines = vec![[u32::MAX; TILE]; layout.tiles() * layout.lines];
        let source = WeightSource { values: &self.values, scales: &self.scales, biases: &self.biases };
        pack(isa, &self.spec, &source, 0..layout.tiles(), bytemuck::cast_slice_mut(&mut lines)).unwrap();
        (layout, lines)
    }

    /// Row `row` times `x`, and the sum of the products' magnitudes.
    fn times(&self, row: usize, x: &[f32]) -> (f64, f64) {
        let weights = &self.dequantized[row * self.spec.cols..][..self.spec.cols];
        let products = weights.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
        products.fold((0.0, 0.0), |(sum, magnitude), p| (sum + p, magnitude + p.abs()))
    }
}

/// Multiplies all rows of a weight by `tokens`, side by side in one pass of `width`, in runs of `segment` steps: [tokens][rows].
fn product(
    isa: Isa,
    arithmetic: Arithmetic,
    weight: &(TileLayout, Vec<Line>),
    tokens: &[Vec<f32>],
    width: usize,
    segment: usize,
) -> Vec<Vec<f32>> {
    let (layout, tiles) = weight;
    let format = InputFormat::of(layout.spec.format, arithmetic);
    let steps = layout.spec.cols.div_ceil(layout.step());
    let mut x = vec![0; format.words(layout.spec.cols) * width];
    for (token, row) in tokens.iter().enumerate() {
        vectorize(isa, Prepare { format, row, norm: None, steps: 0..steps, token, width, to: &mut x });
    }
    let mut y = vec![[0.0; TILE]; layout.tiles() * width];
    for first in (0..steps).step_by(segment) {
        let steps = first..steps.min(first + segment);
        let word = |step: usize| (step * format.step_words() * width).min(x.len());
        let x = &x[word(steps.start)..word(steps.end)];
        multiply(isa, Product { layout, arithmetic, tiles, steps, x, width, y: &mut y });
    }
    let row = |token: usize, row: usize| y[row / TILE * width + token][row % TILE];
    (0..tokens.len()).map(|t| (0..layout.spec.rows).map(|r| row(t, r)).collect()).collect()
}

fn tokens(count: usize, cols: usize, seed: u32) -> Vec<Vec<f32>> {
    let mut noise = Noise(seed | 1);
    (0..count).map(|_| (0..cols).map(|_| noise.value()).collect()).collect()
}

fn formats() -> impl Strategy<Value = WeightFormat> {
    let float = || prop_oneof![Just(Float::F32), Just(Float::F16), Just(Float::Bf16)];
    let bits = prop::sample::select(vec![2u8, 3, 4, 5, 6, 8]);
    let group = prop::sample::select(vec![32u16, 64, 128]);
    prop_oneof![
        4 => (bits, group, float()).prop_map(|(bits, group, scale)| WeightFormat::Affine { bits, group, scale }),
        1 => float().prop_map(WeightFormat::Dense),
        1 => prop::sample::select(Micro::ALL.to_vec()).prop_map(WeightFormat::Micro),
    ]
}

fn specs() -> impl Strategy<Value = WeightSpec> {
    (formats(), 1usize..50, 1usize..5, 1usize..300).prop_map(|(format, rows, groups, dense)| {
        let cols = match format {
            WeightFormat::Affine { group, .. } => groups * group as usize,
            WeightFormat::Micro(_) => 32 * groups,
            WeightFormat::Dense(_) => dense,
        };
        WeightSpec { rows, cols, format }
    })
}

fn every_format() -> Vec<WeightFormat> {
    let floats = [Float::F32, Float::F16, Float::Bf16];
    let mut all: Vec<_> = floats.map(WeightFormat::Dense).to_vec();
    all.extend(Micro::ALL.map(WeightFormat::Micro));
    for bits in [2, 3, 4, 5, 6, 8] {
        for group in [32, 64, 128] {
            all.extend(floats.map(|scale| WeightFormat::Affine { bits, group, scale }));
        }
    }
    all
}

#[test]
fn every_format_on_every_instruction_set_at_every_width() {
    for format in every_format() {
        let spec = WeightSpec { rows: 37, cols: 256, format };
        let weight = Weight::random(spec, 7);
        for isa in Isa::available() {
            let packed = weight.pack(isa);
            for &width in widths(isa) {
                let tokens = tokens(width, spec.cols, 5);
                for (arithmetic, bound) in [(Arithmetic::Exact, 1e-5), (Arithmetic::Fast, 4e-2)] {
                    let out = product(isa, arithmetic, &packed, &tokens, width, usize::MAX >> 1);
                    for (x, y) in tokens.iter().zip(&out) {
                        let (mut error, mut norm) = (0.0, 0.0);
                        for (row, y) in y.iter().enumerate() {
                            let (want, _) = weight.times(row, x);
                            error += (f64::from(*y) - want).powi(2);
                            norm += want.powi(2);
                        }
                        let relative = (error / norm).sqrt();
                        assert!(relative < bound, "{format:?} {isa:?} {width} {arithmetic:?}: {relative}");
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn packed_rows_are_restored(spec in specs(), seed: u32) {
        let weight = Weight::random(spec, seed);
        for isa in Isa::available() {
            let (layout, lines) = weight.pack(isa);
            let mut row = vec![0.0; spec.cols];
            for (r, want) in weight.dequantized.chunks_exact(spec.cols).enumerate() {
                let tile = &lines[r / TILE * layout.lines..][..layout.lines];
                layout.row(tile, r % TILE, &mut row);
                prop_assert_eq!(&row, want);
            }
        }
    }

    #[test]
    fn exact_products_are_exact(spec in specs(), seed: u32, count in 1usize..5) {
        let weight = Weight::random(spec, seed);
        let tokens = tokens(count, spec.cols, seed ^ 99);
        let width = if count == 1 { 1 } else { 4 };
        for isa in Isa::available() {
            let out = product(isa, Arithmetic::Exact, &weight.pack(isa), &tokens, width, usize::MAX >> 1);
            for (x, y) in tokens.iter().zip(out) {
                for (row, y) in y.iter().enumerate() {
                    let (want, magnitude) = weight.times(row, x);
                    // Codes have no sign: what the bias takes away again is part of the magnitude.
                    let scale = magnitude + x.iter().map(|x| f64::from(x.abs())).sum::<f64>() * 64.0;
                    prop_assert!((f64::from(*y) - want).abs() <= 1e-6 * scale, "{isa:?} {row}: {y} for {want}");
                }
            }
        }
    }

    #[test]
    fn neighbors_and_cuts_change_no_bit(spec in specs(), seed: u32, segment in 1usize..4) {
        let weight = Weight::random(spec, seed);
        for isa in Isa::available() {
            let packed = weight.pack(isa);
            let most = widths(isa)[0];
            let tokens = tokens(most, spec.cols, seed ^ 5);
            for arithmetic in [Arithmetic::Fast, Arithmetic::Exact] {
                let together = product(isa, arithmetic, &packed, &tokens, most, segment);
                for &width in widths(isa) {
                    let some = product(isa, arithmetic, &packed, &tokens[..width], width, usize::MAX >> 1);
                    prop_assert!(some == together[..width], "{isa:?} {arithmetic:?} {width}");
                }
            }
        }
    }

    #[test]
    fn instruction_sets_round_tokens_alike(len in 1usize..5, seed: u32, scale in -20i32..20) {
        let format = InputFormat::Int8 { low: 4, block: 64, step: 64 };
        let row: Vec<f32> = tokens(1, 64 * len, seed).remove(0).iter().map(|x| x * 2f32.powi(scale)).collect();
        let prepare = |isa| {
            let mut to = vec![0; format.words(row.len())];
            vectorize(isa, Prepare { format, row: &row, norm: None, steps: 0..len, token: 0, width: 1, to: &mut to });
            to
        };
        let want = prepare(Isa::Portable);
        for isa in Isa::available() {
            prop_assert_eq!(prepare(isa), want.clone(), "{:?}", isa);
        }
    }
}

#[test]
fn every_small_float_times_every_scale_is_exact() {
    for micro in Micro::ALL {
        let spec = WeightSpec { rows: 256, cols: 256, format: WeightFormat::Micro(micro) };
        // Codes of 4 bits lie two to a byte.
        let codes: Vec<u8> = (0..spec.cols * micro.bits() / 8).map(|byte| byte as u8).collect();
        let code = |code: u8| if micro.bits() == 8 && micro.value(code).is_nan() { 0 } else { code };
        let scale = |row: usize| if micro.scale(row as u8).is_nan() { 0 } else { row as u8 };
        let values: Vec<u8> = (0..spec.rows).flat_map(|_| codes.iter().map(|byte| code(*byte))).collect();
        let scales: Vec<u8> = (0..spec.rows).flat_map(|row| vec![scale(row); spec.cols / micro.group()]).collect();
        let source = WeightSource { values: &values, scales: &scales, biases: &[] };
        let dequantized = dequantize(&spec, &source).unwrap().values;
        let weight = Weight { spec, values, scales, biases: vec![], dequantized };
        for isa in Isa::available() {
            let (layout, lines) = weight.pack(isa);
            let mut row = vec![0.0; spec.cols];
            for (r, want) in weight.dequantized.chunks_exact(spec.cols).enumerate() {
                layout.row(&lines[r / TILE * layout.lines..][..layout.lines], r % TILE, &mut row);
                assert!(row.iter().zip(want).all(|(x, want)| x.to_bits() == want.to_bits()), "{micro:?} scale {r}");
            }
            // Alone, a feature's product is the weight; codes of 4 bits come with an offset, which is taken away again.
            let packed = (layout, lines);
            for at in 0..spec.cols {
                let token: Vec<f32> = (0..spec.cols).map(|i| f32::from(u8::from(i == at))).collect();
                let out = product(isa, Arithmetic::Exact, &packed, &[token], 1, 8).remove(0);
                for (row, y) in out.iter().enumerate() {
                    let want = weight.dequantized[row * spec.cols + at];
                    assert!(*y == want, "{micro:?} on {isa:?}: scale {row}, feature {at}: {y:e} for {want:e}");
                }
            }
        }
    }
}

#[test]
fn what_is_not_finite_reaches_the_output_of_its_token_only() {
    for bits in [3, 4, 8] {
        let format = WeightFormat::Affine { bits, group: 64, scale: Float::F16 };
        let weight = Weight::random(WeightSpec { rows: 16, cols: 192, format }, 3);
        for isa in Isa::available() {
            let packed = weight.pack(isa);
            for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for arithmetic in [Arithmetic::Fast, Arithmetic::Exact] {
                    let mut tokens = tokens(2, 192, 1);
                    tokens[1][100] = poison;
                    let out = product(isa, arithmetic, &packed, &tokens, 4, 1);
                    assert!(out[0].iter().all(|y| y.is_finite()));
                    assert!(out[1].iter().all(|y| !y.is_finite()), "{isa:?} {arithmetic:?} {poison}: {:?}", out[1]);
                }
            }
        }
    }
}

#[test]
fn zeros_and_numbers_below_any_scale_give_the_bias_nothing() {
    let format = WeightFormat::Affine { bits: 4, group: 32, scale: Float::Bf16 };
    let weight = Weight::random(WeightSpec { rows: 16, cols: 64, format }, 3);
    for isa in Isa::available() {
        for x in [0.0, 1e-38, f32::from_bits(1)] {
            let out = product(isa, Arithmetic::Fast, &weight.pack(isa), &[vec![x; 64]], 1, 1);
            assert_eq!(out[0], vec![0.0; 16]);
        }
    }
}

#[test]
fn the_largest_codes_do_not_overflow() {
    for bits in [2u8, 3, 4, 5, 6, 8] {
        let format = WeightFormat::Affine { bits, group: 128, scale: Float::F32 };
        let spec = WeightSpec { rows: 16, cols: 128, format };
        let one: Vec<u8> = (0..16).flat_map(|_| 1f32.to_le_bytes()).collect();
        let source = WeightSource { values: &vec![0xff; 16 * bits as usize * 16], scales: &one, biases: &[0; 64] };
        for isa in Isa::available() {
            let layout = TileLayout::new(&spec).unwrap();
            let mut lines = vec![Line::zeroed(); layout.lines];
            pack(isa, &spec, &source, 0..1, bytemuck::cast_slice_mut(&mut lines)).unwrap();
            for x in [1.0, -1.0] {
                let out = product(isa, Arithmetic::Fast, &(layout, lines.clone()), &[vec![x; 128]], 1, 1);
                let want = x * 128.0 * ((1 << bits) - 1) as f32;
                assert!(out[0].iter().all(|y| (y - want).abs() < 1e-2), "{bits} {isa:?}: {:?}", out[0]);
            }
        }
    }
}

#[test]
fn buffers_that_do_not_fit_are_refused() {
    let spec = WeightSpec { rows: 16, cols: 64, format: WeightFormat::Dense(Float::F32) };
    let weight = Weight::random(spec, 1);
    let source = WeightSource { values: &weight.values, scales: &[], biases: &[] };
    let mut lines = vec![Line::zeroed(); 64];
    let out = bytemuck::cast_slice_mut(&mut lines);
    assert!(pack(Isa::Portable, &spec, &source, 0..1, &mut out[64..]).is_err(), "too short");
    assert!(pack(Isa::Portable, &spec, &source, 0..2, out).is_err(), "no second tile");
    let short = WeightSource { values: &weight.values[4..], ..source };
    assert!(pack(Isa::Portable, &spec, &short, 0..1, out).is_err(), "a source that is too short");
}
