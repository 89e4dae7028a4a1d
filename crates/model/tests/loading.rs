//! Moving checkpoints to a device: what is refused, what is waited for, what fails.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Narrow, bundled, cpu, goldens, load, try_load};
use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_device::{Arithmetic, Buffer, Device, Point, Result as DeviceResult, Timeline};
use mlx_serving_metal_layer::config::MetalOptimizations;
use mlx_serving_metal_layer::{BlitStats, Fill, MetalLayer, Sink, Ticket, Transfer};
use mlx_serving_model::{LoadInputs, LoadProgress, Model, ModelError};
use serde_json::{Value, json};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A case's checkpoint with some keys of its config.json changed.
fn changed(case: &str, changes: Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let from = goldens().join(case);
    std::fs::copy(from.join("model.safetensors"), dir.path().join("model.safetensors")).unwrap();
    let mut config: Value = serde_json::from_slice(&std::fs::read(from.join("config.json")).unwrap()).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    dir
}

fn refusal(dir: &Path, device: Arc<dyn Device>) -> String {
    match try_load(dir, device) {
        Ok(_) => panic!("{} was loaded", dir.display()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn contradictions_are_named() {
    let cases = [
        // Fewer bits in wider rows: the embedding alone does not show it.
        ("qwen2", json!({"hidden_size": 128}), "model.layers.0.input_layernorm.weight"),
        ("qwen2", json!({"hidden_size": 192, "head_dim": 16}), "model.embed_tokens.weight"),
        ("qwen2", json!({"vocab_size": 130}), "model.embed_tokens.weight"),
        ("qwen2", json!({"intermediate_size": 256}), "model.layers.0.mlp.gate_proj.weight"),
        ("qwen2", json!({"num_hidden_layers": 3}), "model.layers.2.input_layernorm.weight"),
        // A shorter model would answer, wrongly.
        ("qwen2", json!({"num_hidden_layers": 1}), "has 1 layers"),
        ("qwen2", json!({"quantization": {"model.embed_tokens": {"bits": 8}}}), "model.embed_tokens.weight"),
        // Biases that this architecture would leave out.
        ("qwen2", json!({"model_type": "llama"}), "self_attn.q_proj.bias does not fit"),
        ("llama-mlp-bias", json!({"mlp_bias": false}), "mlp.gate_proj.bias does not fit"),
        ("llama", json!({"model_type": "qwen2"}), "self_attn.q_proj.bias"),
        ("llama", json!({"model_type": "qwen3", "head_dim": 16}), "self_attn.q_norm.weight"),
        ("llama", json!({"model_type": "gpt2"}), "qwen2, qwen3, llama, mistral"),
    ];
    for (case, changes, expected) in cases {
        let dir = changed(case, changes.clone());
        let message = refusal(dir.path(), cpu(Arithmetic::Exact));
        assert!(message.contains(expected), "{case} with {changes}: {message}");
        assert!(message.contains(&dir.path().display().to_string()), "no path: {message}");
    }
}

#[test]
fn tensors_that_are_not_needed_are_named() {
    // mlx-lm drops a head beside tied embeddings, too.
    let dir = changed("llama", json!({"tie_word_embeddings": true}));
    let model = load(dir.path(), cpu(Arithmetic::Exact)).model;
    assert_eq!(model.unused(), ["lm_head.biases", "lm_head.scales", "lm_head.weight"]);
    assert!(load(&goldens().join("llama"), cpu(Arithmetic::Exact)).model.unused().is_empty());
}

#[test]
fn a_model_beyond_the_budget_is_refused_before_anything_is_allocated() {
    let device = Narrow::device(cpu(Arithmetic::Fast), |info| info.memory_budget = 1 << 20);
    let bytes = Checkpoint::open(&bundled()).unwrap().total_bytes();
    let before = device.counters().allocations;
    let message = refusal(&bundled(), device.clone());
    assert!(message.contains(&bytes.to_string()) && message.contains("1048576"), "{message}");
    assert_eq!(device.counters().allocations, before);
}

#[test]
fn weights_longer_than_a_buffer_are_split_by_rows() {
    let tokens: Vec<u32> = (0..40).collect();
    for arithmetic in [Arithmetic::Exact, Arithmetic::Fast] {
        let cases = ["llama-attention-bias", "llama-dense-head", "phi3"].map(|case| goldens().join(case));
        for case in cases.into_iter().chain([bundled()]) {
            let whole = load(&case, cpu(arithmetic)).logits(&tokens, 40, 64);
            let gate = if case == bundled() { 256 << 10 } else { 20 << 10 };
            let mut narrow = load(&case, Narrow::device(cpu(arithmetic), |info| info.max_buffer_len = gate));
            assert!(narrow.logits(&tokens, 40, 8) == whole, "{}, {arithmetic:?}", case.display());
        }
    }
    let device = Narrow::device(cpu(Arithmetic::Exact), |info| info.max_buffer_len = 8 << 10);
    let message = refusal(&bundled(), device);
    assert!(message.contains("model.layers.0.mlp.gate_proj") && message.contains("8192"), "{message}");
    // Half of it, 128 rows of 64 values in 16 bits, is too long.
    let device = Narrow::device(cpu(Arithmetic::Exact), |info| info.max_buffer_len = 8 << 10);
    let message = refusal(&goldens().join("phi3-dense-f16"), device);
    assert!(message.contains("model.layers.0.mlp.gate_up_proj") && message.contains("8192"), "{message}");
}

#[test]
fn progress_rises_to_the_whole_checkpoint() {
    let device = cpu(Arithmetic::Exact);
    let layer = MetalLayer::plain(device.clone()).unwrap();
    let checkpoint = Arc::new(Checkpoint::open(&goldens().join("llama")).unwrap());
    let total = checkpoint.total_bytes();
    let mut seen: Vec<LoadProgress> = Vec::new();
    let source = LoadInputs {
        checkpoint,
        device: &device,
        allocate: layer.allocate.as_ref(),
        transfer: layer.transfer.as_ref(),
        progress: &mut |p| seen.push(p),
    };
    Model::load(source).unwrap();
    assert!(seen.len() > 20);
    assert!(seen.iter().all(|p| p.total == total));
    assert!(seen.windows(2).all(|w| w[0].done <= w[1].done));
    assert_eq!(seen.last().unwrap().done, total);
    // All tensors were counted, before the last call said so.
    assert_eq!(seen[seen.len() - 2].done, total);
}

#[test]
fn device_memory_of_the_weights_is_near_the_checkpoints() {
    for arithmetic in [Arithmetic::Exact, Arithmetic::Fast] {
        let device = cpu(arithmetic);
        let loaded = load(&bundled(), device.clone());
        loaded.layer.allocate.trim();
        let bytes = device.counters().bytes_allocated;
        let limit = Checkpoint::open(&bundled()).unwrap().total_bytes() * 5 / 4;
        assert!(bytes <= limit, "{bytes} bytes of {limit}, {arithmetic:?}");
    }
}

/// A copy of the bundled model that may be spoiled.
fn copied() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(bundled().join(file), dir.path().join(file)).unwrap();
    }
    dir
}

fn shorten(dir: &Path, len: u64) {
    std::fs::File::options().write(true).open(dir.join("model.safetensors")).unwrap().set_len(len).unwrap();
}

fn names_the_file(error: &ModelError, dir: &Path) {
    let (message, file) = (error.to_string(), dir.join("model.safetensors").display().to_string());
    assert!(matches!(error, ModelError::Upload { .. }), "{error:?}");
    assert!(message.contains(&format!("{file} changed while it was read")) && message.contains("model."), "{message}");
}

/// Loads with some optimizations on; tells `progress` the bytes that were handed over.
fn load_with(optimizations: &str, dir: &Path, progress: &mut dyn FnMut(u64)) -> Result<Model, ModelError> {
    let mut config = MetalOptimizations::default();
    config.select(optimizations).unwrap();
    let device = cpu(Arithmetic::Exact);
    let layer = MetalLayer::new(device.clone(), &config).unwrap();
    let model = Model::load(LoadInputs {
        checkpoint: Arc::new(Checkpoint::open(dir)?),
        device: &device,
        allocate: layer.allocate.as_ref(),
        transfer: layer.transfer.as_ref(),
        progress: &mut |p| progress(p.done),
    })?;
    model.wait_resident(Duration::from_secs(60))?;
    assert!(model.resident()?);
    Ok(model)
}

#[test]
fn a_file_that_shrinks_while_it_is_loaded_fails_the_load_and_is_named() {
    for optimizations in ["none", "all"] {
        for len in [0, 4096, 1_500_000] {
            let dir = copied();
            let mut first = true;
            let spoil = &mut |_| {
                if std::mem::take(&mut first) {
                    shorten(dir.path(), len);
                }
            };
            match load_with(optimizations, dir.path(), spoil) {
                Err(error) => names_the_file(&error, dir.path()),
                // The queue may have read all of the file before it was shortened.
                Ok(_) => assert_eq!(optimizations, "all", "{len}"),
            }
        }
        load_with(optimizations, &bundled(), &mut |_| {}).unwrap();
    }
}

/// An upload put off: its destination, what fills it, and the point that it signals.
type PutOff = (Buffer, Fill, u64);

/// Fills nothing before it is told to, or fails one upload.
struct Late {
    inner: Arc<dyn Transfer>,
    timeline: Arc<dyn Timeline>,
    put_off: Mutex<Vec<PutOff>>,
    failing: Option<usize>,
}

impl fmt::Debug for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Late")
    }
}

