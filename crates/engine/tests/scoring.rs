//! Log-probabilities of prompts: those of a plain forward pass, bit by bit, whoever else is served, and each told once.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Answer, answers, folder, on_cpu, read, requests, ring, start, tight, tokenizer};
use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_cpu::{CpuDevice, CpuOptions};
use mlx_serving_device::Device;
use mlx_serving_device::fake::{FakeDevice, FakeOptions, Fault, QueueKind};
use mlx_serving_engine::{
    Engine, EngineError, Event, Finish, FinishReason, Logprobs, Options, PromptToken, Request, Sampling, SpillOptions,
    Stream,
};
use mlx_serving_metal_layer::MetalLayer;
use mlx_serving_metal_layer::config::MetalOptimizations;
use mlx_serving_model::eval::Evaluator;
use mlx_serving_model::{LoadInputs, Model};
use std::sync::Arc;

const TEXT: &str = "Ownership is a set of rules that govern how a Rust program manages memory. All programs have to manage the way \
                    they use a computer's memory while running. Some languages have garbage collection that regularly looks \
                    for no-longer-used memory as the program runs.";

/// Alternatives asked for.
const TOP: usize = 3;

fn text() -> Vec<u32> {
    tokenizer().encode(TEXT, false).unwrap()
}

fn scored(prompt: Vec<u32>, max_tokens: usize) -> Request {
    Request { prompt, max_tokens: Some(max_tokens), prompt_logprobs: Some(TOP), ignore_eos: true, ..Request::default() }
}

/// Outcome of a request that scores its prompt.
#[derive(Debug, Clone, PartialEq)]
struct Scored {
    prompt: Vec<PromptToken>,
    answer: Vec<(u32, Option<Logprobs>)>,
    finish: Finish,
}

fn read_scored(mut stream: Stream) -> Result<Scored, EngineError> {
    let (mut prompt, mut answer) = (Vec::new(), Vec::new());
    loop {
        match stream.next_blocking().expect("a stream ends with its last event") {
            Event::Prompt(run) => {
                assert!(answer.is_empty() && !run.is_empty(), "the prompt comes first");
                prompt.extend(run);
            }
            Event::Embedding(_) => panic!("nobody asked for one"),
            Event::Token(token) => answer.push((token.id, token.logprobs)),
            Event::Finished(finish) => return Ok(Scored { prompt, answer, finish }),
            Event::Failed(error) => return Err(error),
        }
    }
}

fn score(engine: &Engine, request: Request) -> Scored {
    read_scored(engine.submit(request).unwrap()).unwrap()
}

/// Natural log-probability of `token` and the likeliest, from logits.
fn log_softmax(logits: &[f32], token: u32) -> Logprobs {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&l| f64::from(l - max).exp()).sum();
    let log = |id: u32| (f64::from(logits[id as usize] - max) - sum.ln()) as f32;
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    ids.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
    Logprobs { chosen: log(token), top: ids[..TOP].iter().map(|&id| (id, log(id))).collect() }
}

/// Log-probabilities of `tokens` by plain forward passes.
fn forward(tokens: &[u32]) -> Vec<PromptToken> {
    let device: Arc<dyn Device> = CpuDevice::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() }).unwrap();
    let mut layer = MetalLayer::new(device.clone(), &MetalOptimizations::default()).unwrap();
    let model = Model::load(LoadInputs {
        checkpoint: Arc::new(Checkpoint::open(&folder()).unwrap()),
        device: &device,
        allocate: layer.allocate.as_ref(),
        transfer: layer.transfer.as_ref(),
        progress: &mut |_| {},
    })
    .unwrap();
    let mut told = vec![PromptToken { id: tokens[0], logprobs: None }];
    let mut evaluator = Evaluator::new(&model, &device, &mut layer, 512, 37).unwrap();
    evaluator
        .logits(tokens, |position, logits| {
            if let Some(&id) = tokens.get(position + 1) {
                told.push(PromptToken { id, logprobs: Some(log_softmax(logits, id)) });
            }
        })
        .unwrap();
    told
}

#[test]
fn they_are_those_of_a_forward_pass_however_the_prompt_is_cut() {
    let (tokens, plain) = (text(), MetalOptimizations::default());
    let expected = forward(&tokens);
    for (max_sequences, max_batch_rows) in [(1, 16), (5, 24), (32, 512), (256, 4096)] {
        let engine = on_cpu(&plain, &Options { max_sequences, max_batch_rows, kv_tokens: 512, ..Options::default() });
        let got = score(&engine, scored(tokens.clone(), 0));
        assert_eq!(got.prompt, expected, "{max_sequences} rows of logits");
        assert_eq!((got.answer.len(), got.finish.reason), (0, FinishReason::Length));
        assert_eq!((got.finish.usage.prompt_tokens, got.finish.usage.completion_tokens), (tokens.len(), 0));
        assert!(got.finish.usage.prefill_s > 0.0);
    }
}

#[test]
fn they_are_those_of_the_same_tokens_generated_one_by_one() {
    let tokens = text();
    let engine = on_cpu(&MetalOptimizations::default(), &Options::default());
    let prompt = score(&engine, scored(tokens.clone(), 0)).prompt;
    assert_eq!(prompt[0], PromptToken { id: tokens[0], logprobs: None });
    for i in (1..tokens.len()).step_by(3) {
        let next = Request {
            prompt: tokens[..i].to_vec(),
            max_tokens: Some(1),
            logprobs: Some(TOP),
            ignore_eos: true,
            sampling: Sampling { logit_bias: vec![(tokens[i], 100.0)], ..Sampling::default() },
            ..Request::default()
        };
        let answer = score(&engine, next).answer;
        assert_eq!(answer, [(prompt[i].id, prompt[i].logprobs.clone())], "token {i}");
    }
}

