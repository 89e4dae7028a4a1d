//! An OpenAI-compatible server as a target.

use super::sse::SseEvents;
use super::words::words;
use super::{Answer, Failure, Fault, PREFIX, Target, stream};
use crate::error::BenchError;
use crate::load::{Length, Load, Shape};
use serde::Serialize;
use serde_json::{Value, json};
use std::io::{self, ErrorKind, Read};
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use ureq::http::{Response, Uri};
use ureq::{Agent, Body};

/// Bytes of the list of models, at most.
const MAX_LISTING: u64 = 4 << 20;
/// Bytes that are kept of what a server says of a failure.
const MAX_DETAIL: u64 = 300;
/// Pieces of an answer, a token that was asked for, from which on it is not the answer to what was asked.
const MAX_PIECES_A_TOKEN: usize = 16;
/// Bytes of the events of an answer, at most.
const MAX_STREAM: usize = 64 << 20;
/// Events after the one that says that nothing more comes, at most.
const MAX_AFTER_END: usize = 16;
/// Idle connections are given up before servers do: llama.cpp's and uvicorn's wait 5 s.
const IDLE: Duration = Duration::from_secs(3);

/// Route that is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// `/v1/completions`: prompts are texts.
    Completions,
    /// `/v1/chat/completions`: prompts are messages, in the server's chat template.
    Chat,
}

impl FromStr for Api {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "completions" => Ok(Api::Completions),
            "chat" => Ok(Api::Chat),
            _ => Err("it takes completions or chat".into()),
        }
    }
}

/// Settings of an [`Endpoint`].
#[derive(Debug, Clone)]
pub struct EndpointOptions {
    /// `http://host:port` or `https://host:port`, with the path of the API if it is not `/v1`.
    pub url: String,
    /// Route; by default chat for conversations and completions for everything else.
    pub api: Option<Api>,
    /// Name of the model; by default the first that the server lists.
    pub model: Option<String>,
    /// Key, sent as a bearer token.
    pub api_key: Option<ApiKey>,
    /// Time after which a silent server has failed.
    pub silence: Duration,
}

impl EndpointOptions {
    /// Time after which a silent server has failed, where nothing else is said.
    pub const SILENCE: Duration = Duration::from_secs(600);
}

/// A secret. It is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

impl From<String> for ApiKey {
    fn from(key: String) -> Self {
        Self(key)
    }
}

impl ApiKey {
    fn check(&self) -> Result<(), BenchError> {
        match !self.0.is_empty() && self.0.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(()),
            false => Err(BenchError::setting("api_key", "it takes visible ASCII letters, and at least one")),
        }
    }
}

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

/// Part of an answer that has come.
#[derive(Debug, Default)]
struct Heard {
    /// Tokens that were asked for.
    asked: usize,
    /// Bytes of all events.
    bytes: usize,
    text: String,
    times: Vec<Instant>,
    /// The server said why the answer ended.
    finished: Option<Instant>,
    /// That it has the tokens that were asked for, if it said why at all.
    ended_by_length: Option<bool>,
    /// The server said that nothing more comes.
    is_done: bool,
    prompt_tokens: Option<usize>,
    tokens: Option<usize>,
}

impl Heard {
    /// Nothing yet of an answer for which so many tokens were asked.
    fn of(asked: usize) -> Self {
        Self { asked, ..Self::default() }
    }

    /// Takes an event, which came at this time.
    fn take(&mut self, kind: &str, data: &str, now: Instant) -> Result<(), Failure> {
        self.bytes += data.len();
        if self.bytes > MAX_STREAM || self.times.len() > self.asked.saturating_mul(MAX_PIECES_A_TOKEN) {
            let (pieces, asked) = (self.times.len(), self.asked);
            return Err(Failure::new(
                "longer than asked",
                format!("{asked} tokens were asked for, and {pieces} pieces came"),
            ));
        }
        if data.trim() == "[DONE]" {
            self.is_done = true;
            return Ok(());
        }
        let cut: String = data.chars().take(MAX_DETAIL as usize).collect();
        let chunk: Value = match serde_json::from_str(data) {
            Ok(chunk) => chunk,
            Err(_) if kind == "error" => return Err(Failure::new("error in the stream", cut)),
            Err(_) => return Err(Failure::new("unreadable stream", format!("not JSON: {cut}"))),
        };
        if kind == "error" || chunk.get("error").is_some_and(|error| !error.is_null()) {
            return Err(Failure::new("error in the stream", cut));
        }
        // What no request can have is refused: sums of it would have no meaning, or none that a number holds.
        let count = |name: &str| match chunk.pointer(&format!("/usage/{name}")).and_then(Value::as_u64) {
            Some(n) if n > Length::MAX as u64 => {
                let detail = format!("usage out of range: {name} is {n}, and no more than {} can be", Length::MAX);
                Err(Failure::new("unreadable stream", detail))
            }
            told => Ok(told.map(|n| n as usize)),
        };
        self.prompt_tokens = count("prompt_tokens")?.or(self.prompt_tokens);
        self.tokens = count("completion_tokens")?.or(self.tokens);
        let Some(choice) = chunk.pointer("/choices/0") else { return Ok(()) };
        let spoken = ["/text", "/delta/content"].iter().find_map(|at| choice.pointer(at)?.as_str());
        // Thoughts are tokens of the answer, and no part of the conversation.
        let thought =
            ["/delta/reasoning_content", "/delta/reasoning"].iter().find_map(|at| choice.pointer(at)?.as_str());
        if [spoken, thought].into_iter().flatten().any(|text| !text.is_empty()) {
            self.times.push(now);
        }
        self.text.push_str(spoken.unwrap_or_default());
        if let Some(reason) = choice.get("finish_reason").filter(|reason| !reason.is_null()) {
            self.finished = Some(now);
            self.ended_by_length = Some(reason == "length");
        }
        Ok(())
    }

