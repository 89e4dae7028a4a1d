//! Entry points for fuzzing: bytes that come from elsewhere. Whatever they are, these return.

use crate::shard;
use std::path::Path;

/// A safetensors file.
pub fn safetensors_header(data: &[u8]) {
    let (path, len) = (Path::new("model.safetensors"), data.len() as u64);
    let Some((prefix, rest)) = data.split_first_chunk::<{ shard::PREFIX }>() else { return };
    let Ok(header) = shard::header_len(*prefix, len, path) else { return };
    let (header, tensors) = rest.split_at(header);
    if let Ok(metadata) = shard::parse_header(header, len, path) {
        for name in metadata.offset_keys() {
            if let Some(info) = metadata.info(&name) {
                // What the loader does with it: must stay within the file.
                let bytes = &tensors[info.data_offsets.0..info.data_offsets.1];
                assert_eq!(bytes.len(), info.data_offsets.1 - info.data_offsets.0);
            }
        }
    }
}
