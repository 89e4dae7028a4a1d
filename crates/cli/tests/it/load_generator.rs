//! `bench throughput` as a load generator: in process, against this server, and against servers that answer in other ways or badly.

use crate::common::{Server, binary, run, stdout};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Output;
use std::sync::{Arc, Mutex};

const BENCH: [&str; 3] = ["bench", "throughput", "--json"];

fn result(args: &[&str]) -> Value {
    serde_json::from_str(&stdout(&[&BENCH[..], args].concat())).unwrap()
}

#[test]
fn what_is_counted_over_http_is_what_the_server_counts() {
    let server = Server::start(&["--device", "cpu", "--threads", "1"]);
    let url = server.url("");
    let totals = || {
        ["vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:request_success_total"]
            .map(|name| server.metric(name))
    };
    for (args, requests) in [
        (&["-q", "5", "--concurrency", "2", "--prompt-tokens", "4..20", "--max-tokens", "lognormal:6,0.5"][..], 5),
        (&["-q", "6", "--rate", "200", "--prompt-tokens", "normal:12,4", "--max-tokens", "3", "--seed", "5"], 6),
        (
            &[
                "-q",
                "4",
                "--load",
                "shared-prefix",
                "--prefix-tokens",
                "30",
                "--prompt-tokens",
                "4",
                "--max-tokens",
                "3",
            ],
            4,
        ),
        (&["-q", "6", "--load", "chat", "--turns", "3", "--prompt-tokens", "5", "--max-tokens", "4"], 6),
        (&["-q", "3", "--api", "chat", "--prompt-tokens", "5", "--max-tokens", "4"], 3),
    ] {
        let before = totals();
        let r = result(&[&["--url", &url, "--warm-up", "0", "--goodput", "e2e=1e9"], args].concat());
        let after = totals();
        let told = [&r["total_prompt_tokens"], &r["total_tokens"], &r["answered"]].map(|n| n.as_f64().unwrap());
        assert_eq!(told, [0, 1, 2].map(|i| after[i] - before[i]), "{args:?}: {r}");
        assert_eq!((&r["answered"], &r["failed"], &r["ended_early"]), (&json!(requests), &json!(0), &json!(0)), "{r}");
        assert_eq!((&r["tokens_counted_by"], &r["goodput"]["share"]), (&json!("usage"), &json!(1.0)), "{r}");
        for figure in ["ttft_ms", "e2e_ms"] {
            assert!(r[figure]["p50"].as_f64().unwrap() > 0.0 && r[figure]["mean"].as_f64().unwrap() > 0.0, "{r}");
        }
        for null in ["device_utilization", "prefill_tok_s", "peak_memory_bytes"] {
            assert!(r[null].is_null(), "{null}: {r}");
        }
        let settings = &r["settings"];
        assert_eq!((&settings["model"], &settings["url"]), (&json!("rustbook-5m-4bit"), &json!(server.address)), "{r}");
        assert!(settings["device"].is_null() && settings["seed"].is_u64(), "{settings}");
        let listed = r["requests"].as_array().unwrap();
        assert_eq!(listed.len(), requests);
        if settings["load"] == "chat" {
            let prompts: Vec<u64> = listed.iter().map(|one| one["prompt_tokens"].as_u64().unwrap()).collect();
            assert!(prompts[0] < prompts[1] && prompts[1] < prompts[2] && prompts[3] < prompts[4], "{prompts:?}");
            assert!(prompts[1] > prompts[0] + 4, "the answer is part of the next prompt: {prompts:?}");
            assert_eq!(settings["api"], "chat");
        }
    }
    assert!(server.metric("vllm:prefix_cache_hits_total") > 0.0, "a shared first part was computed once");
}

#[test]
fn the_same_seed_asks_the_same_of_a_model_in_process() {
    let line = "--device cpu --threads 1 -q 4 --load chat --turns 2 --max-tokens 2..5 --prompt-tokens 9";
    let chat: Vec<&str> = line.split(' ').collect();
    let [one, again, other] = ["7", "7", "8"].map(|seed| result(&[&chat[..], &["--seed", seed]].concat()));
    assert_eq!(one["output_hash"], again["output_hash"]);
    assert_ne!(one["output_hash"], other["output_hash"]);
    let prompts: Vec<u64> =
        one["requests"].as_array().unwrap().iter().map(|r| r["prompt_tokens"].as_u64().unwrap()).collect();
    let tokens = |i: usize| one["requests"][i]["tokens"].as_u64().unwrap();
    assert_eq!(prompts, [9, 18 + tokens(0), 9, 18 + tokens(2)], "{one}");
    assert_eq!((&one["settings"]["prompt_tokens"], &one["settings"]["max_tokens"]), (&json!(9), &json!("2..5")));
}

