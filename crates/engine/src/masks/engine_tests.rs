//! Engines that answer under rules, on a device that writes scripted tokens and on a CPU.

use crate::masks::toy::{Faults, Gate, Toy};
use crate::options::{Options, Parts};
use crate::request::{Event, FinishReason, Request, Sampling};
use crate::stream::Stream;
use crate::{Engine, EngineError};
use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_cpu::{CpuDevice, CpuOptions};
use mlx_serving_device::Device;
use mlx_serving_device::fake::{FakeControl, FakeDevice, FakeOptions, Fault, QueueKind, next_allowed, scripted_token};
use mlx_serving_device::ops::SampleParams;
use mlx_serving_metal_layer::MetalLayer;
use mlx_serving_metal_layer::config::MetalOptimizations;
use mlx_serving_model::{LoadInputs, Model};
use mlx_serving_text::Tokenizer;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

const EOS: [u32; 2] = [0, 2];
/// Tokens of a toy's answer, if nothing ends it before.
const LENGTH: usize = 40;
const PROMPT: [u32; 3] = [5, 6, 7];

fn start(device: Arc<dyn Device>, config: &MetalOptimizations, options: &Options) -> Engine {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/rustbook-5m-4bit");
    let layer = MetalLayer::new(device.clone(), config).unwrap();
    let model = Model::load(LoadInputs {
        checkpoint: Arc::new(Checkpoint::open(&folder).unwrap()),
        device: &device,
        allocate: layer.allocate.as_ref(),
        transfer: layer.transfer.as_ref(),
        progress: &mut |_| {},
    });
    let (model, tokenizer) = (model.unwrap(), Tokenizer::from_dir(&folder).unwrap());
    Engine::start(Parts { device, layer, model, tokenizer, eos: EOS.to_vec() }, options).unwrap()
}

fn ring(ring_size: usize) -> MetalOptimizations {
    let mut config = MetalOptimizations::default();
    if ring_size > 1 {
        config.select("command_buffer_ring").unwrap();
        config.command_buffer_ring.ring_size = ring_size;
        config.command_buffer_ring.max_wait_ms = 10_000;
    }
    config
}

/// A device that writes scripted tokens, with its own memory or the host's.
fn scripted(ring_size: usize, unified_memory: bool, options: &Options) -> (FakeControl, Engine) {
    let device = FakeDevice::new(FakeOptions { compute: false, unified_memory, ..FakeOptions::default() }).unwrap();
    (device.control(), start(device.clone(), &ring(ring_size), options))
}

/// Options under which only what is planted comes late.
fn patient() -> Options {
    Options { mask_limit: Duration::from_secs(60), ..Options::default() }
}

fn toy(engine: &Engine) -> Toy {
    Toy::new(engine.info().vocab, &EOS, LENGTH)
}

fn faulty(engine: &Engine, faults: Faults) -> Toy {
    Toy { faults, ..toy(engine) }
}

fn request(seed: u64, max_tokens: usize) -> Request {
    let sampling = Sampling { seed: Some(seed), ..Sampling::default() };
    Request { prompt: PROMPT.to_vec(), max_tokens: Some(max_tokens), sampling, ..Request::default() }
}

fn ask(engine: &Engine, toy: &Toy, request: Request) -> Stream {
    engine.submit_under(Arc::new(toy.clone()), request).unwrap()
}

type Answer = (Vec<u32>, String, FinishReason);

fn read(mut stream: Stream) -> Result<Answer, EngineError> {
    let (mut tokens, mut text) = (Vec::new(), String::new());
    loop {
        match stream.next_blocking().expect("a stream ends with its last event") {
            Event::Prompt(_) | Event::Embedding(_) => {}
            Event::Token(token) => {
                text += &token.text();
                tokens.push(token.id);
            }
            Event::Finished(finish) => {
                assert_eq!(finish.usage.completion_tokens, tokens.len());
                return Ok((tokens, text + &finish.text(), finish.reason));
            }
            Event::Failed(error) => return Err(error),
        }
    }
}

