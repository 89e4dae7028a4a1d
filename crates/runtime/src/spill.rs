use crate::config;
use mlx_serving_engine::SpillOptions;
use std::path::PathBuf;

/// Destination of KV blocks that the cache has no room for. Every model has a file of its own, named after the configured one.
pub(crate) fn spill(engine: &config::Engine, model: &str) -> SpillOptions {
    let name: String = model.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).collect();
    let file = engine.kv_spill_file.as_ref().map(|path| {
        let mut file = path.clone().into_os_string();
        file.push(format!(".{name}"));
        PathBuf::from(file)
    });
    SpillOptions { memory_bytes: engine.kv_spill_mb << 20, file, file_bytes: engine.kv_spill_file_mb << 20 }
}
