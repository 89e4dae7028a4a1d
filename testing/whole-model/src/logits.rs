use crate::{load, repository};
use mlx_serving_device::Device;
use mlx_serving_metal_layer::MetalLayer;
use mlx_serving_model::eval::Evaluator;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// Logits of random checkpoints of every architecture, bit width and group size against mlx-lm's: relative L2 errors of at most
/// `limit`. Only those for which `wanted` says so by name; how many these were.
///
/// # Panics
/// A checkpoint's error is larger, or none was wanted.
pub fn logits(device: impl Fn() -> Arc<dyn Device>, limit: f64, wanted: impl Fn(&str) -> bool) -> usize {
    let mut misses = Vec::new();
    let mut cases = 0;
    for entry in std::fs::read_dir(repository("crates/model/tests/goldens")).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if !folder.join("logits.npy").exists() || !wanted(&name) {
            continue;
        }
        let error = error_of(&folder, device());
        cases += 1;
        if error.is_nan() || error > limit {
            misses.push((name, error));
        }
    }
    assert!(cases > 0, "no checkpoint was wanted");
    assert!(misses.is_empty(), "of {cases} checkpoints, further than {limit:e} from mlx-lm: {misses:?}");
    cases
}

fn error_of(folder: &Path, device: Arc<dyn Device>) -> f64 {
    let json: Value = serde_json::from_slice(&std::fs::read(folder.join("tokens.json")).unwrap()).unwrap();
    let tokens: Vec<u32> = json["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect();
    let prefill = json["prefill"].as_u64().unwrap() as usize;
    let expected = read_npy(&folder.join("logits.npy"));
    let mut layer = MetalLayer::plain(device.clone()).unwrap();
    let model = load(folder, &device, &layer);
    let mut found = Vec::new();
    let mut evaluator = Evaluator::new(&model, &device, &mut layer, tokens.len(), 64).unwrap();
    evaluator.logits_of(&tokens, prefill, |_, row| found.extend_from_slice(row)).unwrap();
    relative_l2(&found, &expected)
}

/// The values of a little-endian float32 .npy file.
fn read_npy(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..6], b"\x93NUMPY");
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert!(std::str::from_utf8(&bytes[10..10 + header]).unwrap().contains("'<f4'"));
    bytes[10 + header..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// ‖a − b‖ / ‖b‖
pub(crate) fn relative_l2(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let sum = |f: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(x, y)| f(f64::from(*x), f64::from(*y))).sum::<f64>();
    (sum(&|x, y| (x - y) * (x - y)) / sum(&|_, y| y * y)).sqrt()
}