fn params(seed: u64, place: usize) -> SampleParams {
    let (seed_low, seed_high) = (seed as u32, (seed >> 32) as u32);
    SampleParams { seed_low, seed_high, position: (PROMPT.len() + place) as u32, ..SampleParams::GREEDY }
}

/// The answer of the device that writes scripted tokens, worked out here.
fn expected(toy: &Toy, request: &Request) -> (Vec<u32>, FinishReason) {
    let mut tokens = Vec::new();
    while tokens.len() < request.max_tokens.unwrap() {
        let mut mask = toy.mask_after(&tokens);
        let ends = EOS.iter().fold(0, |bits, end| bits | 1 << end);
        let only_ends = mask[0] & !ends == 0 && mask[1..].iter().all(|word| *word == 0);
        if request.ignore_eos && !only_ends {
            mask[0] &= !ends;
        }
        let scripted = scripted_token(&params(request.sampling.seed.unwrap(), tokens.len()), toy.vocab);
        let token = next_allowed(scripted, &mask, toy.vocab);
        tokens.push(token);
        if EOS.contains(&token) && (!request.ignore_eos || only_ends) {
            return (tokens, FinishReason::Stop);
        }
    }
    (tokens, FinishReason::Length)
}

fn right(toy: &Toy, request: &Request, answer: Result<Answer, EngineError>) {
    let (tokens, _, reason) = answer.unwrap();
    assert_eq!((tokens, reason), expected(toy, request), "{request:?}");
}

/// A free answer of the device that writes scripted tokens.
fn right_free(engine: &Engine, seed: u64, answer: Result<Answer, EngineError>) {
    let (tokens, _, _) = answer.unwrap();
    let scripted: Vec<_> = (0..tokens.len()).map(|i| scripted_token(&params(seed, i), engine.info().vocab)).collect();
    assert_eq!(tokens, scripted);
}

fn free(engine: &Engine, seed: u64) -> Stream {
    engine.submit(Request { ignore_eos: true, ..request(seed, 30) }).unwrap()
}

/// Answers that end early, by their length, by the rules alone, and those whose tokens are not forced.
fn variety() -> Vec<Request> {
    (0..24u64)
        .map(|seed| Request {
            ignore_eos: seed % 3 == 0,
            logprobs: (seed % 4 == 1).then_some(1),
            ..request(seed, [7, 30, 60][seed as usize % 3])
        })
        .collect()
}

#[test]
fn answers_keep_to_their_rules_however_far_steps_run_ahead() {
    for (ring_size, unified) in [(1, true), (2, true), (3, false), (4, true)] {
        let (_, engine) = scripted(ring_size, unified, &Options { max_sequences: 16, ..patient() });
        let (toy, requests) = (toy(&engine), variety());
        let streams: Vec<_> = requests.iter().map(|request| ask(&engine, &toy, request.clone())).collect();
        let beside: Vec<_> = (0..8).map(|seed| free(&engine, seed)).collect();
        let mut reasons = Vec::new();
        for (request, stream) in requests.iter().zip(streams) {
            right(&toy, request, read(stream));
            reasons.push(expected(&toy, request).1);
        }
        assert!([FinishReason::Stop, FinishReason::Length].iter().all(|reason| reasons.contains(reason)));
        beside.into_iter().zip(0..).for_each(|(stream, seed)| right_free(&engine, seed, read(stream)));
        let grammar = &engine.metrics().grammar;
        assert!(grammar.forced.get() > 50, "{} tokens were forced", grammar.forced.get());
        assert_eq!(grammar.late.get(), 0);
    }
}

#[test]
fn sequences_that_are_preempted_go_on_under_their_rules() {
    for ring_size in [1, 3] {
        let tight = Options { max_sequences: 6, max_batch_rows: 24, kv_tokens: 16 * 8, ..patient() };
        let (_, engine) = scripted(ring_size, true, &tight);
        let (toy, requests) = (toy(&engine), variety());
        let streams: Vec<_> = requests.iter().map(|request| ask(&engine, &toy, request.clone())).collect();
        requests.iter().zip(streams).for_each(|(request, stream)| right(&toy, request, read(stream)));
        assert!(engine.metrics().preemptions.get() > 0, "nobody was preempted");
    }
}

