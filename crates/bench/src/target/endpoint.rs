//! An OpenAI-compatible server as a target.

use super::sse::SseEvents;
use super::words::words;
use super::{Answer, Failure, Fault, PREFIX, Target, stream};
use crate::error::BenchError;
use crate::load::{Load, Shape};
use heard::Heard;
use options::base_of;
use serde_json::{Value, json};
use std::io::{self, ErrorKind, Read};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use ureq::http::Response;
use ureq::{Agent, Body};

mod heard;
mod options;

pub use options::{Api, ApiKey, EndpointOptions};

/// Bytes of the list of models, at most.
const MAX_LISTING: u64 = 4 << 20;
/// Bytes that are kept of what a server says of a failure.
const MAX_DETAIL: u64 = 300;
/// Events after the one that says that nothing more comes, at most.
const MAX_AFTER_END: usize = 16;
/// Idle connections are given up before servers do: llama.cpp's and uvicorn's wait 5 s.
const IDLE: Duration = Duration::from_secs(3);

/// A server, and how it is asked.
#[derive(Debug)]
pub struct Endpoint {
    agent: Agent,
    base: String,
    host: String,
    api: Option<Api>,
    model: String,
    key: Option<ApiKey>,
    /// `Server` of its first answer.
    software: OnceLock<Option<String>>,
}

impl Endpoint {
    /// A server for as many requests at a time as the load has. Asks it for the first of its models if none is named.
    ///
    /// # Errors
    /// The URL is none; the server does not say which models it has.
    pub fn open(options: &EndpointOptions, load: &Load) -> Result<Self, BenchError> {
        let (base, host) = base_of(&options.url)?;
        options.api_key.as_ref().map_or(Ok(()), ApiKey::check)?;
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // A server is measured, not a proxy before it, and nothing is sent to another one.
            .proxy(None)
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_per_read(Some(options.silence))
            .timeout_per_write(Some(options.silence))
            .max_idle_connections(load.concurrency)
            .max_idle_connections_per_host(load.concurrency)
            .max_idle_age(IDLE)
            .user_agent(concat!("mlx-serving/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        let model = options.model.clone().unwrap_or_default();
        let key = options.api_key.clone();
        let mut endpoint = Self { agent, base, host, api: options.api, model, key, software: OnceLock::new() };
        if options.model.is_none() {
            endpoint.model = endpoint.first_model()?;
        }
        Ok(endpoint)
    }

    /// Name of the model that is asked.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Host and port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Software of the server, as its `Server` header names it.
    pub(crate) fn software(&self) -> Option<&str> {
        self.software.get()?.as_deref()
    }

    /// The route for a load.
    pub(crate) fn api(&self, load: &Load) -> Api {
        let default = if matches!(load.shape, Shape::Chat { .. }) { Api::Chat } else { Api::Completions };
        self.api.unwrap_or(default)
    }

    fn first_model(&self) -> Result<String, BenchError> {
        let url = format!("{}/models", self.base);
        let failed = |why: String| BenchError::Server(format!("{url}: {why}; name the model yourself"));
        let request = self.agent.get(&url);
        let request = self.authorization().into_iter().fold(request, |r, value| r.header("authorization", value));
        let response = request.call().map_err(|error| failed(said_of(error).detail))?;
        let mut response =
            self.accepted(response).map_err(|failure| failed(format!("{}: {}", failure.cause, failure.detail)))?;
        let text = response.body_mut().with_config().limit(MAX_LISTING).read_to_string();
        let text = text.map_err(|error| failed(error.to_string()))?;
        let value: Value = serde_json::from_str(&text).map_err(|error| failed(format!("not JSON: {error}")))?;
        let first = value.pointer("/data/0/id").and_then(Value::as_str);
        first.map(str::to_owned).ok_or_else(|| {
            BenchError::Server(format!(
                "{url}: it lists no model: if it is still loading one, try again when /ready answers 200; otherwise name one with --model"
            ))
        })
    }

    fn authorization(&self) -> Option<String> {
        self.key.as_ref().map(|key| format!("Bearer {}", key.0))
    }

    /// The response if it is one of success.
    fn accepted(&self, mut response: Response<Body>) -> Result<Response<Body>, Failure> {
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        self.software.get_or_init(|| header("server").map(|text| text.chars().take(200).collect()));
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let mut said = Vec::new();
        // What cannot be read tells nothing more than the status does.
        let _ = response.body_mut().as_reader().take(MAX_DETAIL).read_to_end(&mut said);
        Err(Failure::new(format!("HTTP {}", status.as_u16()), String::from_utf8_lossy(&said).trim()))
    }

    fn post(&self, api: Api, body: &Value) -> Result<Response<Body>, Failure> {
        let route = match api {
            Api::Completions => "completions",
            Api::Chat => "chat/completions",
        };
        let request = self.agent.post(format!("{}/{route}", self.base));
        let request = request.header("content-type", "application/json").header("accept", "text/event-stream");
        let request = self.authorization().into_iter().fold(request, |r, value| r.header("authorization", value));
        let response = self.accepted(request.send(body.to_string()).map_err(said_of)?)?;
        let kind = response.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !kind.is_empty() && !kind.to_ascii_lowercase().starts_with("text/event-stream") {
            return Err(Failure::new("no stream of events", format!("its content type is {kind}")));
        }
        Ok(response)
    }
}

/// A server under a load.
pub(crate) struct Served<'a> {
    endpoint: &'a Endpoint,
    api: Api,
    seed: u64,
    /// Words that all prompts begin with.
    prefix: String,
}

impl<'a> Served<'a> {
    pub(crate) fn new(endpoint: &'a Endpoint, load: &Load) -> Self {
        let prefix = words(load.seed, PREFIX, load.prefix_tokens());
        Self { endpoint, api: endpoint.api(load), seed: load.seed, prefix }
    }
}

/// Messages so far, by turns: the user begins.
pub(crate) struct Said {
    conversation: usize,
    turns: Vec<String>,
}

impl Target for Served<'_> {
    type Talk = Said;