impl Late {
    fn fill(&self, uploads: std::ops::Range<usize>) {
        for (to, fill, value) in self.put_off.lock().unwrap().drain(uploads) {
            let mut fill = Some(fill);
            to.lend(&mut |bytes| fill.take().unwrap()(bytes).unwrap()).unwrap();
            self.timeline.signal(value);
        }
    }
}

impl Transfer for Late {
    fn scatter(&self, to: &[Buffer], fill: Fill) -> DeviceResult<Ticket> {
        self.inner.scatter(to, fill)
    }

    fn gather(&self, from: &[Buffer], sink: Sink) -> DeviceResult<Ticket> {
        self.inner.gather(from, sink)
    }

    fn stream(&self, to: &Buffer, fill: Fill) -> DeviceResult<Ticket> {
        let mut put_off = self.put_off.lock().unwrap();
        let number = put_off.len();
        let result = if self.failing == Some(number) { Err("the disk went away".to_owned()) } else { Ok(()) };
        let mut ticket = self.inner.upload(to, Box::new(move |_| result))?;
        let value = number as u64 + 1;
        put_off.push((to.clone(), fill, value));
        ticket.point = Some(Point { timeline: self.timeline.clone(), value });
        Ok(ticket)
    }

    fn max_chunk(&self) -> u64 {
        // Short, so that weights take several uploads.
        1 << 10
    }

