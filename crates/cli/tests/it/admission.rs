//! Large bodies and large answers: what is refused before it costs anything, and what the others feel of the rest.

use crate::common::Server;
use crate::common::raw::{connect, exchange, post, probe, read_all, send, status};
use serde_json::json;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A POST's head for a body of this length, which does not come.
fn claim(server: &Server, length: usize, headers: &str) -> String {
    let host = &server.address;
    format!("POST /v1/completions HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n{headers}\r\n")
}

#[test]
fn what_cannot_be_served_is_refused_before_it_is_read() {
    let server = Server::configured("engine: { max_sequences: 1, max_waiting: 0 }\n");
    let answer = exchange(&server, claim(&server, 1 << 30, "expect: 100-continue\r\n").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");
    let endless = json!({ "prompt": "x", "max_tokens": 1900, "ignore_eos": true, "stream": true });
    let stream = server.open("/v1/completions", &endless, 100);
    let answer = exchange(&server, claim(&server, 8 << 20, "").as_bytes());
    assert!(status(&answer) == 429 && answer.contains("retry-after"), "{answer}");
    drop(stream);
    let small = post(&server, "/v1/completions", "connection: close\r\n", r#"{"prompt": "x", "max_tokens": 1}"#);
    server.until("room", |s| status(&exchange(s, &small)) == 200);
    server.until("room again", |s| s.metric("vllm:num_requests_running") == 0.0);
    let _stream = server.open("/v1/completions", &endless, 100);
    server.signal("TERM");
    server.until("draining", |s| probe(s, "/ready").0 == 503);
    let answer = exchange(&server, claim(&server, 8 << 20, "").as_bytes());
    assert!(status(&answer) == 503 && answer.contains("stopping"), "{answer}");
}

#[test]
fn bodies_are_bounded_in_all() {
    let server = Server::configured("server: { limits: { bodies_mb: 8 } }\n");
    let half = |part: &[u8]| {
        let mut socket = send(&server, claim(&server, 8_000_000, "").as_bytes());
        socket.write_all(part).unwrap();
        socket
    };
    let held = half(&vec![b' '; 6_000_000]);
    // Until the first is there, the second may be taken.
    let refused = (0..200).map(|_| {
        std::thread::sleep(Duration::from_millis(20));
        let mut socket = connect(&server);
        let _ = socket.write_all(&[claim(&server, 4_000_000, "").as_bytes(), &vec![b' '; 4_000_000]].concat());
        read_all(&mut socket)
    });
    let answer = refused.into_iter().find(|answer| status(answer) == 429).expect("it is never refused");
    assert!(answer.contains("retry-after") && answer.contains("bodies_mb"), "{answer}");
    let small = post(&server, "/v1/completions", "connection: close\r\n", r#"{"prompt": "x", "max_tokens": 1}"#);
    assert_eq!(status(&exchange(&server, &small)), 200);
    drop(held);
    let whole = post(&server, "/v1/completions", "connection: close\r\n", &" ".repeat(7_000_000));
    server.until("room", |s| status(&exchange(s, &whole)) == 400);
}

#[test]
fn small_requests_pass_while_large_bodies_take_all_that_there_is() {
    let server = Server::configured("server: { limits: { bodies_mb: 8 } }\n");
    let large = post(&server, "/v1/completions", "connection: close\r\n", &" ".repeat(100_000));
    let hold = || {
        let mut held = send(&server, claim(&server, 8 << 20, "").as_bytes());
        held.write_all(&vec![b' '; (8 << 20) - 8]).ok()?;
        // Whichever body comes later is refused: this one is to be first.
        std::thread::sleep(Duration::from_millis(500));
        let refused = status(&exchange(&server, &large)) == 429;
        held.set_nonblocking(true).unwrap();
        let waits = held.peek(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
        (refused && waits).then_some(held)
    };
    let held = (0..20).find_map(|_| hold()).expect("a large body that holds all");
    let chat = json!({ "messages": [{ "role": "user", "content": "x".repeat(1000) }], "max_tokens": 1 }).to_string();
    let answer = exchange(&server, &post(&server, "/v1/chat/completions", "connection: close\r\n", &chat));
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(status(&exchange(&server, &large)), 429, "the large body was taken meanwhile");
    drop(held);
}

#[test]
fn probes_are_quick_beside_large_bodies() {
    let server = Server::start(&["--device", "cpu"]);
    let body = format!("{{\"prompt\":[{}\"x\"]}}", "[1],".repeat(1_950_000));
    let (request, done) = (post(&server, "/v1/completions", "connection: close\r\n", &body), AtomicBool::new(false));
    let mut times = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    assert_eq!(status(&exchange(&server, &request)), 400);
                }
            });
        }
        for _ in 0..200 {
            let (status, time) = probe(&server, "/ready");
            assert_eq!(status, 200);
            times.push(time);
            std::thread::sleep(Duration::from_millis(10));
        }
        done.store(true, Ordering::Release);
    });
    times.sort_unstable();
    eprintln!(
        "/ready beside four clients: median {:?}, 99th percentile {:?}, longest {:?}",
        times[100], times[197], times[199]
    );
    // A probe that waits for bodies waits for several at a time, each of which takes longer than this; that a loaded machine keeps single
    // ones waiting is not the server's doing.
    assert!(times[100] < Duration::from_millis(200), "{:?}", &times[90..]);
}

