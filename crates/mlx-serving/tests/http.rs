//! The server as clients see it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::Server;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// One server for all tests of this file; the process's end stops it.
static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start(&["--device", "cpu"]));

fn question(extra: Value) -> Value {
    let mut body = json!({
        "model": "rustbook-5m-4bit",
        "messages": [{ "role": "user", "content": "What Is Ownership?" }],
        "temperature": 0, "max_tokens": 24,
    });
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

fn content(response: &Value) -> String {
    response["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

#[test]
fn a_chat_completion_has_openais_shape() {
    let (status, response) = SERVER.post("/v1/chat/completions", &question(json!({})));
    assert_eq!(status, 200, "{response}");
    assert_eq!(response["object"], "chat.completion");
    assert!(response["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!(response["choices"][0]["message"]["role"], "assistant");
    assert_eq!(response["choices"][0]["finish_reason"], "length");
    assert_eq!(response["usage"]["completion_tokens"], 24);
    assert!(!content(&response).is_empty());
}

#[test]
fn a_stream_carries_the_same_text_as_a_whole_answer() {
    let (_, whole) = SERVER.post("/v1/chat/completions", &question(json!({})));
    let body = question(json!({ "stream": true, "stream_options": { "include_usage": true } }));
    let events = SERVER.stream("/v1/chat/completions", &body);
    assert_eq!(events.last().unwrap(), "[DONE]");
    let chunks: Vec<Value> = events[..events.len() - 1].iter().map(|e| serde_json::from_str(e).unwrap()).collect();
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let text: String = chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, content(&whole));
    let reasons: Vec<&str> = chunks.iter().filter_map(|c| c["choices"][0]["finish_reason"].as_str()).collect();
    assert_eq!(reasons, ["length"]);
    let usage = chunks.last().unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["completion_tokens"], 24);
    assert!(chunks[..chunks.len() - 1].iter().all(|c| c["usage"].is_null()));
}

#[test]
fn a_text_completion_may_echo_and_take_token_ids() {
    let (_, tokens) = SERVER.post("/v1/tokenize", &json!({ "prompt": "Ownership is" }));
    let (status, by_text) = SERVER
        .post("/v1/completions", &json!({ "prompt": "Ownership is", "max_tokens": 8, "temperature": 0, "echo": true }));
    assert_eq!(status, 200, "{by_text}");
    let (_, by_ids) = SERVER.post(
        "/v1/completions",
        &json!({ "prompt": tokens["tokens"], "max_tokens": 8, "temperature": 0, "echo": true }),
    );
    assert_eq!(by_text["choices"][0]["text"], by_ids["choices"][0]["text"]);
    assert!(by_text["choices"][0]["text"].as_str().unwrap().starts_with("Ownership is"));
}

#[test]
fn tokens_come_back_as_the_text_they_came_from() {
    let text = "fn main() { println!(\"héllo 🦀\"); }";
    let (_, tokens) = SERVER.post("/v1/tokenize", &json!({ "prompt": text }));
    let (_, back) = SERVER.post("/v1/detokenize", &json!({ "tokens": tokens["tokens"] }));
    assert_eq!(back["prompt"], text);
}

#[test]
fn stop_strings_end_the_answer_and_are_not_part_of_it() {
    let (_, whole) = SERVER.post("/v1/chat/completions", &question(json!({})));
    let whole = content(&whole);
    let words: Vec<&str> = whole.split(' ').collect();
    let stop = format!("{} {}", words[3], words[4]);
    let (_, response) = SERVER.post("/v1/chat/completions", &question(json!({ "stop": stop })));
    assert_eq!(response["choices"][0]["finish_reason"], "stop");
    assert_eq!(content(&response), whole[..whole.find(&stop).unwrap()]);
}

#[test]
fn the_same_seed_gives_the_same_answer_and_another_seed_another() {
    let ask = |seed: u64| {
        content(
            &SERVER
                .post("/v1/chat/completions", &question(json!({ "temperature": 1.5, "seed": seed, "top_p": 1.0 })))
                .1,
        )
    };
    assert_eq!(ask(1), ask(1));
    assert!((2..6).any(|seed| ask(seed) != ask(1)), "five seeds, one answer");
}

#[test]
fn several_choices_are_answered_in_one_request() {
    let (_, response) = SERVER
        .post("/v1/chat/completions", &question(json!({ "n": 3, "temperature": 1.2, "seed": 5, "max_tokens": 6 })));
    let choices = response["choices"].as_array().unwrap();
    assert_eq!(choices.iter().map(|c| c["index"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(response["usage"]["completion_tokens"], 18);
}

#[test]
fn log_probabilities_are_of_the_chosen_token_and_its_rivals() {
    let body = question(json!({ "logprobs": true, "top_logprobs": 3, "max_tokens": 4 }));
    let (status, response) = SERVER.post("/v1/chat/completions", &body);
    assert_eq!(status, 200, "{response}");
    let entries = response["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(entries.len(), 4);
    for entry in entries {
        let top = entry["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        // Greedy: the chosen one is the most likely one.
        assert_eq!(entry["logprob"], top[0]["logprob"]);
        assert!(entry["logprob"].as_f64().unwrap() <= 0.0);
        assert!(top[0]["logprob"].as_f64() >= top[1]["logprob"].as_f64());
    }
}

#[test]
fn a_bias_can_forbid_and_force_tokens() {
    let body = question(json!({ "logit_bias": { "65": 100 }, "max_tokens": 5 }));
    let (_, response) = SERVER.post("/v1/chat/completions", &body);
    let (_, token) = SERVER.post("/v1/detokenize", &json!({ "tokens": [65, 65, 65, 65, 65] }));
    assert_eq!(content(&response), token["prompt"].as_str().unwrap());
}

#[test]
fn requests_that_cannot_be_honoured_are_refused_and_name_the_parameter() {
    for (extra, param) in [
        (json!({ "temperature": -1 }), "temperature"),
        (json!({ "top_p": 0 }), "top_p"),
        (json!({ "max_tokens": 0 }), "max_tokens"),
        (json!({ "max_tokens": 1_000_000 }), "max_tokens"),
        (json!({ "n": 0 }), "n"),
        (json!({ "stop": ["a", "b", "c", "d", "e"] }), "stop"),
        (json!({ "logit_bias": { "999999": 1 } }), "logit_bias"),
        (json!({ "messages": [] }), "messages"),
        (json!({ "stream_options": { "include_usage": true } }), "stream_options"),
        (json!({ "top_logprobs": 2 }), "top_logprobs"),
        (json!({ "logprobs": true, "top_logprobs": 21 }), "top_logprobs"),
    ] {
        let (status, response) = SERVER.post("/v1/chat/completions", &question(extra.clone()));
        assert_eq!(status, 400, "{extra}: {response}");
        assert_eq!(response["error"]["type"], "invalid_request_error");
        assert_eq!(response["error"]["param"], param, "{response}");
        assert!(!response["error"]["message"].as_str().unwrap().is_empty());
    }
}

#[test]
fn unknown_parameters_and_malformed_bodies_are_refused() {
    let (status, response) = SERVER.post("/v1/chat/completions", &question(json!({ "tempratur": 1 })));
    assert_eq!(status, 400);
    assert!(response["error"]["message"].as_str().unwrap().contains("tempratur"), "{response}");
    for body in ["", "{", "[]", "{\"messages\": 5}", "\u{0}", "{} {}"] {
        let (status, response) = SERVER.post_text("/v1/chat/completions", body);
        assert_eq!(status, 400, "{body:?}: {response}");
        assert!(response["error"]["message"].is_string());
    }
    let (status, response) = SERVER.post("/v1/chat/completions", &question(json!({ "temperature": "hot" })));
    assert_eq!((status, &response["error"]["param"]), (400, &json!("temperature")), "{response}");
}

#[test]
fn a_prompt_longer_than_the_context_is_refused() {
    let body = json!({ "prompt": vec![70; 5000], "max_tokens": 1 });
    let (status, response) = SERVER.post("/v1/completions", &body);
    assert_eq!((status, &response["error"]["param"]), (400, &json!("prompt")), "{response}");
    assert!(response["error"]["message"].as_str().unwrap().contains("5000"));
}

#[test]
fn unknown_models_routes_and_methods_have_openais_error_shape() {
    let (status, response) = SERVER.post("/v1/chat/completions", &question(json!({ "model": "gpt-9" })));
    assert_eq!((status, &response["error"]["code"]), (404, &json!("model_not_found")));
    assert!(response["error"]["message"].as_str().unwrap().contains("rustbook-5m-4bit"));
    let (status, body) = SERVER.get("/v1/nothing");
    assert_eq!(status, 404);
    assert!(body.contains("\"error\""));
    let (status, body) = SERVER.get("/v1/chat/completions");
    assert_eq!(status, 405);
    assert!(body.contains("\"error\""));
}

#[test]
fn the_models_and_health_routes_answer() {
    let (status, body) = SERVER.get("/v1/models");
    let models: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &models["data"][0]["id"]), (200, &json!("rustbook-5m-4bit")));
    assert_eq!(SERVER.get("/v1/models/rustbook-5m-4bit").0, 200);
    assert_eq!(SERVER.get("/health").0, 200);
    assert_eq!(SERVER.get("/ready").0, 200);
    let (status, stats) = SERVER.get("/v1/metal/stats");
    let stats: Value = serde_json::from_str(&stats).unwrap();
    assert_eq!(status, 200);
    assert_eq!(stats["memory_pool"]["enabled"], false);
    assert_eq!(stats["device"]["backend"], "cpu");
}

#[test]
fn metrics_count_what_was_served() {
    let before = SERVER.metric("vllm:generation_tokens_total");
    SERVER.post("/v1/chat/completions", &question(json!({ "max_tokens": 7 })));
    // Other tests share the server, so at least.
    assert!(SERVER.metric("vllm:generation_tokens_total") >= before + 7.0);
    assert!(SERVER.metric("vllm:time_to_first_token_seconds_count") >= 1.0);
    assert!(SERVER.metric("vllm:kv_cache_usage_perc") <= 1.0);
}
