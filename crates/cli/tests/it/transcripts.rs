//! One stream of each route, byte by byte but for ids and times.

use crate::common::Server;
use serde_json::{Value, json};

/// The events, with what differs from run to run blotted out. Exact arithmetic gives the same text on every machine.
fn transcript(path: &str, body: &Value) -> String {
    let server = Server::start(&["--device", "cpu", "--arithmetic", "exact"]);
    let blot = |data: String| match serde_json::from_str::<Value>(&data) {
        Ok(mut chunk) => {
            for key in ["id", "created"] {
                chunk[key] = json!(format!("[{key}]"));
            }
            round(&mut chunk);
            chunk.to_string()
        }
        Err(_) => data,
    };
    server.stream(path, body).into_iter().map(|data| format!("data: {}\n\n", blot(data))).collect()
}

/// Log-probabilities agree between machines to a few digits.
fn round(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            *value = json!((number.as_f64().unwrap_or_default() * 100.0).round() / 100.0);
        }
        Value::Array(items) => items.iter_mut().for_each(round),
        Value::Object(map) => map.values_mut().for_each(round),
        _ => {}
    }
}

#[test]
fn a_streamed_chat() {
    let body = json!({
        "messages": [{ "role": "user", "content": "What Is Ownership?" }], "temperature": 0, "max_tokens": 5,
        "stream": true, "stream_options": { "include_usage": true },
    });
    insta::assert_snapshot!(transcript("/v1/chat/completions", &body));
}

#[test]
fn a_streamed_completion() {
    let body = json!({
        "prompt": "Each value in Rust has an", "temperature": 0, "max_tokens": 3, "echo": true, "logprobs": 1, "stream": true,
    });
    insta::assert_snapshot!(transcript("/v1/completions", &body));
}
