//! Engines whose device memory comes from the pool: what is asked of the device, and what is left at the end.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_cpu::{CpuDevice, CpuOptions};
use mlx_serving_device::fake::{FakeDevice, FakeOptions, Fault};
use mlx_serving_device::{Arithmetic, Device, Storage};
use mlx_serving_engine::{Engine, Event, Options, Parts, Request, Sampling, Stream};
use mlx_serving_metal_layer::config::MetalOptimizations;
use mlx_serving_metal_layer::{Allocate, MetalLayer, PoolStats};
use mlx_serving_model::synth::Synth;
use mlx_serving_model::{LoadInputs, Model};
use mlx_serving_text::Tokenizer;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const VOCAB: u32 = 512;

/// Makes a device.
type Opener = fn() -> Arc<dyn Device>;

/// A random checkpoint of two layers; `change` may alter its configuration.
fn checkpoint(change: impl FnOnce(&mut serde_json::Value)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let synth = Synth { shape: "tiny-qwen2".into(), bits: 4, group_size: 64, seed: 7 };
    synth.write(dir.path()).unwrap();
    let path = dir.path().join("config.json");
    let mut config = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(&path, config.to_string()).unwrap();
    dir
}

fn cpu() -> Arc<dyn Device> {
    CpuDevice::new(&CpuOptions { threads: Some(1), arithmetic: Arithmetic::Fast, isa: None }).unwrap()
}

fn fake(unified_memory: bool) -> Arc<dyn Device> {
    FakeDevice::new(FakeOptions { unified_memory, compute: false, ..FakeOptions::default() }).unwrap()
}

/// An engine and the pool that serves it.
struct Rig {
    device: Arc<dyn Device>,
    pool: Arc<dyn Allocate>,
    engine: Engine,
}

/// Starts an engine with the pool and with what else `optimizations` names.
fn start(dir: &Path, device: Arc<dyn Device>, optimizations: &str) -> Rig {
    let mut config = MetalOptimizations::default();
    config.select(optimizations).unwrap();
    let pool = &mut config.memory_pool;
    (pool.heap_size_mb, pool.num_heaps, pool.warmup_buffer_sizes_mb) = (64, 2, vec![8]);
    config.blit_queue.staging_buffer_size_mb = 4;
    let layer = MetalLayer::new(device.clone(), &config).unwrap();
    let pool = layer.allocate.clone();
    let model = Model::load(LoadInputs {
        checkpoint: Arc::new(Checkpoint::open(dir).unwrap()),
        device: &device,
        allocate: layer.allocate.as_ref(),
        transfer: layer.transfer.as_ref(),
        progress: &mut |_| {},
    })
    .unwrap();
    let tokenizer = Tokenizer::from_dir(dir).unwrap();
    let options = Options { max_sequences: 16, max_batch_rows: 64, kv_tokens: 2048, ..Options::default() };
    let parts = Parts { device: device.clone(), layer, model, tokenizer, eos: vec![VOCAB - 1] };
    let engine = Engine::start(parts, &options).unwrap();
    Rig { device, pool, engine }
}

impl Rig {
    fn allocations(&self) -> u64 {
        self.device.counters().allocations
    }

    /// Ends the engine; what the pool knows once the device has told that its last work is done.
    fn end(self) -> PoolStats {
        drop(self.engine);
        assert_eq!(self.pool.leaks(), []);
        let start = Instant::now();
        while self.pool.stats().available_count < 2 {
            assert!(start.elapsed() < Duration::from_secs(60), "memory that nobody releases: {:?}", self.pool.stats());
            std::thread::sleep(Duration::from_millis(1));
        }
        self.pool.stats()
    }
}

/// The `i`-th of many different requests: lengths, ways of sampling, stop strings, log-probabilities.
fn request(i: usize) -> Request {
    let length = 1 + i * 7 % 23 + if i.is_multiple_of(50) { 100 } else { 0 };
    let penalty = [1.0, 1.3][usize::from(i.is_multiple_of(3))];
    let sampling = Sampling {
        temperature: [0.0, 0.8][i % 2],
        top_k: [0, 5, 40][i % 3],
        top_p: [1.0, 0.9][usize::from(i.is_multiple_of(5))],
        repetition_penalty: penalty,
        seed: Some(i as u64),
        logit_bias: if i.is_multiple_of(7) { vec![(3, 1.0), (9, -100.0)] } else { Vec::new() },
        ..Sampling::default()
    };
    Request {
        prompt: (0..length).map(|j| (i * 31 + j * 17) as u32 % (VOCAB - 4)).collect(),
        sampling,
        max_tokens: Some(1 + i % 3),
        stop: if i.is_multiple_of(11) { vec!["e".into()] } else { Vec::new() },
        ignore_eos: i.is_multiple_of(2),
        logprobs: i.is_multiple_of(97).then_some(3),
        ..Request::default()
    }
}

/// A request that only its length ends.
fn endless() -> Request {
    Request { prompt: vec![5, 6, 7], max_tokens: Some(40), ignore_eos: true, ..Request::default() }
}

/// Reads an answer to its end.
fn finish(mut stream: Stream) {
    while let Some(event) = stream.next_blocking() {
        match event {
            Event::Prompt(_) | Event::Embedding(_) | Event::Token(_) => {}
            Event::Finished(_) => return,
            Event::Failed(error) => panic!("{error}"),
        }
    }
    panic!("a stream without an end");
}

