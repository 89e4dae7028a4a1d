use crate::{load, repository};
use mlx_serving_device::Device;
use mlx_serving_engine::{Engine, Event, Options, Parts, Request, Stream};
use mlx_serving_metal_layer::MetalLayer;
use mlx_serving_metal_layer::config::MetalOptimizations;
use mlx_serving_text::Tokenizer;
use serde_json::Value;
use std::sync::Arc;

/// Optimizations to be on: none, each alone, all together.
pub const SELECTIONS: [&str; 5] = ["none", "memory_pool", "blit_queue", "command_buffer_ring", "all"];

/// Greedy answers of the bundled model to the first `prompts` prompts, all in one batch, up to `tokens` tokens each, must be
/// mlx-lm's, token for token, with each of `selections` on. The device computes in exact arithmetic.
///
/// # Panics
/// A token is another one, or a request fails.
pub fn greedy_answers(device: impl Fn() -> Arc<dyn Device>, selections: &[&str], prompts: usize, tokens: usize) {
    let goldens = goldens(prompts);
    for selection in selections {
        let found = answers(&start(device(), selection), &goldens, tokens);
        for (golden, found) in goldens.iter().zip(found) {
            // Ours ends with the stop token, where one ended it.
            let mut expected = ids(&golden["token_ids"]);
            expected.extend(golden["stop_token_id"].as_u64().map(|id| id as u32));
            expected.truncate(tokens);
            assert_eq!(found, expected, "{selection}: {}", golden["prompt"]);
        }
    }
}

/// Greedy answers to the first `prompts` prompts, one after the other, must be those to all of them in one batch, with no
/// optimization on and with all, in whatever arithmetic.
///
/// # Panics
/// A token is another one, or a request fails.
pub fn company_changes_no_answer(device: impl Fn() -> Arc<dyn Device>, prompts: usize, tokens: usize) {
    let goldens = goldens(prompts);
    let engine = start(device(), "none");
    let alone: Vec<_> = goldens.chunks(1).flat_map(|golden| answers(&engine, golden, tokens)).collect();
    drop(engine);
    for selection in ["none", "all"] {
        assert_eq!(answers(&start(device(), selection), &goldens, tokens), alone, "{selection}");
    }
}

fn goldens(prompts: usize) -> Vec<Value> {
    let file = repository("crates/mlx-serving/tests/goldens/greedy.json");
    let goldens: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    goldens["prompts"].as_array().unwrap()[..prompts].to_vec()
}

/// Up to `tokens` tokens for each of the prompts, in one batch.
fn answers(engine: &Engine, goldens: &[Value], tokens: usize) -> Vec<Vec<u32>> {
    let request = |golden: &Value| Request {
        prompt: ids(&golden["prompt_token_ids"]),
        max_tokens: Some(tokens),
        ..Request::default()
    };
    let streams: Vec<_> = goldens.iter().map(|golden| engine.submit(request(golden)).unwrap()).collect();
    let tokens_of = |mut stream: Stream| {
        let mut found = Vec::new();
        loop {
            match stream.next_blocking().expect("a stream ends with its last event") {
                Event::Prompt(_) => {}
                Event::Token(token) => found.push(token.id),
                Event::Finished(_) => return found,
                Event::Failed(error) => panic!("{error}"),
            }
        }
    };
    streams.into_iter().map(tokens_of).collect()
}

fn ids(json: &Value) -> Vec<u32> {
    json.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn start(device: Arc<dyn Device>, selection: &str) -> Engine {
    let mut config = MetalOptimizations::default();
    config.select(selection).unwrap();
    // Enough for this model, and a simulated device fills all of it with rubbish first.
    config.memory_pool.heap_size_mb = 64;
    config.memory_pool.num_heaps = 2;
    config.memory_pool.warmup_buffer_sizes_mb = Vec::new();
    // Software devices are slow, and the ring must not fall back for that.
    config.command_buffer_ring.max_wait_ms = 10_000;
    let folder = repository("models/rustbook-5m-4bit");
    let layer = MetalLayer::new(device.clone(), &config).unwrap();
    let model = load(&folder, &device, &layer);
    let tokenizer = Tokenizer::from_dir(&folder).unwrap();
    let options = Options { kv_tokens: 4096, ..Options::default() };
    Engine::start(Parts { device, layer, model, tokenizer, eos: vec![0, 2] }, &options).unwrap()
}
