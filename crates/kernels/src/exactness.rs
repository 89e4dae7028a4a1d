use crate::linear::FEW;
use mlx_serving_device::ops::{Epilogue, Linear, Projection};
use mlx_serving_device::{Buffer, Device, Float, Op, Result, Storage, Weight, WeightFormat, WeightSource, WeightSpec};
use std::time::Duration;

/// Too many for the kernel without matrix units, and not a whole tile.
const ROWS: usize = FEW + 3;
const SPEC: WeightSpec =
    WeightSpec { rows: 64, cols: 128, format: WeightFormat::Affine { bits: 8, group: 64, scale: Float::F32 } };
/// A driver that compiles for longer has hung.
const LIMIT: Duration = Duration::from_secs(60);

/// Whether a device's matrix units give the very sums that plain arithmetic gives, up to the largest that there can be: a row's bits
/// must not depend on whether they computed it. Drivers promise no more than nearly right sums.
///
/// # Errors
/// What the device says: it cannot run these kernels.
pub fn matrix_units_are_exact(device: &dyn Device) -> Result<bool> {
    let weight = weight(device)?;
    let rows: Vec<f32> = (0..ROWS * SPEC.cols).map(|at| input(at / SPEC.cols, at % SPEC.cols)).collect();
    let together = products(device, &weight, &rows)?;
    let apart: Vec<u32> =
        rows.chunks(SPEC.cols).map(|row| products(device, &weight, row)).collect::<Result<Vec<_>>>()?.concat();
    Ok(together == apart)
}

/// Codes that are all the largest, in the first features, or of any size.
fn weight(device: &dyn Device) -> Result<Weight> {
    let codes: Vec<u8> = (0..SPEC.rows * SPEC.cols)
        .map(|at| if at / SPEC.cols < 8 { u8::MAX } else { (at * at / 7 + at) as u8 })
        .collect();
    let groups = SPEC.rows * SPEC.cols / 64;
    let (scales, biases) = (1f32.to_le_bytes().repeat(groups), 0f32.to_le_bytes().repeat(groups));
    let source = WeightSource { values: &codes, scales: &scales, biases: &biases };
    let layout = device.weight_layout(&SPEC)?;
    let mut packed = vec![0; layout.bytes()];
    device.pack_weight(&SPEC, &source, 0..layout.blocks, &mut packed)?;
    Ok(Weight { spec: SPEC, buffer: upload(device, &packed)? })
}

/// In the first rows, what rounds to 2048 steps everywhere, or everywhere but its sign; then steps of any number.
fn input(row: usize, col: usize) -> f32 {
    match row {
        0 => 2047.75,
        1 => -2047.75,
        2 if col.is_multiple_of(2) => 2047.75,
        2 => -2046.5,
        _ => ((row * 7919 + col * 104_729) % 4093) as f32 - 2046.25,
    }
}

/// The bits of every product.
fn products(device: &dyn Device, weight: &Weight, input: &[f32]) -> Result<Vec<u32>> {
    let rows = input.len() / SPEC.cols;
    let out = upload(device, &vec![0f32; rows * SPEC.rows])?;
    let op = Op::Linear(Linear {
        input: upload(device, input)?,
        gather: None,
        rows,
        norm: None,
        projections: vec![Projection { weight: weight.clone(), bias: None }],
        epilogue: Epilogue::Store(out.clone()),
    });
    let queue = device.compute_queue();
    let mut encoder = queue.encoder()?;
    encoder.record(op)?;
    queue.submit(encoder.finish()?, &[], None)?.wait(LIMIT)?;
    out.to_vec()
}

fn upload<T: bytemuck::NoUninit>(device: &dyn Device, values: &[T]) -> Result<Buffer> {
    let buffer = device.new_buffer(size_of_val(values) as u64, Storage::Shared)?;
    buffer.write(0, values)?;
    Ok(buffer)
}
