//! Connections that idle, dawdle, close a half, or come in crowds.

use crate::common;
use crate::common::Server;
use crate::common::raw::{connect, exchange, open_for, post, probe, read_all, send, status};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

const SHORT: &str = "server: { limits: { header_s: 1, pause_s: 1, body_s: 3, idle_s: 1, write_s: 1 } }\n";
const QUESTION: &str = r#"{"prompt": "Ownership is", "max_tokens": 4, "temperature": 0}"#;
/// Time in which a connection that exceeds a limit of a second has been closed, however loaded the machine.
const SOON: Duration = Duration::from_secs(30);
/// Bytes of a body that does not come.
const LONG_BODY: usize = 100_000;

/// Lets this process open so many files.
fn raise_limit(files: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < files) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum: limit.maximum }).unwrap();
    }
}

/// A server under this limit on open files: `ulimit`'s flag and number.
fn limited(flag: &str, files: usize) -> Server {
    let mut command = Command::new("sh");
    let script = format!("ulimit {flag} {files} && exec \"$0\" \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_mlx-serving")]).current_dir(common::root());
    command.args(["serve", "--port", "0", "--device", "cpu"]);
    Server::launch(command).ready()
}

fn crowd(server: &Server, n: usize) -> Vec<TcpStream> {
    (0..n).map(|_| TcpStream::connect(&server.address).unwrap()).collect()
}

fn serves(server: &Server) {
    for path in ["/health", "/ready", "/metrics"] {
        let (status, time) = probe(server, path);
        assert!(status == 200 && time < Duration::from_secs(10), "{path}: {status} after {time:?}");
    }
    let answer = exchange(server, &post(server, "/v1/completions", "connection: close\r\n", QUESTION));
    assert_eq!(status(&answer), 200, "{answer}");
}

#[test]
fn a_crowd_of_idle_connections_does_not_silence_the_server() {
    raise_limit(2000);
    for (flag, files) in [("-Sn", 1024), ("-n", 1024), ("-n", 64)] {
        let server = limited(flag, files);
        let idle = crowd(&server, 1100);
        serves(&server);
        drop(idle);
        serves(&server);
    }
}

#[test]
fn whoever_is_busy_keeps_the_connection_and_whoever_idles_longest_loses_it() {
    let server = Server::configured("server: { limits: { connections: 4 } }\n");
    let long = r#"{"prompt": "x", "max_tokens": 600, "ignore_eos": true, "stream": true}"#;
    let mut busy = send(&server, &post(&server, "/v1/completions", "connection: close\r\n", long));
    busy.read_exact(&mut [0; 100]).unwrap();
    let mut first = connect(&server);
    let later = crowd(&server, 8);
    assert_eq!(read_all(&mut first), "", "it is closed without a word");
    serves(&server);
    drop(later);
    assert!(read_all(&mut busy).contains("[DONE]"), "the stream was cut");
}

#[test]
fn when_all_are_busy_only_probes_are_answered() {
    let server = Server::configured("server: { limits: { connections: 2 } }\n");
    // More than the sockets between hold, so that they stay busy.
    let endless = r#"{"prompt": "x", "n": 16, "max_tokens": 1900, "ignore_eos": true, "stream": true}"#;
    let mut busy: Vec<TcpStream> =
        (0..2).map(|_| send(&server, &post(&server, "/v1/completions", "", endless))).collect();
    busy.iter_mut().for_each(|socket| socket.read_exact(&mut [0; 100]).unwrap());
    assert_eq!(probe(&server, "/ready").0, 200);
    let answer = exchange(&server, &post(&server, "/v1/completions", "", QUESTION));
    assert!(status(&answer) == 503 && answer.contains("retry-after") && answer.contains("connections"), "{answer}");
    // One that is still sending its request when it is refused.
    let large = post(&server, "/v1/completions", "", &" ".repeat(6_000_000));
    let answer = exchange(&server, &large);
    assert!(status(&answer) == 503 && answer.ends_with('}'), "{answer}");
}