    fn begin(&self, conversation: usize) -> Said {
        Said { conversation, turns: Vec::new() }
    }

    fn say(&self, talk: &mut Said, turn: usize, tokens: usize) {
        let new = words(self.seed, stream(talk.conversation, turn), tokens);
        let is_later = turn > 0 || !self.prefix.is_empty();
        let prefix = if turn == 0 { self.prefix.as_str() } else { "" };
        // The texts of a conversation are joined as they are where there are no messages.
        let space = if is_later { " " } else { "" };
        talk.turns.push(format!("{prefix}{space}{new}"));
    }

    fn ask(&self, talk: &mut Said, max_tokens: usize) -> Result<Answer, Fault> {
        let mut body = json!({
            "model": self.endpoint.model,
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": true,
            "stream": true,
            "stream_options": { "include_usage": true },
        });
        match self.api {
            Api::Completions => body["prompt"] = talk.turns.concat().into(),
            Api::Chat => {
                let messages = talk.turns.iter().enumerate().map(|(i, text)| {
                    let role = if i % 2 == 0 { "user" } else { "assistant" };
                    json!({ "role": role, "content": text })
                });
                body["messages"] = messages.collect();
            }
        }
        let response = self.endpoint.post(self.api, &body).map_err(Fault::Counts)?;
        let ends = ["transfer-encoding", "content-length"].iter().any(|name| response.headers().contains_key(*name));
        let mut events = SseEvents::new(response.into_body().into_reader());
        let mut heard = Heard::of(max_tokens);
        while !heard.is_done {
            match events.next() {
                Ok(Some(event)) => heard.take(&event.kind, &event.data, Instant::now()).map_err(Fault::Counts)?,
                Ok(None) => break,
                Err(error) => return Err(Fault::Counts(cut(error))),
            }
        }
        // The rest of a body that ends by itself is nothing, and read so that the connection can be used again.
        let mut after_end = 0;
        while ends && heard.is_done && after_end < MAX_AFTER_END && matches!(events.next(), Ok(Some(_))) {
            after_end += 1;
        }
        let (answer, text) = heard.answer().map_err(Fault::Counts)?;
        talk.turns.push(text);
        Ok(answer)
    }
}

