//! Promises of every launch to a backend, over ops of many shapes. Buffers are the fake device's; nothing runs.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_device::fake::{FakeDevice, FakeOptions};
use mlx_serving_device::ops::{
    Activation, Attend, Batch, Copy, Embed, Epilogue, Experts, Linear, Norm, Normalize, Observe, Projection,
    RopeAngles, Route, Sample, SampleParams, Scoring, Span, Stacks,
};
use mlx_serving_device::{
    Arithmetic, Buffer, Device, Float, KvSpec, Micro, Op, Storage, Weight, WeightFormat, WeightSpec,
};
use mlx_serving_kernels::{Access, Kernel, Launch, Lowering};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Least of what Vulkan drivers of GPUs offer, and Metal.
const WORKGROUP_MEMORY: u32 = 32 << 10;
const GROUPS: u32 = 65_535;

struct Rig {
    device: Arc<FakeDevice>,
    lowering: Lowering,
    used: BTreeSet<&'static str>,
}

impl Rig {
    fn new(arithmetic: Arithmetic, matrix_side: Option<u32>) -> Self {
        let device = FakeDevice::new(FakeOptions::default()).unwrap();
        Self { device, lowering: Lowering::new(arithmetic, matrix_side), used: BTreeSet::new() }
    }

    /// A view at an offset that is a multiple of 16 bytes, but not of what devices bind at.
    fn room(&self, values: usize) -> Buffer {
        let whole = self.device.new_buffer(4 * values as u64 + 48, Storage::Shared).unwrap();
        whole.slice(48..48 + 4 * values as u64).unwrap()
    }

    fn weight(&self, rows: usize, cols: usize, format: WeightFormat) -> Weight {
        let spec = WeightSpec { rows, cols, format };
        Weight { spec, buffer: self.room(self.lowering.weight_layout(&spec).unwrap().bytes() / 4) }
    }

    fn check(&mut self, op: Op) -> Vec<Launch> {
        op.validate().unwrap();
        let device = self.device.clone();
        let mut scratch = |bytes| device.new_buffer(bytes, Storage::Private);
        let launches = self.lowering.lower(&op, &mut scratch).unwrap();
        for launch in &launches {
            let kernel = launch.kernel;
            assert_eq!(launch.bindings.len() + 1, kernel.bindings.len(), "{}", kernel.name);
            assert!(launch.groups.iter().all(|n| (1..=GROUPS).contains(n)), "{}: {:?}", kernel.name, launch.groups);
            let immediates = launch.immediates(64, 7);
            assert!(immediates.len() <= 128 && immediates.len().is_multiple_of(16), "{}", kernel.name);
            assert_eq!(immediates[16..20], [7, 0, 0, 0]);
            assert!(launch.work > 0);
            self.used.insert(kernel.name);
        }
        launches
    }
}

fn formats() -> Vec<WeightFormat> {
    let floats = [Float::F32, Float::F16, Float::Bf16];
    let affine = |bits| floats.map(|scale| WeightFormat::Affine { bits, group: 64, scale });
    let others = floats.map(WeightFormat::Dense).into_iter().chain(Micro::ALL.map(WeightFormat::Micro));
    [2, 3, 4, 5, 6, 8].into_iter().flat_map(affine).chain(others).collect()
}

fn linear(rig: &Rig, rows: usize, features: &[usize], format: WeightFormat, epilogue: fn(Buffer) -> Epilogue) -> Op {
    let cols = 128;
    let projection = |n: &usize| Projection { weight: rig.weight(*n, cols, format), bias: Some(rig.room(*n)) };
    Op::Linear(Linear {
        input: rig.room(rows * cols),
        gather: Some(rig.room(rows)),
        rows,
        norm: Some(Norm { weight: rig.room(cols), eps: 1e-5 }),
        projections: features.iter().map(projection).collect(),
        epilogue: epilogue(rig.room(rows * features.iter().sum::<usize>())),
    })
}

/// 700 rows of four of eight experts, as wide as two tiles.
fn experts(rig: &Rig, sums: bool, format: WeightFormat) -> Op {
    let (rows, slots, experts, cols) = (700, 4, 8, 128);
    let [first, second] = [0; 2].map(|_| rig.weight(experts * 32, cols, format));
    let (weights, out) = (rig.room(rows * slots), rig.room(rows * slots * 32));
    let stacks = match sums {
        true => Stacks::Sum { down: first, weights, out },
        false => Stacks::Gated { gate: first, up: second, activation: Activation::Silu, out },
    };
    let norm = (!sums).then(|| Norm { weight: rig.room(cols), eps: 1e-5 });
    let (input, chosen) = (rig.room(rows * slots * cols), rig.room(rows * slots));
    Op::Experts(Experts { input, rows, chosen, slots, experts, norm, stacks })
}

