//! Embeddings: the same bits alone and in company, however a prompt is cut, and each told once.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Answer, folder, on_cpu, read, requests, ring, tight, tokenizer, until};
use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_cpu::{CpuDevice, CpuOptions};
use mlx_serving_device::Device;
use mlx_serving_device::fake::{FakeDevice, FakeOptions, Fault, QueueKind};
use mlx_serving_engine::{
    Engine, EngineError, Event, Finish, FinishReason, Options, Parts, Pooling, Request, SpillOptions, Stream,
};
use mlx_serving_metal_layer::MetalLayer;
use mlx_serving_metal_layer::config::MetalOptimizations;
use mlx_serving_model::{LoadInputs, Model};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const TEXT: &str = "Ownership is a set of rules that govern how a Rust program manages memory. All programs have to manage the way \
                    they use a computer's memory while running. Some languages have garbage collection that regularly looks \
                    for no-longer-used memory as the program runs.";
const POOLINGS: [Pooling; 3] = [Pooling::Last, Pooling::Mean, Pooling::First];

fn text() -> Vec<u32> {
    tokenizer().encode(TEXT, false).unwrap()
}

fn embedding(prompt: Vec<u32>, pooling: Pooling) -> Request {
    Request { prompt, embed: Some(pooling), ..Request::default() }
}

/// The embedding's bits and the end, which are all that comes.
fn read_embedding(mut stream: Stream) -> Result<(Vec<u32>, Finish), EngineError> {
    let mut found = None;
    loop {
        match stream.next_blocking().expect("a stream ends with its last event") {
            Event::Embedding(values) => {
                assert!(found.replace(values.iter().map(|value| value.to_bits()).collect()).is_none(), "told twice");
            }
            Event::Finished(finish) => return Ok((found.expect("an embedding comes before the end"), finish)),
            Event::Failed(error) => return Err(error),
            other => panic!("{other:?}"),
        }
    }
}

fn embed(engine: &Engine, request: Request) -> (Vec<u32>, Finish) {
    read_embedding(engine.submit(request).unwrap()).unwrap()
}

/// Prompts of many lengths, some with a common beginning, each pooled in every way.
fn embeddings() -> Vec<Request> {
    let (text, others) = (text(), requests());
    let prompts =
        (0..6).map(|i| if i % 2 == 0 { text[..text.len() - 9 * i].to_vec() } else { others[i].prompt.clone() });
    prompts.flat_map(|prompt| POOLINGS.map(|pooling| embedding(prompt.clone(), pooling))).collect()
}

#[test]
fn they_are_the_same_however_the_prompt_is_cut() {
    let whole = on_cpu(&MetalOptimizations::default(), &Options { max_batch_rows: 4096, ..Options::default() });
    let expected = POOLINGS.map(|pooling| embed(&whole, embedding(text(), pooling)).0);
    assert!(expected[0] != expected[1] && expected[1] != expected[2] && expected[0] != expected[2]);
    for (max_sequences, max_batch_rows) in [(1, 1), (1, 16), (5, 23), (32, 512)] {
        let options = Options { max_sequences, max_batch_rows, kv_tokens: 512, ..Options::default() };
        let engine = on_cpu(&MetalOptimizations::default(), &options);
        for (pooling, expected) in POOLINGS.into_iter().zip(&expected) {
            let (bits, finish) = embed(&engine, embedding(text(), pooling));
            assert_eq!(&bits, expected, "{pooling:?} by {max_batch_rows} rows");
            assert_eq!((bits.len(), finish.reason), (engine.info().width, FinishReason::Stop));
            assert_eq!((finish.usage.prompt_tokens, finish.usage.completion_tokens), (text().len(), 0));
            assert!(finish.usage.prefill_s > 0.0);
        }
    }
}

#[test]
fn a_first_token_and_a_lone_one_are_pooled_alike_in_every_way() {
    let engine = on_cpu(&MetalOptimizations::default(), &Options::default());
    let alone = POOLINGS.map(|pooling| embed(&engine, embedding(text()[..1].to_vec(), pooling)).0);
    assert!(alone.iter().all(|bits| *bits == alone[0]));
    assert_eq!(embed(&engine, embedding(text(), Pooling::First)).0, alone[0], "later tokens are not seen");
}

