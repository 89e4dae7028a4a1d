//! Requests that are refused, each with the client's own name of what is at fault.

use crate::house::{House, with};
use crate::script::{Gate, Script, Wait, says, until};
use mlx_serving_engine::EngineError;
use mlx_serving_server::{AppState, Limits, Settings, router};
use serde_json::{Value, json};
use std::sync::Arc;

/// The parameter, after a check that the error is the client's.
async fn chat_param(house: &House, extra: Value) -> String {
    let (param, code, message) = house.chat(extra.clone()).await.error(400);
    assert!(code == "invalid_value" && !message.is_empty(), "{extra}: {code} {message}");
    param
}

#[tokio::test]
async fn a_field_that_nobody_knows_is_refused_by_name() {
    let house = House::new();
    let (param, _, message) = house.complete(json!({ "tools": [{ "type": "function" }] })).await.error(400);
    assert_eq!(param, "tools");
    assert_eq!(message, "tools asks for tool calls, which are made in conversations only");
    let (param, _, message) = house.complete(json!({ "color": "red" })).await.error(400);
    assert_eq!((param.as_str(), message.as_str()), ("color", "color is not supported by this server; leave it out"));
    assert!(house.model.asked().is_empty());
}

#[tokio::test]
async fn a_field_in_whose_place_there_is_another_is_refused_with_its_name() {
    let house = House::new();
    let hi = json!([{ "role": "user", "content": "hi" }]);
    for (route, body, says) in [
        ("/v1/completions", json!({ "prompt": "a", "max_completion_tokens": 7 }), "send `max_tokens`"),
        ("/v1/completions", json!({ "prompt": "a", "request_id": "x" }), "send the header `X-Request-Id`"),
        (
            "/v1/chat/completions",
            json!({ "messages": hi, "echo": true }),
            "send `continue_final_message` to continue a message",
        ),
        ("/v1/responses", json!({ "input": "a", "prompt": { "id": "p" } }), "send `instructions`"),
        ("/v1/responses", json!({ "input": "a", "max_tokens": 7 }), "send `max_output_tokens`"),
    ] {
        let (param, _, message) = house.post(route, &body).await.error(400);
        assert_eq!(message, format!("{param} is not supported by this server; {says}"));
    }
}

#[tokio::test]
async fn a_value_of_the_wrong_type_is_refused_by_name() {
    let house = House::new();
    let (param, _, message) = house.chat(json!({ "temperature": "hot" })).await.error(400);
    assert_eq!(
        (param.as_str(), message.as_str()),
        ("temperature", "temperature is \"hot\", a string; it has to be a number")
    );
    for (extra, param) in [
        (json!({ "messages": [{ "role": "robot", "content": "x" }] }), "messages[0].role"),
        (json!({ "messages": 5 }), "messages"),
        (json!({ "n": 1.5 }), "n"),
        (json!({ "stream_options": { "include_usage": 1 } }), "stream_options.include_usage"),
    ] {
        assert_eq!(chat_param(&house, extra).await, param);
    }
}

#[tokio::test]
async fn a_value_out_of_its_range_is_refused_by_name() {
    let house = House::new();
    for (extra, param, message) in [
        (json!({ "n": 0 }), "n", "n is 0; it must be 1 to 16"),
        (json!({ "n": 17 }), "n", "n is 17; it must be 1 to 16"),
        (json!({ "max_tokens": -5 }), "max_tokens", "max_tokens is -5; it cannot be negative"),
        (
            json!({ "max_completion_tokens": -5 }),
            "max_completion_tokens",
            "max_completion_tokens is -5; it cannot be negative",
        ),
        (json!({ "temperature": 3 }), "temperature", "temperature is 3; it must be at least 0 and at most 2"),
        (json!({ "top_p": 1.5 }), "top_p", "top_p is 1.5; it must be at least 0 and at most 1"),
        (json!({ "logit_bias": { "999": 1 } }), "logit_bias", "token 999 is outside the vocabulary of 257"),
        (json!({ "stop": [""] }), "stop", "stop has an empty string, at which every answer would end"),
        (json!({ "logprobs": true, "top_logprobs": 21 }), "top_logprobs", "top_logprobs is 21; it is at most 20"),
        (json!({ "messages": [] }), "messages", "messages is empty; send at least one"),
        (json!({ "messages": [{ "role": "user" }] }), "messages[0].content", "messages[0] has no content"),
    ] {
        let (found, _, text) = house.chat(extra).await.error(400);
        assert_eq!((found.as_str(), text.as_str()), (param, message));
    }
    let vast = house.chat(json!({ "logprobs": true, "top_logprobs": usize::MAX })).await;
    assert_eq!(vast.error(400).0, "top_logprobs");
    let (param, _, message) = house.complete(json!({ "logprobs": 21 })).await.error(400);
    assert_eq!((param.as_str(), message.as_str()), ("logprobs", "logprobs is at most 20"));
}