fn route(rig: &Rig, scoring: Scoring) -> Op {
    let (rows, experts, slots) = (700, 128, 8);
    let (logits, chosen, weights) = (rig.room(rows * experts), rig.room(rows * slots), rig.room(rows * slots));
    Op::Route(Route { logits, rows, experts, slots, scoring, renormalize: true, factor: 1.0, chosen, weights })
}

fn attend(rig: &Rig, head_dim: usize, group: usize, rows: usize, sequences: usize, max_context: usize) -> Op {
    let kv = KvSpec { heads: 2, head_dim, block_tokens: 16 };
    let heads = group * kv.heads;
    let blocks = max_context.div_ceil(16);
    Op::Attend(Attend {
        qkv: rig.room(rows * (heads + 2 * kv.heads) * head_dim),
        heads,
        kv,
        q_norm: None,
        k_norm: Some(Norm { weight: rig.room(head_dim), eps: 1e-5 }),
        query_angles: rig.room(rows * head_dim),
        key_angles: rig.room(rows * head_dim),
        pairs: head_dim / 2,
        interleaved: false,
        cache: rig.room(blocks * rig.lowering.kv_block_bytes(&kv) / 4),
        batch: Batch {
            rows,
            sequences,
            max_context,
            positions: rig.room(rows),
            spans: rig.room(sequences * size_of::<Span>() / 4),
            block_tables: rig.room(blocks),
        },
        scale: 1.0,
        window: None,
        out: rig.room(rows * heads * head_dim),
    })
}

fn observe(rig: &Rig, count: usize) -> Op {
    let (history, tokens) = (rig.room(3 * 1000), rig.room(count));
    Op::Observe(Observe { history, vocab: 1000, history_row: 2, tokens, count, prompt: count / 2 })
}

fn sample(rig: &Rig, rows: usize, vocab: usize, history_rows: Option<usize>) -> Op {
    Op::Sample(Sample {
        logits: rig.room(rows * vocab),
        vocab,
        rows,
        params: rig.room(rows * size_of::<SampleParams>() / 4),
        biases: rig.room(2 * 3 + 1),
        history: history_rows.map(|history_rows| rig.room(history_rows * vocab + 2)),
        masks: history_rows.map(|mask_rows| rig.room(mask_rows * Sample::mask_words(vocab))),
        out: rig.room(rows),
    })
}

/// Checks that a device can run the launches of every shape that a model may have, and that every kernel is used by one of them.
#[test]
fn launches_fit_devices_and_use_every_kernel() {
    let mut used = BTreeSet::new();
    let modes = [(Arithmetic::Fast, None), (Arithmetic::Exact, None)];
    for (arithmetic, matrix_side) in modes.into_iter().chain([8, 16].map(|side| (Arithmetic::Fast, Some(side)))) {
        let mut rig = Rig::new(arithmetic, matrix_side);
        for format in formats() {
            for rows in [1, 2, 3, 8, 9, 32, 33, 700] {
                let store = linear(&rig, rows, &[7, 40, 9], format, Epilogue::Store);
                assert_eq!(rig.check(store).len(), if rows > 32 { 5 } else { 4 });
                let add = linear(&rig, rows, &[33], format, Epilogue::Add);
                rig.check(add);
                let gated = linear(&rig, rows, &[20, 20], format, |out| Epilogue::Gated(Activation::Silu, out));
                rig.check(gated);
            }
            for sums in [false, true] {
                let op = experts(&rig, sums, format);
                assert_eq!(rig.check(op).len(), if sums { 3 } else { 2 });
            }
            let parts = vec![rig.weight(10, 128, format), rig.weight(6, 128, format)];
            let (tokens, out) = (rig.room(5), rig.room(5 * 128));
            let embed = Op::Embed(Embed { table: parts, tokens, sampled: None, scale: 1.0, rows: 5, out });
            rig.check(embed);
        }
        for dim in [8, 20, 64, 80, 128, 256] {
            for group in [1, 3, 7, 8, 12, 40] {
                for (rows, sequences) in [(1, 1), (32, 32), (60, 2), (512, 1)] {
                    for max_context in [600, 5000] {
                        let op = attend(&rig, dim, group, rows, sequences, max_context);
                        rig.check(op);
                    }
                }
            }
        }
        for target in [None, Some(rig.room(700 * 64))] {
            let norm = Norm { weight: rig.room(64), eps: 1e-5 };
            let input = rig.room(700 * 100);
            let op = Normalize { input, rows: 700, stride: 100, first: 30, width: 64, norm, target };
            rig.check(Op::Normalize(op));
        }
        for scoring in [Scoring::Softmax, Scoring::Sigmoid { bias: rig.room(128) }] {
            let op = route(&rig, scoring);
            rig.check(op);
        }
        let angles = RopeAngles {
            positions: rig.room(512),
            inv_freq: rig.room(64),
            pairs: 64,
            scale: 1.0,
            growth: None,
            rows: 512,
            out: rig.room(512 * 128),
        };
        rig.check(Op::RopeAngles(angles));
        let (from, to) = (rig.room(1 << 20), rig.room(1 << 20));
        rig.check(Op::Copy(Copy { from, to }));
        let op = observe(&rig, 5000);
        rig.check(op);
        for history_rows in [None, Some(9)] {
            let op = sample(&rig, 8, 151_936, history_rows);
            rig.check(op);
        }
        used.extend(rig.used);
    }
    let unused: Vec<_> = Kernel::all().iter().map(|k| k.name).filter(|k| !used.contains(k)).collect();
    assert!(unused.is_empty(), "{unused:?}");
}

