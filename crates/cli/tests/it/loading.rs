//! Requests while models are being loaded.

use crate::common;
use crate::common::Server;
use crate::common::raw::{exchange, post, status};
use crate::standin::{Faults, ID, StandIn};
use tempfile::TempDir;

/// A server whose last model, from a hub, never comes, and the folder of the download.
fn loading(models: &[&str]) -> (Server, TempDir) {
    let hub =
        StandIn::start(&[("config.json", b"{}"), ("tokenizer.json", b"{}"), ("model.safetensors", &[0; 100_000])]);
    hub.faults(Faults { trickle: true, ..Faults::default() });
    let cache = tempfile::tempdir().unwrap();
    let mut command = common::binary();
    command.args(["serve", "--device", "cpu", "--port", "0", "-v"]);
    command.args(models.iter().flat_map(|model| ["-m", model]));
    command.env("HF_ENDPOINT", &hub.url).env("HF_HUB_CACHE", cache.path()).env("NO_PROXY", "127.0.0.1");
    let mut server = Server::launch(command);
    let address = |server: &Server| {
        let lines = server.lines();
        let line = lines.iter().find(|line| line.contains("listening"))?;
        Some(line.split_once("address=")?.1.split_whitespace().next()?.to_owned())
    };
    server.until("the address", |server| address(server).is_some());
    server.address = address(&server).unwrap();
    server.until("the download's begin", |_| hub.requests().iter().any(|r| r.path.ends_with(".safetensors")));
    (server, cache)
}

fn ask(server: &Server, path: &str, body: &str) -> String {
    exchange(server, &post(server, path, "connection: close\r\n", body))
}

fn is_loading(answer: &str) -> bool {
    status(answer) == 503 && answer.contains("retry-after: 1") && answer.contains("\"unavailable\"")
}

#[test]
fn what_the_command_line_names_is_not_ready_rather_than_unknown() {
    let (server, _cache) = loading(&[ID]);
    for body in [format!(r#"{{"model": "{ID}", "prompt": "x"}}"#), r#"{"prompt": "x"}"#.into()] {
        let answer = ask(&server, "/v1/completions", &body);
        assert!(is_loading(&answer), "{body}: {answer}");
    }
    assert_eq!(status(&ask(&server, "/v1/completions", r#"{"model": "other", "prompt": "x"}"#)), 404);
    let (status, body) = server.get("/v1/metal/stats");
    assert_eq!(status, 503, "{body}");
    let (status, body) = server.get("/ready");
    assert!(status == 503 && body.contains("\"loading\""), "{body}");
    assert_eq!(server.get("/health").0, 200);
}

#[test]
fn a_request_without_a_name_waits_for_no_other_model() {
    let (server, _cache) = loading(&["rustbook-5m-4bit", ID]);
    let answer = ask(&server, "/v1/completions", r#"{"model": "rustbook-5m-4bit", "prompt": "x", "max_tokens": 1}"#);
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(is_loading(&ask(&server, "/v1/completions", &format!(r#"{{"model": "{ID}", "prompt": "x"}}"#))));
    let answer = ask(&server, "/v1/completions", r#"{"prompt": "x", "max_tokens": 1}"#);
    assert!(status(&answer) == 400 && answer.contains(ID) && answer.contains("rustbook-5m-4bit"), "{answer}");
    let twice = common::run(&["serve", "-m", "rustbook-5m-4bit", "-m", "rustbook-5m-4bit"]);
    assert_eq!(twice.status.code(), Some(2));
}
