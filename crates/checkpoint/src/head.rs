use crate::TensorInfo;
use serde_json::{Map, Value, json};

/// The head of a safetensors file in MLX's format: these tensors' values follow it, one after the other.
pub fn head_of<'a>(tensors: impl Iterator<Item = (&'a str, TensorInfo<'a>)>) -> Vec<u8> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({ "format": "mlx" }));
    let mut end = 0;
    for (name, tensor) in tensors {
        let offsets = [end, end + tensor.bytes];
        let entry = json!({ "dtype": format!("{:?}", tensor.dtype), "shape": tensor.shape, "data_offsets": offsets });
        header.insert(name.to_owned(), entry);
        end += tensor.bytes;
    }
    let mut header = Value::Object(header).to_string();
    header += &" ".repeat((8 + header.len()).next_multiple_of(64) - 8 - header.len());
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()
}
