//! A process that was stopped and goes on: nothing was lost, and no device hung.

use crate::common::Server;
use serde_json::{Value, json};
use std::time::Duration;

fn request(i: usize) -> Value {
    json!({
        "prompt": format!("Chapter {i}: Ownership is"), "max_tokens": 1000, "temperature": 0.8, "seed": i, "ignore_eos": true,
    })
}

#[test]
fn time_in_which_it_was_stopped_is_no_hanging_device() {
    let server = Server::configured("engine: { step_limit_s: 2 }\nserver: { wedged_after_s: 2 }\n");
    let answer = |i| {
        let (status, body) = server.post("/v1/completions", &request(i));
        assert_eq!(status, 200, "{body}");
        body["choices"][0]["text"].clone()
    };
    let before: Vec<Value> = std::thread::scope(|scope| {
        let answers: Vec<_> = (0..6).map(|i| scope.spawn(move || answer(i))).collect();
        // In the middle of their steps, twice.
        for _ in 0..2 {
            server.until("answers are computed", |s| s.metric("vllm:num_requests_running") >= 1.0);
            server.signal("STOP");
            std::thread::sleep(Duration::from_secs(4));
            server.signal("CONT");
            let (status, health) = server.get("/health");
            assert_eq!(status, 200, "{health}");
        }
        answers.into_iter().map(|answer| answer.join().unwrap()).collect()
    });
    assert!(before.iter().all(|text| text.as_str().is_some_and(|text| text.len() > 400)));
    // The same as undisturbed.
    assert_eq!(before, (0..6).map(answer).collect::<Vec<_>>());
    let (_, health) = server.get("/health");
    assert!(health.contains("\"status\":\"ok\""), "{health}");
}