#[tokio::test]
async fn fields_that_contradict_each_other_are_refused() {
    let house = House::new();
    for (extra, param) in [
        (json!({ "max_tokens": 1, "max_completion_tokens": 2 }), "max_completion_tokens"),
        (json!({ "top_logprobs": 2 }), "top_logprobs"),
        (json!({ "stream_options": { "include_usage": true } }), "stream_options"),
    ] {
        assert_eq!(chat_param(&house, extra).await, param);
    }
    house.chat(json!({ "max_tokens": 2, "max_completion_tokens": 2 })).await.json(200);
}

#[tokio::test]
async fn what_is_no_json_is_refused() {
    let house = House::new();
    for body in ["", "{", "[]", "null", "{\"prompt\": \"x\"} x", "{'prompt': 1}"] {
        let reply = house.call("POST", "/v1/completions", &[], body).await;
        assert_eq!(reply.json(400)["error"]["param"], Value::Null, "{body}");
    }
}

#[tokio::test]
async fn a_model_that_is_not_served_is_named_with_those_that_are() {
    let house = House::new();
    house.add(Script::new("other"));
    let (param, code, message) = house.chat(json!({ "model": "gpt" })).await.error(404);
    assert_eq!((param.as_str(), code.as_str()), ("model", "model_not_found"));
    assert!(message.contains("\"gpt\"") && message.ends_with("m, other"), "{message}");
    let (param, _, message) = house.chat(json!({})).await.error(400);
    assert_eq!((param.as_str(), message.as_str()), ("model", "name one of the models served here: m, other"));
    house.chat(json!({ "model": "other" })).await.json(200);
}

#[tokio::test]
async fn a_model_without_a_template_completes_and_does_not_chat() {
    let house = House::of(Script::new("m").mute());
    let (param, _, message) = house.chat(json!({})).await.error(400);
    assert_eq!((param.as_str(), message.as_str()), ("messages", "m has no chat template; use /v1/completions"));
    house.complete(json!({})).await.json(200);
}

#[tokio::test]
async fn a_prompt_that_is_too_long_has_the_name_that_the_route_gives_it() {
    let house = House::new();
    let long = "x".repeat(200);
    let question = json!({ "messages": [{ "role": "user", "content": long }] });
    let (param, code, message) = house.chat(question.clone()).await.error(400);
    assert_eq!((param.as_str(), code.as_str()), ("messages", "context_length_exceeded"));
    let bound = "this model's maximum context length is 100 tokens, the answer included";
    assert_eq!(message, format!("the prompt has at least 207 tokens; {bound}"));
    for prompt in [json!(long), json!(vec![1; 200])] {
        let (param, code, _) = house.complete(json!({ "prompt": prompt })).await.error(400);
        assert_eq!((param.as_str(), code.as_str()), ("prompt", "context_length_exceeded"));
    }
    assert_eq!(house.complete(json!({ "prompt": [257] })).await.error(400).1, "invalid_value");
    // Where a setting is the bound, it is named.
    let house = House::of(Script::new("m").bounded());
    let setting = "engine.kv_cache_tokens bounds it, the model itself has 200";
    assert!(house.chat(question).await.error(400).2.ends_with(&format!("{bound}: {setting}")));
    let tokens = house.post("/v1/detokenize", &json!({ "tokens": vec![1; 101] })).await;
    assert_eq!(tokens.error(400).1, "context_length_exceeded");
    house.model.refuses(EngineError::ContextLength { param: "max_tokens", message: "max_tokens is 99; …".into() });
    let (param, code, message) = house.chat(json!({ "max_completion_tokens": 99 })).await.error(400);
    assert_eq!(
        (param.as_str(), code.as_str(), message.as_str()),
        ("max_completion_tokens", "context_length_exceeded", "max_completion_tokens is 99; …")
    );
}