#[test]
fn a_late_mask_fails_its_request_and_no_other() {
    for ring_size in [1, 3] {
        let limit = Duration::from_secs(1);
        // One thread: the masks of the others wait behind the late one.
        let (_, engine) =
            scripted(ring_size, true, &Options { mask_limit: limit, mask_threads: 1, ..Options::default() });
        let (good, gate) = (toy(&engine), Arc::new(Gate::default()));
        let held = faulty(&engine, Faults { held_at: Some((6, gate.clone())), ..Faults::default() });
        let late = ask(&engine, &held, request(1, 30));
        let beside: Vec<_> = (0..4).map(|seed| ask(&engine, &good, request(seed, 30))).collect();
        let alone = free(&engine, 9);
        let error = read(late).unwrap_err();
        assert!(matches!(&error, EngineError::Grammar(why) if why.contains("within 1s")), "{error}");
        beside.into_iter().zip(0..).for_each(|(stream, seed)| right(&good, &request(seed, 30), read(stream)));
        right_free(&engine, 9, read(alone));
        assert_eq!(engine.metrics().grammar.late.get(), 1);
        right(&good, &request(5, 30), read(ask(&engine, &good, request(5, 30))));
    }
}

#[test]
fn a_maker_that_panics_or_cannot_go_on_fails_its_request_and_no_other() {
    let (_, engine) = scripted(3, true, &Options { mask_threads: 1, ..patient() });
    let good = toy(&engine);
    let (ours, theirs): (fn(_) -> _, fn(_) -> _) = (EngineError::Masks, EngineError::Grammar);
    for (faults, kind, words) in [
        (Faults { panics_at: Some(6), ..Faults::default() }, ours, "a fault of this program"),
        (Faults { stuck_at: Some(0), ..Faults::default() }, theirs, "a planted fault"),
    ] {
        let bad = ask(&engine, &faulty(&engine, faults), request(1, 30));
        let beside: Vec<_> = (0..4).map(|seed| ask(&engine, &good, request(seed, 30))).collect();
        let error = read(bad).unwrap_err();
        let (EngineError::Masks(why) | EngineError::Grammar(why)) = &error else { panic!("{error}") };
        assert!(why.contains(words) && error == kind(why.clone()), "{error:?}");
        beside.into_iter().zip(0..).for_each(|(stream, seed)| right(&good, &request(seed, 30), read(stream)));
    }
}

#[test]
fn a_request_canceled_while_its_mask_is_made_ends_and_others_go_on() {
    for ring_size in [1, 3] {
        let (_, engine) = scripted(
            ring_size,
            true,
            &Options { mask_threads: 2, mask_limit: Duration::from_secs(2), ..Options::default() },
        );
        let (good, gate) = (toy(&engine), Arc::new(Gate::default()));
        let held = faulty(&engine, Faults { held_at: Some((0, gate.clone())), ..Faults::default() });
        let canceled = ask(&engine, &held, request(1, 30));
        while !gate.reached.load(SeqCst) {
            std::thread::yield_now();
        }
        drop(canceled);
        right(&good, &request(2, 30), read(ask(&engine, &good, request(2, 30))));
    }
}

#[test]
fn steps_that_fail_with_orders_out_are_computed_again() {
    for (ring_size, nth) in [(1, 4), (3, 1), (3, 2), (3, 5), (3, 9)] {
        let (control, engine) = scripted(ring_size, true, &patient());
        let slow = faulty(&engine, Faults { takes: Duration::from_millis(2), ..Faults::default() });
        control.fail_submissions(QueueKind::Compute, Fault::nth(nth));
        let streams: Vec<_> = (0..6).map(|seed| ask(&engine, &slow, request(seed, 30))).collect();
        streams.into_iter().zip(0..).for_each(|(stream, seed)| right(&slow, &request(seed, 30), read(stream)));
        assert_eq!(engine.metrics().grammar.late.get(), 0);
    }
}

