use crate::Model;
use crate::pass::Activations;
use mlx_serving_device::{Buffer, Device, DeviceError, Result, Storage};
use mlx_serving_metal_layer::{Allocate, Allocation};

/// The paged KV cache: one buffer a layer, each of the same number of blocks.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<Allocation>,
    block_bytes: u64,
}

impl KvCache {
    /// Room for `blocks` blocks of [`crate::BLOCK_TOKENS`] tokens.
    pub fn new(model: &Model, device: &dyn Device, allocate: &dyn Allocate, blocks: usize) -> Result<Self> {
        let block_bytes = device.kv_block_bytes(&model.kv_spec()) as u64;
        let limit = device.info().max_buffer_len;
        if block_bytes * blocks as u64 > limit {
            let detail =
                format!("a layer of {blocks} blocks is longer than this device's longest buffer, {limit} bytes");
            return Err(DeviceError::OutOfMemory {
                requested: block_bytes * blocks as u64,
                what: "the KV cache",
                detail,
            });
        }
        // Where the host reaches the same memory, spilled blocks are read and written in place.
        let storage = if device.info().unified_memory { Storage::Shared } else { Storage::Private };
        let layers = (0..model.layers())
            .map(|_| allocate.allocate(block_bytes * blocks as u64, storage, "kv cache"))
            .collect::<Result<_>>()?;
        Ok(Self { layers, block_bytes })
    }

    /// A layer's blocks.
    pub(crate) fn layer(&self, i: usize) -> &Buffer {
        &self.layers[i]
    }

    /// Bytes of all layers.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(|l| l.len()).sum()
    }

    /// One block of every layer, in order: what spilling moves.
    pub fn block(&self, id: u32) -> Result<Vec<Buffer>> {
        let start = u64::from(id) * self.block_bytes;
        self.layers.iter().map(|l| l.slice(start..start + self.block_bytes)).collect()
    }
}

/// Activations and logits of one step. Steps of one queue run in order, so one is enough for all in flight.
#[derive(Debug)]
pub struct Scratch {
    pub(crate) activations: Activations,
    /// `f32 [logit rows][vocabulary]`, in shared storage; valid until the next step begins.
    pub logits: Buffer,
    _held: Vec<Allocation>,
}

impl Scratch {
    /// Room for steps of `rows` rows of which `logit_rows` need logits.
    pub fn new(model: &Model, allocate: &dyn Allocate, rows: usize, logit_rows: usize) -> Result<Self> {
        let c = &model.config;
        let heads = c.num_attention_heads + 2 * c.num_key_value_heads;
        let mut held = Vec::new();
        let mut floats = |count: usize, storage, tag| -> Result<Buffer> {
            let memory = allocate.allocate(4 * count as u64, storage, tag)?;
            let buffer = (*memory).clone();
            held.push(memory);
            Ok(buffer)
        };
        let activations = Activations {
            residual: floats(rows * c.hidden_size, Storage::Private, "activations")?,
            qkv: floats(rows * heads * c.head_dim, Storage::Private, "activations")?,
            attended: floats(rows * c.num_attention_heads * c.head_dim, Storage::Private, "activations")?,
            gated: floats(rows * c.intermediate_size, Storage::Private, "activations")?,
            angles: floats(rows * c.head_dim, Storage::Private, "activations")?,
        };
        let logits = floats(logit_rows * c.vocab_size, Storage::Shared, "logits")?;
        Ok(Self { activations, logits, _held: held })
    }
}