/// Checks that only many rows of quantized weights in fast arithmetic go through matrix units, where a device has some.
#[test]
fn matrix_units_are_used_where_they_are() {
    let four_bits = WeightFormat::Affine { bits: 4, group: 64, scale: Float::Bf16 };
    let last = |arithmetic, side, rows, format| {
        let mut rig = Rig::new(arithmetic, side);
        let op = linear(&rig, rows, &[33], format, Epilogue::Store);
        rig.check(op).last().unwrap().kernel
    };
    let kernel = last(Arithmetic::Fast, Some(16), 33, four_bits);
    assert_eq!((kernel.name, kernel.matrix_side), ("linear_matrix_bits4_gated0_side16", Some(16)));
    let plain = [
        last(Arithmetic::Fast, Some(16), 32, four_bits),
        last(Arithmetic::Fast, Some(16), 33, WeightFormat::Dense(Float::F16)),
        last(Arithmetic::Exact, Some(16), 33, four_bits),
        last(Arithmetic::Fast, None, 33, four_bits),
        // No kernel multiplies such squares.
        last(Arithmetic::Fast, Some(32), 33, four_bits),
    ];
    assert!(plain.iter().all(|kernel| kernel.matrix_side.is_none()), "{plain:?}");
    let without = Kernel::all().iter().filter(|kernel| kernel.matrix_side.is_none()).count();
    assert_eq!(Kernel::usable(None).count(), without);
    assert_eq!(Kernel::usable(Some(8)).count(), (without + Kernel::all().len()) / 2);
}

/// Rows that are rounded for matrix units are no dense weight's inputs.
#[test]
fn a_dense_weight_beside_quantized_ones_keeps_all_from_matrix_units() {
    let mut rig = Rig::new(Arithmetic::Fast, Some(16));
    let mut op = linear(&rig, 33, &[8, 8], formats()[0], Epilogue::Store);
    let Op::Linear(both) = &mut op else { panic!("{op:?}") };
    both.projections[1].weight = rig.weight(8, 128, WeightFormat::Dense(Float::F16));
    let names: Vec<_> = rig.check(op).iter().map(|launch| launch.kernel.name).collect();
    assert_eq!(names, ["gather_check", "linear_rows", "linear_many_bits2_gated0", "linear_many_bits16_gated0"]);
}

/// Checks what a gated op needs: a kernel reads both weights in the gate's format.
#[test]
fn a_gate_of_another_format_is_unsupported() {
    let rig = Rig::new(Arithmetic::Fast, None);
    let mut op = linear(&rig, 1, &[8, 8], formats()[0], |out| Epilogue::Gated(Activation::Silu, out));
    let Op::Linear(both) = &mut op else { panic!("{op:?}") };
    both.projections[1].weight = rig.weight(8, 128, WeightFormat::Affine { bits: 8, group: 64, scale: Float::F32 });
    let [gate, up] = [0, 1].map(|i| both.projections[i].weight.spec);
    let at_load = rig.lowering.check_gated(&gate, &up).unwrap_err();
    assert!(at_load.to_string().contains("quantize the two alike"), "{at_load}");
    assert_eq!(rig.lowering.check_gated(&gate, &gate), Ok(()));
    let refused = rig.lowering.lower(&op, &mut |_| panic!("nothing to compute"));
    assert_eq!(refused.unwrap_err(), at_load, "the same at the first step, for whoever has not asked");
}

