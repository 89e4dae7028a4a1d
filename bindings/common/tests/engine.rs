//! The engine of the bindings with the bundled model on the CPU.
#![allow(clippy::unwrap_used)]

use mlx_serving_bindings::{Code, Engine, Error, Generation, Mailbox, Next, Reader, Taken, bench};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn engine(options: Value) -> Engine {
    let mut options = options;
    options["engine"]["device"] = json!("cpu");
    options["engine"]["threads"] = json!(2);
    Engine::new(&options).unwrap()
}

fn loaded(options: Value) -> Engine {
    let engine = engine(options);
    engine.load_model(&Value::Null, None).unwrap();
    engine
}

fn greedy(prompt: &str, max_tokens: usize) -> Value {
    json!({ "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": true })
}

/// A mailbox, and where its notifications arrive.
fn mailbox() -> (Arc<Mailbox>, Receiver<()>) {
    let (sender, notified) = channel();
    (Mailbox::new(move || sender.send(()).unwrap_or_default()), notified)
}

/// The text of an answer that a thread waits for.
fn text(generation: &mut Generation) -> Result<String, Error> {
    let mut text = String::new();
    loop {
        match generation.next_within(LONG)? {
            Next::Token(token) => text += &token.text,
            Next::Late => panic!("late"),
            Next::End => return Ok(text),
        }
    }
}

/// The text of an answer that an event loop takes.
fn taken(generation: &mut Generation, mailbox: &Mailbox, notified: &Receiver<()>) -> Result<String, Error> {
    let mut text = String::new();
    loop {
        match generation.take()? {
            Taken::Tokens(tokens) => tokens.iter().for_each(|token| text += &token.text),
            Taken::Pending => {
                notified.recv_timeout(LONG).expect("a notification");
                mailbox.rearm();
            }
            Taken::End => return Ok(text),
        }
    }
}

