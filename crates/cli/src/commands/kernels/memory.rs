//! Device memory with something in it.

use mlx_serving_device::{Buffer, Device, DeviceError, Result, Storage};
use mlx_serving_metal_layer::MetalLayer;
use std::sync::Arc;
use std::time::Duration;

/// No upload takes longer.
const LIMIT: Duration = Duration::from_secs(60);

/// Allocates and fills.
pub(super) struct Memory<'a> {
    pub device: &'a Arc<dyn Device>,
    pub layer: MetalLayer,
}

impl<'a> Memory<'a> {
    pub(super) fn new(device: &'a Arc<dyn Device>) -> Result<Self> {
        let layer = MetalLayer::direct(device.clone()).map_err(|e| DeviceError::CommandFailed(e.to_string()))?;
        Ok(Self { device, layer })
    }

    /// Memory for the device alone, of which every page is there; a little less than `bytes`.
    pub(super) fn pages(&self, bytes: u64) -> Result<Buffer> {
        let buffer = self.device.new_buffer(bytes / 4096 * 4096, Storage::Private)?;
        self.fill(&buffer, |i| [i as u8; 4096])?;
        Ok(buffer)
    }

    /// Fills a KV cache with numbers that are small in every float format.
    pub(super) fn fill_cache(&self, cache: &Buffer) -> Result<()> {
        self.fill(cache, |i| [0x30 | (noise(i).to_bits() >> 8) as u8 & 0x8b])
    }

    /// Fills memory with values of `N` bytes, of which the i-th is `value(i)`.
    fn fill<const N: usize>(
        &self,
        buffer: &Buffer,
        value: impl Fn(usize) -> [u8; N] + Copy + Send + 'static,
    ) -> Result<()> {
        let (size, transfer) = (N as u64, &self.layer.transfer);
        let chunk = transfer.max_chunk() / size * size;
        for start in (0..buffer.len()).step_by(chunk as usize) {
            let first = (start / size) as usize;
            let write = move |out: &mut [u8]| {
                out.chunks_exact_mut(N).enumerate().for_each(|(i, bytes)| bytes.copy_from_slice(&value(first + i)));
                Ok(())
            };
            let part = buffer.slice(start..(start + chunk).min(buffer.len()))?;
            transfer.upload(&part, Box::new(write))?.wait(LIMIT)?;
        }
        Ok(())
    }
}

/// A value in ±1 for every index: steps of the golden ratio, which cover the range evenly.
fn noise(i: usize) -> f32 {
    (2.0 * (i as f64 * 0.618_033_988_749_895).fract() - 1.0) as f32
}