#[test]
fn a_limit_that_holds_requests_back_is_told() {
    let line = "bench throughput --device cpu --threads 1 -q 12 --prompt-tokens 8 --max-tokens 8 --rate 100000 --concurrency 1";
    let args: Vec<&str> = line.split(' ').collect();
    let table = stdout(&[&args[..], &["--goodput", "ttft=0.001"]].concat());
    assert!(table.contains("of 12 waited for one of --concurrency places"), "{table}");
    assert!(table.contains("goodput                0.0 %"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
}

/// Answers connections with scripted bytes, the last script again and again; runs until the process ends.
struct StandIn {
    url: String,
    requests: Arc<Mutex<Vec<(String, Value)>>>,
}

impl StandIn {
    fn start(scripts: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = requests.clone();
        std::thread::spawn(move || {
            let mut scripts = scripts.into_iter().peekable();
            let mut last = String::new();
            for socket in listener.incoming().map_while(Result::ok) {
                let request = read(&socket);
                let is_list = request.0.contains("/v1/models");
                kept.lock().unwrap().push(request);
                let answer = match is_list {
                    true => body("application/json", r#"{"object":"list","data":[{"id":"first"},{"id":"second"}]}"#),
                    false => {
                        last = scripts.next().unwrap_or(last);
                        last.clone()
                    }
                };
                // A client that has seen enough may be gone.
                let _ = (&socket).write_all(answer.as_bytes());
            }
        });
        Self { url, requests }
    }
}

/// The head of a request and its JSON.
fn read(socket: &TcpStream) -> (String, Value) {
    let mut reader = BufReader::new(socket);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) <= 2 {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (head, serde_json::from_slice(&body).unwrap_or_default())
}

fn body(kind: &str, text: &str) -> String {
    let length = text.len();
    format!(
        "HTTP/1.1 200 OK\r\nserver: stand-in\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}"
    )
}

/// A stream of events without a length, which ends with the connection.
fn events(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nconnection: close\r\n\r\n{text}")
}

/// A stream in the style of llama.cpp: a role first, then content, timings and usage at the end.
const GOOD: &str = concat!(
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null},\"finish_reason\":null}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"one\"},\"finish_reason\":null}]}\n\n",
    ": keepalive\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" two\"},\"finish_reason\":null}]}\r\n\r\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":3},\"timings\":{\"predicted_n\":3}}\n\n",
    "data: [DONE]\n\n",
);

fn asked(server: &StandIn, args: &[&str]) -> (Output, Value) {
    let output = run(&[&BENCH[..], &["--url", &server.url, "--warm-up", "0"], args].concat());
    let json = serde_json::from_slice(&output.stdout);
    (output, json.unwrap_or_default())
}

#[test]
fn failures_are_counted_by_cause_and_do_not_end_the_run() {
    let piece = "data: {\"choices\":[{\"text\":\"a\"}]}\n\n";
    let server = StandIn::start(vec![
        "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\nconnection: close\r\n\r\noops".into(),
        "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".into(),
        events(piece),
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 900\r\n\r\ndata: {".into(),
        events("data: <html>\n\n"),
        events(&format!("{piece}event: error\ndata: {{\"message\":\"no memory\"}}\n\n")),
        body("application/json", "{\"choices\":[{\"text\":\"whole\"}]}"),
        events("data: [DONE]\n\n"),
        "what is this?\r\n\r\n".into(),
        String::new(),
        events("data: {\"choices\":[],\"usage\":{\"completion_tokens\":18446744073709551615}}\n\n"),
        "HTTP/1.1 301 Moved\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".into(),
        events(GOOD),
    ]);
    let (output, r) = asked(&server, &["-q", "13", "-m", "m", "--api", "chat", "--max-tokens", "4"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((&r["answered"], &r["failed"], &r["total_tokens"]), (&json!(1), &json!(12), &json!(3)), "{r}");
    let mut causes: Vec<(String, u64)> = (r["failures"].as_array().unwrap().iter())
        .map(|f| (f["cause"].as_str().unwrap().to_owned(), f["count"].as_u64().unwrap()))
        .collect();
    causes.sort();
    let expected = [
        ("HTTP 301", 1),
        ("HTTP 429", 1),
        ("HTTP 500", 1),
        ("connection lost", 1),
        ("cut stream", 2),
        ("empty answer", 1),
        ("error in the stream", 1),
        ("no stream of events", 1),
        ("not HTTP", 1),
        ("unreadable stream", 2),
    ];
    assert_eq!(causes, expected.map(|(cause, count)| (cause.to_owned(), count)), "{r}");
    assert!(r["failures"].as_array().unwrap().iter().any(|f| f["example"] == "oops"), "{r}");
    assert_eq!((&r["ended_early"], &r["total_prompt_tokens"]), (&json!(1), &json!(11)), "{r}");
}

#[test]
fn a_run_in_which_all_failed_has_failed() {
    let server = StandIn::start(vec!["HTTP/1.1 503 Busy\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbusy".into()]);
    let (output, r) = asked(&server, &["-q", "3", "-m", "m", "--load", "chat", "--turns", "3"]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("all 3 requests failed") && log.contains("earlier turn failed"), "{log}");
    assert_eq!((&r["failed"], &r["throughput_tok_s"]), (&json!(3), &json!(0.0)), "{r}");
    // Nobody listens where a listener was.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = run(&["bench", "throughput", "--url", &format!("http://{gone}"), "-m", "m", "-q", "2"]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && log.contains("connection refused") && log.contains("warm up"), "{log}");
    let output = run(&["bench", "throughput", "--url", &format!("http://{gone}")]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && log.contains("/v1/models") && log.contains("name the model"), "{log}");
}

#[test]
fn a_server_is_asked_for_its_model_with_the_key_and_nothing_tells_the_key() {
    // A text completion without usage and without an end, in the style of servers that keep to little.
    let plain = "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata:{\"choices\":[{\"text\":\" b\",\"finish_reason\":\"length\"}]}\n\n";
    let server = StandIn::start(vec![events(plain)]);
    let mut command = binary();
    command.args(BENCH).args(["--url", &server.url, "-q", "2", "--warm-up", "0", "--seed", "3", "-v"]);
    let output = command.env("MLX_SERVING_API_KEY", "sk-secret").output().unwrap();
    let (text, log) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{log}");
    assert!(!text.contains("sk-secret") && !log.contains("sk-secret"), "{text}{log}");
    let r: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&r["tokens_counted_by"], &r["total_tokens"]), (&json!("pieces"), &json!(4)), "{r}");
    assert_eq!((&r["settings"]["model"], &r["settings"]["server"]), (&json!("first"), &json!("stand-in")), "{r}");
    assert!(r["total_prompt_tokens"].is_null(), "{r}");
    assert_eq!(r["ended_early"], 0, "the server says that the answers have the length that was asked for: {r}");
    let requests = server.requests.lock().unwrap();
    assert_eq!(requests.len(), 3);
    assert!(requests.iter().all(|(head, _)| head.to_ascii_lowercase().contains("authorization: bearer sk-secret")));
    let (head, body) = &requests[1];
    assert!(head.starts_with("POST /v1/completions "), "{head}");
    assert_eq!(body["prompt"].as_str().unwrap().split(' ').count(), 128);
    for (key, value) in [
        ("model", json!("first")),
        ("max_tokens", json!(64)),
        ("temperature", json!(0)),
        ("ignore_eos", json!(true)),
        ("stream", json!(true)),
        ("stream_options", json!({ "include_usage": true })),
    ] {
        assert_eq!(body[key], value, "{key}: {body}");
    }
}

#[test]
fn flags_that_cannot_be_are_wrong_usage_and_useless_ones_are_named() {
    for (args, says) in [
        (&["--prompt-tokens", "many"][..], "64..256"),
        (&["--max-tokens", "9..3"], "--max-tokens: 9..3 is out of range"),
        (&["--rate", "0"], "--rate: 0 is out of range"),
        (&["--turns", "3"], "--turns: it belongs to the load chat"),
        (&["--load", "poem"], "it takes questions or shared-prefix or chat"),
        (&["--goodput", "tpot=3"], "ttft=200,itl=50,e2e=2000"),
        (&["--api", "responses"], "completions or chat"),
        (&["--url", "ftp://x"], "--url: "),
        (&["--url", "http://me:pw@x"], "--url: it has a user"),
        (&["--url", "http://127.0.0.1:1", "--api-key", "se cret"], "--api-key: "),
        (&["--load", "chat", "--turns", "500", "--device", "cpu"], "500 turns"),
    ] {
        let output = run(&[&BENCH[..], args].concat());
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {log}");
        assert!(log.contains(says) && !log.contains("se cret"), "{args:?}: {log}");
    }
    let args = ["--url", "http://127.0.0.1:1", "-m", "m", "-q", "1", "--warm-up", "0", "--threads", "1"];
    let output = run(&[&BENCH[..], &args].concat());
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("has no use for --threads"), "{log}");
}
