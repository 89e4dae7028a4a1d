//! Answers over time: failures, clients that hang up, the end of the server.

use crate::house::House;
use crate::script::{Fail, Gate, Say, Script, Vanish, Wait, says, until};
use axum::body::Body;
use http_body_util::BodyExt;
use mlx_serving_engine::EngineError;
use mlx_serving_runtime::Generate;
use mlx_serving_server::{AppState, Settings, serve};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// The JSON of a stream's events before `[DONE]`.
fn events(text: &str) -> Vec<Value> {
    let events: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let (done, events) = events.split_last().unwrap();
    assert_eq!(*done, "[DONE]", "{text}");
    events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

async fn next(body: &mut Body) -> String {
    let frame = tokio::time::timeout(Duration::from_secs(60), body.frame()).await.unwrap().unwrap().unwrap();
    String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn a_stream_that_fails_ends_with_an_error() {
    for (error, code) in [
        (EngineError::Device("a fault".into()), json!("device_error")),
        (EngineError::Stopped("its thread has ended".into()), json!("unavailable")),
        (EngineError::Slow("much lies unread".into()), json!("slow_reader")),
    ] {
        let house = House::new();
        house.model.plays([vec![Say("a"), Fail(error.clone())]]);
        let reply = house.chat(json!({ "stream": true, "stream_options": { "include_usage": true } })).await;
        let events = events(&reply.text);
        let last = events.last().unwrap();
        assert_eq!((events.len(), &last["error"]["code"]), (3, &code), "{events:?}");
        assert_eq!(last["error"]["message"], error.to_string());
    }
}

#[tokio::test]
async fn a_whole_answer_that_fails_is_an_error_and_cancels_the_others() {
    let house = House::new();
    let gate = Gate::new();
    house.model.plays([vec![Say("a"), Wait(gate)], vec![Say("b"), Fail(EngineError::Device("a fault".into()))]]);
    let (_, code, message) = house.chat(json!({ "n": 2 })).await.error(500);
    assert_eq!((code.as_str(), message.as_str()), ("device_error", "computing the answer failed: a fault"));
    assert_eq!(house.model.canceled(), 1);
    house.model.plays([vec![Fail(EngineError::Stopped("gone".into()))]]);
    assert_eq!(house.complete(json!({})).await.error(503).1, "unavailable");
}

#[tokio::test]
async fn an_engine_that_vanishes_is_noticed() {
    let house = House::new();
    house.model.plays([vec![Say("a"), Vanish], vec![Say("a"), Vanish]]);
    let message = "the engine ended without finishing the answer";
    assert_eq!(house.complete(json!({})).await.error(500).2, message);
    let reply = house.complete(json!({ "stream": true })).await;
    assert_eq!(events(&reply.text).last().unwrap()["error"]["message"], message);
}

#[tokio::test]
async fn one_failed_choice_ends_the_stream_of_all() {
    let house = House::new();
    let gate = Gate::new();
    house.model.plays([vec![Say("a"), Wait(gate)], vec![Say("b"), Fail(EngineError::Device("a fault".into()))]]);
    let reply = house.complete(json!({ "n": 2, "stream": true })).await;
    assert_eq!(events(&reply.text).last().unwrap()["error"]["code"], "device_error");
    assert_eq!(house.model.canceled(), 1);
}

#[tokio::test]
async fn tokens_are_sent_as_they_come_and_a_client_that_hangs_up_cancels() {
    let house = House::new();
    let gates = [Gate::new(), Gate::new()];
    house
        .model
        .plays([[vec![Say("a"), Wait(gates[0].clone()), Say("b"), Wait(gates[1].clone())], says(&["c"])].concat()]);
    let body = json!({ "prompt": "x", "stream": true }).to_string();
    let mut body = house.send("POST", "/v1/completions", &[], body).await.into_body();
    assert!(next(&mut body).await.contains("\"text\":\"a\""));
    gates[0].open();
    assert!(next(&mut body).await.contains("\"text\":\"b\""));
    assert_eq!(house.model.canceled(), 0);
    drop(body);
    assert_eq!(house.model.canceled(), 1);
}

#[tokio::test]
async fn a_client_that_hangs_up_before_a_whole_answer_cancels_it() {
    let house = Arc::new(House::new());
    house.model.plays([vec![Say("a"), Wait(Gate::new())]]);
    let asking = tokio::spawn({
        let house = house.clone();
        async move { house.complete(json!({})).await }
    });
    until("the request", || house.model.asked().len() == 1).await;
    asking.abort();
    until("the cancellation", || house.model.canceled() == 1).await;
}

/// A server on a socket of its own.
struct Served {
    address: std::net::SocketAddr,
    state: Arc<AppState>,
    model: Arc<Script>,
    stop: oneshot::Sender<Duration>,
    ended: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn served(settings: Settings) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (state, model) = (AppState::new(settings), Arc::new(Script::new("m")));
    state.add(model.clone());
    state.loaded();
    let (stop, stopped) = oneshot::channel();
    let shutdown = async move { stopped.await.unwrap_or_default() };
    let ended = tokio::spawn(serve(listener, state.clone(), shutdown));
    Served { address, state, model, stop, ended }
}

impl Served {
    async fn post(&self, path: &str, body: &Value) -> TcpStream {
        let (address, body) = (self.address, body.to_string());
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all((head + &body).as_bytes()).await.unwrap();
        socket
    }
}

/// Reads until the text is there, or the server closes.
async fn read_until(socket: &mut TcpStream, text: Option<&str>) -> String {
    let mut seen = Vec::new();
    let reading = async {
        while text.is_none_or(|text| !String::from_utf8_lossy(&seen).contains(text)) {
            if socket.read_buf(&mut seen).await.unwrap_or(0) == 0 {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reading).await.expect("an end");
    String::from_utf8_lossy(&seen).into_owned()
}

#[tokio::test]
async fn over_a_socket_a_client_that_hangs_up_cancels_its_stream() {
    let server = served(Settings::default()).await;
    let gate = Gate::new();
    server.model.plays([vec![Say("a"), Wait(gate.clone()), Say("b"), Wait(Gate::new())]]);
    let mut socket = server.post("/v1/completions", &json!({ "prompt": "x", "stream": true })).await;
    assert!(read_until(&mut socket, Some("\"text\":\"a\"")).await.starts_with("HTTP/1.1 200 OK"));
    drop(socket);
    gate.open();
    until("the cancellation", || server.model.canceled() == 1).await;
    until("the end of the flight", || server.state.live() == 0).await;
}

#[tokio::test]
async fn a_server_that_stops_cuts_off_what_takes_longer_than_its_grace() {
    let server = served(Settings::default()).await;
    server.model.plays([vec![Say("a"), Wait(Gate::new())], vec![Wait(Gate::new())]]);
    let mut stream = server.post("/v1/completions", &json!({ "prompt": "x", "stream": true })).await;
    read_until(&mut stream, Some("\"text\":\"a\"")).await;
    let mut whole = server.post("/v1/completions", &json!({ "prompt": "x" })).await;
    until("both requests", || server.model.asked().len() == 2).await;
    server.stop.send(Duration::from_millis(10)).unwrap();
    let message = "the server is stopping, and its time to end (server.shutdown_grace_s) is over";
    let (stream, whole) = (read_until(&mut stream, None).await, read_until(&mut whole, None).await);
    assert!(stream.contains(message) && stream.contains("data: [DONE]"), "{stream}");
    assert!(whole.starts_with("HTTP/1.1 503") && whole.contains(message), "{whole}");
    server.ended.await.unwrap().unwrap();
    assert_eq!(server.model.canceled(), 2);
}

#[tokio::test]
async fn a_server_that_stops_lets_answers_end_within_its_grace() {
    let server = served(Settings::default()).await;
    let gate = Gate::new();
    server.model.plays([[vec![Say("a"), Wait(gate.clone())], says(&["b"])].concat()]);
    let mut stream = server.post("/v1/completions", &json!({ "prompt": "x", "stream": true })).await;
    read_until(&mut stream, Some("\"text\":\"a\"")).await;
    server.stop.send(Duration::from_secs(3600)).unwrap();
    let mut probe = TcpStream::connect(server.address).await.unwrap();
    until("the drain", || server.model.draining()).await;
    probe.write_all(b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(read_until(&mut probe, None).await.starts_with("HTTP/1.1 503"));
    gate.open();
    let rest = read_until(&mut stream, None).await;
    assert!(rest.contains("\"text\":\"b\"") && rest.contains("[DONE]") && !rest.contains("error"), "{rest}");
    server.ended.await.unwrap().unwrap();
}
