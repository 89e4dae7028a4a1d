//! The fuzz target on the stable toolchain: valid files, mutated from fixed seeds. They return, whatever the bytes.

mod mutate;

use mlx_serving_checkpoint::fuzz;
use mutate::mutate;

const ROUNDS: u64 = 5_000;

#[test]
fn mutated_safetensors_headers_are_read_or_refused() {
    let header = br#"{"__metadata__":{"format":"mlx"},"a":{"dtype":"U32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"BF16","shape":[4],"data_offsets":[16,24]}}"#;
    let mut valid = (header.len() as u64).to_le_bytes().to_vec();
    valid.extend_from_slice(header);
    valid.extend_from_slice(&[0; 24]);
    (0..ROUNDS).for_each(|seed| fuzz::safetensors_header(&mutate(&valid, seed)));
}
