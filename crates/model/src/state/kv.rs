use crate::blueprint::{AttentionSpec, Blueprint};
use mlx_serving_device::{Buffer, Device, DeviceError, KvSpec, Result, Storage};
use mlx_serving_metal_layer::{Allocate, Allocation};

/// Tokens of one KV block.
pub const BLOCK_TOKENS: usize = 16;

/// The paged KV cache: one buffer a layer, each of the same number of blocks.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerBlocks>,
}

/// Blocks of one layer.
#[derive(Debug)]
struct LayerBlocks {
    memory: Allocation,
    block_bytes: u64,
}

/// Shape of a layer's KV cache.
pub(crate) fn kv_spec(attention: &AttentionSpec) -> KvSpec {
    KvSpec { heads: attention.kv_heads, head_dim: attention.head_dim, block_tokens: BLOCK_TOKENS }
}

/// Bytes of one block of each layer.
pub(super) fn block_bytes<'a>(model: &'a Blueprint, device: &'a dyn Device) -> impl Iterator<Item = usize> + 'a {
    model.layers.iter().map(|layer| device.kv_block_bytes(&kv_spec(&layer.mixer)))
}

impl KvCache {
    /// Room for `blocks` blocks of [`BLOCK_TOKENS`] tokens.
    pub fn new(model: &Blueprint, device: &dyn Device, allocate: &dyn Allocate, blocks: usize) -> Result<Self> {
        let limit = device.info().max_buffer_len;
        // Where the host reaches the same memory, spilled blocks are read and written in place.
        let storage = if device.info().unified_memory { Storage::Shared } else { Storage::Private };
        let layer = |block_bytes: usize| {
            let (block_bytes, bytes) = (block_bytes as u64, block_bytes as u64 * blocks as u64);
            if bytes > limit {
                let detail =
                    format!("a layer of {blocks} blocks is longer than this device's longest buffer, {limit} bytes");
                return Err(DeviceError::OutOfMemory { requested: bytes, what: "the KV cache", detail });
            }
            Ok(LayerBlocks { memory: allocate.allocate(bytes, storage, "kv cache")?, block_bytes })
        };
        Ok(Self { layers: block_bytes(model, device).map(layer).collect::<Result<_>>()? })
    }

    /// Each layer's memory: its blocks, one after the other.
    pub fn layers(&self) -> impl Iterator<Item = &Buffer> {
        self.layers.iter().map(|layer| &*layer.memory)
    }

    /// Bytes of all layers.
    pub fn bytes(&self) -> u64 {
        self.layers().map(Buffer::len).sum()
    }

    /// One block of every layer, in order: what spilling moves.
    pub fn block(&self, id: u32) -> Result<Vec<Buffer>> {
        let block = |layer: &LayerBlocks| {
            let start = u64::from(id) * layer.block_bytes;
            layer.memory.slice(start..start + layer.block_bytes)
        };
        self.layers.iter().map(block).collect()
    }
}
