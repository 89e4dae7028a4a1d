//! Requests that cannot be served: always OpenAI's error shape, with the parameter at fault.

use crate::common::Server;
use serde_json::{Value, json};

fn server() -> Server {
    Server::start(&["--device", "cpu"])
}

/// A request that could be served, but for `extra`.
fn with(mut body: Value, extra: &Value) -> Value {
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

fn chat(extra: &Value) -> Value {
    with(json!({ "messages": [{ "role": "user", "content": "x" }], "temperature": 0, "max_tokens": 4 }), extra)
}

fn completion(extra: &Value) -> Value {
    with(json!({ "prompt": "x", "temperature": 0, "max_tokens": 4 }), extra)
}

/// Each request is a 400 that names its parameter and says something.
fn refused(server: &Server, path: &str, make: fn(&Value) -> Value, cases: &[(Value, &str)]) {
    for (extra, param) in cases {
        let (status, response) = server.post(path, &make(extra));
        assert_eq!(status, 400, "{extra:.200}: {response}");
        let error = &response["error"];
        assert_eq!((&error["param"], &error["type"]), (&json!(param), &json!("invalid_request_error")), "{response}");
        let message = error["message"].as_str().unwrap_or_default();
        let code = if message.contains("maximum context length") { "context_length_exceeded" } else { "invalid_value" };
        assert_eq!(error["code"], code, "{response}");
        assert!(error["message"].as_str().is_some_and(|message| message.len() > 10), "{response}");
    }
}

/// Parameters that both routes take.
fn sampling() -> Vec<(Value, &'static str)> {
    let mut cases = Vec::new();
    for (param, values) in [
        ("temperature", vec![json!(-1), json!(1e9), json!(1e300), json!("hot"), json!([])]),
        ("top_p", vec![json!(-0.1), json!(1.1), json!(true)]),
        ("top_k", vec![json!(1.5), json!("all")]),
        ("min_p", vec![json!(-0.1), json!(2)]),
        ("repetition_penalty", vec![json!(0.001), json!(-1), json!(1e30)]),
        ("presence_penalty", vec![json!(-2.1), json!(3)]),
        ("frequency_penalty", vec![json!(-3), json!(2.5)]),
        ("max_tokens", vec![json!(-1), json!(1_000_000), json!(i64::MAX), json!("many")]),
        ("n", vec![json!(0), json!(-1), json!(17), json!(i64::MAX), json!(1.5)]),
        ("stop", vec![json!(vec!["a"; 65]), json!([""]), json!(["a", ""]), json!([1])]),
        ("seed", vec![json!(1.5), json!(u64::MAX), json!("x")]),
        (
            "logit_bias",
            vec![json!({ "999999": 1 }), json!({ "x": 1 }), json!({ "-1": 1 }), json!({ "1": 101 }), json!([])],
        ),
        ("stream", vec![json!("yes")]),
        ("stream_options", vec![json!({ "include_usage": true })]),
        ("tempratur", vec![json!(1)]),
    ] {
        cases.extend(values.into_iter().map(|value| (json!({ param: value }), param)));
    }
    cases
}

#[test]
fn impossible_chats_are_refused_and_name_the_parameter() {
    let server = server();
    let mut cases = sampling();
    let long = "ownership ".repeat(3000);
    cases.extend([
        (json!({ "messages": [] }), "messages"),
        (json!({ "messages": "hello" }), "messages"),
        (json!({ "messages": [{ "role": "robot", "content": "x" }] }), "messages[0].role"),
        (json!({ "messages": [{ "role": "user", "content": "x" }, { "role": "user" }] }), "messages[1].content"),
        (json!({ "messages": [{ "role": "user", "content": null }] }), "messages[0].content"),
        (json!({ "messages": [{ "role": "user", "content": { "text": "x" } }] }), "messages[0].content"),
        (json!({ "messages": [{ "role": "user", "content": long }] }), "messages"),
        (json!({ "max_tokens": null, "max_completion_tokens": 0 }), "max_completion_tokens"),
        (json!({ "max_tokens": null, "max_completion_tokens": 1_000_000 }), "max_completion_tokens"),
        (json!({ "max_completion_tokens": 5 }), "max_completion_tokens"),
        (json!({ "top_logprobs": 2 }), "top_logprobs"),
        (json!({ "logprobs": true, "top_logprobs": 21 }), "top_logprobs"),
        (json!({ "logprobs": true, "top_logprobs": -2 }), "top_logprobs"),
        (json!({ "response_format": { "type": "xml" } }), "response_format.type"),
        (json!({ "chat_template_kwargs": { "messages": [] } }), "chat_template_kwargs"),
        (json!({ "tools": [{ "type": "function" }] }), "tools[0].function"),
        (json!({ "max_tokens": 0 }), "max_tokens"),
    ]);
    refused(&server, "/v1/chat/completions", chat, &cases);
    let (status, response) = server.post("/v1/chat/completions", &chat(&json!({})));
    assert_eq!(status, 200, "nothing of that lasts: {response}");
}

#[test]
fn impossible_completions_are_refused_and_name_the_parameter() {
    let server = server();
    let mut cases = sampling();
    cases.extend([
        (json!({ "prompt": null }), "prompt"),
        (json!({ "prompt": "" }), "prompt"),
        (json!({ "prompt": [] }), "prompt"),
        (json!({ "prompt": [[]] }), "prompt"),
        (json!({ "prompt": [-1] }), "prompt"),
        (json!({ "prompt": [4_000_000_000u32] }), "prompt"),
        (json!({ "prompt": [4_000_000_000u32], "echo": true }), "prompt"),
        (json!({ "prompt": vec!["x"; 65] }), "prompt"),
        (json!({ "prompt": vec![70; 5000] }), "prompt"),
        (json!({ "prompt": "ownership ".repeat(3000) }), "prompt"),
        (json!({ "logprobs": 21 }), "logprobs"),
        (json!({ "best_of": 2 }), "best_of"),
    ]);
    refused(&server, "/v1/completions", completion, &cases);
    let (_, response) = server.post("/v1/completions", &completion(&json!({ "prompt": vec![70; 5000] })));
    assert!(response["error"]["message"].as_str().unwrap().contains("5000"), "{response}");
}

#[test]
fn bodies_that_are_no_request_are_refused() {
    let server = server();
    for body in ["", "{", "[]", "null", "\u{0}", "{} {}", "{\"messages\": [}", &"[".repeat(200_000)] {
        for path in ["/v1/chat/completions", "/v1/completions", "/v1/tokenize", "/v1/detokenize"] {
            let (status, response) = server.post_text(path, body);
            assert_eq!(status, 400, "{path} {body:.20?}: {response}");
            assert_eq!(response["error"]["type"], "invalid_request_error");
            assert!(response["error"]["message"].is_string());
        }
    }
    let (status, response) = server.post_text("/v1/completions", &" ".repeat(9 << 20));
    assert_eq!((status, &response["error"]["code"]), (413, &json!("body_too_large")));
}

#[test]
fn unknown_models_routes_and_methods_have_openais_error_shape() {
    let server = server();
    let (status, response) = server.post("/v1/chat/completions", &chat(&json!({ "model": "gpt-9" })));
    assert_eq!((status, &response["error"]["code"]), (404, &json!("model_not_found")));
    assert!(response["error"]["message"].as_str().unwrap().contains("rustbook-5m-4bit"));
    let (status, body) = server.get("/v1/nothing");
    assert!(status == 404 && body.contains("\"error\""), "{body}");
    assert!(body.contains("GET /v1/nothing is not a route of this server"), "{body}");
    let (status, body) = server.get("/v1/chat/completions");
    assert_eq!(status, 405);
    assert!(body.contains("\"error\""));
}

#[test]
fn addresses_that_cannot_be_read_have_openais_error_shape() {
    let server = server();
    for (path, code) in [("/v1/models/%ff", 404), ("/v1/metal/stats?model=a&model=b", 400)] {
        let (status, body) = server.get(path);
        let response: Value = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}"));
        assert_eq!((status, &response["error"]["param"]), (code, &json!("model")), "{path}: {response}");
    }
}
