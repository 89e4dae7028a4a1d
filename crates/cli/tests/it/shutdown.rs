//! Servers that are asked to stop: while they load, while answers are being sent, and twice.

use crate::common;
use crate::common::Server;
use crate::common::raw::{exchange, post, read_all, send, status};
use crate::standin::{Faults, ID, StandIn};
use serde_json::json;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A stream of a second or so.
const LONG: &str = r#"{"prompt": "x", "max_tokens": 300, "ignore_eos": true, "stream": true}"#;
const ENDLESS: &str = r#"{"prompt": "x", "max_tokens": 1900, "n": 4, "ignore_eos": true, "stream": true}"#;

/// A configuration with a spill file, whose path comes too.
fn spilling(dir: &tempfile::TempDir, grace_s: u32) -> (String, std::path::PathBuf) {
    let file = dir.path().join("spill");
    let server = format!("server: {{ shutdown_grace_s: {grace_s} }}\n");
    let spill = format!("engine: {{ kv_spill_file: {}, kv_spill_file_mb: 16 }}\n", file.display());
    (server + &spill, dir.path().join("spill.rustbook-5m-4bit"))
}

fn stream(server: &Server, body: &str) -> std::net::TcpStream {
    let mut socket = send(server, &post(server, "/v1/completions", "connection: close\r\n", body));
    socket.read_exact(&mut [0; 300]).unwrap();
    socket
}

#[test]
fn a_download_ends_with_the_first_signal() {
    let hub =
        StandIn::start(&[("config.json", b"{}"), ("tokenizer.json", b"{}"), ("model.safetensors", &[0; 100_000])]);
    hub.faults(Faults { trickle: true, ..Faults::default() });
    for signal in ["TERM", "INT", "HUP"] {
        let cache = tempfile::tempdir().unwrap();
        let mut command = common::binary();
        command.args(["serve", "--port", "0", "-m", ID]);
        command.env("HF_ENDPOINT", &hub.url).env("HF_HUB_CACHE", cache.path()).env("NO_PROXY", "127.0.0.1");
        hub.requests();
        let mut server = Server::launch(command);
        server.until("the download's begin", |_| hub.requests().iter().any(|r| r.path.ends_with(".safetensors")));
        let start = Instant::now();
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(0), "{signal}");
        assert!(start.elapsed() < Duration::from_secs(25), "{signal}: {:?}", start.elapsed());
    }
}

#[test]
fn a_second_signal_right_behind_the_first_cuts_nothing_while_a_model_is_loaded() {
    let hub =
        StandIn::start(&[("config.json", b"{}"), ("tokenizer.json", b"{}"), ("model.safetensors", &[0; 100_000])]);
    hub.faults(Faults { trickle: true, ..Faults::default() });
    let cache = tempfile::tempdir().unwrap();
    let mut command = common::binary();
    command.args(["serve", "--port", "0", "-m", ID]);
    command.env("HF_ENDPOINT", &hub.url).env("HF_HUB_CACHE", cache.path()).env("NO_PROXY", "127.0.0.1");
    let mut server = Server::launch(command);
    server.until("the download's begin", |_| hub.requests().iter().any(|r| r.path.ends_with(".safetensors")));
    server.signal("TERM");
    server.signal("INT");
    let code = server.wait().code();
    // On a loaded machine the second may come so late that it counts.
    let heard = server.logged("stopped at once by a second signal");
    assert_eq!(code, Some(i32::from(heard)), "{:?}", server.lines());
}

#[test]
fn a_log_reader_that_goes_away_changes_nothing() {
    let mut command = common::binary();
    command.args(["serve", "--port", "0", "--device", "cpu", "-vv"]);
    let mut server = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
    let address = lines.find_map(|line| Some(line.unwrap().split_once(" on http://")?.1.split(' ').next()?.to_owned()));
    drop(lines);
    for _ in 0..3 {
        let answer = ureq::get(format!("http://{}/v1/models", address.as_ref().unwrap())).call().unwrap();
        assert_eq!(answer.status(), 200);
    }
    let sent = Command::new("kill").args(["-s", "TERM", &server.id().to_string()]).status().unwrap();
    assert!(sent.success() && server.wait().unwrap().success());
}