#[test]
fn a_request_that_finds_no_room_is_told_so() {
    let server = Server::configured("server: { limits: { connections: 2 } }\n");
    let endless = r#"{"prompt": "x", "n": 16, "max_tokens": 1900, "ignore_eos": true, "stream": true}"#;
    let mut busy = send(&server, &post(&server, "/v1/completions", "", endless));
    busy.read_exact(&mut [0; 100]).unwrap();
    let question = post(&server, "/v1/completions", "connection: close\r\n", QUESTION);
    let models = format!("GET /v1/models HTTP/1.1\r\nhost: {}\r\n\r\n", server.address);
    for round in 0..60 {
        let mut client = connect(&server);
        if round % 2 == 0 {
            // One that has been served before; it is idle now. It may have found no room itself.
            client.write_all(models.as_bytes()).unwrap();
            let mut first = Vec::new();
            while !first.ends_with(b"}") {
                let mut bytes = [0; 1000];
                let n = client.read(&mut bytes).unwrap();
                assert!(n > 0, "round {round}: closed without an answer");
                first.extend_from_slice(&bytes[..n]);
            }
            if status(&String::from_utf8(first).unwrap()) == 503 {
                continue;
            }
        }
        // Part of a head, or of a body, comes before others need the place, and the rest behind them.
        let cut = [1, 30, question.len() - 5][round % 3];
        client.write_all(&question[..cut]).unwrap();
        let others = crowd(&server, 2);
        // It may be refused by now.
        let _ = client.write_all(&question[cut..]);
        let answer = read_all(&mut client);
        let full = || answer.contains("connections") && answer.ends_with('}');
        assert!(status(&answer) == 200 || status(&answer) == 503 && full(), "round {round}: {answer:?}");
        drop(others);
    }
}

#[test]
fn whoever_sends_too_slowly_is_disconnected() {
    let server = Server::configured(SHORT);
    let host = &server.address;
    let begun = format!("POST /v1/completions HTTP/1.1\r\nhost: {host}\r\ncontent-length: {LONG_BODY}\r\n");
    for (what, bytes) in [
        ("nothing", String::new()),
        ("part of a head", begun.clone()),
        ("part of a probe's head", "GET /ready HTTP/1.1\r\nhost".to_owned()),
    ] {
        assert!(open_for(&mut send(&server, bytes.as_bytes())) < SOON, "{what}");
    }
    let answer = exchange(&server, format!("{begun}\r\n{{").as_bytes());
    assert!(status(&answer) == 408 && answer.contains("body_too_slow"), "{answer}");
    for path in ["/ready", "/v1/models"] {
        let mut kept = send(&server, format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes());
        kept.read_exact(&mut [0; 20]).unwrap();
        assert!(open_for(&mut kept) < SOON, "kept alive after {path}");
    }
    // A byte now and then keeps neither a head nor a body alive.
    for (what, head, answered) in [
        ("a head", format!("{begun}x-slow: "), false),
        ("a probe's head", format!("GET /ready HTTP/1.1\r\nhost: {host}\r\nx-slow: "), false),
        ("a body", format!("{begun}\r\n"), true),
    ] {
        // Before anything of it has come: the server's second begins later.
        let start = Instant::now();
        let mut slow = send(&server, head.as_bytes());
        while slow.write_all(b"x").is_ok() {
            assert!(start.elapsed() < SOON, "{what} is waited for for ever");
            std::thread::sleep(Duration::from_millis(200));
        }
        assert!(start.elapsed() > Duration::from_millis(900), "{what} was refused, not waited for");
        let answer = read_all(&mut slow);
        assert!(if answered { answer.is_empty() || status(&answer) == 408 } else { answer.is_empty() }, "{answer}");
    }
}

