use super::super::weight::TOUCHED;
use super::*;
use crate::pool::Pool;
use crate::{CpuDevice, CpuOptions};
use mlx_serving_device::{Buffer, Device, Float, Storage, WeightFormat, WeightSource, WeightSpec};

const EXPERTS: usize = 32;
const SLOTS: usize = 4;
const FORMAT: WeightFormat = WeightFormat::Affine { bits: 4, group: 64, scale: Float::Bf16 };

fn buffer<T: bytemuck::NoUninit>(device: &CpuDevice, values: &[T]) -> Buffer {
    let buffer = device.new_buffer(size_of_val(values) as u64, Storage::Shared).unwrap();
    buffer.write(0, values).unwrap();
    buffer
}

fn weight(device: &CpuDevice, features: usize, cols: usize) -> Weight {
    let spec = WeightSpec { rows: EXPERTS * features, cols, format: FORMAT };
    let (values, side, _) = spec.source_bytes();
    let (values, side) = (vec![0x5a; values], vec![0x3c; side]);
    let source = WeightSource { values: &values, scales: &side, biases: &side };
    let layout = device.weight_layout(&spec).unwrap();
    let mut packed = vec![0u64; layout.bytes() / 8];
    device.pack_weight(&spec, &source, 0..layout.blocks, bytemuck::cast_slice_mut(&mut packed)).unwrap();
    Weight { spec, buffer: buffer(device, &packed) }
}

/// Bytes of weights that an op over so many rows reads, and those of all the experts that it has.
fn touched(rows: usize, sums: bool) -> (usize, usize) {
    let device = CpuDevice::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() }).unwrap();
    let (cols, features) = (128, 256);
    let chosen: Vec<u32> = (0..(rows * SLOTS) as u32).map(|i| i * 7 % EXPERTS as u32).collect();
    let inputs = if sums { rows * SLOTS } else { rows };
    let out = buffer(&device, &vec![0f32; rows * SLOTS * features]);
    let stacks = match sums {
        true => {
            let weights = buffer(&device, &vec![0.5f32; rows * SLOTS]);
            Stacks::Sum { down: weight(&device, features, cols), weights, out }
        }
        false => {
            let [gate, up] = [0; 2].map(|_| weight(&device, features, cols));
            Stacks::Gated { gate, up, activation: Activation::Silu, out }
        }
    };
    let op = Experts {
        input: buffer(&device, &vec![1f32; inputs * cols]),
        rows,
        chosen: buffer(&device, &chosen),
        slots: SLOTS,
        experts: EXPERTS,
        norm: None,
        stacks,
    };
    let lowering = Lowering { isa: Isa::best(), arithmetic: Arithmetic::Fast, workers: 1 };
    let step = ExpertsStep::new(&op, &lowering).unwrap();
    // One worker: it runs on this thread.
    let mut pool = Pool::new(1).unwrap();
    pool.reserve(step.shared_bytes()).unwrap();
    TOUCHED.set(0);
    pool.run(&|worker| step.run(worker)).unwrap();
    let spec = WeightSpec { rows: features, cols, format: FORMAT };
    let (values, scales, biases) = spec.source_bytes();
    let mut experts = chosen;
    experts.sort_unstable();
    experts.dedup();
    (TOUCHED.get(), experts.len() * (values + scales + biases) * if sums { 1 } else { 2 })
}

#[test]
fn decode_reads_the_chosen_experts_weights_and_no_others() {
    for sums in [false, true] {
        let (read, chosen) = touched(1, sums);
        assert!(chosen <= read && read * 10 <= chosen * 11, "{read} bytes for {chosen}");
    }
}

#[test]
fn a_batch_reads_an_experts_weights_once_for_all_its_rows() {
    for sums in [false, true] {
        // Every expert has two rows.
        let (read, all) = touched(2 * EXPERTS / SLOTS, sums);
        assert!(all <= read && read * 10 <= all * 11, "{read} bytes for {all}");
    }
}
