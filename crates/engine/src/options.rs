use crate::kv::spill::SpillOptions;
use mlx_serving_device::Device;
use mlx_serving_metal_layer::MetalLayer;
use mlx_serving_model::Model;
use mlx_serving_text::Tokenizer;
use std::sync::Arc;
use std::time::Duration;

/// Parts of an engine.
#[derive(Debug)]
pub struct Parts {
    /// The device.
    pub device: Arc<dyn Device>,
    /// Allocate, transfer, submit.
    pub layer: MetalLayer,
    /// The loaded model.
    pub model: Model,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Tokens that end an answer.
    pub eos: Vec<u32>,
}

/// Most threads that make masks by default. Not measured.
const MASK_THREADS: usize = 4;

/// Bounds of an engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Sequences that run at once.
    pub max_sequences: usize,
    /// Rows of one step: decoding sequences plus chunks of prompts.
    pub max_batch_rows: usize,
    /// Tokens that the KV cache holds, rounded up to whole blocks.
    pub kv_tokens: usize,
    /// Requests that may wait before more are refused.
    pub max_waiting: usize,
    /// Bytes of an answer that may lie unread before it is abandoned.
    pub unread_stream_bytes: usize,
    /// Bytes of all answers together that may lie unread: beyond them, the one of which most lies unread is abandoned.
    pub unread_bytes: usize,
    /// A step that takes longer is a failure of the device.
    pub step_limit: Duration,
    /// A mask of allowed tokens fails its request if a step has waited so long for the work on it: some hundred times what masks take. A step
    /// waits ten times as long for all its masks, which is far below the time after which drivers give one up.
    pub mask_limit: Duration,
    /// Threads that make masks, started with the first request that needs one.
    pub mask_threads: usize,
    /// Storage for blocks of the prefix cache when the KV cache is full.
    pub spill: SpillOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_sequences: 32,
            max_batch_rows: 512,
            kv_tokens: 16_384,
            max_waiting: 256,
            unread_stream_bytes: 4 << 20,
            unread_bytes: 64 << 20,
            step_limit: Duration::from_secs(120),
            mask_limit: Duration::from_millis(100),
            mask_threads: std::thread::available_parallelism()
                .map_or(1, |cores| cores.get().div_ceil(2).min(MASK_THREADS)),
            spill: SpillOptions::default(),
        }
    }
}

/// Bounds of what a request may ask of an engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Info {
    /// Vocabulary of the model.
    pub vocab: usize,
    /// Tokens of prompt and answer together.
    pub max_context: usize,
    /// The same as the model itself has it: more, where the KV cache holds fewer.
    pub model_context: usize,
    /// Bytes of the KV cache.
    pub kv_bytes: u64,
    /// Requests that run or wait, at most.
    pub max_live: usize,
    /// False for a model without a head: it makes embeddings and nothing else.
    pub generates: bool,
    /// Width of an embedding.
    pub width: usize,
}

impl Info {
    /// The bound of prompt and answer in words, and the setting to raise where that, not the model, is the bound.
    pub fn context(&self) -> String {
        // OpenAI's words, for which clients look.
        let bound = format!("this model's maximum context length is {} tokens, the answer included", self.max_context);
        match self.model_context > self.max_context {
            true => format!("{bound}: engine.kv_cache_tokens bounds it, the model itself has {}", self.model_context),
            false => bound,
        }
    }
}
