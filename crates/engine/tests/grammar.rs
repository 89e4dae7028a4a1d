//! Answers under real grammars, on a CPU.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Answer, answers, on_cpu, read, ring, tight, tokenizer};
use mlx_serving_engine::{Engine, FinishReason, Options, Request, Sampling};
use mlx_serving_grammar::{Compiler, Grammar, Structure};
use mlx_serving_metal_layer::config::MetalOptimizations;
use mlx_serving_metrics::{Families, Format};
use mlx_serving_text::{Formats, OutputFormat, ReasoningFormat, content};
use serde_json::{Value, json};

/// Tokens that end an answer of the bundled model.
const EOS: [u32; 2] = [0, 2];

fn structures() -> Vec<Structure> {
    let person = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 12 },
            "kind": { "enum": ["struct", "enum", "trait"] },
            "fields": { "type": "array", "items": { "type": "integer" }, "maxItems": 3 },
        },
        "required": ["name", "kind", "fields"],
        "additionalProperties": false,
    });
    vec![
        Structure::Schema(person),
        Structure::Choice(vec!["ownership".into(), "borrowing".into(), "lifetimes".into()]),
        Structure::Regex("[a-z]{3,8}( [a-z]{1,8}){2,4}\\.".into()),
        Structure::Object,
    ]
}

fn grammars(engine: &Engine) -> Vec<Grammar> {
    let compiler = Compiler::new(&tokenizer(), engine.info().vocab, &EOS).unwrap();
    structures().iter().map(|structure| compiler.compile(structure, &mut || true).unwrap()).collect()
}

fn requests(engine: &Engine) -> Vec<Request> {
    let (grammars, greedy) = (grammars(engine), Sampling::default);
    (0..24u64)
        .map(|i| Request {
            prompt: tokenizer().encode("A struct in Rust is", false).unwrap(),
            sampling: match i % 3 {
                0 => greedy(),
                1 => Sampling { temperature: 0.9, seed: Some(i), ..greedy() },
                _ => Sampling { temperature: 1.1, top_p: 0.9, frequency_penalty: 0.3, seed: Some(i), ..greedy() },
            },
            max_tokens: Some(100),
            grammar: Some(grammars[i as usize % grammars.len()].clone()),
            ignore_eos: i % 5 == 4,
            ..Request::default()
        })
        .collect()
}

/// Fails if a whole answer is not what its request's structure says.
fn fits(i: usize, answer: &Answer) {
    let text = &answer.text;
    if answer.reason == FinishReason::Length {
        return;
    }
    match i % 4 {
        0 => {
            let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
            assert!(value["name"].is_string() && value["kind"].is_string() && value["fields"].is_array(), "{text}");
        }
        1 => assert!(["ownership", "borrowing", "lifetimes"].contains(&&**text), "{text}"),
        2 => assert!(text.ends_with('.') && text.matches(' ').count() >= 2, "{text}"),
        _ => assert!(serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object()), "{text}"),
    }
}

fn metrics(engine: &Engine) -> String {
    let mut families = Families::default();
    engine.tell_metrics(&mut families.labeled(&[]));
    families.write(Format::OpenMetrics).unwrap()
}

fn count(engine: &Engine, name: &str) -> f64 {
    let text = metrics(engine);
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name} in\n{text}"));
    line.trim().parse().unwrap()
}

fn patient() -> Options {
    Options { mask_limit: std::time::Duration::from_secs(60), ..Options::default() }
}

fn all() -> MetalOptimizations {
    let mut config = MetalOptimizations::default();
    config.select("all").unwrap();
    config.command_buffer_ring.max_wait_ms = 10_000;
    config
}

#[test]
fn answers_fit_their_grammars_with_the_same_bits_alone_in_company_and_optimized() {
    let plain = on_cpu(&ring(1), &patient());
    let alone: Vec<Answer> =
        requests(&plain).into_iter().map(|request| read(plain.submit(request).unwrap()).unwrap()).collect();
    alone.iter().enumerate().for_each(|(i, answer)| fits(i, answer));
    assert!(alone.iter().filter(|answer| answer.reason == FinishReason::Stop).count() > 12, "{alone:?}");
    assert!(count(&plain, "mlx_serving_grammar_forced_tokens_total") > 0.0);
    assert!(count(&plain, "mlx_serving_grammar_mask_seconds_count") > 100.0);
    let unforced = requests(&plain).into_iter().map(|request| Request { logprobs: Some(0), ..request });
    for (request, expected) in unforced.zip(&alone) {
        assert_eq!(&read(plain.submit(request).unwrap()).unwrap(), expected, "sampled instead of forced");
    }
    let tight = Options { kv_tokens: 16 * 24, mask_limit: patient().mask_limit, ..tight() };
    for (config, options) in [(ring(3), patient()), (all(), patient()), (ring(3), tight)] {
        let engine = on_cpu(&config, &options);
        for (i, (answer, expected)) in answers(&engine, requests(&engine)).iter().zip(&alone).enumerate() {
            assert_eq!(answer, expected, "request {i}");
        }
        assert_eq!(count(&engine, "mlx_serving_grammar_late_masks_total"), 0.0);
    }
}

