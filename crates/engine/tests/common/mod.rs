//! Engines of the bundled model on a device of the test's choice.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_cpu::{CpuDevice, CpuOptions};
use mlx_serving_device::Device;
use mlx_serving_device::fake::scripted_token;
use mlx_serving_device::ops::SampleParams;
use mlx_serving_engine::{Engine, EngineError, Event, FinishReason, Options, Parts, Request, Sampling, Stream};
use mlx_serving_metal_layer::config::MetalOptimizations;
use mlx_serving_metal_layer::{MetalLayer, RingStats, Switched};
use mlx_serving_model::{LoadInputs, Model};
use mlx_serving_text::Tokenizer;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tokens that end an answer of the bundled model.
const EOS: [u32; 2] = [0, 2];

pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/rustbook-5m-4bit")
}

pub fn tokenizer() -> Tokenizer {
    Tokenizer::from_dir(&folder()).unwrap()
}

/// With the ring on, of that size; all baselines for 1.
pub fn ring(ring_size: usize) -> MetalOptimizations {
    let mut config = MetalOptimizations::default();
    if ring_size > 1 {
        config.select("command_buffer_ring").unwrap();
        config.command_buffer_ring.ring_size = ring_size;
        // Longer than any test may be held up.
        config.command_buffer_ring.max_wait_ms = 10_000;
    }
    config
}

pub fn start(device: Arc<dyn Device>, config: &MetalOptimizations, options: &Options) -> Result<Engine, EngineError> {
    let layer = MetalLayer::new(device.clone(), config).unwrap();
    start_on(device, layer, options)
}

/// An engine whose allocations, copies and submissions go through `layer`.
pub fn start_on(device: Arc<dyn Device>, layer: MetalLayer, options: &Options) -> Result<Engine, EngineError> {
    let checkpoint = Arc::new(Checkpoint::open(&folder()).unwrap());
    let model = Model::load(LoadInputs {
        checkpoint,
        device: &device,
        allocate: layer.allocate.as_ref(),
        transfer: layer.transfer.as_ref(),
        progress: &mut |_| {},
    });
    let parts = Parts { device, layer, model: model.unwrap(), tokenizer: tokenizer(), eos: EOS.to_vec() };
    Engine::start(parts, options)
}

/// Outcome of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub tokens: Vec<u32>,
    pub text: String,
    pub reason: FinishReason,
}

/// Reads a stream to its end.
pub fn read(mut stream: Stream) -> Result<Answer, EngineError> {
    let (mut tokens, mut text) = (Vec::new(), String::new());
    loop {
        match stream.next_blocking().expect("a stream ends with its last event") {
            Event::Prompt(_) | Event::Embedding(_) => {}
            Event::Token(token) => {
                tokens.push(token.id);
                text += &token.text();
            }
            Event::Finished(finish) => {
                return Ok(Answer { tokens, text: text + &finish.text(), reason: finish.reason });
            }
            Event::Failed(error) => return Err(error),
        }
    }
}

const PROMPTS: [&str; 6] = [
    "Ownership is a set of rules that govern how a Rust program manages memory.",
    "Ownership is a set of rules that govern how a Rust program manages memory. The borrow checker",
    "fn main() {\n    let mut s = String::from(\"hello\");",
    "What Is Ownership?",
    "Traits",
    "The enum `Option<T>` encodes the common scenario in which a value could be something or it could be nothing, and",
];

/// Everything that a request may ask for, in turn.
pub fn requests() -> Vec<Request> {
    let tokenizer = tokenizer();
    let greedy = Sampling::default;
    (0..30u64)
        .map(|i| {
            let sampling = match i % 6 {
                0 => greedy(),
                1 => Sampling { temperature: 0.9, seed: Some(i), ..greedy() },
                2 => Sampling { temperature: 0.7, top_p: 0.9, top_k: 40, seed: Some(7), ..greedy() },
                3 => Sampling { repetition_penalty: 1.3, frequency_penalty: 0.4, ..greedy() },
                4 => Sampling { temperature: 1.2, min_p: 0.05, presence_penalty: 0.8, seed: Some(i), ..greedy() },
                _ => Sampling { logit_bias: vec![(17, 2.5), (300, -80.0)], ..greedy() },
            };
            Request {
                prompt: tokenizer.encode(PROMPTS[i as usize % PROMPTS.len()], false).unwrap(),
                sampling,
                max_tokens: Some(14 + 7 * (i as usize % 5)),
                stop: if i % 4 == 1 { vec![" the".into(), "\n\n".into()] } else { Vec::new() },
                ignore_eos: i % 3 == 0,
                ..Request::default()
            }
        })
        .collect()
}

/// So few blocks that sequences are preempted, so few rows that prompts are cut.
pub fn tight() -> Options {
    Options { max_sequences: 6, max_batch_rows: 24, kv_tokens: 16 * 10, ..Options::default() }
}

/// An engine on a CPU of one thread.
pub fn on_cpu(config: &MetalOptimizations, options: &Options) -> Engine {
    let device = CpuDevice::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() }).unwrap();
    start(device, config, options).unwrap()
}

/// Sends all requests at once.
pub fn answers(engine: &Engine, requests: Vec<Request>) -> Vec<Answer> {
    let streams: Vec<Stream> = requests.into_iter().map(|request| engine.submit(request).unwrap()).collect();
    streams.into_iter().map(|stream| read(stream).unwrap()).collect()
}

/// Waits until `condition` holds.
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// With the blit queue on.
pub fn blit() -> MetalOptimizations {
    let mut config = MetalOptimizations::default();
    config.select("blit_queue").unwrap();
    config
}

/// A request that only its length ends.
pub fn endless(seed: u64, max_tokens: usize) -> Request {
    let mut request =
        Request { prompt: vec![5, 6, 7], max_tokens: Some(max_tokens), ignore_eos: true, ..Request::default() };
    request.sampling.seed = Some(seed);
    request
}

/// Answer of a fake device that computes nothing to [`endless`].
pub fn scripted(engine: &Engine, seed: u64, max_tokens: usize) -> Vec<u32> {
    let params = |position| SampleParams {
        seed_low: seed as u32,
        seed_high: (seed >> 32) as u32,
        position,
        ..SampleParams::GREEDY
    };
    (3..3 + max_tokens as u32).map(|position| scripted_token(&params(position), engine.info().vocab)).collect()
}

/// The ring's counters, whether it still runs or has fallen back.
pub fn ring_stats(engine: &Engine) -> RingStats {
    engine.stats().command_buffer_ring.counters().expect("the ring was switched on").clone()
}

/// Reason for which the ring fell back, if it did.
pub fn fallback(engine: &Engine) -> Option<String> {
    match engine.stats().command_buffer_ring {
        Switched::Off { reason, .. } => reason,
        Switched::On { .. } => None,
    }
}