fn generated(engine: &Engine) -> f64 {
    let metrics = engine.metrics().unwrap();
    let line = metrics.lines().find(|line| line.starts_with("vllm:generation_tokens_total")).expect(&metrics);
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn an_answer_is_the_same_waited_for_and_taken() {
    let engine = loaded(json!({}));
    let args = greedy("What is ownership?", 40);
    let mut waited = engine.start(&args, Reader::Blocking).unwrap();
    let whole = text(&mut waited).unwrap();
    assert!(!whole.is_empty());
    let summary = waited.summary().unwrap();
    assert_eq!((summary.finish_reason, summary.completion_tokens), ("length", 40));
    let (mailbox, notified) = mailbox();
    let mut polled = engine.start(&args, Reader::Mailbox(mailbox.clone())).unwrap();
    assert_eq!(taken(&mut polled, &mailbox, &notified).unwrap(), whole);
    assert_eq!(polled.take(), Ok(Taken::End), "and again");
}

#[test]
fn a_long_prompt_is_encoded_elsewhere_and_gives_the_same_answer() {
    let engine = loaded(json!({}));
    let args = greedy(&"fn main() { println!(\"a\"); }\n".repeat(200), 8);
    let whole = text(&mut engine.start(&args, Reader::Blocking).unwrap()).unwrap();
    let (mailbox, notified) = mailbox();
    let mut polled = engine.start(&args, Reader::Mailbox(mailbox.clone())).unwrap();
    assert_eq!(taken(&mut polled, &mailbox, &notified).unwrap(), whole);
    let too_long = greedy(&"x ".repeat(200_000), 8);
    let mut polled = engine.start(&too_long, Reader::Mailbox(mailbox.clone())).unwrap();
    let error = taken(&mut polled, &mailbox, &notified).unwrap_err();
    assert_eq!((error.code, error.param.as_deref()), (Code::InvalidParams, Some("prompt")), "{error}");
}

#[test]
fn arguments_are_refused_by_name_before_any_work() {
    let engine = engine(json!({}));
    for (args, param, wrong_type) in [
        (json!({}), "prompt", false),
        (json!({ "prompt": 3 }), "prompt", true),
        (json!({ "prompt": [1, "a"] }), "prompt", true),
        (json!({ "prompt": "a", "messages": [{ "role": "user", "content": "b" }] }), "messages", false),
        (json!({ "messages": [] }), "messages", false),
        (json!({ "messages": [{ "role": "robot", "content": "b" }] }), "messages[0].role", false),
        (json!({ "messages": [{ "role": "user" }] }), "messages[0].content", false),
        (json!({ "messages": [{ "role": "user", "content": [] }] }), "messages[0].content", true),
        (json!({ "prompt": "a", "temperature": "hot" }), "temperature", true),
        (json!({ "prompt": "a", "temperature": 3 }), "temperature", false),
        (json!({ "prompt": "a", "top_p": 1.5 }), "top_p", false),
        (json!({ "prompt": "a", "max_tokens": 0 }), "max_tokens", false),
        (json!({ "prompt": "a", "max_tokens": 1.5 }), "max_tokens", false),
        (json!({ "prompt": "a", "seed": -1 }), "seed", false),
        (json!({ "prompt": "a", "stop": [1] }), "stop", true),
        (json!({ "prompt": "a", "stop": ["b", ""] }), "stop", false),
        (json!({ "prompt": "a", "logit_bias": { "x": 1 } }), "logit_bias", false),
        (json!({ "prompt": "a", "logprobs": 21 }), "logprobs", false),
        (json!({ "prompt": "a", "timeout_ms": 0 }), "timeout_ms", false),
        (json!({ "prompt": "a", "max_token": 3 }), "max_token", false),
    ] {
        let error = engine.start(&args, Reader::Blocking).expect_err(&args.to_string());
        assert_eq!((error.code, error.param.as_deref()), (Code::InvalidParams, Some(param)), "{args}: {error}");
        assert_eq!(error.wrong_type, wrong_type, "{args}: {error}");
        assert!(error.message.contains(param.rsplit('.').next().unwrap()), "{args}: {error}");
    }
    let error = engine.start(&greedy("a", 1), Reader::Blocking).unwrap_err();
    assert_eq!(error.code, Code::ModelNotLoaded, "{error}");
}

#[test]
fn models_are_loaded_once_listed_and_unloaded() {
    let engine = engine(json!({}));
    let missing = engine.load_model(&json!({ "model": "./no/such/folder" }), None).unwrap_err();
    assert_eq!((missing.code, missing.param.as_deref()), (Code::ModelNotFound, Some("model")), "{missing}");
    assert_eq!(engine.list_models().unwrap(), json!([]), "a failed load leaves nothing behind");
    let card = engine.load_model(&Value::Null, None).unwrap();
    assert_eq!(engine.load_model(&Value::Null, None).unwrap(), card, "loaded already");
    let twin = engine.load_model(&json!({ "name": "twin" }), None).unwrap();
    assert_eq!(engine.list_models().unwrap(), json!([card, twin]));
    let unnamed = engine.start(&greedy("a", 1), Reader::Blocking).unwrap_err();
    assert_eq!((unnamed.code, unnamed.param.as_deref()), (Code::InvalidParams, Some("model")), "{unnamed}");
    engine.unload_model(&json!({ "model": "twin" })).unwrap();
    let gone = engine.unload_model(&json!({ "model": "twin" })).unwrap_err();
    assert_eq!(gone.code, Code::ModelNotLoaded, "{gone}");
    let tokens = engine.tokenize(&json!({ "text": "What is ownership?", "add_special_tokens": false })).unwrap();
    assert_eq!(engine.detokenize(&json!({ "tokens": tokens })).unwrap(), "What is ownership?");
    assert_eq!(
        engine.detokenize(&json!({ "tokens": [4_000_000_000_u32] })).unwrap_err().param.as_deref(),
        Some("tokens")
    );
    assert_eq!(engine.health()["status"], "healthy");
    assert_eq!(engine.metal_stats(&Value::Null).unwrap()["memory_pool"], json!({ "enabled": false }));
}

#[test]
fn who_loads_a_model_that_is_being_loaded_waits_for_it() {
    let engine = engine(json!({}));
    let cards: Vec<Value> = std::thread::scope(|scope| {
        let loads: Vec<_> = (0..6).map(|_| scope.spawn(|| engine.load_model(&Value::Null, None).unwrap())).collect();
        loads.into_iter().map(|load| load.join().unwrap()).collect()
    });
    assert!(cards.iter().all(|card| *card == cards[0]), "{cards:?}");
    let taken =
        engine.load_model(&json!({ "model": "rustbook-5m-4bit", "name": "rustbook-5m-4bit" }), None).unwrap_err();
    assert_eq!((taken.code, taken.param.as_deref()), (Code::InvalidParams, Some("name")), "{taken}");
}

#[test]
fn disposal_fails_what_is_in_flight_and_every_later_call() {
    let engine = loaded(json!({}));
    let mut answer = engine.start(&greedy("What is ownership?", 900), Reader::Blocking).unwrap();
    assert!(matches!(answer.next_within(LONG).unwrap(), Next::Token(_)));
    engine.dispose();
    engine.dispose();
    assert_eq!(text(&mut answer).unwrap_err().code, Code::Disposed);
    assert!(matches!(answer.next_within(LONG), Ok(Next::End)));
    for error in [
        engine.start(&greedy("a", 1), Reader::Blocking).map(drop).unwrap_err(),
        engine.load_model(&Value::Null, None).map(drop).unwrap_err(),
        engine.metrics().map(drop).unwrap_err(),
    ] {
        assert_eq!(error.code, Code::Disposed, "{error}");
    }
    assert_eq!(engine.health()["status"], "unhealthy");
}

#[test]
fn a_canceled_answer_ends_and_costs_no_more_than_the_steps_in_flight() {
    for (options, most) in [
        (json!({}), 2.0),
        (json!({ "metal_optimizations": { "enabled": true, "command_buffer_ring": { "enabled": true } } }), 4.0),
    ] {
        let engine = loaded(options);
        let mut answer = engine.start(&greedy("What is ownership?", 900), Reader::Blocking).unwrap();
        for _ in 0..5 {
            assert!(matches!(answer.next_within(LONG).unwrap(), Next::Token(_)));
        }
        answer.cancel();
        let at = generated(&engine);
        assert_eq!(answer.take(), Ok(Taken::End));
        assert!(answer.summary().is_none());
        // Another answer ends after the canceled one has left.
        text(&mut engine.start(&greedy("Why?", 3), Reader::Blocking).unwrap()).unwrap();
        let after = generated(&engine) - at - 3.0;
        assert!(after <= most, "{after} tokens after it was canceled");
    }
}

#[test]
fn answers_of_one_loop_are_told_of_together_once_a_step() {
    let engine = loaded(json!({}));
    let (mailbox, notified) = mailbox();
    let start = |_| engine.start(&greedy("What is ownership?", 40), Reader::Mailbox(mailbox.clone())).unwrap();
    let mut answers: Vec<Generation> = (0..8).map(start).collect();
    let mut tokens = 0;
    loop {
        answers.retain_mut(|answer| {
            loop {
                match answer.take().unwrap() {
                    Taken::Tokens(taken) => tokens += taken.len(),
                    Taken::Pending => break true,
                    Taken::End => break false,
                }
            }
        });
        if answers.is_empty() {
            break;
        }
        notified.recv_timeout(LONG).expect("a notification");
        mailbox.rearm();
    }
    assert_eq!(tokens, 8 * 40);
    // A prompt or two of a step's rows, and a step for each token of answers that began together.
    assert!(mailbox.wakes() < 2 * 40, "{} wakes for {tokens} tokens", mailbox.wakes());
}

#[test]
fn an_answer_that_nobody_reads_is_not_computed_on() {
    let engine = loaded(json!({}));
    let (mailbox, notified) = mailbox();
    let mut unread = engine.start(&greedy("What is ownership?", 400), Reader::Mailbox(mailbox.clone())).unwrap();
    // Longer than the read-ahead, and ends after the other has come to it.
    text(&mut engine.start(&greedy("Why?", 200), Reader::Blocking).unwrap()).unwrap();
    let ahead = generated(&engine) - 200.0;
    assert!(ahead <= 64.0, "{ahead} tokens lie unread");
    let whole = text(&mut engine.start(&greedy("What is ownership?", 400), Reader::Blocking).unwrap()).unwrap();
    assert_eq!(taken(&mut unread, &mailbox, &notified).unwrap(), whole, "and goes on as if nothing had been");
}

#[test]
fn an_answer_that_is_late_fails_with_a_timeout() {
    let engine = loaded(json!({}));
    let mut args = greedy("What is ownership?", 900);
    args["timeout_ms"] = json!(1);
    let mut answer = engine.start(&args, Reader::Blocking).unwrap();
    assert_eq!(text(&mut answer).unwrap_err().code, Code::Timeout);
    assert!(matches!(answer.next_within(LONG), Ok(Next::End)));
}

#[test]
fn an_answer_that_was_complete_in_time_may_be_read_late() {
    let engine = loaded(json!({}));
    let mut args = greedy("What is ownership?", 10);
    args["timeout_ms"] = json!(3000);
    let mut answer = engine.start(&args, Reader::Blocking).unwrap();
    std::thread::sleep(Duration::from_millis(3200));
    text(&mut answer).unwrap();
    assert_eq!(answer.summary().unwrap().completion_tokens, 10);
}

#[test]
fn a_closed_engine_refuses_at_once() {
    let engine = loaded(json!({}));
    engine.close();
    assert_eq!(engine.start(&greedy("a", 1), Reader::Blocking).unwrap_err().code, Code::Disposed);
    engine.dispose();
    assert_eq!(engine.check(&json!({ "prompt": 3 })).unwrap_err().param.as_deref(), Some("prompt"));
}

#[test]
fn a_panic_becomes_an_error_and_the_engine_says_that_it_is_unwell() {
    let engine = engine(json!({}));
    let error = engine.guard::<()>(|| panic!("three")).unwrap_err();
    assert!(error.code == Code::Internal && error.message.contains("three"), "{error}");
    let health = engine.health();
    assert_eq!(health["status"], "unhealthy");
    assert!(health["reason"].as_str().unwrap().contains("three"), "{health}");
}

#[test]
fn benchmarks_give_the_engines_own_measurements_and_refuse_settings_by_name() {
    let cpu = json!({ "engine": { "device": "cpu", "threads": 2 } });
    let mut said = Vec::new();
    let load = json!({ "config": cpu, "questions": 2, "prompt_tokens": 8, "max_tokens": 4 });
    let measured = bench::throughput(&load, &mut |line| said.push(line.to_owned())).unwrap();
    assert_eq!(measured["total_tokens"], 8);
    assert!(measured["throughput_tok_s"].as_f64().unwrap() > 0.0);
    let open = json!({ "rate": 0.1e4, "load": "chat", "turns": 2, "prompt_tokens": "4..8", "warm_up": 0, "seed": 9, "goodput": "e2e=1e9" });
    let mut chat = load.clone();
    chat.as_object_mut().unwrap().extend(open.as_object().unwrap().clone());
    let talked = bench::throughput(&chat, &mut |_| {}).unwrap();
    assert_eq!((&talked["settings"]["turns"], &talked["settings"]["rate"]), (&json!(2), &json!(1000.0)));
    assert_eq!(talked["goodput"]["share"], 1.0);
    let mut settings = load.clone();
    settings["optimizations"] = json!("memory_pool");
    settings["repetitions"] = json!(1);
    settings["prefix_tokens"] = json!(32);
    let compared = bench::compare(&settings, &mut |line| said.push(line.to_owned())).unwrap();
    assert_eq!(compared["result"]["outputs_equal"], true);
    assert!(compared["memory_pool"]["improvement_percent"].is_number(), "{}", compared["memory_pool"]);
    assert!(
        compared["page"].as_str().unwrap().contains("<html") && said.iter().any(|line| line.contains("memory_pool"))
    );
    for (key, value, wrong_type) in [
        ("questions", json!(0), false),
        ("questions", json!("2"), true),
        ("question", json!(2), false),
        ("prompt_tokens", json!("many"), false),
        ("max_tokens", json!([1]), true),
        ("turns", json!(2), false),
        ("rate", json!("fast"), true),
        ("goodput", json!("tpot=1"), false),
        ("url", json!("ftp://x"), false),
        ("api", json!("chat"), false),
        ("config", json!(3), true),
    ] {
        let mut load = load.clone();
        load[key] = value;
        let error = bench::throughput(&load, &mut |_| {}).unwrap_err();
        assert_eq!((error.code, error.wrong_type), (Code::InvalidParams, wrong_type), "{error}");
    }
}
