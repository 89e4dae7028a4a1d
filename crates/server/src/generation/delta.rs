//! A model's answer, in no dialect.

use super::ask::Names;
use crate::account::Account;
use crate::error::ApiError;
use futures::stream::{self, BoxStream, StreamExt};
use mlx_serving_engine::{EngineError, Event, FinishReason, Logprobs, PromptToken, Usage};
use mlx_serving_runtime::Events;
use mlx_serving_text::Segment;
use std::sync::Arc;

/// A piece of what a model answers.
#[derive(Debug)]
pub(crate) enum Delta {
    /// Tokens of the prompt, in order, where their log-probabilities were asked for; before everything else.
    Prompt(Vec<PromptToken>),
    /// What became final, nothing while a character or possible markup is incomplete, and the token that it came with. What was held back
    /// to the end comes without one.
    Text { segments: Vec<Segment>, token: Option<Token> },
    /// The end of a choice, and the stop string that ended it, if one did.
    Done { reason: FinishReason, stop: Option<String> },
}

/// A token of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub id: u32,
    /// Start of its own text in the answer, characters.
    pub offset: usize,
    /// Log-probabilities, if they were asked for.
    pub logprobs: Option<Logprobs>,
}

/// Tokens of all choices together. The choices of one prompt share its tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    pub prompt_tokens: usize,
    /// Tokens of the prompt that were found in the prefix cache.
    pub cached_tokens: usize,
    pub completion_tokens: usize,
    /// Tokens of the answers whose text is reasoning, the markup around it included where it belongs to no other text.
    pub reasoning_tokens: usize,
}

/// A call of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub name: String,
    /// JSON.
    pub arguments: String,
}

/// One choice, whole.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub prompt: Vec<PromptToken>,
    /// Content, and markup of calls that cannot be read.
    pub text: String,
    pub reasoning: String,
    pub calls: Vec<Call>,
    /// Markup of a call could not be read.
    pub malformed: bool,
    pub tokens: Vec<Token>,
    /// Reason for its end; none before.
    pub finish: Option<FinishReason>,
    /// Stop string that ended it, if one did.
    pub stop: Option<String>,
}

impl Answer {
    /// Takes its next piece.
    pub(crate) fn take(&mut self, delta: Delta) {
        match delta {
            Delta::Prompt(run) => self.prompt.extend(run),
            Delta::Text { segments, token } => {
                segments.into_iter().for_each(|segment| self.add(segment));
                self.tokens.extend(token);
            }
            Delta::Done { reason, stop } => (self.finish, self.stop) = (Some(reason), stop),
        }
    }

    /// Reason for its end as dialects tell it; none before.
    pub(crate) fn ending(&self) -> Option<Ending> {
        self.finish.map(|reason| Told { calls: self.calls.len(), malformed: self.malformed }.ending(reason))
    }

    fn add(&mut self, segment: Segment) {
        match segment {
            Segment::Content(text) => self.text += &text,
            Segment::Reasoning(text) => self.reasoning += &text,
            Segment::Call { name } => self.calls.push(Call { name, arguments: String::new() }),
            Segment::Arguments(text) => self.calls.last_mut().into_iter().for_each(|call| call.arguments += &text),
            Segment::Malformed(text) => {
                self.text += &text;
                self.malformed = true;
            }
            // Nobody can use a part of a call: a whole answer has all of its markup, where the model wrote it.
            Segment::Unfinished(markup) => {
                self.calls.pop();
                self.text += &markup;
                self.malformed = true;
            }
        }
    }
}

/// Reason for the end of a choice, as dialects tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The model ended it, or a stop string did.
    Stop,
    /// The limit on its tokens was reached, or the context's end.
    Length,
    /// It was canceled.
    Canceled,
    /// The model made calls, and waits for their results.
    Calls,
    /// Markup of a call could not be read, and came as text.
    Malformed,
}

/// Segments of a choice so far, as far as its end depends on them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Calls that have begun.
    pub calls: usize,
    /// Markup of a call could not be read.
    pub malformed: bool,
}

impl Told {
    /// Takes the choice's next segment.
    pub(crate) fn take(&mut self, segment: &Segment) {
        match segment {
            Segment::Call { .. } => self.calls += 1,
            Segment::Malformed(_) | Segment::Unfinished(_) => self.malformed = true,
            Segment::Content(_) | Segment::Reasoning(_) | Segment::Arguments(_) => {}
        }
    }

    /// Reason for the end of a choice that told this. Who cannot trust one call is not asked to answer the others.
    pub(crate) fn ending(self, reason: FinishReason) -> Ending {
        match reason {
            FinishReason::Length => Ending::Length,
            FinishReason::Canceled => Ending::Canceled,
            FinishReason::Stop if self.malformed => Ending::Malformed,
            FinishReason::Stop if self.calls > 0 => Ending::Calls,
            FinishReason::Stop => Ending::Stop,
        }
    }
}

/// Counts the tokens of one choice whose text is reasoning.
#[derive(Debug, Clone, Copy, Default)]
struct Reasoning {
    /// Tokens since the last text, which may be markup of what comes.
    pending: usize,
}

