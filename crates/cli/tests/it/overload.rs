//! Requests for more than can be served at once.

use crate::common::Server;
use serde_json::{Value, json};

#[test]
fn more_choices_than_can_ever_be_served_are_refused_for_good() {
    let server = Server::start(&["--device", "cpu"]);
    let ask = |n: usize| server.post("/v1/completions", &json!({ "prompt": vec!["x"; 64], "n": n, "max_tokens": 1 }));
    for (n, answers) in [(16, "which makes 1024 answers"), (5, "which makes 320 answers")] {
        let (status, body) = ask(n);
        assert_eq!((status, &body["error"]["param"]), (400, &json!("n")), "{body}");
        assert!(body["error"]["message"].as_str().unwrap().contains(answers), "{body}");
    }
    assert_eq!(server.metric("vllm:prompt_tokens_total"), 0.0, "nothing was computed");
    assert_eq!(ask(4).0, 200);
}

#[test]
fn what_has_no_room_now_is_told_how_many_there_are() {
    let server = Server::configured("engine: { max_sequences: 1, max_waiting: 0 }\n");
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