#[tokio::test]
async fn the_engines_refusals_have_the_names_that_the_route_gives_them() {
    let house = House::new();
    house.model.refuses(EngineError::invalid("max_tokens", "max_tokens is 99, but there is no room"));
    for (extra, name) in [
        (json!({ "max_tokens": 99 }), "max_tokens"),
        (json!({ "max_completion_tokens": 99 }), "max_completion_tokens"),
        (json!({ "max_completion_tokens": 99, "stream": true }), "max_completion_tokens"),
    ] {
        let (param, _, message) = house.chat(extra).await.error(400);
        assert_eq!((param.as_str(), message), (name, format!("{name} is 99, but there is no room")));
    }
    house.model.refuses(EngineError::invalid("prompt", "the prompt has no tokens; send at least one"));
    assert_eq!(house.chat(json!({})).await.error(400).0, "messages");
    assert_eq!(house.complete(json!({})).await.error(400).0, "prompt");
    house.model.refuses(EngineError::invalid("top_logprobs", "at most 20 alternatives can be reported"));
    assert_eq!(house.chat(json!({})).await.error(400).0, "top_logprobs");
    assert_eq!(house.complete(json!({})).await.error(400).0, "logprobs");
}

#[tokio::test]
async fn more_answers_than_can_be_under_way_are_refused() {
    let house = House::new();
    let (param, _, message) = house.complete(json!({ "prompt": vec!["x"; 3], "n": 3 })).await.error(400);
    assert_eq!(param, "n");
    assert_eq!(
        message,
        "prompt has 3 entries and n is 3, which makes 9 answers; this server computes and queues at most 8"
    );
    assert_eq!(house.complete(json!({ "prompt": vec!["x"; 9] })).await.error(400).0, "prompt");
    assert_eq!(house.chat(json!({ "n": 9 })).await.error(400).0, "n");
}

#[tokio::test]
async fn a_full_engine_asks_to_try_again() {
    let house = House::new();
    house.model.fills(8);
    for path in ["/v1/chat/completions", "/v1/completions", "/v1/tokenize"] {
        // Even what is not valid: bodies are not read where they cannot be served.
        let reply = house.post(path, &json!({})).await;
        assert_eq!((reply.error(429).1.as_str(), &reply.headers["retry-after"]), ("overloaded", &"1".parse().unwrap()));
    }
    let other = house.add(Script::new("other"));
    assert_eq!(house.chat(json!({ "model": "m" })).await.error(429).1, "overloaded");
    house.chat(json!({ "model": "other" })).await.json(200);
    other.refuses(EngineError::Overloaded { live: 8, limit: 8, asked: 2 });
    assert_eq!(house.chat(json!({ "model": "other" })).await.error(429).1, "overloaded");
}

#[tokio::test]
async fn a_server_that_stops_takes_no_new_requests_and_ends_the_others() {
    let house = House::new();
    let gate = Gate::new();
    house.model.plays([[vec![Wait(gate.clone())], says(&["x"])].concat()]);
    let house = Arc::new(house);
    let first = tokio::spawn({
        let house = house.clone();
        async move { house.complete(json!({})).await }
    });
    until("the request", || house.model.asked().len() == 1).await;
    house.state.drain();
    for path in ["/v1/chat/completions", "/v1/completions", "/v1/detokenize"] {
        let (_, code, message) = house.post(path, &json!({})).await.error(503);
        assert_eq!(
            (code.as_str(), message.as_str()),
            ("unavailable", "the server is stopping; it takes no new requests")
        );
    }
    gate.open();
    assert_eq!(first.await.unwrap().choice()["text"], "x");
}

