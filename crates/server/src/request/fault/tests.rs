use super::super::parse;
use super::*;
use crate::openai::{ChatRequest, CompletionRequest};
use serde::de::DeserializeOwned;

fn told<T: DeserializeOwned>(body: &str) -> String {
    let error = parse::<T>(body.as_bytes()).err().expect(body).to_json();
    error["error"]["message"].as_str().unwrap().to_owned()
}

/// Words of the parser, which no client has to know.
const FOREIGN: [&str; 12] = [
    "invalid type",
    "invalid value",
    "expected ident",
    "expected value",
    "unknown variant",
    "EOF",
    "sequence",
    "floating point",
    "at line",
    "column",
    "unit value",
    "visitor",
];

#[test]
fn types_are_named_as_json_names_them() {
    for (body, message) in [
        (r#"{"messages": [], "n": 1.5}"#, "n is 1.5; it has to be a whole number"),
        (r#"{"messages": [], "max_tokens": "12"}"#, "max_tokens is \"12\", a string; it has to be a whole number"),
        (r#"{"messages": [], "max_tokens": true}"#, "max_tokens is true, a boolean; it has to be a whole number"),
        (
            r#"{"messages": [], "seed": 9223372036854775808}"#,
            "seed is 9223372036854775808; it must fit 64 bits, signed",
        ),
        (r#"{"messages": [], "seed": 1.5}"#, "seed is 1.5; it has to be a whole number"),
        (r#"{"messages": [], "temperature": []}"#, "temperature is a list; it has to be a number"),
        (r#"{"messages": [], "temperature": 1e999}"#, "temperature is a number too large to be held"),
        (r#"{"messages": [], "stream": 1}"#, "stream is 1; it has to be true or false"),
        (r#"{"messages": [], "stop": 5}"#, "stop is 5; it has to be a string or a list of strings"),
        (r#"{"messages": [], "stop": [null]}"#, "stop[0] is null; it has to be a string"),
        (r#"{"messages": [], "model": {}}"#, "model is an object; it has to be a string"),
        (
            r#"{"messages": [], "logit_bias": [1]}"#,
            "logit_bias is a list; it has to be an object of token ids and numbers",
        ),
        (r#"{"messages": [], "chat_template_kwargs": []}"#, "chat_template_kwargs is a list; it has to be an object"),
        (r#"{"messages": [[]]}"#, "messages[0] is a list; it has to be an object"),
        (r#"{"messages": [], "n": 1e19}"#, "n is 1e19; it must fit 64 bits, signed"),
        (r#"{"messages": [], "seed": -1e300}"#, "seed is -1e300; it must fit 64 bits, signed"),
        (r#"{"messages": [], "stream": 1e300}"#, "stream is 1e300; it has to be true or false"),
        (r#"{"messages": [], "n": 1e-300}"#, "n is 1e-300; it has to be a whole number"),
        (r#"{"messages": [], "logit_bias": {"5": 1e39}}"#, "logit_bias.5 is a number too large to be held"),
        (r#"{"messages": [], "": 1}"#, "\"\" is not supported by this server; leave it out"),
        (r#"{"messages": [{"": 1}]}"#, "messages[0].\"\" is not supported by this server; leave it out"),
        ("[]", "the body is a list; it has to be an object"),
        ("null", "the body is null; it has to be an object"),
        ("12", "the body is 12; it has to be an object"),
        (r#"{"messages": [{"content": "x"}]}"#, "messages[0].role is missing"),
    ] {
        assert_eq!(told::<ChatRequest>(body), message);
    }
    for (body, message) in [
        (
            r#"{"prompt": 5}"#,
            "prompt is 5; it has to be a string, a list of strings, a list of token ids, or a list of such lists",
        ),
        (r#"{"prompt": [1, "x"]}"#, "prompt[1] is \"x\", a string; it has to be a whole number"),
        (r#"{"prompt": [-1]}"#, "prompt[0] is -1, which is not a token id"),
        (
            r#"{"prompt": "x", "logprobs": true}"#,
            "logprobs is true, a boolean; it has to be a whole number of at least 0, or false",
        ),
    ] {
        assert_eq!(told::<CompletionRequest>(body), message);
    }
}

#[test]
fn what_is_no_json_is_told_by_its_place() {
    for (body, message) in [
        ("", "it is empty"),
        ("{", "it ends too early, after 1 bytes"),
        (r#"{"messages": [{"role": "us"#, "it ends too early, after 26 bytes, in messages[0].role"),
        (r#"{"messages": [}"#, "at byte 14, where a value has to begin, comes \"}\", in messages[0]"),
        (
            r#"{'messages': []}"#,
            "at byte 1, where the name of a field in double quotes has to stand, comes \"'messages': []}\"",
        ),
        ("{\"n\": 1,\n \"messages\" []}", "at byte 21, where a colon has to stand, comes \"[]}\""),
        (r#"{"messages": [], "n": nul}"#, "at byte 25, where true, false or null has to stand, comes \"}\", in n"),
        (r#"{"messages": [] "n": 1}"#, "at byte 16, where a comma or } has to stand, comes \"\\\"n\\\": 1}\""),
        (
            "{\"user\": \"a\nb\"}",
            "at byte 11, where a control character has to be escaped, comes \"\\nb\\\"}\", in user",
        ),
        (
            "{\"user\":\n\"a\n\"}",
            "at byte 11, where a control character has to be escaped, comes \"\\n\\\"}\", in user",
        ),
        ("\u{feff}{\"n\" 1}", "at byte 8, where a colon has to stand, comes \"1}\""),
        ("\u{feff}{", "it ends too early, after 4 bytes"),
        ("\u{feff}", "it is empty"),
        (
            r#"{"user": "\ud800"}"#,
            r#"at byte 10, where both halves of a surrogate pair have to stand, comes one: "\\ud800\"}", in user"#,
        ),
        (
            r#"{"user": "\uD800\u0041"}"#,
            r#"at byte 10, where both halves of a surrogate pair have to stand, comes one: "\\uD800\\u0041\"}", in user"#,
        ),
        (
            r#"{"user": "\udc00 a"}"#,
            r#"at byte 10, where both halves of a surrogate pair have to stand, comes one: "\\udc00 a\"}", in user"#,
        ),
        (r#"{"stop": 0x1}"#, r#"at byte 10, where the number has to end, comes "x1}", in stop"#),
        (r#"{"foo": 12_000}"#, r#"at byte 10, where the number has to end, comes "_000}", in foo"#),
        (r#"{"messages": []} x"#, "at byte 17, where nothing may follow the value, comes \"x\""),
    ] {
        assert_eq!(told::<ChatRequest>(body), format!("the body is not JSON: {message}"), "{body}");
    }
}

#[test]
fn no_error_has_a_word_of_the_parsers() {
    let values = [
        "1",
        "1.5",
        "-1",
        "1e400",
        "9223372036854775808",
        "18446744073709551616",
        "true",
        "\"x\"",
        "[1]",
        "[[]]",
        "[null]",
        "[{}]",
        "[1.5]",
        "{\"a\": 1}",
        "{\"1\": []}",
        "nul",
        "tru",
        "\"\\x\"",
        "\"\\ud800\"",
        "\"\u{1}\"",
        "01",
        "1.",
        "-",
        "[1,]",
        "[1",
        "{1: 2}",
        "",
    ];
    let chat = [
        "model",
        "stream",
        "stream_options",
        "max_tokens",
        "stop",
        "n",
        "user",
        "temperature",
        "top_k",
        "seed",
        "logit_bias",
        "messages",
        "max_completion_tokens",
        "logprobs",
        "top_logprobs",
        "response_format",
        "chat_template_kwargs",
        "tools",
        "tool_choice",
        "modalities",
        "service_tier",
        "foo",
    ];
    let completion = ["prompt", "best_of", "echo", "logprobs", "min_p", "repetition_context_size", "suffix"];
    let sane = |body: &str, refused: Option<ApiError>| {
        if let Some(error) = refused {
            let error = error.to_json();
            let message = error["error"]["message"].as_str().unwrap();
            assert!(FOREIGN.iter().all(|word| !message.contains(word)), "{body}: {message}");
        }
    };
    for value in values {
        for field in chat {
            let body = format!(r#"{{"{field}": {value}, "messages": []}}"#);
            sane(&body, parse::<ChatRequest>(body.as_bytes()).err());
            for body in [
                format!(r#"{{"messages": [{{"role": "user", "content": {value}}}]}}"#),
                format!(r#"{{"messages": [{{"role": {value}, "content": "x"}}]}}"#),
                format!(r#"{{"messages": [{{"role": "user", "content": [{{"type": {value}, "text": {value}}}]}}]}}"#),
                format!(r#"{{"messages": [], "chat_template_kwargs": {{"a": {value}}}}}"#),
            ] {
                sane(&body, parse::<ChatRequest>(body.as_bytes()).err());
            }
        }
        for field in completion {
            let body = format!(r#"{{"{field}": {value}}}"#);
            sane(&body, parse::<CompletionRequest>(body.as_bytes()).err());
        }
    }
    let invalid = parse::<ChatRequest>(b"{\"messages\": [], \"user\": \"\xff\"}").err();
    sane("\\xff", invalid);
}
