//! Entry points for fuzzing: bytes that come from elsewhere. Whatever they are, these return.

use crate::{Config, shard};
use std::path::Path;

/// A safetensors file.
pub fn safetensors_header(data: &[u8]) {
    if let Ok((start, metadata)) = shard::parse_header(data, Path::new("model.safetensors")) {
        for name in metadata.offset_keys() {
            if let Some(info) = metadata.info(&name) {
                // What the loader does with it: must stay within the file.
                let bytes = &data[start + info.data_offsets.0..start + info.data_offsets.1];
                assert_eq!(bytes.len(), info.data_offsets.1 - info.data_offsets.0);
            }
        }
    }
}

/// A `config.json`.
pub fn config_json(data: &[u8]) {
    if let Ok(config) = Config::parse(data, Path::new("config.json")) {
        assert!(config.num_attention_heads.is_multiple_of(config.num_key_value_heads));
        assert_eq!(config.windows.len(), config.num_hidden_layers);
    }
}