#[test]
fn every_signal_drains_and_leaves_no_file() {
    for signal in ["TERM", "INT", "HUP"] {
        let dir = tempfile::tempdir().unwrap();
        let (config, file) = spilling(&dir, 3600);
        let mut server = Server::configured(&config);
        assert!(file.exists());
        let mut socket = stream(&server, LONG);
        server.signal(signal);
        server.until("draining", |s| s.logged(&format!("SIG{signal}: stopping")));
        let refused = exchange(&server, &post(&server, "/v1/completions", "", r#"{"prompt": "x"}"#));
        assert!(status(&refused) == 503 && refused.contains("retry-after"), "{refused}");
        let rest = read_all(&mut socket);
        assert!(rest.contains("[DONE]") && !rest.contains("{\"error\""), "{signal}: {rest}");
        assert_eq!(server.wait().code(), Some(0), "{signal}");
        assert!(!file.exists(), "{signal}");
        assert!(server.logged("stopped") && !server.logged("cut"), "{:?}", server.lines());
    }
}

#[test]
fn a_second_signal_ends_it_at_once_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (config, file) = spilling(&dir, 3600);
    let mut server = Server::configured(&config);
    let _socket = stream(&server, ENDLESS);
    server.signal("TERM");
    server.until("draining", |s| s.logged("SIGTERM: stopping"));
    // Right behind the first, another is taken for the same.
    std::thread::sleep(Duration::from_millis(600));
    let start = Instant::now();
    server.signal("INT");
    assert_eq!(server.wait().code(), Some(1));
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    assert!(
        server.logged("WARN") && server.logged("a second signal (SIGINT): stopping at once"),
        "{:?}",
        server.lines()
    );
    assert!(server.logged("stopped at once by a second signal (SIGINT): 1 answer was cut"), "{:?}", server.lines());
    assert!(!file.exists());
}

#[test]
fn what_is_not_out_at_the_end_of_the_grace_is_told_so() {
    let mut server = Server::configured("server: { shutdown_grace_s: 1 }\n");
    let mut streams: Vec<_> = (0..6).map(|_| stream(&server, ENDLESS)).collect();
    let whole = ENDLESS.replace("\"stream\": true", "\"stream\": false");
    let mut waits = send(&server, &post(&server, "/v1/completions", "", &whole));
    server.until("all of it running", |s| s.metric("vllm:num_requests_running") == 28.0);
    server.signal("TERM");
    for socket in &mut streams {
        let rest = read_all(socket);
        let last: Vec<&str> = rest.split("\n\n").filter(|event| event.contains("data: ")).collect();
        let [.., error, done] = &last[..] else { panic!("{rest}") };
        assert!(error.contains("{\"error\"") && error.contains("unavailable"), "{error}");
        assert!(done.contains("data: [DONE]"), "{done}");
        assert!(rest.ends_with("0\r\n\r\n"), "the stream ends as HTTP wants it");
    }
    let answer = read_all(&mut waits);
    assert!(status(&answer) == 503 && answer.contains("shutdown_grace_s"), "{answer}");
    assert_eq!(server.wait().code(), Some(0));
    assert!(
        server.lines().iter().any(|line| line.contains("cut") && line.contains("answers=7")),
        "{:?}",
        server.lines()
    );
}

#[test]
fn an_answer_that_is_being_sent_arrives() {
    let mut server = Server::configured("server: { shutdown_grace_s: 3600 }\n");
    let body = json!({ "messages": [{ "role": "user", "content": "x" }], "max_tokens": 400, "n": 16, "ignore_eos": true,
                       "logprobs": true, "top_logprobs": 20 });
    let mut socket = send(&server, &post(&server, "/v1/chat/completions", "connection: close\r\n", &body.to_string()));
    let mut answer = vec![0; 4096];
    socket.read_exact(&mut answer).unwrap();
    let head = String::from_utf8_lossy(&answer).to_lowercase();
    let length: usize = head.split("content-length: ").nth(1).unwrap().split('\r').next().unwrap().parse().unwrap();
    server.signal("TERM");
    server.until("draining", |s| s.logged("SIGTERM: stopping"));
    // A reader that takes a while, and longer than the server needs to end anything else.
    let mut piece = vec![0; length / 30];
    loop {
        std::thread::sleep(Duration::from_millis(100));
        match socket.read(&mut piece).unwrap() {
            0 => break,
            n => answer.extend_from_slice(&piece[..n]),
        }
    }
    let at = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    assert_eq!(answer.len() - at, length, "the answer was cut");
    assert_eq!(server.wait().code(), Some(0));
}