/// Segments of an answer: reasoning and content.
fn thoughts(engine: &Engine, request: Request) -> (String, String, Vec<u32>) {
    use mlx_serving_engine::Event;
    let mut stream = engine.submit(request).unwrap();
    let (mut segments, mut tokens) = (Vec::new(), Vec::new());
    loop {
        match stream.next_blocking().unwrap() {
            Event::Token(token) => {
                segments.extend(token.segments);
                tokens.push(token.id);
            }
            Event::Finished(finish) => {
                segments.extend(finish.segments);
                let thoughts =
                    segments.iter().filter(|segment| matches!(segment, mlx_serving_text::Segment::Reasoning(_)));
                return (thoughts.map(|segment| segment.as_str()).collect(), content(&segments), tokens);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_grammar_begins_where_reasoning_ends_and_reasoning_ends_at_its_budget() {
    let formats = Formats { reasoning: Some(ReasoningFormat::Think), calls: None };
    let format = OutputFormat::new(formats, Vec::new(), "<think>\n");
    let ended = format.end_of_reasoning(&tokenizer());
    for budget in [0, 1, 9] {
        let mut seen = Vec::new();
        for (ring_size, logprobs) in [(1, None), (1, Some(0)), (3, None)] {
            let engine = on_cpu(&ring(ring_size), &patient());
            let request = Request {
                prompt: tokenizer().encode("Think: <think>\n", false).unwrap(),
                max_tokens: Some(60),
                sampling: Sampling { temperature: 0.8, seed: Some(3), ..Sampling::default() },
                grammar: Some(grammars(&engine)[1].clone()),
                reasoning_budget: Some(budget),
                format: format.clone(),
                logprobs,
                ..Request::default()
            };
            let (thought, said, tokens) = thoughts(&engine, request);
            assert!(["ownership", "borrowing", "lifetimes"].contains(&said.trim()), "{thought:?} {said:?}");
            assert_eq!(tokens[budget..budget + ended.len()], ended, "{thought:?}");
            seen.push(tokens);
        }
        assert!(seen.iter().all(|tokens| *tokens == seen[0]), "{seen:?}");
    }
}

fn reasoning(prompt: &str) -> OutputFormat {
    let formats = Formats { reasoning: Some(ReasoningFormat::Think), calls: None };
    OutputFormat::new(formats, Vec::new(), prompt)
}

/// A request under a choice, to a model that prefers these tokens.
fn preferring(engine: &Engine, tokens: &[u32], format: OutputFormat) -> Request {
    let logit_bias = tokens.iter().map(|token| (*token, 100.0)).collect();
    Request {
        prompt: tokenizer().encode("Think: <think>\n", false).unwrap(),
        max_tokens: Some(60),
        sampling: Sampling { logit_bias, ..Sampling::default() },
        grammar: Some(grammars(engine)[1].clone()),
        reasoning_budget: Some(5),
        format,
        ..Request::default()
    }
}

#[test]
fn an_answer_does_not_end_in_reasoning_before_its_rules() {
    let engine = on_cpu(&ring(3), &patient());
    let (_, said, tokens) = thoughts(&engine, preferring(&engine, &EOS, reasoning("<think>\n")));
    assert!(["ownership", "borrowing", "lifetimes"].contains(&said.trim()), "{said:?}");
    assert!(tokens[..5].iter().all(|token| !EOS.contains(token)), "{tokens:?}");
}

#[test]
fn a_marker_of_several_tokens_begins_reasoning_before_the_rules_with_space_or_without() {
    let engine = on_cpu(&ring(3), &patient());
    let format = reasoning("");
    let start = format.start_of_reasoning(&tokenizer());
    assert!(start.len() > 1, "{start:?}");
    let line = *tokenizer().encode("\n", false).unwrap().last().unwrap();
    for prefers in [start.clone(), vec![line]] {
        let (_, said, tokens) = thoughts(&engine, preferring(&engine, &prefers, format.clone()));
        assert!(["ownership", "borrowing", "lifetimes"].contains(&said.trim()), "{said:?}");
        let begins = usize::from(prefers == [line]);
        assert_eq!(tokens[begins..begins + start.len()], start, "{tokens:?}");
    }
}
