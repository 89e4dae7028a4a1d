//! Whether the memory pool's heaps and a model's working set fit each other.

use crate::config::Config;
use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_device::{Device, Storage};
use mlx_serving_model::{BLOCK_TOKENS, working_set};

/// Why not, and what to change; `None` if they do, or if the pool is off.
pub(crate) fn misfit(config: &Config, checkpoint: &Checkpoint, device: &dyn Device) -> Option<String> {
    let m = &config.metal_optimizations;
    if !(m.enabled && m.memory_pool.enabled) {
        return None;
    }
    let e = &config.engine;
    let (blocks, rows) = (e.kv_cache_tokens.div_ceil(BLOCK_TOKENS), e.max_batch_rows.max(e.max_sequences));
    let mut set = working_set(&checkpoint.config, device, blocks, rows, e.max_sequences);
    // Token counts, taken when the first request with penalties comes.
    set.others.push((4 * (e.max_sequences * checkpoint.config.vocab_size) as u64, Storage::Private));
    if m.blit_queue.enabled && !device.info().unified_memory {
        set.others.push((m.blit_queue.staging_buffer_size_mb << 20, Storage::Shared));
    }
    m.memory_pool.fits(device.info(), &set)
}