impl Reasoning {
    /// Tokens that are known to be reasoning now that these segments have come, with one more token or without.
    fn take(&mut self, segments: &[Segment], token: bool) -> usize {
        self.pending += usize::from(token);
        match segments.first() {
            None => 0,
            Some(first) => {
                let tokens = std::mem::take(&mut self.pending);
                if matches!(first, Segment::Reasoning(_)) { tokens } else { 0 }
            }
        }
    }
}

/// The pieces of all choices as they come. Dropping it cancels the requests.
pub(super) struct Deltas {
    pieces: BoxStream<'static, (usize, Piece)>,
    choices: usize,
    names: Names,
    account: Arc<Account>,
    /// Choices that have not ended.
    open: usize,
    so_far: Cost,
    total: Cost,
    /// By choice.
    reasoning: Vec<Reasoning>,
    /// Calls by choice, where each may make one only.
    single: Option<Vec<usize>>,
}

enum Piece {
    Delta(Delta),
    Done(FinishReason, Option<String>, Usage),
    Failed(EngineError),
}

impl Deltas {
    /// The events of requests, `choices` for each prompt; the prompts have so many tokens in all.
    pub(super) fn new(
        requests: Vec<Events>,
        choices: usize,
        prompt_tokens: usize,
        names: Names,
        account: Arc<Account>,
    ) -> Self {
        account.entries().prompt_tokens = Some(prompt_tokens);
        let open = requests.len();
        let reasoning = vec![Reasoning::default(); open];
        let indexed = requests.into_iter().enumerate().map(|(choice, events)| {
            events.flat_map(|event| stream::iter(pieces(event))).map(move |piece| (choice, piece)).boxed()
        });
        let so_far = Cost { prompt_tokens, ..Cost::default() };
        let pieces = stream::select_all(indexed).boxed();
        Self { pieces, choices, names, account, open, so_far, total: Cost::default(), reasoning, single: None }
    }

    /// Each choice makes one call at most: what a model calls beyond that is left out.
    pub(super) fn of_one_call(self, single: bool) -> Self {
        let calls = vec![0; self.open];
        Self { single: single.then_some(calls), ..self }
    }

    /// The next piece and its choice's index, which counts over all prompts; `None` once every choice has ended.
    ///
    /// # Errors
    /// The end of all choices: one has failed.
    pub(super) async fn next(&mut self) -> Result<Option<(usize, Delta)>, ApiError> {
        if self.open == 0 {
            return Ok(None);
        }
        let Some((choice, piece)) = self.pieces.next().await else {
            return Err(ApiError::internal("the engine ended without finishing the answer"));
        };
        let delta = match piece {
            Piece::Failed(error) => return Err(self.names.error(error)),
            Piece::Delta(mut delta) => {
                if let Delta::Text { segments, token } = &delta {
                    self.so_far.reasoning_tokens += self.reasoning[choice].take(segments, token.is_some());
                    if token.is_some() {
                        self.so_far.completion_tokens += 1;
                        self.account.token();
                    }
                }
                if let (Some(calls), Delta::Text { segments, .. }) = (&mut self.single, &mut delta) {
                    leave_first_call(&mut calls[choice], segments);
                }
                delta
            }
            Piece::Done(reason, stop, usage) => {
                self.open -= 1;
                self.total.completion_tokens += usage.completion_tokens;
                // The end token is among them.
                self.account.entries().completion_tokens =
                    Some(self.so_far.completion_tokens.max(self.total.completion_tokens));
                if choice.is_multiple_of(self.choices) {
                    self.total.prompt_tokens += usage.prompt_tokens;
                    self.total.cached_tokens += usage.cached_tokens;
                }
                Delta::Done { reason, stop }
            }
        };
        Ok(Some((choice, delta)))
    }

    /// The cost as far as it is known.
    pub(super) fn so_far(&self) -> Cost {
        self.so_far
    }

    /// The cost of the choices that have ended, as the engine told it.
    pub(super) fn total(&self) -> Cost {
        Cost { reasoning_tokens: self.so_far.reasoning_tokens, ..self.total }
    }

    /// Every choice has ended.
    pub(super) fn ended(&self) -> bool {
        self.open == 0
    }
}

/// Removes segments of calls behind the first, where so many have begun before.
fn leave_first_call(calls: &mut usize, segments: &mut Vec<Segment>) {
    segments.retain(|segment| {
        *calls += usize::from(matches!(segment, Segment::Call { .. }));
        *calls <= 1 || !matches!(segment, Segment::Call { .. } | Segment::Arguments(_) | Segment::Unfinished(_))
    });
}

fn pieces(event: Event) -> impl Iterator<Item = Piece> {
    let text = |segments, token| Piece::Delta(Delta::Text { segments, token });
    let (first, second) = match event {
        Event::Prompt(run) => (Some(Piece::Delta(Delta::Prompt(run))), None),
        // Only requests for embeddings get one, and those are no answers.
        Event::Embedding(_) => (None, None),
        Event::Token(event) => {
            let token = Token { id: event.id, offset: event.offset, logprobs: event.logprobs };
            (Some(text(event.segments, Some(token))), None)
        }
        Event::Finished(finish) => {
            let rest = (!finish.segments.is_empty()).then(|| text(finish.segments, None));
            (rest, Some(Piece::Done(finish.reason, finish.stop, finish.usage)))
        }
        Event::Failed(error) => (Some(Piece::Failed(error)), None),
    };
    first.into_iter().chain(second)
}