/// Requests that score prompts among everything else that a request may ask for, `n` choices of one prompt too.
fn scoring_requests() -> Vec<Request> {
    let text = text();
    requests()
        .into_iter()
        .enumerate()
        .filter(|(i, _)| i % 2 == 0)
        .map(|(i, request)| Request {
            prompt: if i % 3 == 0 { text[..20 + i].to_vec() } else { request.prompt },
            prompt_logprobs: Some(TOP),
            logprobs: (i % 4 == 0).then_some(2),
            max_tokens: Some(if i % 10 == 0 { 0 } else { 12 }),
            ..request
        })
        .collect()
}

#[test]
fn neither_scores_nor_answers_depend_on_who_else_is_served() {
    let plain = on_cpu(&ring(1), &Options::default());
    let alone: Vec<Scored> = scoring_requests().into_iter().map(|request| score(&plain, request)).collect();
    let others: Vec<Answer> =
        requests().into_iter().map(|request| read(plain.submit(request).unwrap()).unwrap()).collect();
    let expected = forward(&scoring_requests()[0].prompt);
    assert_eq!(alone[0].prompt, expected);
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
        let (mut scoring, mut answering) = (scoring_requests().into_iter(), requests().into_iter());
        let (mut scores, mut answers) = (Vec::new(), Vec::new());
        while scoring.len() + answering.len() > 0 {
            answers.extend(answering.by_ref().take(2).map(|request| engine.submit(request).unwrap()));
            scores.extend(scoring.next().map(|request| engine.submit(request).unwrap()));
        }
        for (i, (stream, expected)) in scores.into_iter().zip(&alone).enumerate() {
            let got = read_scored(stream).unwrap();
            assert_eq!(got.prompt, expected.prompt, "scored {i} with {names:?}");
            assert_eq!((&got.answer, got.finish.reason), (&expected.answer, expected.finish.reason), "{i}, {names:?}");
        }
        for (i, (stream, expected)) in answers.into_iter().zip(&others).enumerate() {
            assert_eq!(&read(stream).unwrap(), expected, "answer {i} with {names:?}");
        }
        assert!(engine.metrics().preemptions.get() > 0, "the load preempts nobody");
    }
}

#[test]
fn a_cached_prompt_is_scored_and_a_scored_one_is_cached() {
    let engine = on_cpu(&MetalOptimizations::default(), &Options::default());
    let first = score(&engine, scored(text(), 2));
    let second = score(&engine, scored(text(), 2));
    assert_eq!((&second.prompt, &second.answer), (&first.prompt, &first.answer));
    assert_eq!(second.finish.usage.cached_tokens, 0, "cached positions have no logits");
    let plain = score(&engine, Request { prompt_logprobs: None, ..scored(text(), 2) });
    assert_eq!(plain.finish.usage.cached_tokens, (text().len() - 1) / 16 * 16);
    assert_eq!((plain.prompt.len(), plain.answer), (0, first.answer));
}

#[test]
fn each_token_is_told_once_though_steps_fail_and_are_computed_again() {
    for nth in 1..8 {
        let device = FakeDevice::new(FakeOptions { compute: false, ..FakeOptions::default() }).unwrap();
        let control = device.control();
        let options = Options { max_sequences: 7, max_batch_rows: 16, ..Options::default() };
        let engine = start(device, &ring(3), &options).unwrap();
        control.fail_submissions(QueueKind::Compute, Fault::nth(nth));
        let streams: Vec<Stream> =
            (0..3).map(|i| engine.submit(scored(text()[..20 + i].to_vec(), i)).unwrap()).collect();
        for (i, stream) in streams.into_iter().enumerate() {
            let got = read_scored(stream).unwrap();
            let ids: Vec<u32> = got.prompt.iter().map(|token| token.id).collect();
            assert_eq!(ids, text()[..20 + i], "failure of step {nth}");
            assert!(got.prompt.iter().skip(1).all(|token| token.logprobs.is_some()));
            assert_eq!(got.answer.len(), i);
        }
    }
}

#[test]
fn the_smallest_and_the_largest_prompts_are_scored() {
    let options = Options { kv_tokens: 256, max_sequences: 4, ..Options::default() };
    let engine = on_cpu(&MetalOptimizations::default(), &options);
    let one = score(&engine, scored(vec![7], 0));
    assert_eq!(one.prompt, [PromptToken { id: 7, logprobs: None }]);
    assert_eq!((one.answer.len(), one.finish.reason), (0, FinishReason::Length));
    let full: Vec<u32> = text().into_iter().cycle().take(256).collect();
    assert_eq!(engine.info().max_context, full.len());
    assert_eq!(score(&engine, scored(full.clone(), 0)).prompt.len(), 256);
    assert!(matches!(engine.submit(scored(full, 1)), Err(EngineError::ContextLength { param: "prompt", .. })));
    assert_eq!(engine.live(), 0);
}

#[test]
fn no_tokens_may_be_asked_for_only_where_the_prompt_is_scored() {
    let engine = on_cpu(&MetalOptimizations::default(), &Options::default());
    for (param, request) in [
        ("max_tokens", Request { prompt_logprobs: None, ..scored(vec![7], 0) }),
        ("prompt_logprobs", Request { prompt_logprobs: Some(21), ..scored(vec![7], 1) }),
    ] {
        match engine.submit(request) {
            Err(EngineError::Invalid { param: found, .. }) => assert_eq!(found, param),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answers(&engine, vec![scored(vec![7], 1)])[0].tokens.len(), 1);
}