/// Sends requests, as many at a time as the engine takes; every 13th client goes away after the first token.
fn serve(rig: &Rig, count: usize) {
    let mut streams = VecDeque::new();
    for i in 0..count {
        if streams.len() == 48 {
            finish(streams.pop_front().unwrap());
        }
        let mut stream = rig.engine.submit(request(i)).unwrap();
        if i.is_multiple_of(13) {
            stream.next_blocking().unwrap();
        } else {
            streams.push_back(stream);
        }
    }
    streams.into_iter().for_each(finish);
}

#[test]
fn a_step_asks_nothing_of_the_device_once_the_engine_runs() {
    let dir = checkpoint(|_| {});
    let devices: [(&str, Opener); 3] = [("cpu", cpu), ("unified", || fake(true)), ("discrete", || fake(false))];
    for (name, device) in devices {
        for optimizations in ["memory_pool", "memory_pool,command_buffer_ring", "all"] {
            let rig = start(dir.path(), device(), optimizations);
            let (before, acquired) = (rig.allocations(), rig.pool.stats().total_acquired);
            let long = Request {
                prompt: (0..300).collect(),
                max_tokens: Some(200),
                ignore_eos: true,
                sampling: Sampling { presence_penalty: 0.5, seed: Some(1), ..Sampling::default() },
                ..Request::default()
            };
            let stream = rig.engine.submit(long).unwrap();
            serve(&rig, 100);
            finish(stream);
            assert_eq!(rig.allocations(), before, "{name} with {optimizations}");
            let stats = rig.pool.stats();
            assert!(stats.total_acquired > acquired + 30, "penalties allocate: {stats:?}");
            assert_eq!((stats.fallback_events, stats.exhaustion_events), (0, 0), "{name} with {optimizations}");
            let end = rig.end();
            assert_eq!(end.total_acquired, end.total_released, "{name} with {optimizations}");
        }
    }
}

#[test]
fn rope_frequencies_of_long_sequences_come_from_the_pool_too() {
    let dir = checkpoint(|config| {
        config["max_position_embeddings"] = 32.into();
        config["rope_scaling"] = serde_json::json!({ "type": "dynamic", "factor": 8.0 });
    });
    let rig = start(dir.path(), cpu(), "memory_pool");
    let (before, acquired) = (rig.allocations(), rig.pool.stats().total_acquired);
    let long = Request { prompt: (0..40).collect(), max_tokens: Some(60), ignore_eos: true, ..Request::default() };
    let streams: Vec<_> = (0..4).map(|_| rig.engine.submit(long.clone()).unwrap()).collect();
    streams.into_iter().for_each(finish);
    assert_eq!(rig.allocations(), before);
    assert!(rig.pool.stats().total_acquired > acquired + 60, "every step allocates");
    let end = rig.end();
    assert_eq!(end.total_acquired, end.total_released);
}

#[test]
fn a_request_that_gets_no_memory_fails_alone() {
    let dir = checkpoint(|_| {});
    let device = FakeDevice::new(FakeOptions { compute: false, ..FakeOptions::default() }).unwrap();
    let control = device.control();
    let rig = start(dir.path(), device, "memory_pool,command_buffer_ring");
    // Somebody takes all that is left of the heaps, and the device gives no more.
    let mut taken = Vec::new();
    for bytes in [1 << 20, 16 << 10, 256] {
        let fallbacks = rig.pool.stats().fallback_events;
        while rig.pool.stats().fallback_events == fallbacks {
            taken.push(rig.pool.allocate(bytes, Storage::Shared, "test").unwrap());
        }
        drop(taken.pop());
    }
    control.refuse_allocations(Fault::ALWAYS);
    rig.pool.trim();
    let plain = |i| Request { sampling: Sampling { seed: Some(i), ..Sampling::default() }, ..endless() };
    let others: Vec<_> = (0..8).map(|i| rig.engine.submit(plain(i)).unwrap()).collect();
    let penalizing = |count: usize| -> Vec<Stream> {
        let sampling = Sampling { presence_penalty: 1.0, ..Sampling::default() };
        (0..count).map(|_| rig.engine.submit(Request { sampling: sampling.clone(), ..endless() }).unwrap()).collect()
    };
    for mut stream in penalizing(3) {
        match stream.next_blocking() {
            Some(Event::Failed(error)) => assert!(error.to_string().contains("memory"), "{error}"),
            other => panic!("{other:?}"),
        }
    }
    others.into_iter().for_each(finish);
    drop(taken);
    penalizing(3).into_iter().for_each(finish);
    assert!(rig.engine.health().alive);
}

/// Many requests on one engine: nothing grows, and nothing is left.
fn endure(device: Arc<dyn Device>) {
    let dir = checkpoint(|_| {});
    let rig = start(dir.path(), device, "memory_pool,command_buffer_ring");
    let (before, reserved) = (rig.allocations(), rig.pool.stats().bytes_reserved);
    serve(&rig, 10_000);
    assert_eq!(rig.allocations(), before);
    let stats = rig.pool.stats();
    assert_eq!((stats.bytes_reserved, stats.fallback_events), (reserved, 0));
    assert!(stats.total_acquired > 3000, "each penalizing request allocates: {stats:?}");
    let end = rig.end();
    assert_eq!((end.total_acquired, end.bytes_in_use), (end.total_released, 0));
    assert_eq!((end.utilization, end.fragmentation), (0.0, 0.0));
    // The weights' heaps went with the weights.
    assert_eq!(end.bytes_reserved, 128 << 20);
}

#[test]
fn ten_thousand_mixed_requests_leave_nothing_behind() {
    endure(fake(true));
}

#[test]
fn ten_thousand_mixed_requests_leave_nothing_behind_on_the_cpu() {
    endure(cpu());
}
