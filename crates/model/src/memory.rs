use crate::Model;
use crate::pass::Activations;
use mlx_serving_checkpoint::Config;
use mlx_serving_device::ops::Copy;
use mlx_serving_device::{Buffer, Device, DeviceError, Encoder, KvSpec, Op, Result, Storage};
use mlx_serving_metal_layer::{Allocate, Allocation, WorkingSet};

/// Shape of a layer's KV cache.
pub(crate) fn kv_spec(c: &Config) -> KvSpec {
    KvSpec { heads: c.num_key_value_heads, head_dim: c.head_dim, block_tokens: crate::BLOCK_TOKENS }
}

/// Memory that [`KvCache::new`] and [`Scratch::new`] will allocate for a model of this configuration.
pub fn working_set(config: &Config, device: &dyn Device, blocks: usize, rows: usize, logit_rows: usize) -> WorkingSet {
    WorkingSet {
        kv_layers: config.num_hidden_layers,
        kv_layer_bytes: device.kv_block_bytes(&kv_spec(config)) as u64 * blocks as u64,
        others: scratch(config, device, rows, logit_rows)
            .into_iter()
            .map(|(floats, storage, _)| (4 * floats as u64, storage))
            .collect(),
    }
}

/// Floats of residual, qkv, attended, gated, angles and logits; and of logits for the host, where it does not reach the device's.
fn scratch(c: &Config, device: &dyn Device, rows: usize, logit_rows: usize) -> Vec<(usize, Storage, &'static str)> {
    let heads = c.num_attention_heads + 2 * c.num_key_value_heads;
    let own = |floats| (floats, Storage::Private, "activations");
    let logits = |storage| (logit_rows * c.vocab_size, storage, "logits");
    let mut all = vec![
        own(rows * c.hidden_size),
        own(rows * heads * c.head_dim),
        own(rows * c.num_attention_heads * c.head_dim),
        own(rows * c.intermediate_size),
        own(rows * c.head_dim),
    ];
    if device.info().unified_memory {
        all.push(logits(Storage::Shared));
    } else {
        // Sampling would read them over the bus, and the host seldom wants them.
        all.extend([logits(Storage::Private), logits(Storage::Shared)]);
    }
    all
}

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
    /// `f32 [logit rows][vocabulary]`; valid until the next step begins.
    pub logits: Buffer,
    /// The same for the host, after [`Self::make_readable`]; on unified memory the same buffer.
    readable: Buffer,
    vocab: usize,
    _held: Vec<Allocation>,
}

impl Scratch {
    /// Room for steps of `rows` rows of which `logit_rows` need logits.
    pub fn new(
        model: &Model,
        device: &dyn Device,
        allocate: &dyn Allocate,
        rows: usize,
        logit_rows: usize,
    ) -> Result<Self> {
        let held = scratch(&model.config, device, rows, logit_rows)
            .into_iter()
            .map(|(floats, storage, tag)| allocate.allocate(4 * floats as u64, storage, tag))
            .collect::<Result<Vec<_>>>()?;
        let buffer = |i: usize| (*held[i]).clone();
        let activations = Activations {
            residual: buffer(0),
            qkv: buffer(1),
            attended: buffer(2),
            gated: buffer(3),
            angles: buffer(4),
        };
        let (logits, readable) = (buffer(5), buffer(held.len() - 1));
        Ok(Self { activations, logits, readable, vocab: model.vocab(), _held: held })
    }

    /// Records, after a step's ops, what lets the host read the first `rows` rows of its logits.
    pub fn make_readable(&self, encoder: &mut dyn Encoder, rows: usize) -> Result<()> {
        let bytes = 0..4 * (rows * self.vocab) as u64;
        if self.logits.overlaps(&self.readable) || rows == 0 {
            return Ok(());
        }
        encoder.record(Op::Copy(Copy { from: self.logits.slice(bytes.clone())?, to: self.readable.slice(bytes)? }))
    }

    /// Reads whole rows of logits from row `first` on, once the step has completed.
    pub fn read_logits(&self, first: usize, logits: &mut [f32]) -> Result<()> {
        self.readable.read(4 * (first * self.vocab) as u64, logits)
    }
}