#[test]
fn neither_embeddings_nor_answers_depend_on_who_else_is_served() {
    let plain = on_cpu(&ring(1), &Options::default());
    let alone: Vec<_> = embeddings().into_iter().map(|request| embed(&plain, request).0).collect();
    let others: Vec<Answer> =
        requests().into_iter().map(|request| read(plain.submit(request).unwrap()).unwrap()).collect();
    let spill = SpillOptions { memory_bytes: 1 << 20, ..SpillOptions::default() };
    let optimizations =
        ["", "memory_pool", "blit_queue", "command_buffer_ring", "memory_pool,blit_queue,command_buffer_ring"];
    for names in optimizations {
        let mut config = MetalOptimizations::default();
        if !names.is_empty() {
            config.select(names).unwrap();
        }
        (config.memory_pool.heap_size_mb, config.memory_pool.num_heaps) = (64, 2);
        config.memory_pool.warmup_buffer_sizes_mb = vec![8];
        config.command_buffer_ring.max_wait_ms = 10_000;
        let engine = on_cpu(&config, &Options { spill: spill.clone(), ..tight() });
        let (mut embedding, mut answering) = (embeddings().into_iter(), requests().into_iter());
        let (mut vectors, mut answers) = (Vec::new(), Vec::new());
        while embedding.len() + answering.len() > 0 {
            answers.extend(answering.by_ref().take(2).map(|request| engine.submit(request).unwrap()));
            vectors.extend(embedding.next().map(|request| engine.submit(request).unwrap()));
        }
        for (i, (stream, expected)) in vectors.into_iter().zip(&alone).enumerate() {
            assert_eq!(&read_embedding(stream).unwrap().0, expected, "embedding {i} with {names:?}");
        }
        for (i, (stream, expected)) in answers.into_iter().zip(&others).enumerate() {
            assert_eq!(&read(stream).unwrap(), expected, "answer {i} with {names:?}");
        }
        assert!(engine.metrics().preemptions.get() > 0, "the load preempts nobody");
    }
}

#[test]
fn only_what_needs_no_more_than_the_last_token_takes_others_from_the_cache() {
    let blocks = (text().len() - 1) / 16 * 16;
    let answer = || Request { max_tokens: Some(1), prompt: text(), ..Request::default() };
    for (pooling, cached) in [(Pooling::Last, blocks), (Pooling::Mean, 0), (Pooling::First, 0)] {
        let engine = on_cpu(&MetalOptimizations::default(), &Options::default());
        let (first, finish) = embed(&engine, embedding(text(), pooling));
        assert_eq!(finish.usage.cached_tokens, 0);
        let (again, finish) = embed(&engine, embedding(text(), pooling));
        assert_eq!((&again, finish.usage.cached_tokens), (&first, cached), "{pooling:?}");
        // What was computed for an embedding serves answers.
        let mut stream = engine.submit(answer()).unwrap();
        let finish = std::iter::from_fn(|| stream.next_blocking()).find_map(|event| match event {
            Event::Finished(finish) => Some(finish),
            _ => None,
        });
        assert_eq!(finish.unwrap().usage.cached_tokens, blocks);
    }
}

#[test]
fn each_is_told_once_though_steps_fail_and_are_computed_again() {
    for nth in 1..8 {
        let device = FakeDevice::new(FakeOptions::default()).unwrap();
        let control = device.control();
        let options = Options { max_sequences: 7, max_batch_rows: 16, ..Options::default() };
        let engine = engine_of(&golden("qwen3-embedding"), device, &ring(3), &options);
        let request = |(i, pooling)| embedding((0..40 + i as u32).map(|n| n * 7 % 131).collect(), pooling);
        let requests: Vec<Request> = POOLINGS.into_iter().enumerate().map(request).collect();
        control.fail_submissions(QueueKind::Compute, Fault::nth(nth));
        let failing: Vec<Stream> = requests.iter().map(|request| engine.submit(request.clone()).unwrap()).collect();
        let found: Vec<_> = failing.into_iter().map(|stream| read_embedding(stream).unwrap().0).collect();
        let alone: Vec<_> = requests.into_iter().map(|request| embed(&engine, request).0).collect();
        assert_eq!(found, alone, "failure of step {nth}");
    }
}

