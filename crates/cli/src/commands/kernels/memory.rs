//! Device memory with something in it.

use mlx_serving_checkpoint::synth::Matrix;
use mlx_serving_device::ops::{Norm, Projection};
use mlx_serving_device::{Buffer, Device, DeviceError, Result, Storage, Weight, WeightSource, WeightSpec};
use mlx_serving_metal_layer::{Fill, MetalLayer, Transfer};
use mlx_serving_model::row_parts;
use std::sync::Arc;
use std::time::Duration;

/// No upload takes longer.
const LIMIT: Duration = Duration::from_secs(60);

/// Allocates and fills.
pub(super) struct Memory<'a> {
    pub device: &'a Arc<dyn Device>,
    transfer: Arc<dyn Transfer>,
}

impl<'a> Memory<'a> {
    pub(super) fn new(device: &'a Arc<dyn Device>) -> Result<Self> {
        let layer = MetalLayer::direct(device.clone()).map_err(|e| DeviceError::CommandFailed(e.to_string()))?;
        Ok(Self { device, transfer: layer.transfer })
    }

    /// Storage of weights, KV cache and a step's inputs, as a model has them.
    fn resident(&self) -> Storage {
        if self.device.info().unified_memory { Storage::Shared } else { Storage::Private }
    }

    /// Memory for the device alone, of which every page is there; a little less than `bytes`.
    pub(super) fn pages(&self, bytes: u64) -> Result<Buffer> {
        let buffer = self.private(bytes / 4096 * 4096)?;
        self.fill(&buffer, |i| [i as u8; 4096])?;
        Ok(buffer)
    }

    /// Memory for the device alone.
    fn private(&self, bytes: u64) -> Result<Buffer> {
        self.device.new_buffer(bytes, Storage::Private)
    }

    /// Memory that holds these values, at least one.
    pub(super) fn values<T: bytemuck::NoUninit>(&self, values: &[T]) -> Result<Buffer> {
        let bytes = bytemuck::cast_slice(values).to_vec();
        let buffer = self.device.new_buffer(bytes.len() as u64, self.resident())?;
        let write = move |out: &mut [u8]| {
            out.copy_from_slice(&bytes);
            Ok(())
        };
        self.upload(&buffer, Box::new(write))?;
        Ok(buffer)
    }

    /// f32 in ±1.
    pub(super) fn floats(&self, count: usize) -> Result<Buffer> {
        let buffer = self.private(4 * count as u64)?;
        self.fill(&buffer, |i| noise(i).to_le_bytes())?;
        Ok(buffer)
    }

    /// The weight of an RMS norm.
    pub(super) fn norm(&self, width: usize) -> Result<Norm> {
        let weight = self.private(4 * width as u64)?;
        self.fill(&weight, |_| 1f32.to_le_bytes())?;
        Ok(Norm { weight, eps: 1e-6 })
    }

    /// KV cache of numbers that are small in every float format.
    pub(super) fn cache(&self, bytes: u64) -> Result<Buffer> {
        let buffer = self.device.new_buffer(bytes, self.resident())?;
        self.fill(&buffer, |i| [0x30 | (noise(i).to_bits() >> 8) as u8 & 0x8b])?;
        Ok(buffer)
    }

    /// A random matrix, in parts where the device's buffers are shorter.
    pub(super) fn linear(&self, whole: &WeightSpec, (bits, group): (u8, u16), bias: bool) -> Result<Vec<Projection>> {
        let part = |rows: std::ops::Range<usize>| {
            let spec = WeightSpec { rows: rows.len(), ..*whole };
            let matrix = Matrix::random(spec.rows, spec.cols, bits, group, rows.start as u64)
                .map_err(|e| DeviceError::CommandFailed(e.to_string()))?;
            let bias = if bias { Some(self.floats(spec.rows)?) } else { None };
            Ok(Projection { weight: self.weight(spec, Arc::new(matrix))?, bias })
        };
        row_parts(self.device.as_ref(), whole)?.into_iter().map(part).collect()
    }

    fn weight(&self, spec: WeightSpec, matrix: Arc<Matrix>) -> Result<Weight> {
        let layout = self.device.weight_layout(&spec)?;
        let buffer = self.device.new_buffer(layout.bytes() as u64, self.resident())?;
        let step = (self.transfer.max_chunk() / layout.bytes_per_block as u64).max(1) as usize;
        for first in (0..layout.blocks).step_by(step) {
            let blocks = first..(first + step).min(layout.blocks);
            let bytes = (blocks.start * layout.bytes_per_block) as u64..(blocks.end * layout.bytes_per_block) as u64;
            let (device, matrix) = (self.device.clone(), matrix.clone());
            let pack = move |out: &mut [u8]| {
                let source = WeightSource { values: &matrix.values, scales: &matrix.scales, biases: &matrix.biases };
                device.pack_weight(&spec, &source, blocks, out).map_err(|e| e.to_string())
            };
            self.upload(&buffer.slice(bytes)?, Box::new(pack))?;
        }
        Ok(Weight { spec, buffer })
    }

    /// Fills memory with values of `N` bytes, of which the i-th is `value(i)`.
    fn fill<const N: usize>(
        &self,
        buffer: &Buffer,
        value: impl Fn(usize) -> [u8; N] + Copy + Send + 'static,
    ) -> Result<()> {
        let size = N as u64;
        let chunk = self.transfer.max_chunk() / size * size;
        for start in (0..buffer.len()).step_by(chunk as usize) {
            let first = (start / size) as usize;
            let write = move |out: &mut [u8]| {
                out.chunks_exact_mut(N).enumerate().for_each(|(i, bytes)| bytes.copy_from_slice(&value(first + i)));
                Ok(())
            };
            self.upload(&buffer.slice(start..(start + chunk).min(buffer.len()))?, Box::new(write))?;
        }
        Ok(())
    }

    fn upload(&self, to: &Buffer, fill: Fill) -> Result<()> {
        self.transfer.upload(to, fill)?.wait(LIMIT)
    }
}

/// A value in ±1 for every index: steps of the golden ratio, which cover the range evenly.
fn noise(i: usize) -> f32 {
    (2.0 * (i as f64 * 0.618_033_988_749_895).fract() - 1.0) as f32
}