/// 8 MB of each kind of body, with its route and the status that it gets.
#[cfg(target_os = "linux")]
fn large(server: &Server) -> Vec<(&'static str, u16, Vec<u8>)> {
    let text = "a b ".repeat(1_990_000);
    let lists = format!("[{}[1]]", "[1],".repeat(1_950_000));
    [
        (
            "/v1/chat/completions",
            json!({ "messages": [{ "role": "user", "content": text }], "max_tokens": 1 }).to_string(),
        ),
        ("/v1/tokenize", json!({ "prompt": text }).to_string()),
        ("/v1/completions", json!({ "prompt": "x".repeat(7_900_000) }).to_string()),
        ("/v1/completions", format!("{{\"prompt\": {lists}}}")),
        ("/v1/detokenize", format!("{{\"tokens\": [1{}]}}", ",1".repeat(3_990_000))),
    ]
    .map(|(path, body)| (path, 400, post(server, path, "connection: close\r\n", &body)))
    .into()
}

#[cfg(target_os = "linux")]
fn send_at_once(server: &Server, n: usize, request: &[u8], expected: u16) {
    std::thread::scope(|scope| {
        let sent: Vec<_> = (0..n).map(|_| scope.spawn(|| status(&exchange(server, request)))).collect();
        sent.into_iter().for_each(|sent| assert_eq!(sent.join().unwrap(), expected));
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_large_body_costs_little_memory_and_releases_it() {
    for (n, bound) in [(1, 120), (8, 700)] {
        let server = Server::start(&["--device", "cpu"]);
        let idle = server.memory("VmRSS:");
        for (path, expected, request) in large(&server) {
            let before = server.reset_peak().min(idle);
            send_at_once(&server, n, &request, expected);
            let peak = server.memory("VmHWM:").saturating_sub(before) >> 10;
            eprintln!("{n} x 8 MB to {path}: {peak} MiB above idle at most");
            assert!(peak < bound, "{n} x {path}: {peak} MiB");
            let start = std::time::Instant::now();
            server.until("the release of the memory", |s| s.memory("VmRSS:") < idle + (60 << 10));
            assert!(start.elapsed() < Duration::from_secs(10), "{path}: {:?}", start.elapsed());
        }
    }
}

/// A group of processes that share a gibibyte; `None` where none can be made.
#[cfg(target_os = "linux")]
struct Gibibyte(std::path::PathBuf);

#[cfg(target_os = "linux")]
impl Gibibyte {
    fn make(process: u32) -> Option<Self> {
        let name = format!("mlx-serving-test-{process}");
        [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")].iter().find_map(
            |(root, limit)| {
                let group = Gibibyte(std::path::Path::new(root).join(&name));
                std::fs::create_dir(&group.0).ok()?;
                std::fs::write(group.0.join(limit), (1u64 << 30).to_string()).ok()?;
                std::fs::write(group.0.join("cgroup.procs"), process.to_string()).ok()?;
                Some(group)
            },
        )
    }
}

#[cfg(target_os = "linux")]
impl Drop for Gibibyte {
    fn drop(&mut self) {
        // The server may still be ending; an empty group does no harm.
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_gibibyte_is_enough_for_a_crowd_of_large_bodies() {
    let server = Server::start(&["--device", "cpu"]);
    let group = Gibibyte::make(server.pid());
    let measure = if group.is_some() { "a group of one gibibyte" } else { "its peak resident size" };
    let requests = large(&server);
    std::thread::scope(|scope| {
        for (path, _, request) in &requests {
            for _ in 0..4 {
                let server = &server;
                scope.spawn(move || {
                    let status = status(&exchange(server, request));
                    assert!([400, 429].contains(&status), "{path}: {status}");
                });
            }
        }
    });
    let peak = server.memory("VmHWM:") >> 10;
    eprintln!("20 bodies of 8 MB at once, by {measure}: {peak} MiB at most");
    assert!(peak < 1024, "{peak} MiB");
    let small = post(&server, "/v1/completions", "connection: close\r\n", r#"{"prompt": "x", "max_tokens": 1}"#);
    server.until("an answer", |s| status(&exchange(s, &small)) == 200);
    drop(server);
    drop(group);
}

const LARGE: &str = r#"{"messages": [{"role": "user", "content": "x"}], "max_tokens": 400, "n": 16, "ignore_eos": true,
                        "logprobs": true, "top_logprobs": 20}"#;

#[test]
fn an_answer_that_cannot_be_held_is_refused_before_it_is_computed() {
    let server = Server::configured("server: { limits: { answer_mb: 4 } }\n");
    let answer = exchange(&server, &post(&server, "/v1/chat/completions", "connection: close\r\n", LARGE));
    assert!(status(&answer) == 400 && answer.contains("stream it"), "{answer}");
    assert_eq!(server.metric("vllm:generation_tokens_total"), 0.0);
    let streamed = LARGE.replace("400", "4").replace("\"n\": 16", "\"n\": 16, \"stream\": true");
    assert_eq!(
        status(&exchange(&server, &post(&server, "/v1/chat/completions", "connection: close\r\n", &streamed))),
        200
    );
}

#[test]
fn an_answer_that_outgrows_its_bound_blames_the_field_that_the_request_has() {
    let server = Server::configured("server: { limits: { answer_mb: 1 } }\n");
    // As many tokens as the bound holds without their text.
    let body = json!({ "messages": [{ "role": "user", "content": "x" }], "max_completion_tokens": 621, "ignore_eos": true,
                       "logprobs": true, "top_logprobs": 20 });
    let (status, answer) = server.post("/v1/chat/completions", &body);
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("max_completion_tokens")), "{answer:.500}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("has grown beyond 1 MiB"), "{answer}");
}

#[test]
fn answers_that_nobody_reads_are_bounded() {
    let server = Server::configured("server: { limits: { answer_mb: 16, unread_mb: 16 } }\n");
    let mut unread = send(&server, &post(&server, "/v1/chat/completions", "connection: close\r\n", LARGE));
    unread.read_exact(&mut [0; 100]).unwrap();
    let question = post(&server, "/v1/completions", "connection: close\r\n", r#"{"prompt": "x", "max_tokens": 1}"#);
    let answer = exchange(&server, &question);
    assert!(status(&answer) == 503 && answer.contains("retry-after") && answer.contains("unread_mb"), "{answer}");
    assert_eq!(probe(&server, "/ready").0, 200);
    assert!(read_all(&mut unread).len() > 8_000_000);
    server.until("room", |s| status(&exchange(s, &question)) == 200);
}