#[test]
fn a_prompt_may_fill_the_context_and_what_cannot_be_embedded_is_refused() {
    let options = Options { kv_tokens: 256, max_sequences: 4, ..Options::default() };
    let engine = on_cpu(&MetalOptimizations::default(), &options);
    let tokens = |count| text().into_iter().cycle().take(count).collect::<Vec<u32>>();
    assert_eq!(embed(&engine, embedding(tokens(256), Pooling::Mean)).1.usage.prompt_tokens, 256);
    let refusal = |request| engine.submit(request).unwrap_err();
    let too_long = refusal(embedding(tokens(257), Pooling::Mean));
    assert!(matches!(too_long, EngineError::ContextLength { param: "prompt", .. }), "{too_long:?}");
    for (param, request) in [
        ("prompt", embedding(vec![], Pooling::Last)),
        ("prompt", embedding(vec![u32::MAX], Pooling::Last)),
        ("prompt_logprobs", Request { prompt_logprobs: Some(0), ..embedding(tokens(3), Pooling::Last) }),
    ] {
        let error = refusal(request);
        assert!(matches!(error, EngineError::Invalid { param: found, .. } if found == param), "{error:?}");
    }
    assert_eq!(engine.live(), 0);
}

#[test]
fn one_that_nobody_waits_for_is_canceled() {
    let engine = on_cpu(&MetalOptimizations::default(), &Options { max_batch_rows: 32, ..Options::default() });
    let stream = engine.submit(embedding(text().into_iter().cycle().take(2048).collect(), Pooling::Mean)).unwrap();
    until("it is computed", || engine.metrics().prompt_tokens.get() > 0);
    drop(stream);
    until("it ends", || engine.live() == 0 && engine.metrics().running.get() == 0);
    assert_eq!(embed(&engine, embedding(text(), Pooling::Mean)).0.len(), engine.info().width);
}

/// A random checkpoint.
fn golden(name: &str) -> PathBuf {
    folder().join("../../crates/model/tests/goldens").join(name)
}

fn on_cpu_of(dir: &Path) -> Engine {
    let device = CpuDevice::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() }).unwrap();
    engine_of(dir, device, &MetalOptimizations::default(), &Options::default())
}

/// An engine of the checkpoint in `dir`, with the bundled tokenizer.
fn engine_of(dir: &Path, device: Arc<dyn Device>, config: &MetalOptimizations, options: &Options) -> Engine {
    let layer = MetalLayer::new(device.clone(), config).unwrap();
    let model = Model::load(LoadInputs {
        checkpoint: Arc::new(Checkpoint::open(dir).unwrap()),
        device: &device,
        allocate: layer.allocate.as_ref(),
        transfer: layer.transfer.as_ref(),
        progress: &mut |_| {},
    });
    let parts = Parts { device, layer, model: model.unwrap(), tokenizer: tokenizer(), eos: vec![] };
    Engine::start(parts, options).unwrap()
}

#[test]
fn a_model_without_a_head_embeds_and_refuses_to_generate() {
    let engine = on_cpu_of(&golden("qwen3-embedding"));
    assert!(!engine.info().generates);
    assert_eq!(embed(&engine, embedding(vec![1, 2, 3], Pooling::Last)).0.len(), 64);
    let error = engine.submit(Request { prompt: vec![1, 2, 3], ..Request::default() }).unwrap_err();
    assert!(matches!(error, EngineError::Invalid { param: "model", .. }), "{error:?}");
}

#[test]
fn weights_that_are_damaged_make_no_embedding() {
    let (from, dir) = (golden("qwen2-dense-f32"), tempfile::tempdir().unwrap());
    std::fs::copy(from.join("config.json"), dir.path().join("config.json")).unwrap();
    let mut bytes = std::fs::read(from.join("model.safetensors")).unwrap();
    // Every value becomes a NaN.
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[header..].fill(0xff);
    std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    let engine = on_cpu_of(dir.path());
    for pooling in POOLINGS {
        let error = read_embedding(engine.submit(embedding(vec![1, 2, 3], pooling)).unwrap()).unwrap_err();
        assert!(matches!(&error, EngineError::Device(why) if why.contains("weights may be damaged")), "{error:?}");
    }
}
