//! A model's answer, in no dialect.

use super::ask::Names;
use crate::account::Account;
use crate::error::ApiError;
use futures::stream::{self, BoxStream, StreamExt};
use mlx_serving_engine::{EngineError, Event, FinishReason, Logprobs, PromptToken, Usage};
use mlx_serving_runtime::Events;
use std::sync::Arc;

/// A piece of what a model answers.
#[derive(Debug)]
pub(crate) enum Delta {
    /// Tokens of the prompt, in order, where their log-probabilities were asked for; before everything else.
    Prompt(Vec<PromptToken>),
    /// Text that became final, empty while a character or a possible stop string is incomplete, and the token that it came with. What was
    /// held back to the end comes without one.
    Text { text: String, token: Option<Token> },
    /// The end of a choice.
    Done { reason: FinishReason },
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
}

/// One choice, whole.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub prompt: Vec<PromptToken>,
    pub text: String,
    pub tokens: Vec<Token>,
    /// Reason for its end; none before.
    pub finish: Option<FinishReason>,
}

impl Answer {
    /// Takes its next piece.
    pub(crate) fn take(&mut self, delta: Delta) {
        match delta {
            Delta::Prompt(run) => self.prompt.extend(run),
            Delta::Text { text, token } => {
                self.text += &text;
                self.tokens.extend(token);
            }
            Delta::Done { reason } => self.finish = Some(reason),
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
}

enum Piece {
    Delta(Delta),
    Done(FinishReason, Usage),
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
        let indexed = requests.into_iter().enumerate().map(|(choice, events)| {
            events.flat_map(|event| stream::iter(pieces(event))).map(move |piece| (choice, piece)).boxed()
        });
        let so_far = Cost { prompt_tokens, ..Cost::default() };
        let pieces = stream::select_all(indexed).boxed();
        Self { pieces, choices, names, account, open, so_far, total: Cost::default() }
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
            Piece::Delta(delta) => {
                if matches!(delta, Delta::Text { token: Some(_), .. }) {
                    self.so_far.completion_tokens += 1;
                    self.account.token();
                }
                delta
            }
            Piece::Done(reason, usage) => {
                self.open -= 1;
                self.total.completion_tokens += usage.completion_tokens;
                // The end token is among them.
                self.account.entries().completion_tokens =
                    Some(self.so_far.completion_tokens.max(self.total.completion_tokens));
                if choice.is_multiple_of(self.choices) {
                    self.total.prompt_tokens += usage.prompt_tokens;
                    self.total.cached_tokens += usage.cached_tokens;
                }
                Delta::Done { reason }
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
        self.total
    }

    /// Every choice has ended.
    pub(super) fn ended(&self) -> bool {
        self.open == 0
    }
}

fn pieces(event: Event) -> impl Iterator<Item = Piece> {
    let text = |text, token| Piece::Delta(Delta::Text { text, token });
    let (first, second) = match event {
        Event::Prompt(run) => (Some(Piece::Delta(Delta::Prompt(run))), None),
        Event::Token(event) => {
            let token = Token { id: event.id, offset: event.offset, logprobs: event.logprobs };
            (Some(text(event.text, Some(token))), None)
        }
        Event::Finished(finish) => {
            let rest = (!finish.text.is_empty()).then(|| text(finish.text, None));
            (rest, Some(Piece::Done(finish.reason, finish.usage)))
        }
        Event::Failed(error) => (Some(Piece::Failed(error)), None),
    };
    first.into_iter().chain(second)
}
