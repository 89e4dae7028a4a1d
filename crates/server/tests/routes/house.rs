//! A server of scripted models, called without sockets.

use crate::script::Script;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use axum::response::Response;
use http_body_util::BodyExt;
use mlx_serving_runtime::RuntimeError;
use mlx_serving_server::{AppState, Settings, router};
use serde_json::{Value, json};
use std::sync::Arc;
use tower::ServiceExt;

/// The server.
pub struct House {
    pub state: Arc<AppState>,
    pub model: Arc<Script>,
    router: Router,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl House {
    /// One model, `m`.
    pub fn new() -> Self {
        Self::of(Script::new("m"))
    }

    pub fn of(model: Script) -> Self {
        Self::set(Settings::default(), model)
    }

    pub fn set(settings: Settings, model: Script) -> Self {
        let (state, model) = (AppState::new(settings), Arc::new(model));
        state.add(model.clone());
        state.loaded();
        let router = router(state.clone());
        Self { state, model, router }
    }

    /// A second model.
    pub fn add(&self, model: Script) -> Arc<Script> {
        let model = Arc::new(model);
        self.state.add(model.clone());
        model
    }

    /// The answer's head; its body comes as it is read.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        if headers.iter().all(|(name, _)| *name != "host") {
            request = request.header("host", "localhost");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap()
    }

    pub async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Reply {
        Reply::of(self.send(method, path, headers, body).await).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, &[], "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.call("POST", path, &[], body.to_string()).await
    }

    /// A chat of one question, and what else the body has.
    pub async fn chat(&self, extra: Value) -> Reply {
        self.post("/v1/chat/completions", &with(json!({ "messages": [{ "role": "user", "content": "hi" }] }), extra))
            .await
    }

    /// A completion of "ab", and what else the body has.
    pub async fn complete(&self, extra: Value) -> Reply {
        self.post("/v1/completions", &with(json!({ "prompt": "ab" }), extra)).await
    }
}

/// The object with these fields too.
pub fn with(mut object: Value, extra: Value) -> Value {
    object.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    object
}

impl Reply {
    pub async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Self { status: parts.status.as_u16(), headers: parts.headers, text }
    }

    /// The JSON of an answer with that status.
    #[track_caller]
    pub fn json(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// The only choice of a whole answer.
    #[track_caller]
    pub fn choice(&self) -> Value {
        let json = self.json(200);
        assert_eq!(json["choices"].as_array().unwrap().len(), 1);
        json["choices"][0].clone()
    }

    /// The chunks of a stream that ends as it should.
    #[track_caller]
    pub fn chunks(&self) -> Vec<Value> {
        assert_eq!((self.status, &self.headers["content-type"]), (200, &"text/event-stream".parse().unwrap()));
        let events: Vec<&str> = self.text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        let (done, chunks) = events.split_last().unwrap();
        assert_eq!(*done, "[DONE]");
        chunks.iter().map(|chunk| serde_json::from_str(chunk).unwrap()).collect()
    }

    /// The choices of all chunks.
    #[track_caller]
    pub fn streamed(&self) -> Vec<Value> {
        self.chunks().iter().flat_map(|chunk| chunk["choices"].as_array().unwrap().clone()).collect()
    }

    /// An error's parameter, code and message.
    #[track_caller]
    pub fn error(&self, status: u16) -> (String, String, String) {
        let json = self.json(status);
        let field = |name: &str| json["error"][name].as_str().unwrap_or("").to_owned();
        (field("param"), field("code"), field("message"))
    }
}

/// Has the weights of a model change while they are loaded.
pub fn lose(state: &AppState, id: &str) {
    let changed = || Err(RuntimeError::Weights { model: id.to_owned(), reason: "its file changed".to_owned() });
    state.registry().load(id, changed).unwrap();
}
