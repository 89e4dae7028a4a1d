//! Bodies as OpenAI's and vLLM's clients write them.

use crate::common::Server;
use serde_json::{Value, json};

fn chat(extra: &Value) -> Value {
    let mut body =
        json!({ "messages": [{ "role": "user", "content": "What Is Ownership?" }], "temperature": 0, "max_tokens": 3 });
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

fn chunks(events: &[String]) -> Vec<Value> {
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(done, "[DONE]");
    chunks.iter().map(|chunk| serde_json::from_str(chunk).unwrap()).collect()
}

#[test]
fn an_answers_own_message_is_taken_back() {
    let server = Server::start(&["--device", "cpu"]);
    let (_, first) = server.post("/v1/chat/completions", &chat(&json!({})));
    let mut message = first["choices"][0]["message"].clone();
    // What the official clients add when they write the message out.
    for (field, value) in [("annotations", json!([])), ("audio", json!(null)), ("tool_calls", json!(null))] {
        message[field] = value;
    }
    let ask = |content: &str| json!({ "role": "user", "content": content });
    let messages = json!({ "messages": [ask("What Is Ownership?"), message, ask("And borrowing?")] });
    let (status, second) = server.post("/v1/chat/completions", &chat(&messages));
    assert_eq!(status, 200, "{second}");
}

#[test]
fn a_field_written_out_as_nothing_changes_nothing() {
    let server = Server::start(&["--device", "cpu"]);
    let (_, plain) = server.post("/v1/chat/completions", &chat(&json!({})));
    let mut all =
        chat(&json!({ "parallel_tool_calls": true, "service_tier": "auto", "tools": [], "tool_choice": "none" }));
    for field in
        ["audio", "functions", "logit_bias", "metadata", "modalities", "n", "prediction", "seed", "stop", "store"]
    {
        all[field] = Value::Null;
    }
    let (status, response) = server.post("/v1/chat/completions", &all);
    assert_eq!((status, &response["choices"]), (200, &plain["choices"]));
    let (status, response) = server.post("/v1/chat/completions", &chat(&json!({ "store": true })));
    let message = "store is not supported by this server; leave it out";
    assert_eq!((status, &response["error"]["message"]), (400, &json!(message)));
}

#[test]
fn every_chunk_says_what_the_answer_cost_so_far_if_asked() {
    let server = Server::start(&["--device", "cpu"]);
    for n in [1, 2] {
        let options = json!({ "include_usage": true, "continuous_usage_stats": true });
        let body = chat(&json!({ "stream": true, "stream_options": options, "n": n }));
        let chunks = chunks(&server.stream("/v1/chat/completions", &body));
        let tokens: Vec<u64> = chunks.iter().map(|c| c["usage"]["completion_tokens"].as_u64().unwrap()).collect();
        assert!(tokens.is_sorted() && tokens.last() == Some(&(3 * n)), "{tokens:?}");
        let prompts: Vec<&Value> = chunks.iter().map(|c| &c["usage"]["prompt_tokens"]).collect();
        assert!(prompts.iter().all(|p| *p == prompts[0]), "{prompts:?}");
    }
}

#[test]
fn the_role_comes_with_the_first_token_and_held_back_text_before_the_end() {
    let server = Server::start(&["--device", "cpu"]);
    let (_, whole) = server.post("/v1/chat/completions", &chat(&json!({})));
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
    // A stop string that the answer begins, so that its text is held back to the end.
    let stop = format!("{}\u{1}", text.split(' ').next_back().unwrap());
    let events = chunks(&server.stream("/v1/chat/completions", &chat(&json!({ "stream": true, "stop": [stop] }))));
    let choices: Vec<&Value> = events.iter().map(|event| &event["choices"][0]).collect();
    assert_eq!(choices[0]["delta"], json!({ "role": "assistant", "content": "" }));
    let (last, before) = choices.split_last().unwrap();
    assert_eq!((&last["delta"], &last["finish_reason"]), (&json!({}), &json!("length")));
    assert!(before.iter().all(|choice| choice["finish_reason"].is_null()));
    let joined: String = before.iter().map(|choice| choice["delta"]["content"].as_str().unwrap()).collect();
    assert_eq!(joined, text);
    assert_eq!(before.last().unwrap()["delta"]["content"], stop.trim_end_matches('\u{1}'));
}

#[cfg(target_os = "linux")]
#[test]
fn reading_a_body_takes_at_most_ten_times_its_bytes() {
    const BYTES: usize = 7 << 20;
    let list = |entry: &str| vec![entry; BYTES / (entry.len() + 1)].join(",");
    let biases: Vec<String> = (0..BYTES / 12).map(|i| format!("\"{i:07}\":1")).collect();
    let chat = |field: &str, value: &str| format!(r#"{{"messages":[],"{field}":{value}}}"#);
    for (path, what, body) in [
        ("/v1/completions", "lists of one id", format!(r#"{{"prompt":[{},"x"]}}"#, list("[1]"))),
        ("/v1/completions", "ids", format!(r#"{{"prompt":[{}]}}"#, list("1"))),
        ("/v1/completions", "ids in a list", format!(r#"{{"prompt":[[{}],"x"],"foo":1}}"#, list("1"))),
        ("/v1/completions", "texts", format!(r#"{{"prompt":[{}]}}"#, list(r#""""#))),
        ("/v1/completions", "an escaped text", format!(r#"{{"prompt":"{}","foo":1}}"#, "\\n".repeat(BYTES / 2))),
        ("/v1/detokenize", "ids", format!(r#"{{"tokens":[{}],"foo":1}}"#, list("1"))),
        ("/v1/chat/completions", "messages", format!(r#"{{"messages":[{}]}}"#, list(r#"{"role":"user"}"#))),
        (
            "/v1/chat/completions",
            "parts",
            format!(
                r#"{{"messages":[{{"role":"user","content":[{}]}}],"foo":1}}"#,
                list(r#"{"type":"text","text":""}"#)
            ),
        ),
        ("/v1/chat/completions", "biases", chat("logit_bias", &format!("{{{}}}", biases.join(",")))),
        ("/v1/chat/completions", "stops", chat("stop", &format!("[{}]", list(r#""x""#)))),
        (
            "/v1/chat/completions",
            "template variables",
            chat("chat_template_kwargs", &format!("{{\"a\":[{}]}}", list("[]"))),
        ),
        ("/v1/chat/completions", "tools", chat("tools", &format!("[{}]", list(r#"{"function":{"name":"f"}}"#)))),
        ("/v1/chat/completions", "a schema", chat("guided_json", &format!("{{\"a\":[{}]}}", list("[]")))),
        (
            "/v1/chat/completions",
            "arguments of a call",
            format!(
                r#"{{"messages":[{{"role":"assistant","tool_calls":[{{"id":"c","function":{{"name":"f","arguments":"{{\"a\":[{}]}}"}}}}]}}]}}"#,
                list("[]")
            ),
        ),
        (
            "/v1/chat/completions",
            "calls",
            format!(
                r#"{{"messages":[{{"role":"assistant","tool_calls":[{}]}}]}}"#,
                list(r#"{"id":"c","function":{"name":"f","arguments":""}}"#)
            ),
        ),
        ("/v1/chat/completions", "an unknown list", chat("foo", &format!("[{}]", list("[]")))),
        ("/v1/chat/completions", "an unknown name", chat(&"a".repeat(BYTES), "1")),
        ("/v1/chat/completions", "unknown fields", format!("{{{}}}", list(r#""a":[]"#))),
    ] {
        let server = Server::start(&["--device", "cpu"]);
        server.until("the start", |server| server.get("/ready").0 == 200);
        let before = server.reset_peak();
        let (status, response) = server.post_text(path, &body);
        let taken = (server.memory("VmHWM:").saturating_sub(before) as usize) << 10;
        assert_eq!(status, 400, "{what}: {response:.300}");
        assert!(response.to_string().len() < 1000, "{what}");
        assert!(taken <= 10 * body.len(), "{what}: {taken} bytes for a body of {}", body.len());
        eprintln!("{what}: {:.1} bytes a byte", taken as f64 / body.len() as f64);
    }
}