/// Contexts of several stretches are computed apart where rows alone do not fill a GPU, and not where they do.
#[test]
fn long_contexts_are_split_for_few_rows_only() {
    let mut rig = Rig::new(Arithmetic::Fast, None);
    let names = |launches: Vec<Launch>| launches.iter().map(|l| l.kernel.name).collect::<Vec<_>>();
    let op = attend(&rig, 64, 7, 1, 1, 5000);
    let few = rig.check(op);
    assert_eq!(few[1].groups, [1, 2, 40]);
    assert_eq!(names(few), ["attend_write_kv16", "attend_kv16_queries8_items1", "attend_merge"]);
    let op = attend(&rig, 64, 7, 512, 1, 5000);
    assert_eq!(names(rig.check(op)), ["attend_write_kv16", "attend_kv16_queries16_items1"]);
    let op = attend(&rig, 64, 7, 1, 1, 128);
    assert_eq!(rig.check(op).len(), 2);
}

/// Checks that two launches read the logits once, and know how many history rows, masks and biases there are.
#[test]
fn sampling_is_two_launches_whose_tiles_cover_the_vocabulary() {
    let mut rig = Rig::new(Arithmetic::Fast, None);
    let immediates = |launch: &Launch| {
        let bytes = launch.immediates(64, 0);
        bytes[32..56].chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect::<Vec<_>>()
    };
    for (history_rows, known) in [(Some(4), 4), (None, 0)] {
        let op = sample(&rig, 3, 151_936, history_rows);
        let launches = rig.check(op);
        assert_eq!(launches.iter().map(|launch| launch.groups).collect::<Vec<_>>(), [[75, 3, 1], [3, 1, 1]]);
        assert_eq!(immediates(&launches[0]), [151_936, 75, known, 3, known, 0]);
    }
}

/// An answer without tokens leaves a row of zeros; no tokens are no launch.
#[test]
fn an_empty_history_is_cleared_only() {
    let mut rig = Rig::new(Arithmetic::Fast, None);
    let op = observe(&rig, 0);
    let launches = rig.check(op);
    assert_eq!(launches.iter().map(|launch| launch.kernel.name).collect::<Vec<_>>(), ["observe_clear"]);
}

/// Sums of probability are of 64 bits.
#[test]
fn vocabularies_of_a_million_are_unsupported() {
    let rig = Rig::new(Arithmetic::Fast, None);
    let op = sample(&rig, 1, 1 << 20, None);
    let refused = rig.lowering.lower(&op, &mut |_| panic!("nothing to compute"));
    assert!(refused.unwrap_err().to_string().contains("1048576 logits"));
}

/// An op that no kernel can run is refused when it is lowered.
#[test]
fn odd_and_overwide_heads_are_unsupported() {
    let rig = Rig::new(Arithmetic::Fast, None);
    for dim in [9, 258] {
        let op = attend(&rig, dim, 1, 1, 1, 16);
        let refused = rig.lowering.lower(&op, &mut |_| panic!("nothing to compute"));
        assert!(refused.unwrap_err().to_string().contains("heads"), "{dim}");
    }
}

#[test]
fn kernels_keep_within_what_devices_have() {
    for kernel in Kernel::all() {
        assert!(kernel.workgroup_memory.iter().sum::<u32>() <= WORKGROUP_MEMORY, "{}", kernel.name);
        assert!(kernel.workgroup.iter().product::<u32>() <= 256, "{}", kernel.name);
        assert!(kernel.bindings.len() <= 16, "{}", kernel.name);
        assert!(kernel.bindings.contains(&Access::Write), "{}", kernel.name);
        assert_eq!(kernel.spirv()[..4], [0x03, 0x02, 0x23, 0x07], "{}", kernel.name);
        #[cfg(feature = "msl")]
        assert!(kernel.msl().contains(&format!("kernel void {}(", kernel.msl_entry)), "{}", kernel.name);
    }
}
