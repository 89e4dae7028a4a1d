//! The server as clients see it.

use crate::common::Server;
use serde_json::{Value, json};

/// A server for one test. Not shared: a static is never dropped, and its server would outlive the tests.
fn server() -> Server {
    Server::start(&["--device", "cpu"])
}

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
    let server = server();
    let (status, response) = server.post("/v1/chat/completions", &question(json!({})));
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
    let server = server();
    let (_, whole) = server.post("/v1/chat/completions", &question(json!({})));
    let body = question(json!({ "stream": true, "stream_options": { "include_usage": true } }));
    let events = server.stream("/v1/chat/completions", &body);
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
    let server = server();
    let (_, tokens) = server.post("/v1/tokenize", &json!({ "prompt": "Ownership is" }));
    let (status, by_text) = server
        .post("/v1/completions", &json!({ "prompt": "Ownership is", "max_tokens": 8, "temperature": 0, "echo": true }));
    assert_eq!(status, 200, "{by_text}");
    let (_, by_ids) = server.post(
        "/v1/completions",
        &json!({ "prompt": tokens["tokens"], "max_tokens": 8, "temperature": 0, "echo": true }),
    );
    assert_eq!(by_text["choices"][0]["text"], by_ids["choices"][0]["text"]);
    assert!(by_text["choices"][0]["text"].as_str().unwrap().starts_with("Ownership is"));
}

#[test]
fn tokens_come_back_as_the_text_they_came_from() {
    let server = server();
    let text = "fn main() { println!(\"héllo 🦀\"); }";
    let (_, tokens) = server.post("/v1/tokenize", &json!({ "prompt": text }));
    let (_, back) = server.post("/v1/detokenize", &json!({ "tokens": tokens["tokens"] }));
    assert_eq!(back["prompt"], text);
}

#[test]
fn stop_strings_end_the_answer_and_are_not_part_of_it() {
    let server = server();
    let (_, whole) = server.post("/v1/chat/completions", &question(json!({})));
    let whole = content(&whole);
    let words: Vec<&str> = whole.split(' ').collect();
    let stop = format!("{} {}", words[3], words[4]);
    let (_, response) = server.post("/v1/chat/completions", &question(json!({ "stop": stop })));
    assert_eq!(response["choices"][0]["finish_reason"], "stop");
    assert_eq!(content(&response), whole[..whole.find(&stop).unwrap()]);
}

#[test]
fn the_same_seed_gives_the_same_answer_and_another_seed_another() {
    let server = server();
    let ask = |seed: u64| {
        content(
            &server
                .post("/v1/chat/completions", &question(json!({ "temperature": 1.5, "seed": seed, "top_p": 1.0 })))
                .1,
        )
    };
    assert_eq!(ask(1), ask(1));
    assert!((2..6).any(|seed| ask(seed) != ask(1)), "five seeds, one answer");
}

#[test]
fn several_choices_are_answered_in_one_request() {
    let server = server();
    let (_, response) = server
        .post("/v1/chat/completions", &question(json!({ "n": 3, "temperature": 1.2, "seed": 5, "max_tokens": 6 })));
    let choices = response["choices"].as_array().unwrap();
    assert_eq!(choices.iter().map(|c| c["index"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(response["usage"]["completion_tokens"], 18);
}

#[test]
fn log_probabilities_are_of_the_chosen_token_and_its_rivals() {
    let server = server();
    let body = question(json!({ "logprobs": true, "top_logprobs": 3, "max_tokens": 4 }));
    let (status, response) = server.post("/v1/chat/completions", &body);
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
    let server = server();
    let body = question(json!({ "logit_bias": { "65": 100 }, "max_tokens": 5 }));
    let (_, response) = server.post("/v1/chat/completions", &body);
    let (_, token) = server.post("/v1/detokenize", &json!({ "tokens": [65, 65, 65, 65, 65] }));
    assert_eq!(content(&response), token["prompt"].as_str().unwrap());
}

#[test]
fn the_models_and_health_routes_answer() {
    let server = server();
    let (status, body) = server.get("/v1/models");
    let models: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &models["data"][0]["id"]), (200, &json!("rustbook-5m-4bit")));
    assert_eq!(server.get("/v1/models/rustbook-5m-4bit").0, 200);
    assert_eq!(server.get("/health").0, 200);
    assert_eq!(server.get("/ready").0, 200);
    let (status, stats) = server.get("/v1/metal/stats");
    let stats: Value = serde_json::from_str(&stats).unwrap();
    assert_eq!(status, 200);
    assert_eq!(stats["memory_pool"]["enabled"], false);
    assert_eq!(stats["device"]["backend"], "cpu");
}

#[test]
fn metrics_count_what_was_served() {
    let server = server();
    let before = server.metric("vllm:generation_tokens_total");
    server.post("/v1/chat/completions", &question(json!({ "max_tokens": 7 })));
    assert_eq!(server.metric("vllm:generation_tokens_total"), before + 7.0);
    assert!(server.metric("vllm:time_to_first_token_seconds_count") >= 1.0);
    assert!(server.metric("vllm:kv_cache_usage_perc") <= 1.0);
}
