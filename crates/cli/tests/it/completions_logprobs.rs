//! Log-probabilities, echo and offsets of text completions.

use crate::common::Server;
use serde_json::{Value, json};

fn server() -> Server {
    Server::start(&["--device", "cpu"])
}

/// One completion's only choice.
fn complete(server: &Server, extra: &Value) -> Value {
    let mut body = json!({ "prompt": "Ownership is", "max_tokens": 4, "temperature": 0 });
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    let (status, response) = server.post("/v1/completions", &body);
    assert_eq!(status, 200, "{extra}: {response}");
    response["choices"][0].clone()
}

fn column<'a>(choice: &'a Value, name: &str) -> &'a [Value] {
    choice["logprobs"][name].as_array().unwrap()
}

/// The streamed choice, its chunks put together.
fn streamed(server: &Server, extra: &Value) -> Value {
    let mut body = json!({ "prompt": "Ownership is", "max_tokens": 4, "temperature": 0, "stream": true });
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    let (mut text, mut logprobs, mut finish) = (String::new(), json!({}), Value::Null);
    for event in server.stream("/v1/completions", &body).iter().filter(|event| *event != "[DONE]") {
        let choice = &serde_json::from_str::<Value>(event).unwrap()["choices"][0];
        assert!(finish.is_null(), "nothing comes after the reason");
        text += choice["text"].as_str().unwrap();
        finish = choice["finish_reason"].clone();
        assert!(finish.is_null() || choice["text"] == "", "{choice}");
        for (name, entries) in choice["logprobs"].as_object().into_iter().flatten() {
            let column = logprobs.as_object_mut().unwrap().entry(name).or_insert(json!([]));
            column.as_array_mut().unwrap().extend_from_slice(entries.as_array().unwrap());
        }
    }
    json!({ "index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish, "stop_reason": null })
}

/// Token ids out of the names that `return_tokens_as_token_ids` gives.
fn ids(choice: &Value) -> Vec<u32> {
    let id = |name: &Value| name.as_str().unwrap().strip_prefix("token_id:").unwrap().parse().unwrap();
    column(choice, "tokens").iter().map(id).collect()
}

#[test]
fn the_chosen_token_is_always_among_the_likely_ones() {
    let server = server();
    for extra in [
        json!({ "logprobs": 0 }),
        json!({ "logprobs": 1, "temperature": 1.9, "seed": 3 }),
        json!({ "logprobs": 5, "temperature": 1.9, "seed": 4, "return_tokens_as_token_ids": true }),
    ] {
        let choice = complete(&server, &extra);
        for ((name, own), top) in
            column(&choice, "tokens").iter().zip(column(&choice, "token_logprobs")).zip(column(&choice, "top_logprobs"))
        {
            assert_eq!(&top[name.as_str().unwrap()], own, "{choice}");
        }
        assert_eq!(streamed(&server, &extra), choice);
    }
}

#[test]
fn names_joined_are_the_text_and_offsets_are_their_places() {
    let server = server();
    for stop in [json!([]), json!(["not x"]), json!(["not a much data z"])] {
        let choice = complete(&server, &json!({ "logprobs": 0, "stop": stop }));
        let names: Vec<&str> = column(&choice, "tokens").iter().map(|name| name.as_str().unwrap()).collect();
        assert_eq!(names.concat(), choice["text"]);
        let mut expected = vec![0];
        names.iter().for_each(|name| expected.push(expected.last().unwrap() + name.chars().count()));
        expected.pop();
        assert_eq!(choice["logprobs"]["text_offset"], json!(expected), "{stop}");
    }
}

#[test]
fn tokens_are_named_by_their_ids_on_both_routes_if_asked() {
    let server = server();
    let found = ids(&complete(&server, &json!({ "logprobs": 1, "return_tokens_as_token_ids": true })));
    let (_, text) = server.post("/v1/detokenize", &json!({ "tokens": found }));
    assert_eq!(text["prompt"], complete(&server, &json!({}))["text"]);
    let body = json!({ "messages": [{ "role": "user", "content": "x" }], "logprobs": true, "top_logprobs": 1, "max_tokens": 1,
        "return_tokens_as_token_ids": true });
    let (_, response) = server.post("/v1/chat/completions", &body);
    let entry = &response["choices"][0]["logprobs"]["content"][0];
    for token in [&entry["token"], &entry["top_logprobs"][0]["token"]] {
        assert!(token.as_str().unwrap().starts_with("token_id:"), "{entry}");
    }
}

#[test]
fn an_echo_is_the_prompt_as_it_was_sent() {
    let server = server();
    for prompt in ["<|im_start|>user\nhi", "<|endoftext|>a", "  two spaces, é 😀"] {
        let choice = complete(&server, &json!({ "prompt": prompt, "echo": true, "max_tokens": 1 }));
        assert!(choice["text"].as_str().unwrap().starts_with(prompt), "{choice}");
        let (_, tokens) = server.post("/v1/tokenize", &json!({ "prompt": prompt }));
        let ids = complete(&server, &json!({ "prompt": tokens["tokens"], "echo": true, "max_tokens": 1 }));
        assert_eq!(ids["text"], choice["text"]);
        assert_eq!(
            streamed(&server, &json!({ "prompt": prompt, "echo": true, "max_tokens": 1 }))["text"],
            choice["text"]
        );
    }
}

#[test]
fn a_limit_that_nobody_gave_refuses_no_prompt() {
    let server = server();
    for (length, room) in [(2040, 8), (2047, 1)] {
        let (status, response) =
            server.post("/v1/completions", &json!({ "prompt": vec![70; length], "temperature": 0 }));
        assert_eq!(status, 200, "{response}");
        assert!(response["usage"]["completion_tokens"].as_u64().unwrap() <= room);
    }
    let (status, _) = server.post("/v1/completions", &json!({ "prompt": vec![70; 2040], "max_tokens": 16 }));
    assert_eq!(status, 400, "what is asked for is given or refused");
}

#[test]
fn an_echo_has_the_prompts_log_probabilities() {
    let server = server();
    let ids_wanted = json!({ "logprobs": 1, "return_tokens_as_token_ids": true });
    let (_, tokens) = server.post("/v1/tokenize", &json!({ "prompt": "Ownership is" }));
    let prompt: Vec<u32> = tokens["tokens"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
    let generated = complete(&server, &ids_wanted);
    let whole = [prompt.clone(), ids(&generated)].concat();
    for max_tokens in [0, 1] {
        // As lm-eval asks.
        let extra = json!({ "prompt": [whole], "max_tokens": max_tokens, "logprobs": 1, "echo": true, "seed": 1234 });
        let scored = complete(&server, &extra);
        let end = whole.len();
        let scores = column(&scored, "token_logprobs");
        assert_eq!(scores.len(), end + max_tokens, "{scored}");
        assert_eq!((&scores[0], &column(&scored, "top_logprobs")[0]), (&Value::Null, &Value::Null));
        // A token's result does not depend on how it was computed.
        assert_eq!(&scores[prompt.len()..end], column(&generated, "token_logprobs"));
        let names: String = column(&scored, "tokens").iter().map(|name| name.as_str().unwrap()).collect();
        assert_eq!(names, scored["text"]);
        assert_eq!(scored["finish_reason"], "length");
        assert_eq!(streamed(&server, &extra), scored);
    }
}

#[test]
fn no_tokens_can_be_asked_for() {
    let server = server();
    for (extra, text) in [(json!({ "echo": true }), "Ownership is"), (json!({}), "")] {
        let mut extra = extra;
        extra["max_tokens"] = json!(0);
        let choice = complete(&server, &extra);
        assert_eq!(
            (&choice["text"], &choice["finish_reason"], &choice["logprobs"]),
            (&json!(text), &json!("length"), &Value::Null)
        );
    }
}

#[test]
fn a_prompt_that_fills_the_context_can_be_scored_and_not_continued() {
    let server = server();
    let (_, models) = server.get("/v1/models");
    let models: Value = serde_json::from_str(&models).unwrap();
    let context = models["data"][0]["max_model_len"].as_u64().unwrap() as usize;
    let ask = |tokens: usize, max_tokens: usize| {
        let body = json!({ "prompt": vec![70; tokens], "max_tokens": max_tokens, "echo": true, "logprobs": 0 });
        server.post("/v1/completions", &body)
    };
    let (status, scored) = ask(context, 0);
    assert_eq!(status, 200, "{scored:.500}");
    assert_eq!(column(&scored["choices"][0], "token_logprobs").len(), context);
    for (tokens, max_tokens) in [(context, 1), (context + 1, 0)] {
        let (status, refused) = ask(tokens, max_tokens);
        assert_eq!((status, &refused["error"]["param"]), (400, &json!("prompt")), "{refused:.500}");
    }
}

#[test]
fn special_tokens_are_put_around_a_prompt_if_asked() {
    let server = server();
    let tokens = |path: &str, special: Option<bool>| {
        let mut body = json!({ "max_tokens": 1 });
        match path {
            "/v1/completions" => body["prompt"] = json!("Ownership is"),
            _ => body["messages"] = json!([{ "role": "user", "content": "Ownership is" }]),
        }
        special.into_iter().for_each(|special| body["add_special_tokens"] = json!(special));
        let (status, answer) = server.post(path, &body);
        assert_eq!(status, 200, "{answer}");
        answer["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    for (path, default) in [("/v1/completions", true), ("/v1/chat/completions", false)] {
        assert_eq!(tokens(path, None), tokens(path, Some(default)), "{path}");
        assert!(tokens(path, Some(true)) >= tokens(path, Some(false)), "{path}");
    }
}
