use super::*;
use crate::openai::{ChatRequest, CompletionRequest};

fn error<T: DeserializeOwned>(body: &str) -> serde_json::Value {
    parse::<T>(body.as_bytes()).err().expect(body).to_json()
}

#[test]
fn the_field_at_fault_is_named() {
    for (body, param) in [
        (r#"{"messages": 5}"#, "messages"),
        (r#"{"messages": [{"role": "robot", "content": "x"}]}"#, "messages[0].role"),
        (r#"{"messages": [{"content": "x"}]}"#, "messages[0].role"),
        (r#"{"messages": [{"role": "user", "content": 5}]}"#, "messages[0].content"),
        (r#"{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}"#, "messages[0].content[0].type"),
        (r#"{"messages": [{"role": "user", "content": "x", "color": "red"}]}"#, "messages[0].color"),
        (r#"{"messages": [], "temperature": "hot"}"#, "temperature"),
        (r#"{"messages": [], "temperature": 1e999}"#, "temperature"),
        (r#"{"messages": [], "n": 1.5}"#, "n"),
        (r#"{"messages": [], "seed": 99999999999999999999}"#, "seed"),
        (r#"{"messages": [], "stop": [1]}"#, "stop"),
        (r#"{"messages": [], "stream": "yes"}"#, "stream"),
        (r#"{"messages": [], "stream_options": {"usage": true}}"#, "stream_options.usage"),
        (r#"{"messages": [], "logit_bias": {"1": "x"}}"#, "logit_bias.1"),
        (r#"{"messages": [], "response_format": {"type": "xml"}}"#, "response_format.type"),
        (r#"{"messages": [], "tools": [{}]}"#, "tools[0].function"),
        (r#"{"messages": [], "modalities": ["text", "audio"]}"#, "modalities"),
        (
            r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]}]}"#,
            "messages[0].content[0].cache_control",
        ),
        (
            r#"{"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]}"#,
            "messages[0].tool_calls[0].id",
        ),
        (r#"{"messages": [{"role": "function", "content": "x"}]}"#, "messages[0].role"),
        (r#"{"messages": [{"role": "user", "content": [{"type": "text"}]}]}"#, "messages[0].content[0].text"),
        (r#"{"messages": [], "stream_options": {"include_obfuscation": true}}"#, "stream_options.include_obfuscation"),
        (
            r#"{"messages": [], "response_format": {"type": "text", "json_schema": {"color": "x"}}}"#,
            "response_format.json_schema.color",
        ),
        (r#"{"messages": [], "chat_template_kwargs": []}"#, "chat_template_kwargs"),
        (r#"{"messages": null}"#, "messages"),
        ("{}", "messages"),
    ] {
        assert_eq!(error::<ChatRequest>(body)["error"]["param"], param, "{body}");
    }
    for (body, param) in [
        ("{}", "prompt"),
        (r#"{"prompt": 5}"#, "prompt"),
        (r#"{"prompt": ["a", 1]}"#, "prompt"),
        (r#"{"prompt": [-1]}"#, "prompt"),
        (r#"{"prompt": "x", "logprobs": -1}"#, "logprobs"),
        (r#"{"prompt": "x", "best_of": "x"}"#, "best_of"),
        (r#"{"prompt": "x", "logprobs": true}"#, "logprobs"),
    ] {
        assert_eq!(error::<CompletionRequest>(body)["error"]["param"], param, "{body}");
    }
}

#[test]
fn lists_are_no_objects_and_objects_no_words() {
    for (body, param) in [
        (r#"{"messages": [["user", "hi", null]]}"#, "messages"),
        (r#"{"messages": [[]]}"#, "messages"),
        (r#"{"messages": {"role": "user", "content": "x"}}"#, "messages"),
        (r#"{"messages": [{"role": "user", "content": [["text", "hi"]]}]}"#, "messages[0].content"),
        (r#"{"messages": [{"role": {"user": null}, "content": "x"}]}"#, "messages[0].role"),
        (
            r#"{"messages": [{"role": "user", "content": [{"type": {"text": null}, "text": "x"}]}]}"#,
            "messages[0].content[0].type",
        ),
        (r#"{"messages": [], "stream_options": [true]}"#, "stream_options"),
        (r#"{"messages": [], "response_format": ["text"]}"#, "response_format"),
        (r#"{"messages": [], "response_format": {"type": {"text": null}}}"#, "response_format.type"),
        (r#"{"messages": [], "logit_bias": [1]}"#, "logit_bias"),
    ] {
        assert_eq!(error::<ChatRequest>(body)["error"]["param"], param, "{body}");
    }
}

#[test]
fn a_field_stands_once() {
    for (body, param) in [
        (r#"{"messages": [], "n": 1, "n": 1}"#, "n"),
        (r#"{"messages": [], "n": null, "n": 1}"#, "n"),
        (r#"{"messages": [{"role": "user", "role": "user"}]}"#, "messages[0].role"),
        (r#"{"messages": [], "logit_bias": {"1": 1, "01": 1}}"#, "logit_bias"),
        (r#"{"messages": [], "logit_bias": {"1": 1, "+1": 1}}"#, "logit_bias"),
        (r#"{"messages": [], "logit_bias": {"1": 1, "1": 1}}"#, "logit_bias"),
    ] {
        let error = error::<ChatRequest>(body);
        assert_eq!(error["error"]["param"], param, "{body}");
        assert!(error["error"]["message"].as_str().unwrap().contains("twice"), "{error}");
    }
}

#[test]
fn values_that_ask_for_nothing_are_taken_everywhere() {
    for value in ["null", "[]", "{}", "false", "\"\"", "\"auto\"", "\"none\""] {
        for body in [
            format!(r#"{{"messages": [], "anything": {value}}}"#),
            format!(r#"{{"messages": [{{"role": "assistant", "content": "x", "anything": {value}}}]}}"#),
            format!(
                r#"{{"messages": [{{"role": "user", "content": [{{"type": "text", "text": "x", "anything": {value}}}]}}]}}"#
            ),
            format!(r#"{{"messages": [], "stream_options": {{"anything": {value}}}}}"#),
            format!(r#"{{"messages": [], "response_format": {{"type": "text", "anything": {value}}}}}"#),
        ] {
            assert!(parse::<ChatRequest>(body.as_bytes()).is_ok(), "{body}");
        }
        let body = format!(r#"{{"prompt": "x", "anything": {value}}}"#);
        assert!(parse::<CompletionRequest>(body.as_bytes()).is_ok(), "{body}");
    }
    for field in [
        "model",
        "stream",
        "stream_options",
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
        "seed",
        "logit_bias",
        "stop",
        "ignore_eos",
        "n",
        "logprobs",
        "user",
        "return_tokens_as_token_ids",
        "safety_identifier",
        "prompt_cache_key",
    ] {
        let chat = format!(r#"{{"messages": [], "{field}": null}}"#);
        assert!(parse::<ChatRequest>(chat.as_bytes()).is_ok(), "{chat}");
        let completion = format!(r#"{{"prompt": "x", "{field}": null}}"#);
        assert!(parse::<CompletionRequest>(completion.as_bytes()).is_ok(), "{completion}");
    }
    for value in ["[]", "{}", "false", "\"\"", "\"auto\"", "\"none\"", "20", "20.0"] {
        for penalty in ["repetition", "presence", "frequency"] {
            let body = format!(r#"{{"messages": [], "{penalty}_context_size": {value}}}"#);
            assert!(parse::<ChatRequest>(body.as_bytes()).is_ok(), "{body}");
        }
    }
    for pair in [
        r#""best_of": 1"#,
        r#""stop": """#,
        r#""tool_choice": {"type": "none"}"#,
        r#""tool_choice": {"type": "auto"}"#,
        r#""logit_bias": {"5": null}"#,
        r#""service_tier": "default""#,
        r#""modalities": ["text"]"#,
        r#""verbosity": "medium""#,
        r#""min_tokens": 0"#,
        r#""length_penalty": 1.0"#,
        r#""logprobs": false, "top_logprobs": 0"#,
        r#""stream": true, "stream_options": {"include_usage": true, "continuous_usage_stats": true}"#,
        r#""stream_options": {}"#,
        r#""response_format": {"type": "text", "json_schema": null}"#,
        r#""response_format": {}"#,
    ] {
        let body = format!(r#"{{"messages": [{{"role": "user", "content": "x"}}], {pair}}}"#);
        assert!(parse::<ChatRequest>(body.as_bytes()).is_ok(), "{body}");
    }
}

#[test]
fn a_lone_empty_stop_and_false_logprobs_ask_for_nothing() {
    let chat = |stop: &str| format!(r#"{{"messages": [], "stop": {stop}}}"#);
    let stop = parse::<ChatRequest>(chat("\"\"").as_bytes()).map_err(|e| e.to_json()).unwrap().shared.stop;
    assert!(stop.unwrap().0.is_empty());
    for refused in ["[\"\"]", "[\"a\", \"\"]"] {
        assert_eq!(error::<ChatRequest>(&chat(refused))["error"]["param"], "stop");
    }
    for (body, param) in [
        (r#"{"messages": [], "tool_choice": {"type": "function"}}"#, "tool_choice.function"),
        (r#"{"messages": [], "tool_choice": {"type": "none", "x": 1}}"#, "tool_choice.x"),
        (r#"{"messages": [], "anything": {"type": "none"}}"#, "anything"),
    ] {
        assert_eq!(error::<ChatRequest>(body)["error"]["param"], param, "{body}");
    }
    assert!(parse::<CompletionRequest>(br#"{"prompt": "x", "logprobs": false}"#).is_ok());
}

#[test]
fn true_and_false_are_taken_where_they_say_what_is_so_anyway() {
    for (field, values) in [
        ("skip_special_tokens", [true, false]),
        ("detokenize", [true, false]),
        ("store", [false, true]),
        ("use_beam_search", [false, true]),
    ] {
        let body = |value: bool| format!(r#"{{"messages": [], "{field}": {value}}}"#);
        assert!(parse::<ChatRequest>(body(values[0]).as_bytes()).is_ok(), "{field}");
        let error = error::<ChatRequest>(&body(values[1]));
        assert_eq!(error["error"]["param"], field, "{error}");
    }
    for field in ["cache_prompt", "parallel_tool_calls", "spaces_between_special_tokens", "add_special_tokens"] {
        for value in [true, false] {
            let body = format!(r#"{{"messages": [], "{field}": {value}}}"#);
            assert!(parse::<ChatRequest>(body.as_bytes()).is_ok(), "{body}");
        }
    }
}

#[test]
fn the_servers_own_message_is_taken_back() {
    let body = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "refusal": null,
        "annotations": [], "audio": null, "function_call": null, "tool_calls": null, "reasoning_content": null},
        {"role": "user", "content": "c"}]}"#;
    assert_eq!(parse::<ChatRequest>(body.as_bytes()).map_err(|e| e.to_json()).unwrap().messages.0.len(), 3);
}

#[test]
fn values_that_ask_for_something_are_refused_in_one_sentence() {
    for (pair, field) in [
        (r#""store": true"#, "store"),
        (r#""best_of": 2"#, "best_of"),
        (r#""best_of": -1"#, "best_of"),
        (r#""metadata": {"a": "b"}"#, "metadata"),
        (r#""skip_special_tokens": 1"#, "skip_special_tokens"),
        (r#""foo": 1e300"#, "foo"),
        (r#""presence_context_size": true"#, "presence_context_size"),
        (r#""presence_context_size": [1]"#, "presence_context_size"),
        (r#""presence_context_size": "20""#, "presence_context_size"),
    ] {
        let body = format!(r#"{{"messages": [{{"role": "user", "content": "x"}}], {pair}}}"#);
        let error = error::<ChatRequest>(&body);
        assert_eq!(error["error"]["param"], field, "{error}");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("{field} ")) && message.contains("supported by this server"), "{message}");
        assert!(message.len() < 100 && !message.contains("expected one of"), "{message}");
    }
}

#[test]
fn numbers_are_taken_whole_as_they_are_written_and_a_mark_before_the_body_is_passed_over() {
    let body = r#"{"messages": [], "max_tokens": 4.0, "n": 2.0, "seed": 3.0, "top_k": 200000, "top_logprobs": 5.0, "logprobs": true}"#;
    let request = parse::<ChatRequest>(body.as_bytes()).map_err(|e| e.to_json()).unwrap();
    assert_eq!((request.shared.max_tokens.unwrap().0, request.shared.choices()), (4, 2));
    let body = "\u{feff}{\"prompt\": [1.0, 2], \"logprobs\": 20, \"best_of\": 1.0}";
    assert!(parse::<CompletionRequest>(body.as_bytes()).is_ok());
    assert!(parse::<CompletionRequest>("\u{feff}".as_bytes()).is_err());
}

#[test]
fn long_input_is_not_repeated_in_full() {
    let long = "a".repeat(100_000);
    for body in [
        format!(r#"{{"messages": [], "n": "{long}"}}"#),
        format!(r#"{{"messages": [], "{long}": 1}}"#),
        format!(r#"{{"messages": [], "logit_bias": {{"{long}": 1}}}}"#),
        format!(r#"{{"messages": [{{"role": "{long}"}}]}}"#),
    ] {
        let error = error::<ChatRequest>(&body).to_string();
        assert!(error.len() < 1000, "{error:.2000}");
    }
}

#[test]
fn lists_are_bounded_while_they_are_read() {
    let list = |entry: &str, n: usize| format!("[{}]", vec![entry; n].join(","));
    let biases = |n: usize| format!("{{{}}}", (0..n).map(|i| format!("\"{i}\": 1")).collect::<Vec<_>>().join(","));
    let message = r#"{"role": "assistant"}"#;
    for (field, most, more) in [
        ("stop", list("\"x\"", 64), list("\"x\"", 65)),
        ("logit_bias", biases(1024), biases(1025)),
        ("chat_template_kwargs", r#"{"a": 1}"#.into(), format!(r#"{{"a": {}}}"#, list("[]", 30_000))),
    ] {
        let body = |value: &str| format!(r#"{{"messages": [], "{field}": {value}}}"#);
        assert!(parse::<ChatRequest>(body(&most).as_bytes()).is_ok(), "{field}");
        assert_eq!(error::<ChatRequest>(&body(&more))["error"]["param"], field);
    }
    let body = |n: usize| format!(r#"{{"messages": {}}}"#, list(message, n));
    assert!(parse::<ChatRequest>(body(4096).as_bytes()).is_ok());
    assert_eq!(error::<ChatRequest>(&body(4097))["error"]["param"], "messages");
    for entry in ["\"x\"", "[1]"] {
        let body = |n: usize| format!(r#"{{"prompt": {}}}"#, list(entry, n));
        assert!(parse::<CompletionRequest>(body(64).as_bytes()).is_ok());
        assert_eq!(error::<CompletionRequest>(&body(65))["error"]["param"], "prompt");
    }
}

#[test]
fn prompts_are_texts_or_ids() {
    for body in
        [r#"{"prompt": "x"}"#, r#"{"prompt": [1, 2]}"#, r#"{"prompt": ["x", "y"]}"#, r#"{"prompt": [[1, 2], [3]]}"#]
    {
        assert!(parse::<CompletionRequest>(body.as_bytes()).is_ok(), "{body}");
    }
    for body in [r#"{"prompt": []}"#, r#"{"prompt": [1, "x"]}"#, r#"{"prompt": [[1], 2]}"#, r#"{"prompt": [[["x"]]]}"#]
    {
        assert_eq!(error::<CompletionRequest>(body)["error"]["param"], "prompt", "{body}");
    }
}

#[test]
fn what_is_no_object_has_no_field() {
    let deep = format!("{{\"messages\": {}", "[".repeat(100_000));
    assert!(parse::<ChatRequest>(deep.as_bytes()).is_err());
    for body in [
        "",
        "{",
        "[]",
        "[[[[",
        r#"["m", [{"role": "user", "content": "x"}]]"#,
        "null",
        "\u{0}",
        "{'messages': []}",
        "{\"messages\": []} x",
    ] {
        let error = error::<ChatRequest>(body);
        assert_eq!(error["error"]["param"], serde_json::Value::Null, "{body:.20}: {error}");
    }
    assert!(parse::<ChatRequest>(b"{\"messages\": [], \"user\": \"\xff\"}").is_err());
}