    fn stats(&self) -> BlitStats {
        self.inner.stats()
    }
}

fn load_late(failing: Option<usize>) -> (Arc<Late>, common::Loaded) {
    let device = cpu(Arithmetic::Exact);
    let layer = MetalLayer::plain(device.clone()).unwrap();
    let timeline = device.new_timeline().unwrap();
    let late = Arc::new(Late { inner: layer.transfer.clone(), timeline, put_off: Mutex::default(), failing });
    let model = Model::load(LoadInputs {
        checkpoint: Arc::new(Checkpoint::open(&goldens().join("qwen3")).unwrap()),
        device: &device,
        allocate: layer.allocate.as_ref(),
        transfer: late.as_ref(),
        progress: &mut |_| {},
    });
    (late, common::Loaded { device, layer, model: model.unwrap() })
}

#[test]
fn a_step_waits_on_the_device_for_weights_on_their_way() {
    let tokens: Vec<u32> = (0..30).collect();
    let expected = load(&goldens().join("qwen3"), cpu(Arithmetic::Exact)).logits(&tokens, 30, 64);
    let (late, mut model) = load_late(None);
    let uploads = late.put_off.lock().unwrap().len();
    assert!(uploads > 40, "{uploads}");
    assert!(model.model.wait_resident(Duration::from_millis(1)).is_err());
    assert!(!model.model.resident().unwrap());
    let found = std::thread::scope(|scope| {
        let step = scope.spawn(|| model.logits(&tokens, 30, 64));
        // The prompt's step is recorded and submitted before most weights have arrived, and ends only after the last.
        late.fill(0..uploads / 2);
        late.fill(0..uploads - uploads / 2 - 1);
        assert!(!step.is_finished());
        late.fill(0..1);
        step.join().unwrap()
    });
    assert!(found == expected);
    assert!(model.model.resident().unwrap());
    model.model.wait_resident(Duration::from_millis(1)).unwrap();
}