/// The cause of a request that came to nothing.
fn said_of(error: ureq::Error) -> Failure {
    let cause = match &error {
        ureq::Error::Timeout(_) => "timed out",
        ureq::Error::HostNotFound => "host not found",
        ureq::Error::Io(io) => match io.kind() {
            ErrorKind::ConnectionRefused => "connection refused",
            ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionAborted => "connection lost",
            ErrorKind::TimedOut => "timed out",
            _ => "no connection",
        },
        ureq::Error::ConnectionFailed => "no connection",
        ureq::Error::Protocol(_) => "not HTTP",
        _ => "request failed",
    };
    Failure::new(cause, error.to_string())
}

/// The cause of a stream that could not be read to its end.
fn cut(error: io::Error) -> Failure {
    if error.kind() == ErrorKind::InvalidData {
        return Failure::new("unreadable stream", error.to_string());
    }
    match ureq::Error::from(error) {
        error @ ureq::Error::Timeout(_) => said_of(error),
        error => Failure::new("cut stream", error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves one connection in a thread of its own, and gives an endpoint for it.
    fn endpoint(serve: impl FnOnce(std::net::TcpStream) + Send + 'static) -> Result<Endpoint, BenchError> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || serve(listener.accept().unwrap().0));
        let silence = EndpointOptions::SILENCE;
        Endpoint::open(&EndpointOptions { url, api: None, model: None, api_key: None, silence }, &Load::default())
    }

    #[test]
    fn a_server_without_a_model_may_be_loading_one() {
        let listing = |mut socket: std::net::TcpStream| {
            let body = "{\"data\":[]}";
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            io::Write::write_all(&mut socket, (head + body).as_bytes()).unwrap();
            // Until the client has gone.
            io::copy(&mut socket, &mut io::sink()).ok();
        };
        let said = endpoint(listing).unwrap_err().to_string();
        let advice = "it lists no model: if it is still loading one, try again when /ready answers 200; otherwise name one with --model";
        assert!(said.ends_with(advice), "{said}");
    }

    #[test]
    fn what_follows_the_end_of_a_stream_does_not_hold_the_place() {
        let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
        let piece = "data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":\"length\"}]}\n\ndata: [DONE]\n\n";
        let body = chunk("{\"data\":[{\"id\":\"m\"}]}") + &chunk("");
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n";
        let (listing, start) = (format!("{head}\r\n{body}"), format!("{head}\r\n{}", chunk(piece)));
        let more = chunk("data: {}\n\n");
        let endless = move |mut socket: std::net::TcpStream| {
            // The request for the list has no body, and its head comes at once.
            let _ = socket.read(&mut [0; 4096]);
            let _ = io::Write::write_all(&mut socket, listing.as_bytes());
            let _ = socket.read(&mut [0; 4096]);
            let _ = io::Write::write_all(&mut socket, start.as_bytes());
            while io::Write::write_all(&mut socket, more.as_bytes()).is_ok() {}
        };
        let (endpoint, load) = (endpoint(endless).unwrap(), Load::default());
        let served = Served::new(&endpoint, &load);
        let mut talk = served.begin(0);
        served.say(&mut talk, 0, 3);
        assert_eq!(served.ask(&mut talk, 1).unwrap().content, b"a");
    }

    #[test]
    fn a_silent_server_has_failed_after_a_while() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            // Reads until the client gives up, and says nothing.
            io::copy(&mut socket, &mut io::sink()).unwrap()
        });
        let silence = Duration::from_millis(50);
        let options = EndpointOptions { url, api: None, model: Some("m".into()), api_key: None, silence };
        let load = Load::default();
        let endpoint = Endpoint::open(&options, &load).unwrap();
        let served = Served::new(&endpoint, &load);
        let mut talk = served.begin(0);
        served.say(&mut talk, 0, 3);
        let fault = served.ask(&mut talk, 2).unwrap_err();
        assert!(matches!(&fault, Fault::Counts(failure) if failure.cause == "timed out"), "{fault:?}");
        drop(endpoint);
        assert!(server.join().unwrap() > 0);
    }
}
