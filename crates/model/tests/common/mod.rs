//! Models on devices, and numpy files, for the tests of this folder.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_cpu::{CpuDevice, CpuOptions};
use mlx_serving_device::{Arithmetic, Device};
use mlx_serving_metal_layer::MetalLayer;
use mlx_serving_model::eval::Evaluator;
use mlx_serving_model::{Model, Source};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

pub fn bundled() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/rustbook-5m-4bit")
}

/// A loaded model with all it needs.
pub struct Loaded {
    pub device: Arc<dyn Device>,
    pub layer: MetalLayer,
    pub model: Model,
}

pub fn cpu(arithmetic: Arithmetic) -> Arc<dyn Device> {
    CpuDevice::new(&CpuOptions { arithmetic, threads: Some(2), ..CpuOptions::default() }).unwrap()
}

pub fn load(dir: &Path, device: Arc<dyn Device>) -> Loaded {
    let layer = MetalLayer::plain(device.clone()).unwrap();
    let model = Model::load(Source {
        checkpoint: Arc::new(Checkpoint::open(dir).unwrap()),
        device: &device,
        allocate: layer.allocate.as_ref(),
        transfer: layer.transfer.as_ref(),
        progress: &mut |_| {},
    })
    .unwrap();
    Loaded { device, layer, model }
}

impl Loaded {
    /// Logits at every position, (tokens, vocabulary), taken `chunk` tokens at a time.
    pub fn logits(&mut self, tokens: &[u32], prompt: usize, chunk: usize) -> Vec<f32> {
        let mut all = Vec::new();
        let mut evaluator =
            Evaluator::new(&self.model, &self.device, &mut self.layer, tokens.len().max(1), chunk).unwrap();
        evaluator.logits_of(tokens, prompt, |_, row| all.extend_from_slice(row)).unwrap();
        all
    }
}

/// Reads a little-endian float32 .npy file of two dimensions.
pub fn read_npy(path: &Path) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..6], b"\x93NUMPY");
    let header_len = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..10 + header_len]).unwrap();
    assert!(header.contains("'<f4'") && header.contains("'fortran_order': False"), "{header}");
    let shape = header.split_once("'shape': (").unwrap().1.split_once(')').unwrap().0;
    let shape: Vec<usize> = shape.split(',').filter_map(|s| s.trim().parse().ok()).collect();
    let values = bytes[10 + header_len..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    (shape, values)
}

/// ‖a − b‖ / ‖b‖
pub fn relative_l2(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let sum = |f: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(x, y)| f(f64::from(*x), f64::from(*y))).sum::<f64>();
    (sum(&|x, y| (x - y) * (x - y)) / sum(&|_, y| y * y)).sqrt()
}
