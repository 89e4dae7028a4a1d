use crate::error::RuntimeError;
use mlx_serving_engine::{Event, Finish, Sampling, Stream};
use mlx_serving_text::{Segment, content, reasoning};
use std::time::Duration;

/// Choice of an answer's tokens, and its end.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parameters {
    /// Choice of tokens.
    pub sampling: Sampling,
    /// Tokens of the answer at most. Without a number 512, or as many as the context has room for.
    pub max_tokens: Option<usize>,
    /// Strings that end it; they are not part of it.
    pub stop: Vec<String>,
}

impl Parameters {
    /// Tokens of an answer when no number is given.
    const MAX_TOKENS: usize = 512;

    /// The most tokens that an answer to `prompt` tokens may have in a context of `context`. A number that was given is the engine's to
    /// judge; the default gives way to the context.
    pub fn max_tokens(&self, prompt: usize, context: usize) -> usize {
        self.max_tokens.unwrap_or(Self::MAX_TOKENS.min(context.saturating_sub(prompt).max(1)))
    }
}

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The token that it came with; the last piece may have none.
    pub token: Option<u32>,
    /// Its text; empty while a character is incomplete, or while a stop string may have begun.
    pub text: String,
    /// Reasoning that came before the text.
    pub reasoning: String,
}

impl Piece {
    fn new(token: Option<u32>, segments: &[Segment]) -> Self {
        Self { token, text: content(segments), reasoning: reasoning(segments) }
    }
}

/// Outcome of a wait for the next piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// It has come.
    Piece(Piece),
    /// It has not come in time; the answer goes on.
    Late,
    /// There are no more.
    End,
}

/// An answer while it is generated: an iterator over its pieces, which blocks. Dropping it cancels the rest.
#[derive(Debug)]
pub struct Answer {
    stream: Stream,
    finish: Option<Finish>,
}

impl Answer {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, finish: None }
    }

    /// The next piece if it comes within `limit`, so that the caller can look about in between.
    ///
    /// # Errors
    /// The answer failed; nothing comes after that.
    pub fn next_within(&mut self, limit: Duration) -> Result<Next, RuntimeError> {
        loop {
            match self.stream.next_within(limit) {
                Err(_) => return Ok(Next::Late),
                Ok(event) => {
                    if let Some(next) = self.follow(event)? {
                        return Ok(next);
                    }
                }
            }
        }
    }

    /// Reason for the end, with the usage, once the last piece has come.
    pub fn finish(&self) -> Option<&Finish> {
        self.finish.as_ref()
    }

    /// Waits for the end; the whole text, with what is not read yet.
    ///
    /// # Errors
    /// The answer failed.
    pub fn text(&mut self) -> Result<String, RuntimeError> {
        self.map(|piece| Ok(piece?.text)).collect()
    }

    /// `None` where an event brings no piece.
    fn follow(&mut self, event: Option<Event>) -> Result<Option<Next>, RuntimeError> {
        let piece = match event {
            None => return Ok(Some(Next::End)),
            Some(Event::Prompt(_) | Event::Embedding(_)) => return Ok(None),
            Some(Event::Failed(error)) => return Err(error.into()),
            Some(Event::Token(token)) => Piece::new(Some(token.id), &token.segments),
            Some(Event::Finished(finish)) => {
                let piece = Piece::new(None, &self.finish.insert(finish).segments);
                if piece.text.is_empty() && piece.reasoning.is_empty() {
                    return Ok(Some(Next::End));
                }
                piece
            }
        };
        Ok(Some(Next::Piece(piece)))
    }
}

impl Iterator for Answer {
    type Item = Result<Piece, RuntimeError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let event = self.stream.next_blocking();
            match self.follow(event) {
                Ok(None | Some(Next::Late)) => {}
                Ok(Some(Next::Piece(piece))) => return Some(Ok(piece)),
                Ok(Some(Next::End)) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_length_gives_way_to_the_context_and_a_given_one_does_not() {
        let default = Parameters::default();
        assert_eq!(default.max_tokens(10, 4096), 512);
        assert_eq!(default.max_tokens(4000, 4096), 96);
        assert_eq!(default.max_tokens(5000, 4096), 1, "the engine refuses the prompt");
        let given = Parameters { max_tokens: Some(5000), ..Parameters::default() };
        assert_eq!(given.max_tokens(10, 4096), 5000);
    }
}
