//! Models on devices, for the tests of this folder.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_cpu::{CpuDevice, CpuOptions};
use mlx_serving_device::{
    Arithmetic, Buffer, Counters, Device, DeviceError, DeviceInfo, Heap, KvSpec, Placement, Queue,
    Result as DeviceResult, Storage, Timeline, WeightLayout, WeightSource, WeightSpec,
};
use mlx_serving_metal_layer::MetalLayer;
use mlx_serving_model::eval::Evaluator;
use mlx_serving_model::inputs::{Packer, Sequences};
use mlx_serving_model::{KvCache, LoadInputs, Model, ModelError, Scratch};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

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
    try_load(dir, device).unwrap()
}

pub fn try_load(dir: &Path, device: Arc<dyn Device>) -> Result<Loaded, ModelError> {
    load_checkpoint(Checkpoint::open(dir)?, device)
}

pub fn load_checkpoint(checkpoint: Checkpoint, device: Arc<dyn Device>) -> Result<Loaded, ModelError> {
    let layer = MetalLayer::plain(device.clone()).unwrap();
    let model = Model::load(LoadInputs {
        checkpoint: Arc::new(checkpoint),
        device: &device,
        allocate: layer.allocate.as_ref(),
        transfer: layer.transfer.as_ref(),
        progress: &mut |_| {},
    })?;
    Ok(Loaded { device, layer, model })
}

/// One sequence's rows in a step.
pub struct Part<'a> {
    pub tokens: &'a [u32],
    pub start: usize,
    pub prompt: usize,
    pub blocks: Vec<u32>,
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

impl Loaded {
    /// Runs one step; logits of all its rows.
    pub fn step(&mut self, parts: &[Part<'_>], cache: &KvCache, scratch: &Scratch) -> Vec<f32> {
        let rows: u32 = parts.iter().map(|p| p.tokens.len() as u32).sum();
        self.step_for(parts, &(0..rows).collect::<Vec<_>>(), cache, scratch)
    }

    /// Runs one step; logits of some of its rows.
    pub fn step_for(&mut self, parts: &[Part<'_>], logit_rows: &[u32], cache: &KvCache, scratch: &Scratch) -> Vec<f32> {
        let mut sequences = Sequences { logit_rows: logit_rows.to_vec(), ..Sequences::default() };
        for part in parts {
            sequences.push(part.tokens, part.start, part.prompt, part.blocks.iter().copied());
        }
        let memory = self.device.new_buffer(sequences.bytes(), Storage::Shared).unwrap();
        let step = Packer::new(&memory, &memory).sequences(&sequences).unwrap().step(&sequences);
        let queue = self.device.compute_queue();
        let mut encoder = queue.encoder().unwrap();
        let allocate = self.layer.allocate.as_ref();
        let temporaries = self.model.forward(encoder.as_mut(), &step, cache, scratch, allocate).unwrap();
        scratch.make_readable(encoder.as_mut(), logit_rows.len()).unwrap();
        let submission = queue.submit(encoder.finish().unwrap(), &[], None).unwrap();
        submission.wait(Duration::from_secs(60)).unwrap();
        drop(temporaries);
        let mut logits = vec![0f32; logit_rows.len() * self.model.vocab()];
        scratch.read_logits(0, &mut logits).unwrap();
        logits
    }
}

/// A device with other limits.
#[derive(Debug)]
pub struct Narrow {
    inner: Arc<dyn Device>,
    info: DeviceInfo,
    /// True if gate and up must be of one format, as on GPUs.
    alike: bool,
}

impl Narrow {
    pub fn device(inner: Arc<dyn Device>, change: impl FnOnce(&mut DeviceInfo)) -> Arc<dyn Device> {
        let mut info = inner.info().clone();
        change(&mut info);
        Arc::new(Self { inner, info, alike: false })
    }

    pub fn alike(inner: Arc<dyn Device>) -> Arc<dyn Device> {
        let info = inner.info().clone();
        Arc::new(Self { inner, info, alike: true })
    }
}

impl Device for Narrow {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }
    fn counters(&self) -> Counters {
        self.inner.counters()
    }
    fn now(&self) -> Duration {
        self.inner.now()
    }
    fn new_heap(&self, len: u64, storage: Storage) -> DeviceResult<Arc<dyn Heap>> {
        self.inner.new_heap(len, storage)
    }
    fn new_buffer(&self, len: u64, storage: Storage) -> DeviceResult<Buffer> {
        self.inner.new_buffer(len, storage)
    }
    fn placement(&self, len: u64) -> Placement {
        self.inner.placement(len)
    }
    fn compute_queue(&self) -> Arc<dyn Queue> {
        self.inner.compute_queue()
    }
    fn transfer_queue(&self) -> Arc<dyn Queue> {
        self.inner.transfer_queue()
    }
    fn new_timeline(&self) -> DeviceResult<Arc<dyn Timeline>> {
        self.inner.new_timeline()
    }
    fn weight_layout(&self, spec: &WeightSpec) -> DeviceResult<WeightLayout> {
        self.inner.weight_layout(spec)
    }
    fn pack_weight(
        &self,
        spec: &WeightSpec,
        source: &WeightSource<'_>,
        blocks: Range<usize>,
        out: &mut [u8],
    ) -> DeviceResult<()> {
        self.inner.pack_weight(spec, source, blocks, out)
    }
    fn check_gated(&self, gate: &WeightSpec, up: &WeightSpec) -> DeviceResult<()> {
        match self.alike && gate != up {
            true => Err(DeviceError::Unsupported("they are not alike".into())),
            false => Ok(()),
        }
    }
    fn kv_block_bytes(&self, spec: &KvSpec) -> usize {
        self.inner.kv_block_bytes(spec)
    }
}
