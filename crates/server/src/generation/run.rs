//! From an ask to its answer.

use super::ask::Ask;
use super::delta::{Answer, Cost, Delta, Deltas};
use crate::account::Account;
use crate::admission::{Work, WorkPermit};
use crate::error::ApiError;
use crate::state::{AppState, admits};
use axum::http::HeaderValue;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt};
use mlx_serving_engine::Request;
use mlx_serving_runtime::{Generate, Prepared};
use serde::Serialize;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Time without an event after which one is sent that says nothing: a client that has gone is noticed only when something is written.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// A dialect's way to write answers. Choices are counted over all prompts.
pub(crate) trait Writer: Send + 'static {
    /// A whole answer.
    type Whole: Serialize + Send + 'static;

    /// An event that says nothing; without one, a comment does.
    const SILENCE: Option<fn() -> Event> = None;

    /// All choices at once.
    fn whole(self, answers: Vec<Answer>, cost: Cost) -> Self::Whole;

    /// The events with which a stream begins, before there is any piece.
    fn begin(&mut self, _cost: Cost) -> Vec<Event> {
        Vec::new()
    }

    /// The events of a stream for a piece of a choice, and the cost so far.
    fn delta(&mut self, choice: usize, delta: Delta, cost: Cost) -> Vec<Event>;

    /// The events behind the last choice's end.
    fn end(&mut self, cost: Cost) -> Vec<Event>;

    /// The last events of a stream that fails.
    fn fail(&mut self, error: &ApiError) -> Vec<Event>;
}

/// Answers everything asked, or nothing. `writer` is called off the runtime's threads, with the prompts made ready.
///
/// # Errors
/// 400 for what can never be answered, 429 and 503 for what cannot be now; where the answer is whole, the engine's failure too.
pub(crate) async fn answer<W: Writer>(
    state: &AppState,
    model: &Arc<dyn Generate>,
    (permit, account): (WorkPermit, Arc<Account>),
    mut ask: Ask,
    writer: impl FnOnce(&dyn Generate, &[Prepared]) -> Result<W, ApiError> + Send + 'static,
) -> Result<Response, ApiError> {
    account.entries().model = Some(model.card().id.clone());
    if !model.card().info.generates {
        return Err(ApiError::embeds_only(&model.card().id, ask.names.of("model")));
    }
    ask.check_count(model.card().info.max_live)?;
    let (choices, stream, names, single) = (ask.choices, ask.stream, ask.names, ask.single_call());
    let prepare = move |model: &dyn Generate, work: &Work| {
        let prompts = ask.prepare(model, work)?;
        let writer = writer(model, &prompts)?;
        let requests = prompts.into_iter().flat_map(|ready| ask.requests(ready, model.card().info.max_context));
        Ok((requests.collect::<Vec<Request>>(), writer))
    };
    let (requests, writer) = off_thread(permit, model, prepare).await?;
    let limit = names.of("max_tokens");
    if !stream {
        state.unread.fits(&requests, limit)?;
    }
    let prompt_tokens = requests.iter().step_by(choices).map(|request| request.prompt.len()).sum();
    let mut answers: Vec<Answer> = requests.iter().map(|_| Answer::default()).collect();
    let streams = model.submit(requests).map_err(|error| names.error(error))?;
    let mut deltas = Deltas::new(streams, choices, prompt_tokens, names, account).of_one_call(single);
    if stream {
        return Ok(Streamed { deltas, writer, cut_off: state.cut_off.subscribe() }.into_response());
    }
    let charge = state.unread.charge(limit);
    while let Some((choice, delta)) = deltas.next().await? {
        match &delta {
            Delta::Prompt(run) => charge.prompt(run)?,
            Delta::Text { segments, token } => {
                let text: usize = segments.iter().map(|segment| segment.as_str().len()).sum();
                charge.text(text, token.as_ref().and_then(|token| token.logprobs.as_ref()))?
            }
            Delta::Done { .. } => {}
        }
        answers[choice].take(delta);
    }
    let cost = deltas.total();
    state.admission.whole(charge, move || writer.whole(answers, cost)).await
}

/// Runs `f`, which may take long on long texts, off the runtime's threads, if the model takes requests at all.
///
/// # Errors
/// `f`'s, 429 and 503 where the model takes none, and 500 if `f` panics.
pub(crate) async fn off_thread<T: Send + 'static>(
    permit: WorkPermit,
    model: &Arc<dyn Generate>,
    f: impl FnOnce(&dyn Generate, &Work) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    admits(&**model)?;
    let model = model.clone();
    permit.work(move |work| f(&*model, work)).await
}

/// An answer that is sent as it comes. An error ends it with the writer's last events. Dropping it cancels the requests.
struct Streamed<W> {
    deltas: Deltas,
    writer: W,
    cut_off: watch::Receiver<bool>,
}

impl<W: Writer> Streamed<W> {
    fn into_response(mut self) -> Response {
        let begin = stream::iter(self.writer.begin(self.deltas.so_far()));
        let events = stream::unfold(Some(self), |streamed| async {
            let mut streamed = streamed?;
            let (events, last) = streamed.next().await;
            Some((stream::iter(events), (!last).then_some(streamed)))
        });
        let events = begin.chain(events.flatten()).map(Ok::<_, Infallible>);
        let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
        let keep_alive = match W::SILENCE {
            Some(silence) => keep_alive.event(silence()),
            None => keep_alive,
        };
        let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
        // Proxies must pass tokens on as they come.
        response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }

    /// The next events, maybe none, and true if they are the last.
    async fn next(&mut self) -> (Vec<Event>, bool) {
        let cut_off = async {
            if self.cut_off.wait_for(|cut| *cut).await.is_err() {
                // Nobody is there any more who could cut it off.
                pending::<()>().await;
            }
        };
        let next = tokio::select! {
            biased;
            () = cut_off => Err(ApiError::cut_off()),
            next = self.deltas.next() => next,
        };
        match next {
            Ok(Some((choice, delta))) => {
                let mut events = self.writer.delta(choice, delta, self.deltas.so_far());
                if self.deltas.ended() {
                    events.extend(self.writer.end(self.deltas.total()));
                }
                (events, self.deltas.ended())
            }
            Ok(None) => (self.writer.end(self.deltas.total()), true),
            Err(error) => (self.writer.fail(&error), true),
        }
    }
}
