//! Models whose chat template is at fault: they load, complete texts, and say what is wrong with the way out.

use crate::common::{Server, copy_model, run};
use serde_json::{Value, json};
use std::path::PathBuf;
use tempfile::TempDir;

/// A model with this `chat_template` in its tokenizer_config.json.
fn model(template: &Value) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let model = copy_model(dir.path(), "m");
    let path = model.join("tokenizer_config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    config["chat_template"] = template.clone();
    std::fs::write(path, config.to_string()).unwrap();
    (dir, model)
}

fn chat(server: &Server) -> (u16, Value) {
    let messages = json!([{ "role": "user", "content": "hi" }]);
    server.post("/v1/chat/completions", &json!({ "messages": messages, "max_tokens": 2, "temperature": 0 }))
}

#[test]
fn a_server_with_a_template_at_fault_completes_texts_and_refuses_chats_with_the_way_out() {
    for (template, fault) in [
        (json!("x\n{% unknown %}"), "is broken at line 2"),
        (json!([{ "name": "chat", "template": "x" }]), "it names chat, and none `default`"),
        (json!("x\n{{ messages[0].content.nope() }}"), "fails at line 2: unknown method"),
    ] {
        let (_dir, model) = model(&template);
        let server = Server::start(&["--device", "cpu", "--model", model.to_str().unwrap()]);
        let warnings = server.lines().iter().filter(|line| line.contains("tokenizer_config.json")).count();
        assert_eq!(warnings, usize::from(!fault.starts_with("fails")), "{:?}", server.lines());
        let (status, answer) = server.post("/v1/completions", &json!({ "prompt": "hi", "max_tokens": 2 }));
        assert_eq!(status, 200, "{answer}");
        for _ in 0..2 {
            let (status, answer) = chat(&server);
            let error = &answer["error"];
            assert_eq!((status, error["code"].as_str()), (500, Some("chat_template_error")), "{answer}");
            let message = error["message"].as_str().unwrap();
            for part in [fault, "tokenizer_config.json", "--chat-template FILE", "/v1/completions"] {
                assert!(message.contains(part), "{part} is not in {message}");
            }
        }
        assert_eq!((server.get("/health").0, server.get("/ready").0), (200, 200));
    }
}

#[test]
fn what_a_template_refuses_itself_is_the_clients_error() {
    let (_dir, model) = model(&json!("{{ raise_exception('say please') }}"));
    let server = Server::start(&["--device", "cpu", "--model", model.to_str().unwrap()]);
    let (status, answer) = chat(&server);
    assert_eq!((status, answer["error"]["param"].as_str()), (400, Some("messages")), "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().ends_with("say please"), "{answer}");
}

#[test]
fn chat_template_takes_the_place_of_one_at_fault() {
    let (dir, model) = model(&json!("{% unknown %}"));
    let (model, file) = (model.to_str().unwrap(), dir.path().join("mine.jinja"));
    std::fs::write(&file, "{% for m in messages %}{{ m.content }}{% endfor %}").unwrap();
    let file = file.to_str().unwrap();
    let server = Server::start(&["--device", "cpu", "--model", model, "--chat-template", file]);
    let (status, answer) = chat(&server);
    assert_eq!(status, 200, "{answer}");
    assert!(answer["usage"]["prompt_tokens"].as_u64().unwrap() < 5, "{answer}");
    let configured = format!("models: {{ serve: [{model:?}], chat_template: {file:?} }}\nserver: {{ port: 0 }}");
    assert_eq!(chat(&Server::configured(&configured)).0, 200);

    let generate = ["generate", "--device", "cpu", "--prompt", "hi", "--max-tokens", "2", "--model", model];
    let refused = run(&generate);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{words}");
    assert!(words.contains("is broken at line 1") && words.contains("or use generate --raw"), "{words}");
    for more in [&["--raw"][..], &["--chat-template", file]] {
        let output = run(&[&generate[..], more].concat());
        assert!(output.status.success(), "{more:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let output = run(&["chat", "--device", "cpu", "--model", model]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is broken at line 1"));
}

#[test]
fn a_chat_template_that_is_named_must_be_usable_and_for_one_model() {
    let (dir, model) = model(&json!("x"));
    let file = dir.path().join("bad.jinja");
    std::fs::write(&file, "{% unknown %}").unwrap();
    let (model, bad) = (model.to_str().unwrap(), file.to_str().unwrap());
    let serve = ["serve", "--port", "0", "--device", "cpu", "--model", model, "--chat-template"];
    let several = [&serve[..], &[bad, "--model", "rustbook-5m-4bit"]].concat();
    let generate = ["generate", "--device", "cpu", "--prompt", "hi", "--model", model, "--chat-template", bad];
    for (args, fault) in [
        ([&serve[..], &["/no/such.jinja"]].concat(), "is not there"),
        ([&serve[..], &[bad]].concat(), "bad.jinja is broken at line 1"),
        (several, "is for one model, and 2 are named"),
        (generate.to_vec(), "bad.jinja is broken at line 1"),
    ] {
        let output = run(&args);
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {words}");
        assert!(words.contains(fault), "{words}");
    }
}
