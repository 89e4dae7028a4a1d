//! Lines of the log about requests, and the names that requests have for models.

use crate::common;
use crate::common::Server;
use crate::common::raw::{exchange, post, status};
use serde_json::{Value, json};

/// The line of the log about the request with that id, when it is there.
fn line(server: &Server, id: &str, message: &str) -> Value {
    let find = |server: &Server| {
        let lines = server.lines().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        lines
            .map(|line| line["fields"].clone())
            .find(|fields| fields["request_id"] == id && fields["message"] == message)
    };
    server.until("the line", |server| find(server).is_some());
    find(server).unwrap()
}

#[test]
fn every_request_is_a_line_with_its_id_and_cost() {
    let server = Server::start(&["--device", "cpu", "-v", "--log-format", "json"]);
    let body = json!({ "prompt": "Ownership is", "max_tokens": 3, "ignore_eos": true }).to_string();
    let streamed = body.replace('{', "{\"stream\": true, ");
    for (id, body, code) in [("whole-1", body.as_str(), 200), ("stream-1", &streamed, 200), ("bad-1", "{", 400)] {
        let headers = format!("connection: close\r\nX-Request-Id: {id}\r\n");
        let answer = exchange(&server, &post(&server, "/v1/completions", &headers, body));
        assert!(status(&answer) == code && answer.contains(&format!("x-request-id: {id}\r\n")), "{answer}");
        let line = line(&server, id, "answered");
        assert_eq!(
            (&line["method"], &line["path"], &line["status"]),
            (&json!("POST"), &json!("/v1/completions"), &json!(code))
        );
        assert!(
            line["client"].as_str().unwrap().starts_with("127.0.0.1:") && line["ms"].as_f64().unwrap() > 0.0,
            "{line}"
        );
        if code == 200 {
            assert_eq!((&line["model"], &line["prompt_tokens"]), (&json!("rustbook-5m-4bit"), &json!(3)), "{line}");
            assert_eq!(line["completion_tokens"], 3, "{line}");
            assert!(line["ttft_ms"].as_f64().unwrap() <= line["ms"].as_f64().unwrap(), "{line}");
        }
    }
    // Probes too, which another thread answers.
    let probe = format!(
        "GET /ready HTTP/1.1\r\nhost: {}\r\nconnection: close\r\nx-request-id: probe-1\r\n\r\n",
        server.address
    );
    assert!(exchange(&server, probe.as_bytes()).contains("x-request-id: probe-1"));
    assert!(line(&server, "probe-1", "answered")["client"].as_str().unwrap().starts_with("127.0.0.1:"));
    // Of the answer to a HEAD, the head is all.
    for (id, path) in [("head-1", "/v1/models"), ("head-2", "/metrics")] {
        let head = format!(
            "HEAD {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\nx-request-id: {id}\r\n\r\n",
            server.address
        );
        assert_eq!(status(&exchange(&server, head.as_bytes())), 200);
        assert_eq!(line(&server, id, "answered")["method"], "HEAD");
    }
    assert!(!server.logged("not answered to the end"));
    // One whose client goes.
    let endless = json!({ "prompt": "x", "max_tokens": 1900, "ignore_eos": true, "stream": true });
    drop(server.open("/v1/completions", &endless, 300));
    server.until("its line", |server| server.logged("not answered to the end"));
    assert!(!server.logged("\"asked\""), "twice verbose only");
}

#[test]
fn more_is_told_of_requests_at_the_second_verbosity() {
    let server = Server::start(&["--device", "cpu", "-vv", "--log-format", "json"]);
    assert_eq!(server.get("/v1/models").0, 200);
    for message in ["\"asked\"", "\"opened\""] {
        server.until(message, |server| server.logged(message));
    }
}

#[test]
fn a_model_is_served_under_the_names_that_it_is_given() {
    let server = Server::start(&["--device", "cpu", "--served-model-name", "mine,gpt-4o"]);
    let models: Value = serde_json::from_str(&server.get("/v1/models").1).unwrap();
    let ids: Vec<&Value> = models["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert_eq!(ids, ["mine", "gpt-4o"]);
    for (model, code) in
        [(json!("mine"), 200), (json!("gpt-4o"), 200), (json!(null), 200), (json!("rustbook-5m-4bit"), 404)]
    {
        let (status, answer) =
            server.post("/v1/completions", &json!({ "model": model, "prompt": "x", "max_tokens": 1 }));
        assert_eq!(status, code, "{answer}");
        assert!(code == 404 || answer["model"] == "mine", "{answer}");
    }
    let two = ["serve", "-m", "rustbook-5m-4bit", "-m", "org/other", "--served-model-name", "one"];
    let output = common::run(&two);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("gives 1 names to 2 models"), "{output:?}");
}

#[test]
fn folders_of_one_name_are_served_under_longer_ones() {
    let dir = tempfile::tempdir().unwrap();
    let folders = ["a", "b"].map(|parent| {
        std::fs::create_dir(dir.path().join(parent)).unwrap();
        common::copy_model(&dir.path().join(parent), "m").display().to_string()
    });
    let server = Server::start(&["--device", "cpu", "-m", &folders[0], "-m", &folders[1]]);
    for model in ["a/m", "b/m"] {
        let (status, answer) =
            server.post("/v1/completions", &json!({ "model": model, "prompt": "x", "max_tokens": 1 }));
        assert_eq!((status, &answer["model"]), (200, &json!(model)), "{answer}");
        assert_eq!(server.get(&format!("/v1/models/{model}")).0, 200);
    }
}

#[cfg(unix)]
#[test]
fn a_model_behind_a_link_has_the_links_name_and_a_setting_that_bounds_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("snapshots")).unwrap();
    let snapshot = common::copy_model(&dir.path().join("snapshots"), "0123abcd");
    std::os::unix::fs::symlink(snapshot, dir.path().join("my-model")).unwrap();
    let config = dir.path().join("test.yaml");
    std::fs::write(&config, "engine: { kv_cache_tokens: 256 }\nserver: { host: \"127.0.0.1\" }\n").unwrap();
    let (link, config) = (dir.path().join("my-model").display().to_string(), config.display().to_string());
    let server = Server::start(&["--device", "cpu", "-m", &link, "--config", &config]);
    assert!(
        server.logged("the context is limited to 256 of 2048 tokens by engine.kv_cache_tokens"),
        "{:?}",
        server.lines()
    );
    let (status, answer) =
        server.post("/v1/completions", &json!({ "model": "my-model", "prompt": "word ".repeat(400), "max_tokens": 1 }));
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("context_length_exceeded")), "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("this model's maximum context length is 256 tokens"), "{message}");
    assert!(message.contains("engine.kv_cache_tokens bounds it, the model itself has 2048"), "{message}");
}

#[test]
fn an_address_may_have_the_brackets_that_it_has_in_a_url() {
    // Where there is no IPv6, there is nothing to be listened on.
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let server = Server::start(&["--device", "cpu", "--host", "[::1]"]);
    assert!(server.address.starts_with("[::1]:") && server.get("/health").0 == 200);
}