#[test]
fn whoever_takes_nothing_of_the_answers_is_disconnected() {
    let server = Server::configured(SHORT);
    let request = format!("GET /v1/models HTTP/1.1\r\nhost: {}\r\n\r\n", server.address);
    let mut socket = connect(&server);
    socket.set_write_timeout(Some(SOON)).unwrap();
    // As many answers as fill both sockets, none of which is read.
    let error = (0..1_000).find_map(|_| socket.write_all(request.repeat(1_000).as_bytes()).err());
    assert!(error.is_some_and(|e| e.kind() != std::io::ErrorKind::WouldBlock), "it waits for ever");
    serves(&server);
}

#[test]
fn half_closed_connections_get_their_answer() {
    let server = Server::start(&["--device", "cpu"]);
    let question = post(&server, "/v1/completions", "", QUESTION);
    // Long enough for the server to ask whether the client still listens.
    let long = post(
        &server,
        "/v1/completions",
        "",
        &QUESTION.replace("\"max_tokens\": 4", "\"max_tokens\": 900, \"ignore_eos\": true"),
    );
    let probe = format!("GET /ready HTTP/1.1\r\nhost: {}\r\n\r\n", server.address).into_bytes();
    for (what, request) in [("question", question), ("long question", long), ("probe", probe)] {
        let mut socket = send(&server, &request);
        socket.shutdown(Shutdown::Write).unwrap();
        let answer = read_all(&mut socket);
        let last = answer.rfind("HTTP/1.1 200 OK").unwrap_or_else(|| panic!("{what}: {answer:.200}"));
        assert!(answer[..last].is_empty() || answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP"), "{answer:.200}");
        assert!(answer.ends_with('}'), "{what}: {answer:.200}");
    }
}

#[test]
fn one_connection_serves_probes_and_requests_in_order() {
    let server = Server::start(&["--device", "cpu"]);
    let host = &server.address;
    let probe = format!("GET /ready HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let question = String::from_utf8(post(&server, "/v1/completions", "", QUESTION)).unwrap();
    let last = format!("GET /health HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    let answer =
        exchange(&server, [probe.clone(), probe.clone(), question.clone(), question, probe, last].concat().as_bytes());
    let order: Vec<usize> =
        ["\"ready\"", "text_completion", "\"engines\""].iter().map(|part| answer.find(part).unwrap()).collect();
    assert!(order.is_sorted(), "{answer}");
    assert_eq!(
        (answer.matches("HTTP/1.1 200 OK").count(), answer.matches("text_completion").count()),
        (6, 2),
        "{answer}"
    );
    // Nothing but the head comes of a HEAD request.
    let head =
        exchange(&server, format!("HEAD /ready HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes());
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(!head.contains("content-length: 0"), "{head}");
}

#[test]
fn requests_that_fail_are_one_line_a_second_and_probes_that_are_told_not_now_none() {
    let server = Server::start(&["--device", "cpu"]);
    let busy = r#"{"prompt": "x", "max_tokens": 1900, "ignore_eos": true, "stream": true}"#;
    let _stream = server.open("/v1/completions", &serde_json::from_str(busy).unwrap(), 100);
    server.signal("TERM");
    let start = Instant::now();
    server.until("draining", |s| probe(s, "/ready").0 == 503);
    let question = serde_json::from_str(QUESTION).unwrap();
    for _ in 0..50 {
        assert_eq!(probe(&server, "/ready").0, 503);
        assert_eq!(server.post("/v1/completions", &question).0, 503);
    }
    let failed = |server: &Server| -> Vec<String> {
        server.lines().into_iter().filter(|line| line.contains("status=503")).collect()
    };
    server.until("the first line", |server| !failed(server).is_empty());
    let lines = failed(&server);
    assert!(lines.len() as u64 <= start.elapsed().as_secs() + 2, "{lines:#?}");
    assert!(lines.iter().all(|line| line.contains("POST") && line.contains("/v1/completions")), "{lines:#?}");
}
