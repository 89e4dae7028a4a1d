//! Requests for more than can be served at once.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::Server;
use serde_json::{Value, json};

#[test]
fn more_choices_than_can_ever_be_served_are_refused_for_good() {
    let server = Server::start(&["--device", "cpu"]);
    let (status, body) = server.post("/v1/completions", &json!({ "prompt": vec!["x"; 64], "n": 16, "max_tokens": 1 }));
    assert_eq!((status, &body["error"]["param"]), (400, &json!("n")), "{body}");
    assert!(body["error"]["message"].as_str().unwrap().contains("which makes 1024 answers"), "{body}");
    assert_eq!(server.metric("vllm:prompt_tokens_total"), 0.0, "nothing was computed");
}

#[test]
fn what_has_no_room_now_is_told_how_many_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("runtime.yaml");
    std::fs::write(&config, "engine:\n  max_sequences: 1\n  max_waiting: 0\n").unwrap();
    let server = Server::start(&["--device", "cpu", "--config", config.to_str().unwrap()]);
    let ask = |n: usize| -> (u16, Value) {
        server.post("/v1/completions", &json!({ "prompt": "x", "n": n, "max_tokens": 1 }))
    };
    let (status, body) = ask(2);
    assert_eq!((status, &body["error"]["param"]), (400, &json!("n")), "{body}");
    assert_eq!(ask(1).0, 200);
    let long = json!({ "prompt": "x", "max_tokens": 1500, "ignore_eos": true, "stream": true });
    let held = server.open("/v1/completions", &long, 100);
    let (status, body) = ask(1);
    assert_eq!((status, &body["error"]["code"]), (429, &json!("overloaded")), "{body}");
    assert!(
        body["error"]["message"].as_str().unwrap().starts_with("1 requests run or wait already, of 1 that may"),
        "{body}"
    );
    drop(held);
    server.until("the place is free", |_| ask(1).0 == 200);
}
