//! The text of answers, exactly: models that say what they are told.

use crate::common;
use crate::common::Server;
use crate::common::script;
use serde_json::{Value, json};

fn serve(file: &Value, words: &[&str], config: &Value) -> (Server, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("scripted");
    script::write(&model, file, words, config);
    (Server::start(&["--device", "cpu", "--model", model.to_str().unwrap()]), dir)
}

/// Says "Hello world<|im_start|>us bye<|im_end|>" after a newline.
fn chatty() -> (Server, tempfile::TempDir) {
    let template = "{% for m in messages %}{{ '<|im_start|>' + m.content + '\n' }}{% endfor %}";
    serve(
        &script::byte_level(&["Hello", "Ġworld", "Ġbye"]),
        &["Ċ", "Hello", "Ġworld", "<|im_start|>", "u", "s", "Ġbye", "<|im_end|>"],
        &json!({ "eos_token": "<|im_end|>", "chat_template": template }),
    )
}

/// The text and the reason: whole and streamed, which must agree, on both routes, which must too.
fn answer(server: &Server, extra: &Value) -> (String, String) {
    let mut answers = Vec::new();
    for (route, mut body) in [
        ("/v1/completions", json!({ "prompt": "hi\n" })),
        ("/v1/chat/completions", json!({ "messages": [{ "role": "user", "content": "hi" }] })),
    ] {
        body["max_tokens"] = json!(30);
        body["temperature"] = json!(0);
        extra.as_object().unwrap().iter().for_each(|(key, value)| body[key] = value.clone());
        let (status, whole) = server.post(route, &body);
        assert_eq!(status, 200, "{whole}");
        let choice = &whole["choices"][0];
        let text = choice["text"].as_str().or(choice["message"]["content"].as_str()).unwrap();
        let reason = choice["finish_reason"].as_str().unwrap();
        body["stream"] = json!(true);
        let chunks: Vec<Value> =
            server.stream(route, &body).iter().filter_map(|event| serde_json::from_str(event).ok()).collect();
        let choices = || chunks.iter().map(|chunk| &chunk["choices"][0]);
        let streamed: String =
            choices().filter_map(|c| c["text"].as_str().or(c["delta"]["content"].as_str())).collect();
        assert_eq!(streamed, text, "{route}");
        assert_eq!(choices().filter_map(|c| c["finish_reason"].as_str()).next_back(), Some(reason), "{route}");
        answers.push((text.to_owned(), reason.to_owned()));
    }
    assert_eq!(answers[0], answers[1]);
    answers.remove(0)
}

#[test]
fn a_stop_string_may_be_or_contain_a_special_token() {
    let (server, _dir) = chatty();
    for (stop, text) in [
        ("<|im_start|>", "Hello world"),
        ("world<|im_start|>us", "Hello "),
        ("<|im_start|>us b", "Hello world"),
        ("s bye<|im_end|>", "Hello worldu"),
        ("<|im_end|>", "Hello worldus bye"),
        ("<|im_start|>x", "Hello worldus bye"),
        ("us bye!", "Hello worldus bye"),
    ] {
        assert_eq!(answer(&server, &json!({ "stop": [stop] })), (text.into(), "stop".into()), "{stop}");
    }
    let past_the_end = json!({ "stop": ["<|im_end|>"], "ignore_eos": true });
    assert_eq!(answer(&server, &past_the_end), ("Hello worldus bye".into(), "stop".into()));
}

#[test]
fn only_completions_keep_the_space_that_sentencepiece_puts_before_a_word() {
    let template = "{{ bos_token }}{% for m in messages %}{{ '[INST] ' + m.content + ' [/INST]' }}{% endfor %}";
    let (server, dir) = serve(
        &script::sentencepiece(&["▁Hello", "▁world", "▁caf"]),
        &[
            "[/INST]", "▁Hello", "▁world", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "▁caf", "<0xC3>", "<0xA9>", "!",
            "</s>",
        ],
        &json!({ "bos_token": "<s>", "eos_token": "</s>", "chat_template": template }),
    );
    let body = json!({ "messages": [{ "role": "user", "content": "hi" }], "max_tokens": 30, "temperature": 0 });
    let (_, chat) = server.post("/v1/chat/completions", &body);
    assert_eq!(chat["choices"][0]["message"]["content"], "Hello world😀 café!");
    let body = json!({ "prompt": "[INST] hi [/INST]", "max_tokens": 30, "temperature": 0 });
    let (_, completion) = server.post("/v1/completions", &body);
    assert_eq!(completion["choices"][0]["text"], " Hello world😀 café!");

    let model = dir.path().join("scripted");
    let model = model.to_str().unwrap();
    assert_eq!(
        common::stdout(&["generate", "--device", "cpu", "--temperature", "0", "-m", model, "-p", "hi"]),
        "Hello world😀 café!\n"
    );
    assert_eq!(
        common::stdout(&[
            "generate",
            "--device",
            "cpu",
            "--temperature",
            "0",
            "-m",
            model,
            "--raw",
            "-p",
            "hi [/INST]"
        ]),
        " Hello world😀 café!\n"
    );
}