    /// The whole answer and its text.
    fn answer(mut self) -> Result<(Answer, String), Failure> {
        let Some(end) = self.finished.or_else(|| self.is_done.then(|| self.times.last().copied()).flatten()) else {
            return Err(match self.is_done {
                true => Failure::new("empty answer", "no token came"),
                false => Failure::new("cut stream", "it ended before the answer did"),
            });
        };
        if self.times.is_empty() {
            // Tokens without a text, such as the end of a sequence that was not to be one.
            if self.tokens.unwrap_or_default() == 0 {
                return Err(Failure::new("empty answer", "no token came"));
            }
            self.times.push(end);
        }
        let answer = Answer {
            prompt_tokens: self.prompt_tokens,
            tokens: self.tokens.unwrap_or(self.times.len()),
            is_told: self.tokens.is_some(),
            ended_by_length: self.ended_by_length,
            times: self.times,
            computed: None,
            content: self.text.clone().into_bytes(),
        };
        Ok((answer, self.text))
    }
}

/// Address of the API, and host and port.
fn base_of(url: &str) -> Result<(String, String), BenchError> {
    let refused = |why: &str| {
        BenchError::setting(
            "url",
            format!("{why}; it takes http://HOST:PORT or https://HOST:PORT, with a path if the API is not under /v1"),
        )
    };
    let uri: Uri = url.parse().map_err(|_| refused("this is no URL"))?;
    let authority = uri.authority().ok_or_else(|| refused("there is no host in it"))?;
    // A password would be in every record.
    if authority.as_str().contains('@') {
        return Err(refused("it has a user or a password, which is not sent"));
    }
    if uri.query().is_some() {
        return Err(refused("it has a query"));
    }
    let scheme = match uri.scheme_str() {
        Some(scheme @ ("http" | "https")) => scheme,
        _ => return Err(refused("it is neither http:// nor https://")),
    };
    let path = match uri.path().trim_end_matches('/') {
        "" => "/v1",
        path => path,
    };
    Ok((format!("{scheme}://{authority}{path}"), authority.to_string()))
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

    fn hear(chunks: &[Value], done: bool) -> Result<(Answer, String), Failure> {
        let mut heard = Heard::of(3);
        for chunk in chunks {
            heard.take("", &chunk.to_string(), Instant::now())?;
        }
        if done {
            heard.take("", " [DONE]", Instant::now())?;
        }
        heard.answer()
    }

    #[test]
    fn chunks_of_many_servers_are_understood() {
        // Text completions, with usage in a chunk of its own: this server, vLLM.
        let vllm = [
            json!({ "choices": [{ "index": 0, "text": "a", "finish_reason": null }], "usage": null }),
            json!({ "choices": [{ "index": 0, "text": " b", "finish_reason": "length" }], "usage": null }),
            json!({ "choices": [], "usage": { "prompt_tokens": 7, "completion_tokens": 3 } }),
        ];
        // Messages that begin with a role and no content, and timings beside the usage: llama.cpp.
        let llama = [
            json!({ "choices": [{ "delta": { "role": "assistant", "content": null }, "finish_reason": null }] }),
            json!({ "choices": [{ "delta": { "content": "a" }, "finish_reason": null }] }),
            json!({ "choices": [{ "delta": { "content": " b" }, "finish_reason": null }] }),
            json!({ "choices": [{ "delta": {}, "finish_reason": "length" }] }),
            json!({ "choices": [], "usage": { "prompt_tokens": 7, "completion_tokens": 3 }, "timings": { "predicted_n": 3 } }),
        ];
        // A role in every chunk, empty content at the end: Ollama.
        let ollama = [
            json!({ "choices": [{ "delta": { "role": "assistant", "content": "a" }, "finish_reason": null }] }),
            json!({ "choices": [{ "delta": { "role": "assistant", "content": " b" }, "finish_reason": null }] }),
            json!({ "choices": [{ "delta": { "role": "assistant", "content": "" }, "finish_reason": "stop" }] }),
            json!({ "choices": [], "usage": { "prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10 } }),
        ];
        for (chunks, pieces) in [(&vllm[..], 2), (&llama, 2), (&ollama, 2)] {
            let (answer, text) = hear(chunks, true).unwrap();
            assert_eq!((text.as_str(), answer.times.len(), answer.tokens), ("a b", pieces, 3), "{chunks:?}");
            assert_eq!((answer.prompt_tokens, answer.is_told), (Some(7), true));
        }
        let (answer, _) = hear(&vllm[..2], false).unwrap();
        assert_eq!((answer.tokens, answer.is_told, answer.prompt_tokens), (2, false, None), "no usage, and no [DONE]");
        assert!(!answer.ended_before(3), "its finish_reason is length");
        let (answer, _) = hear(&ollama[..3], false).unwrap();
        assert!(answer.ended_before(2), "its finish_reason is stop");
        let thinks = json!({ "choices": [{ "delta": { "reasoning_content": "hm" }, "finish_reason": null }] });
        let (answer, text) = hear(&[&[thinks], &llama[..]].concat(), true).unwrap();
        assert_eq!((answer.times.len(), text.as_str()), (3, "a b"));
        let silent =
            json!({ "choices": [{ "text": "", "finish_reason": "length" }], "usage": { "completion_tokens": 1 } });
        assert_eq!(hear(&[silent], true).unwrap().0.times.len(), 1);
    }

    #[test]
    fn answers_that_are_none_are_named() {
        let piece = json!({ "choices": [{ "text": "a", "finish_reason": null }] });
        let end = json!({ "choices": [{ "text": "", "finish_reason": "stop" }] });
        for (chunks, done, cause) in [
            (vec![piece.clone()], false, "cut stream"),
            (vec![], false, "cut stream"),
            (vec![], true, "empty answer"),
            (vec![end], true, "empty answer"),
            (vec![piece.clone(), json!({ "error": { "message": "no memory" } })], false, "error in the stream"),
            (vec![json!({ "error": "no memory" })], false, "error in the stream"),
        ] {
            assert_eq!(hear(&chunks, done).unwrap_err().cause, cause, "{chunks:?}");
        }
        let mut heard = Heard::of(3);
        assert_eq!(heard.take("", "<html>", Instant::now()).unwrap_err().cause, "unreadable stream");
        assert_eq!(heard.take("error", "gone", Instant::now()).unwrap_err().cause, "error in the stream");
        for name in ["prompt_tokens", "completion_tokens"] {
            for (tokens, fits) in [(u64::MAX, false), (Length::MAX as u64 + 1, false), (Length::MAX as u64, true)] {
                let usage = json!({ "choices": [], "usage": { name: tokens } }).to_string();
                let taken = heard.take("", &usage, Instant::now());
                let refused = taken.as_ref().is_err_and(|failure| {
                    failure.cause == "unreadable stream" && failure.detail.contains("usage out of range")
                });
                assert_eq!((taken.is_ok(), refused), (fits, !fits), "{usage}: {taken:?}");
            }
        }
        for odd in ["3", "[]", "{\"choices\":{}}", "{\"choices\":[3],\"usage\":[]}", "{\"choices\":[{\"text\":5}]}"] {
            heard.take("", odd, Instant::now()).unwrap();
        }
    }

    #[test]
    fn an_answer_that_goes_on_far_beyond_what_was_asked_is_a_failure() {
        let piece = json!({ "choices": [{ "text": "a" }] }).to_string();
        let mut heard = Heard::of(2);
        let mut take = |data: &str| heard.take("", data, Instant::now());
        for _ in 0..=2 * MAX_PIECES_A_TOKEN {
            take(&piece).unwrap();
        }
        assert_eq!(take(&piece).unwrap_err().cause, "longer than asked");
        let long = json!({ "choices": [], "padding": "x".repeat(MAX_STREAM / 16) }).to_string();
        let mut heard = Heard::of(Length::MAX);
        let taken = (0..17).map(|_| heard.take("", &long, Instant::now())).find_map(Result::err);
        assert_eq!(taken.unwrap().cause, "longer than asked");
    }

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

    #[test]
    fn a_url_names_the_server_and_the_api() {
        for (url, base, host) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1", "127.0.0.1:8080"),
            ("http://localhost:8080/v1/", "http://localhost:8080/v1", "localhost:8080"),
            ("https://models.example/api/v2", "https://models.example/api/v2", "models.example"),
        ] {
            assert_eq!(base_of(url).unwrap(), (base.to_owned(), host.to_owned()));
        }
        for bad in
            ["", "localhost", "ftp://host/", "http://", "http://me:secret@host", "http://host/v1?x=1", "http://a b"]
        {
            let error = base_of(bad).unwrap_err().to_string();
            assert!(error.starts_with("url: ") && !error.contains("secret"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_key_is_not_shown() {
        let key = ApiKey::from("sk-1".to_owned());
        assert!(!format!("{key:?}").contains("sk-1") && key.check().is_ok());
        for bad in ["", "sk-1\r\nx: y"] {
            let error = ApiKey::from(bad.to_owned()).check().unwrap_err().to_string();
            assert!(error.starts_with("api_key: ") && !error.contains("sk-1"), "{error}");
        }
    }
}
