//! Clients that go away, and servers that are asked to stop.

use crate::common::Server;
use serde_json::json;

fn endless() -> serde_json::Value {
    json!({ "prompt": "Ownership", "max_tokens": 1900, "ignore_eos": true, "stream": true, "temperature": 0 })
}

#[test]
fn a_client_that_hangs_up_stops_its_generation_within_one_step() {
    let server = Server::start(&["--device", "cpu"]);
    let connection = server.open("/v1/completions", &endless(), 400);
    server.until("the request running", |s| s.metric("vllm:num_requests_running") == 1.0);
    drop(connection);
    server.until("the request's end", |s| s.metric("vllm:num_requests_running") == 0.0);
    let generated = server.metric("vllm:generation_tokens_total");
    assert!(generated < 1800.0, "{generated} tokens: it went on to the end");
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(server.metric("vllm:generation_tokens_total"), generated, "it goes on after its end");
    assert_eq!(server.metric("vllm:kv_cache_usage_perc"), 0.0, "its blocks were not freed");
}

#[test]
fn a_client_that_hangs_up_before_the_answer_is_whole_stops_it_too() {
    let server = Server::start(&["--device", "cpu"]);
    let mut body = endless();
    body["stream"] = json!(false);
    let connection = server.open("/v1/completions", &body, 0);
    server.until("the request running", |s| s.metric("vllm:num_requests_running") == 1.0);
    drop(connection);
    server.until("the request's end", |s| s.metric("vllm:num_requests_running") == 0.0);
    assert!(server.metric("vllm:generation_tokens_total") < 1800.0);
}

#[cfg(unix)]
#[test]
fn a_termination_signal_lets_accepted_requests_end() {
    // A loaded machine computes no faster for being asked to stop.
    let server = Server::configured("server: { shutdown_grace_s: 3600 }\n");
    let body = json!({ "prompt": "Ownership", "max_tokens": 200, "ignore_eos": true, "temperature": 0 });
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| server.post("/v1/completions", &body));
        server.until("the request running", |s| s.metric("vllm:num_requests_running") == 1.0);
        server.signal("TERM");
        let (status, response) = answer.join().expect("no panic");
        assert_eq!((status, &response["usage"]["completion_tokens"]), (200, &json!(200)));
    });
}