#[test]
fn a_failed_upload_is_reported_with_its_tensor() {
    let (late, model) = load_late(Some(60));
    let uploads = late.put_off.lock().unwrap().len();
    late.fill(0..uploads);
    for error in [model.model.wait_resident(Duration::from_secs(1)).unwrap_err(), model.model.resident().unwrap_err()] {
        let message = error.to_string();
        assert!(matches!(error, ModelError::Upload { .. }), "{error:?}");
        assert!(message.contains("model.layers.") && message.contains("the disk went away"), "{message}");
    }
}

#[test]
fn evaluation_refuses_what_it_cannot_run() {
    use mlx_serving_model::eval::{Evaluator, divergence};
    let mut model = load(&goldens().join("qwen2"), cpu(Arithmetic::Exact));
    let mut other = load(&bundled(), cpu(Arithmetic::Exact));
    let mut evaluator = Evaluator::new(&model.model, &model.device, &mut model.layer, 8, 4).unwrap();
    assert!(matches!(evaluator.logits(&[0, 131], |_, _| {}), Err(ModelError::Token { token: 131, last: 130 })));
    assert!(matches!(evaluator.logits(&[0; 9], |_, _| {}), Err(ModelError::Context { tokens: 9, room: 8 })));
    let mut bundled = Evaluator::new(&other.model, &other.device, &mut other.layer, 8, 4).unwrap();
    let apart = divergence(&mut evaluator, &mut bundled, &[1, 2], 8);
    assert!(matches!(apart, Err(ModelError::Vocabularies { reference: 131, other: 4096 })));
}

#[test]
fn a_model_does_not_diverge_from_itself() {
    use mlx_serving_model::eval::{Evaluator, divergence, perplexity};
    let tokens: Vec<u32> = (0..50).collect();
    let mut one = load(&bundled(), cpu(Arithmetic::Exact));
    let mut two = load(&bundled(), cpu(Arithmetic::Exact));
    let mut other = load(&bundled(), cpu(Arithmetic::Fast));
    let mut reference = Evaluator::new(&one.model, &one.device, &mut one.layer, 32, 8).unwrap();
    let mut same = Evaluator::new(&two.model, &two.device, &mut two.layer, 32, 5).unwrap();
    let mut fast = Evaluator::new(&other.model, &other.device, &mut other.layer, 32, 8).unwrap();
    let apart = divergence(&mut reference, &mut same, &tokens, 32).unwrap();
    assert_eq!((apart.mean_kl, apart.top1_agreement, apart.positions), (0.0, 1.0, 50));
    let apart = divergence(&mut reference, &mut fast, &tokens, 32).unwrap();
    assert!(apart.mean_kl > 0.0 && apart.positions == 50, "{apart:?}");
    // Windows of 32 and 18 tokens predict all but their first.
    assert_eq!(perplexity(&mut reference, &tokens, 32).unwrap().tokens, 48);
}