#[test]
fn a_request_whose_steps_keep_failing_under_rules_fails_alone() {
    let (control, engine) = scripted(3, true, &patient());
    let toy = toy(&engine);
    control.fail_submissions(QueueKind::Compute, Fault::ALWAYS);
    let error = read(ask(&engine, &toy, request(1, 30))).unwrap_err();
    assert!(matches!(&error, EngineError::Device(why) if why.contains("command buffer failed")), "{error}");
    control.fail_submissions(QueueKind::Compute, Fault::NEVER);
    right(&toy, &request(2, 30), read(ask(&engine, &toy, request(2, 30))));
}

#[test]
fn an_engine_that_ends_or_loses_its_device_waits_for_no_mask() {
    for lost in [false, true] {
        let limit = Duration::from_secs(if lost { 600 } else { 2 });
        let (control, engine) = scripted(3, true, &Options { mask_limit: limit, ..Options::default() });
        let gate = Arc::new(Gate::default());
        let held = faulty(&engine, Faults { held_at: Some((6, gate.clone())), ..Faults::default() });
        let stream = ask(&engine, &held, request(1, 30));
        while !gate.reached.load(SeqCst) {
            std::thread::yield_now();
        }
        if lost {
            control.lose("unplugged");
        }
        let began = Instant::now();
        drop(engine);
        assert!(began.elapsed() < Duration::from_secs(30), "the engine waited for a mask");
        let _ = read(stream);
    }
}

/// A CPU of one thread, with everything on or off.
fn on_cpu(optimized: bool, options: &Options) -> Engine {
    let device = CpuDevice::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() }).unwrap();
    let mut config = MetalOptimizations::default();
    if optimized {
        config.select("all").unwrap();
        config.command_buffer_ring.max_wait_ms = 10_000;
    }
    start(device, &config, options)
}

/// Everything that sampling can be asked for, under rules.
fn sampled() -> Vec<Request> {
    let greedy = Sampling::default;
    (0..16u64)
        .map(|i| {
            let sampling = match i % 5 {
                0 => greedy(),
                1 => Sampling { temperature: 0.9, seed: Some(i), ..greedy() },
                2 => Sampling { temperature: 0.7, top_p: 0.9, top_k: 40, seed: Some(7), ..greedy() },
                3 => Sampling { repetition_penalty: 1.3, frequency_penalty: 0.4, ..greedy() },
                _ => Sampling { presence_penalty: 0.8, logit_bias: vec![(17, 25.0), (300, -80.0)], ..greedy() },
            };
            let prompt = (0..4 + 9 * (i as u32 % 4)).map(|token| 40 + token * 7 % 300).collect();
            let stop = if i % 4 == 2 { vec!["e".into()] } else { Vec::new() };
            Request { prompt, sampling, stop, max_tokens: Some(34), ignore_eos: i % 3 == 0, ..Request::default() }
        })
        .collect()
}

#[test]
fn bits_are_the_same_alone_in_company_unforced_and_with_every_optimization() {
    let plain = on_cpu(false, &patient());
    let toy = toy(&plain);
    let alone: Vec<_> = sampled().into_iter().map(|request| read(ask(&plain, &toy, request)).unwrap()).collect();
    assert!(plain.metrics().grammar.forced.get() > 0);
    let unforced = sampled().into_iter().map(|request| Request { logprobs: Some(0), ..request });
    for (request, expected) in unforced.zip(&alone) {
        assert_eq!(&read(ask(&plain, &toy, request)).unwrap(), expected);
    }
    let tight = Options { max_sequences: 6, max_batch_rows: 24, kv_tokens: 16 * 14, ..patient() };
    for (optimized, options) in [(false, patient()), (true, patient()), (true, tight)] {
        let engine = on_cpu(optimized, &options);
        let beside: Vec<_> = (0..16).map(|seed| free(&engine, seed)).collect();
        let streams: Vec<_> = sampled().into_iter().map(|request| ask(&engine, &toy, request)).collect();
        for (i, (stream, expected)) in streams.into_iter().zip(&alone).enumerate() {
            assert_eq!(&read(stream).unwrap(), expected, "request {i}, optimized {optimized}");
        }
        beside.into_iter().for_each(|stream| drop(read(stream).unwrap()));
    }
}
