use crate::Lowering;
use crate::linear::FEW;
use mlx_serving_device::ops::{Epilogue, Linear, Projection};
use mlx_serving_device::{
    Arithmetic, Buffer, Device, Float, Op, Result, Storage, Weight, WeightFormat, WeightSource, WeightSpec,
};
use std::sync::Arc;
use std::time::Duration;

/// Rows of the trial: too many for the kernel without matrix units, and not a whole tile.
const ROWS: usize = FEW + 3;
const SPEC: WeightSpec =
    WeightSpec { rows: 64, cols: 128, format: WeightFormat::Affine { bits: 8, group: 64, scale: Float::F32 } };
/// Longest wait for the trial: a driver that compiles for longer has hung.
const LIMIT: Duration = Duration::from_secs(60);

/// Makes a device whose kernels use matrix units of that side if its arithmetic does and the units are exact; otherwise it goes without,
/// and the log says why. A row's bits must not depend on whether units computed it, and drivers promise no more than nearly right
/// sums.
///
/// `assemble` makes the device; where there are units to be tried out, a second time, so that nothing of the trial counts.
///
/// # Errors
/// Errors of `assemble`.
pub fn assemble_exact<D: Device>(
    arithmetic: Arithmetic,
    matrix_side: Option<u32>,
    assemble: impl Fn(Lowering) -> Result<Arc<D>>,
) -> Result<Arc<D>> {
    let lowering = Lowering::new(arithmetic, matrix_side);
    if lowering.matrix_side().is_none() {
        return assemble(lowering);
    }
    let device = assemble(lowering.clone())?;
    let trial = matrix_units_are_exact(&*device);
    let name = device.info().name.clone();
    drop(device);
    match trial {
        Ok(true) => return assemble(lowering),
        Ok(false) => tracing::warn!(device = name, "matrix units are not used: their sums are not exact"),
        Err(error) => tracing::warn!(device = name, %error, "matrix units are not used: trying them out failed"),
    }
    assemble(Lowering::new(arithmetic, None))
}

/// True if the units give the very sums that plain arithmetic gives, up to the largest that there can be.
fn matrix_units_are_exact(device: &dyn Device) -> Result<bool> {
    let weight = weight(device)?;
    let rows: Vec<f32> = (0..ROWS * SPEC.cols).map(|at| input(at / SPEC.cols, at % SPEC.cols)).collect();
    let together = products(device, &weight, &rows)?;
    let apart: Vec<u32> =
        rows.chunks(SPEC.cols).map(|row| products(device, &weight, row)).collect::<Result<Vec<_>>>()?.concat();
    Ok(together == apart)
}

/// Weight whose codes are all the largest, in the first features, or of any size.
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

/// Input that, in its first rows, rounds to 2048 steps, to −2048, or in turns to 2048 and −2046; in the others to steps of any number.
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

#[cfg(test)]
mod tests {
    use super::*;
    use mlx_serving_device::fake::{FakeDevice, FakeOptions};
    use std::cell::RefCell;

    /// The sides that a device with this much memory is assembled with, in turn.
    fn sides(arithmetic: Arithmetic, side: Option<u32>, memory_budget: u64) -> Vec<Option<u32>> {
        let sides: RefCell<Vec<Option<u32>>> = RefCell::default();
        let assemble = |lowering: Lowering| {
            sides.borrow_mut().push(lowering.matrix_side());
            FakeDevice::new(FakeOptions { memory_budget, ..FakeOptions::default() })
        };
        assemble_exact(arithmetic, side, assemble).unwrap();
        sides.into_inner()
    }

    #[test]
    fn units_are_tried_out_and_what_fails_goes_without() {
        let (fast, exact) = (Arithmetic::Fast, Arithmetic::Exact);
        assert_eq!(sides(fast, Some(16), 1 << 30), [Some(16), Some(16)]);
        // Not enough for the trial.
        assert_eq!(sides(fast, Some(8), 1 << 10), [Some(8), None]);
        assert_eq!(sides(fast, None, 1 << 30), [None]);
        assert_eq!(sides(exact, Some(8), 1 << 30), [None]);
        // No kernel multiplies such squares.
        assert_eq!(sides(fast, Some(32), 1 << 30), [None]);
    }
}
