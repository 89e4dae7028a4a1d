use crate::{load, repository};
use mlx_serving_device::Device;
use mlx_serving_engine::{Engine, Event, Options, Parts, Request, Sampling, Stream, TokenEvent};
use mlx_serving_metal_layer::MetalLayer;
use mlx_serving_metal_layer::config::MetalOptimizations;
use mlx_serving_text::Tokenizer;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

const BUNDLED: &str = "models/rustbook-5m-4bit";

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

/// Greedy answers of the random checkpoints that have one on record must be mlx-lm's, token for token, with each of `selections` on; how many
/// checkpoints these were. The device computes in exact arithmetic.
///
/// # Panics
/// A token is another one, or a request fails.
pub fn greedy_answers_of_architectures(device: impl Fn() -> Arc<dyn Device>, selections: &[&str]) -> usize {
    let mut checkpoints = 0;
    for entry in std::fs::read_dir(repository("crates/model/tests/goldens")).unwrap() {
        let folder = entry.unwrap().path();
        let Ok(golden) = std::fs::read(folder.join("tokens.json")) else { continue };
        let golden: Value = serde_json::from_slice(&golden).unwrap();
        if golden["greedy"].is_null() {
            continue;
        }
        checkpoints += 1;
        let (prompt, expected) = (ids(&golden["tokens"]), ids(&golden["greedy"]));
        let request = Request { prompt, max_tokens: Some(expected.len()), ignore_eos: true, ..Request::default() };
        for selection in selections {
            let engine = start_with(&folder, device(), selection);
            let found: Vec<u32> =
                collect(engine.submit(request.clone()).unwrap()).iter().map(|token| token.id).collect();
            assert_eq!(found, expected, "{selection}: {}", folder.display());
        }
    }
    checkpoints
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

/// Greedy answers of two engines on one device, asked at the same time, must be those of an engine alone. Without the blit queue, with which
/// engines have a device each.
///
/// # Panics
/// A token is another one, or a request fails.
pub fn engines_share_a_device(device: impl Fn() -> Arc<dyn Device>, prompts: usize, tokens: usize) {
    let goldens = &goldens(prompts)[..];
    let alone = answers(&start(device(), "none"), goldens, tokens);
    for selection in ["none", "memory_pool,command_buffer_ring"] {
        let shared = device();
        let engines = [start(shared.clone(), selection), start(shared, selection)];
        let found = std::thread::scope(|scope| {
            let asked = engines.each_ref().map(|engine| scope.spawn(move || answers(engine, goldens, tokens)));
            asked.map(|answers| answers.join().unwrap())
        });
        assert_eq!(found, [alone.clone(), alone.clone()], "{selection}");
    }
}

/// Greedy answers of random models with experts to 32 prompts, and the bits of their log-probabilities: alone with no optimization on, and
/// in one batch with each of `selections`, they must be the same.
///
/// # Panics
/// An answer depends on company or optimizations, or a request fails.
pub fn company_changes_no_experts(device: impl Fn() -> Arc<dyn Device>, selections: &[&str]) {
    for case in ["qwen3_moe-mixed-layers", "glm4_moe"] {
        let folder = repository("crates/model/tests/goldens").join(case);
        let prompt = |i: u32| (0..1 + i % 20).map(|at| (37 * at + 11 * i) % 131).collect();
        let request = |i| Request {
            prompt: prompt(i),
            max_tokens: Some(4),
            ignore_eos: true,
            logprobs: Some(2),
            ..Request::default()
        };
        let requests: Vec<Request> = (0..32).map(request).collect();
        let engine = start_with(&folder, device(), "none");
        let alone: Vec<_> = requests.chunks(1).flat_map(|request| lines(&engine, request)).collect();
        drop(engine);
        for selection in selections {
            let engine = start_with(&folder, device(), selection);
            assert_eq!(lines(&engine, &requests), alone, "{case}, {selection}");
        }
    }
}

/// Answers of the bundled model to `count` requests that between them use every parameter of sampling, each as one line: its tokens, then
/// the bits of their log-probabilities where these were asked for. Alone with no optimization on and in batches with all, they must be the
/// same.
///
/// # Panics
/// An answer depends on company or optimizations, or a request fails.
pub fn sampled_answers(device: impl Fn() -> Arc<dyn Device>, count: usize) -> Vec<String> {
    let goldens = goldens(20);
    let requests: Vec<_> = (0..count).map(|i| sampled(i, ids(&goldens[i % 20]["prompt_token_ids"]))).collect();
    let engine = start(device(), "none");
    let alone: Vec<_> = requests.chunks(1).flat_map(|request| lines(&engine, request)).collect();
    drop(engine);
    let engine = start(device(), "all");
    let together: Vec<_> = requests.chunks(50).flat_map(|requests| lines(&engine, requests)).collect();
    assert_eq!(together, alone);
    alone
}

/// Request number `i` of those that use every parameter.
fn sampled(i: usize, prompt: Vec<u32>) -> Request {
    let sampling = Sampling {
        temperature: [0.0, 0.3, 0.7, 1.0, 1.5][i % 5],
        top_k: [0, 1, 5, 40][i / 5 % 4],
        top_p: [1.0, 0.9, 0.5][i % 3],
        min_p: [0.0, 0.05, 0.2][i / 3 % 3],
        repetition_penalty: [1.0, 1.1, 1.5][i / 7 % 3],
        presence_penalty: [0.0, 0.5, -0.5][i / 11 % 3],
        frequency_penalty: [0.0, 0.3, -0.2][i / 13 % 3],
        seed: Some(i as u64),
        logit_bias: if i.is_multiple_of(6) { vec![(300, 5.0), (301, -100.0)] } else { Vec::new() },
    };
    Request {
        prompt,
        sampling,
        max_tokens: Some(10),
        stop: if i.is_multiple_of(8) { vec![" the".to_owned()] } else { Vec::new() },
        ignore_eos: i.is_multiple_of(10),
        logprobs: i.is_multiple_of(9).then_some(3),
        ..Request::default()
    }
}

/// A line for each request, all in one batch.
fn lines(engine: &Engine, requests: &[Request]) -> Vec<String> {
    let streams: Vec<_> = requests.iter().map(|request| engine.submit(request.clone()).unwrap()).collect();
    let line = |stream: Stream| {
        let tokens = collect(stream);
        let ids: Vec<_> = tokens.iter().map(|token| token.id.to_string()).collect();
        let chosen = tokens.iter().filter_map(|token| token.logprobs.as_ref());
        let bits: String = chosen.map(|of| format!(" {:08x}", of.chosen.to_bits())).collect();
        ids.join(" ") + &bits
    };
    streams.into_iter().map(line).collect()
}

fn goldens(prompts: usize) -> Vec<Value> {
    let file = repository("crates/cli/tests/goldens/greedy.json");
    let goldens: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    goldens["prompts"].as_array().unwrap()[..prompts].to_vec()
}

/// Answers of up to `tokens` tokens to each of the prompts, in one batch.
fn answers(engine: &Engine, goldens: &[Value], tokens: usize) -> Vec<Vec<u32>> {
    let request = |golden: &Value| Request {
        prompt: ids(&golden["prompt_token_ids"]),
        max_tokens: Some(tokens),
        ..Request::default()
    };
    let streams: Vec<_> = goldens.iter().map(|golden| engine.submit(request(golden)).unwrap()).collect();
    streams.into_iter().map(|stream| collect(stream).iter().map(|token| token.id).collect()).collect()
}

/// Collects all tokens of an answer.
fn collect(mut stream: Stream) -> Vec<TokenEvent> {
    let mut found = Vec::new();
    loop {
        match stream.next_blocking().expect("a stream ends with its last event") {
            Event::Prompt(_) | Event::Embedding(_) => {}
            Event::Token(token) => found.push(token),
            Event::Finished(_) => return found,
            Event::Failed(error) => panic!("{error}"),
        }
    }
}

pub(crate) fn ids(json: &Value) -> Vec<u32> {
    json.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn start(device: Arc<dyn Device>, selection: &str) -> Engine {
    start_with(&repository(BUNDLED), device, selection)
}

/// An engine of the model in `folder`, with the bundled tokenizer.
pub(crate) fn start_with(folder: &Path, device: Arc<dyn Device>, selection: &str) -> Engine {
    let mut config = MetalOptimizations::default();
    config.select(selection).unwrap();
    // Enough for this model, and a simulated device fills all of it with rubbish first.
    config.memory_pool.heap_size_mb = 64;
    config.memory_pool.num_heaps = 2;
    config.memory_pool.warmup_buffer_sizes_mb = Vec::new();
    // Software devices are slow, and the ring must not fall back for that.
    config.command_buffer_ring.max_wait_ms = 10_000;
    let layer = MetalLayer::new(device.clone(), &config).unwrap();
    let model = load(folder, &device, &layer);
    let tokenizer = Tokenizer::from_dir(&repository(BUNDLED)).unwrap();
    let options = Options { kv_tokens: 4096, ..Options::default() };
    Engine::start(Parts { device, layer, model, tokenizer, eos: vec![0, 2] }, &options).unwrap()
}