#[tokio::test]
async fn a_model_that_is_loaded_or_loaded_again_will_be_there_soon() {
    let settings = Settings { names: vec!["m".into(), "lost".into()], ..Settings::default() };
    let state = AppState::new(settings);
    crate::house::lose(&state, "lost");
    let app = router(state);
    let ask = |model: &str| {
        use tower::ServiceExt;
        let body = json!({ "model": model, "prompt": "x" }).to_string();
        let request = axum::http::Request::post("/v1/completions").header("host", "localhost").body(body).unwrap();
        let app = app.clone();
        async move { crate::house::Reply::of(app.oneshot(request.map(axum::body::Body::new)).await.unwrap()).await }
    };
    let (_, code, message) = ask("m").await.error(503);
    assert_eq!((code.as_str(), message.as_str()), ("unavailable", "model m is being loaded; try again soon"));
    let reply = ask("lost").await;
    assert_eq!(
        reply.error(503).2,
        "model lost is being loaded again (its weights could not be loaded: its file changed); try again soon"
    );
    assert_eq!(reply.headers["retry-after"], "1");
}

#[tokio::test]
async fn a_server_without_models_says_so() {
    let state = AppState::new(Settings::default());
    let app = router(state);
    let body = axum::body::Body::from(r#"{"prompt": "x"}"#);
    let request = axum::http::Request::post("/v1/completions").header("host", "localhost").body(body).unwrap();
    let reply = crate::house::Reply::of(tower::ServiceExt::oneshot(app, request).await.unwrap()).await;
    assert_eq!(reply.error(503).2, "no model is served yet; try again soon");
}

#[tokio::test]
async fn a_dead_engine_serves_nothing() {
    let house = House::new();
    house.model.dies("the device was lost");
    let (_, code, message) = house.chat(json!({})).await.error(503);
    assert_eq!((code.as_str(), message.as_str()), ("unavailable", "the engine is not running: the device was lost"));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_and_while_it_comes() {
    let house = House::set(Settings { body_limit: 100, ..Settings::default() }, Script::new("m"));
    let long = json!({ "prompt": "x".repeat(100) }).to_string();
    let reply = house.call("POST", "/v1/completions", &[("content-length", "1000")], "{}").await;
    assert_eq!(reply.error(413).1, "body_too_large");
    let (_, code, message) = house.call("POST", "/v1/completions", &[], long).await.error(413);
    assert_eq!((code.as_str(), message.as_str()), ("body_too_large", "the body is longer than 100 bytes"));
}

#[tokio::test]
async fn an_answer_that_cannot_be_held_is_refused_with_the_clients_name_of_the_limit() {
    let limits = Limits { answer: 300, ..Limits::default() };
    let house = House::set(Settings { limits, ..Settings::default() }, Script::new("m"));
    let extra = |limit: &str| with(json!({ "logprobs": true }), json!({ limit: 50 }));
    for name in ["max_tokens", "max_completion_tokens"] {
        let (param, _, message) = house.chat(extra(name)).await.error(400);
        assert!(param == name && message.starts_with("the answer may take"), "{param}: {message}");
        assert_eq!(house.chat(with(extra(name), json!({ "stream": true }))).await.status, 200);
    }
    // One that nobody could know of before.
    house.model.plays([says(&["x"; 50])]);
    let (param, _, message) = house.chat(json!({ "logprobs": true })).await.error(400);
    assert!(param == "max_tokens" && message.starts_with("the answer has grown beyond"), "{param}: {message}");
}

#[tokio::test]
async fn what_asks_for_nothing_in_mlx_lms_words_is_taken_and_the_rest_refused_by_name() {
    let house = House::new();
    let nothing = json!({
        "repetition_penalty": 0.0, "repetition_context_size": 20, "presence_context_size": 20, "frequency_context_size": 20,
        "xtc_probability": 0.0, "xtc_threshold": 0.1, "draft_model": "default_model", "num_draft_tokens": 3,
        "adapters": null, "role_mapping": null, "top_logprobs": -1, "logit_bias": null, "min_p": 0.0, "top_k": 0,
    });
    house.chat(nothing).await.json(200);
    for (extra, param, message) in [
        (
            json!({ "repetition_penalty": 1.1, "repetition_context_size": 20 }),
            "repetition_context_size",
            "repetition_context_size is 20, but repetition_penalty has no window here; leave it out",
        ),
        (
            json!({ "xtc_probability": 0.5 }),
            "xtc_probability",
            "xtc_probability asks for XTC sampling, which is not supported by this server; leave it out, or send 0",
        ),
        (
            json!({ "draft_model": "small" }),
            "draft_model",
            "draft_model asks for a draft model, which is not supported by this server; leave it out",
        ),
        (
            json!({ "adapters": "lora" }),
            "adapters",
            "adapters asks for an adapter, which is not supported by this server; leave it out",
        ),
        (
            json!({ "role_mapping": { "user": "USER" } }),
            "role_mapping",
            "role_mapping asks for other names of roles, which are not supported by this server; leave it out",
        ),
    ] {
        let (found, _, text) = house.chat(extra).await.error(400);
        assert_eq!((found.as_str(), text.as_str()), (param, message));
    }
}

/// The bytes, compressed.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn bodies_are_decoded_within_their_bounds() {
    let limits = Limits { bodies: 200_000, ..Limits::default() };
    let house = House::set(Settings { body_limit: 100_000, limits, ..Settings::default() }, Script::new("m"));
    let send = async |encoding: &str, body: Vec<u8>| {
        house.call("POST", "/v1/completions", &[("content-encoding", encoding)], body).await
    };
    let body = br#"{"prompt": "ab"}"#;
    for encoding in ["gzip", "GZIP", "x-gzip"] {
        assert_eq!(send(encoding, gzip(body)).await.choice()["text"], "ok", "{encoding}");
    }
    assert_eq!(send("identity", body.to_vec()).await.status, 200);
    // Several members, as `cat a.gz b.gz` makes them.
    assert_eq!(send("gzip", [gzip(&body[..5]), gzip(&body[5..])].concat()).await.status, 200);
    for encoding in ["deflate", "zstd", "br", "gzip, gzip"] {
        let (_, code, message) = send(encoding, body.to_vec()).await.error(415);
        assert!(
            code == "unsupported_encoding" && message.contains(encoding) && message.contains("takes gzip"),
            "{message}"
        );
    }
    for broken in [body.to_vec(), gzip(body)[..20].to_vec(), Vec::new()] {
        let (_, _, message) = send("gzip", broken).await.error(400);
        assert!(!message.is_empty(), "{message}");
    }
    // A mebibyte of nothing in a thousand bytes, and a hundred times that.
    for size in [1 << 20, 100 << 20] {
        let bomb = gzip(&vec![b' '; size]);
        assert_eq!(send("gzip", bomb).await.error(413).1, "body_too_large");
    }
    let longest = [&[b' '; 100_000 - 16][..], body].concat();
    assert_eq!((longest.len(), send("gzip", gzip(&longest)).await.status), (100_000, 200));
    let house = House::set(
        Settings { body_limit: 100_000, limits: Limits { bodies: 85_000, ..Limits::default() }, ..Settings::default() },
        Script::new("m"),
    );
    let body = gzip(&[b' '; 90_000]);
    let reply = house.call("POST", "/v1/completions", &[("content-encoding", "gzip")], body).await;
    assert_eq!(reply.error(429).1, "overloaded", "what is decoded counts");
}
