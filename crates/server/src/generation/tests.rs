//! A made-up dialect: the seams that every dialect has, with JSON of its own.

#[path = "../../tests/routes/script.rs"]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "a test may panic, and uses a part")]
mod script;

use super::{Answer, Ask, Cost, Delta, Names, Writer, answer};
use crate::error::ApiError;
use crate::request::Body;
use crate::request::object::object;
use crate::request::sampling::SamplingFields;
use crate::state::{AppState, Settings};
use axum::Router;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http_body_util::BodyExt;
use mlx_serving_engine::EngineError;
use mlx_serving_runtime::Input;
use script::{Fail, Say, Script, says};
use serde_json::{Value, json};
use std::sync::Arc;
use tower::ServiceExt;

object! {
    /// `{"say": "…", "words": 5, "live": true, "temperature": …}`
    struct ParrotRequest {
        say: String = required,
        words: usize,
        live: bool,
    }
    with sampling: SamplingFields
}

const NAMES: Names = Names(&[("prompt", "say"), ("max_tokens", "words")]);

/// `{"squawk": "…"}`, or one event for each word and `event: silence` at the end.
struct Parrot {
    heard: usize,
}

impl Writer for Parrot {
    type Whole = Value;

    fn whole(self, answers: Vec<Answer>, cost: Cost) -> Value {
        json!({ "heard": self.heard, "squawk": answers[0].text, "said": cost.completion_tokens })
    }

    fn delta(&mut self, _: usize, delta: Delta, cost: Cost) -> Vec<Event> {
        match delta {
            Delta::Text { segments, .. } => {
                let text = mlx_serving_text::content(&segments);
                vec![Event::default().event("squawk").data(format!("{text} {}", cost.completion_tokens))]
            }
            Delta::Prompt(_) | Delta::Done { .. } => vec![],
        }
    }

    fn end(&mut self, cost: Cost) -> Vec<Event> {
        vec![Event::default().event("silence").data(cost.completion_tokens.to_string())]
    }

    fn fail(&mut self, error: &ApiError) -> Vec<Event> {
        vec![Event::default().event("cough").data(words(error))]
    }
}

/// An error in the parrot's shape.
struct Cough(ApiError);

impl IntoResponse for Cough {
    fn into_response(self) -> Response {
        let cough = json!({ "cough": words(&self.0), "about": self.0.to_json()["error"]["param"] });
        (self.0.into_response().status(), axum::Json(cough)).into_response()
    }
}

fn words(error: &ApiError) -> String {
    error.to_json()["error"]["message"].as_str().unwrap().to_owned()
}

async fn squawk(
    State(state): State<Arc<AppState>>,
    body: Result<Body<ParrotRequest>, ApiError>,
) -> Result<Response, Cough> {
    let Body(request, permit, account) = body.map_err(Cough)?;
    let model = state.model(None).map_err(Cough)?;
    let ask = Ask {
        inputs: vec![Input::Text { text: request.say, special: false }],
        max_tokens: request.words,
        stream: request.live.unwrap_or(false),
        sampling: request.sampling.over(&model.card().defaults).map_err(Cough)?,
        names: NAMES,
        ..super::ask::tests::ask()
    };
    answer(&state, &model, (permit, account), ask, |_, prompts| Ok(Parrot { heard: prompts[0].ids.len() }))
        .await
        .map_err(Cough)
}

async fn ask(model: Script, body: Value) -> (StatusCode, String) {
    let state = AppState::new(Settings::default());
    state.add(Arc::new(model));
    let router = Router::new().route("/parrot", post(squawk)).with_state(state);
    let request = Request::post("/parrot").body(axum::body::Body::from(body.to_string())).unwrap();
    let response = router.oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

fn playing(steps: Vec<script::Step>) -> Script {
    let model = Script::new("m");
    model.plays([steps]);
    model
}

#[tokio::test]
async fn another_dialect_writes_whole_answers_its_own_way() {
    let (status, text) = ask(playing(says(&["hel", "lo"])), json!({ "say": "abc", "temperature": 1 })).await;
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status.as_u16(), json), (200, json!({ "heard": 3, "squawk": "hello", "said": 2 })));
}

#[tokio::test]
async fn another_dialect_writes_streams_its_own_way() {
    let (status, text) = ask(playing(says(&["hel", "lo"])), json!({ "say": "abc", "live": true })).await;
    let expected = "event: squawk\ndata: hel 1\n\nevent: squawk\ndata: lo 2\n\nevent: silence\ndata: 2\n\n";
    assert_eq!((status.as_u16(), text.as_str()), (200, expected));
    let failing = vec![Say("a"), Fail(EngineError::Device("a fault".into()))];
    let (_, text) = ask(playing(failing), json!({ "say": "abc", "live": true })).await;
    assert_eq!(text, "event: squawk\ndata: a 1\n\nevent: cough\ndata: computing the answer failed: a fault\n\n");
}

#[tokio::test]
async fn another_dialect_names_its_own_parameters_in_errors_of_its_own_shape() {
    for (body, cough, about) in [
        (
            json!({ "say": "x".repeat(200) }),
            "the prompt has at least 200 tokens; this model's maximum context length is 100 tokens, the answer included",
            "say",
        ),
        (json!({ "say": "x", "color": 1 }), "color is not supported by this server; leave it out", "color"),
        (
            json!({ "say": "x", "temperature": 9 }),
            "temperature is 9; it must be at least 0 and at most 2",
            "temperature",
        ),
        (json!({ "words": 3 }), "say is missing", "say"),
    ] {
        let (status, text) = ask(Script::new("m"), body).await;
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status.as_u16(), json), (400, json!({ "cough": cough, "about": about })));
    }
    let model = Script::new("m");
    model.refuses(EngineError::invalid("max_tokens", "max_tokens is 0; it must be at least 1"));
    let (_, text) = ask(model, json!({ "say": "x", "words": 0 })).await;
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json, json!({ "cough": "words is 0; it must be at least 1", "about": "words" }));
}
