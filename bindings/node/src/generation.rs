//! One answer, whose tokens TypeScript takes when it was woken.

use crate::failure::failure;
use mlx_serving_bindings as bindings;
use napi::bindgen_prelude::{Either, Either3, Null};
use napi_derive::napi;
use std::sync::Arc;

/// An answer that is being generated. Collecting it cancels it.
#[napi]
pub struct Generation {
    engine: Arc<bindings::Engine>,
    inner: bindings::Generation,
}

/// A token as the generator yields it.
#[napi(object, object_from_js = false)]
pub struct Token {
    /// Kind of the chunk, `token`.
    pub r#type: &'static str,
    /// Text that became final with it.
    pub token: String,
    /// Id of the token; null for text that was held back until the end.
    pub token_id: Either<u32, Null>,
    /// Log-probability of the token, if that was asked for.
    pub logprob: Option<f64>,
    /// Tokens most likely at its place, if they were asked for.
    pub top_logprobs: Option<Vec<Alternative>>,
}

/// A token that might have been chosen.
#[napi(object, object_from_js = false)]
pub struct Alternative {
    /// Id of the token.
    pub token_id: u32,
    /// Log-probability of the token.
    pub logprob: f64,
}

impl Generation {
    pub(crate) fn new(engine: Arc<bindings::Engine>, inner: bindings::Generation) -> Self {
        Self { engine, inner }
    }
}

#[napi]
impl Generation {
    /// Takes what has come: tokens, null for nothing yet, undefined for the end.
    #[napi]
    pub fn take(&mut self) -> napi::Result<Either3<Vec<Token>, Null, ()>> {
        let Self { engine, inner } = self;
        Ok(match engine.guard(|| inner.take()).map_err(failure)? {
            bindings::Taken::Tokens(tokens) => Either3::A(tokens.into_iter().map(Token::from).collect()),
            bindings::Taken::Pending => Either3::B(Null),
            bindings::Taken::End => Either3::C(()),
        })
    }

    /// Stops it.
    #[napi]
    pub fn cancel(&mut self) -> napi::Result<()> {
        let Self { engine, inner } = self;
        engine
            .guard(|| {
                inner.cancel();
                Ok(())
            })
            .map_err(failure)
    }

    /// Statistics of the answer, as JSON, once it has ended by itself.
    #[napi]
    pub fn summary(&self) -> Option<String> {
        serde_json::to_string(self.inner.summary()?).ok()
    }
}

impl From<bindings::Token> for Token {
    fn from(token: bindings::Token) -> Self {
        let bindings::Token { text, id, logprob, top } = token;
        let alternative = |(token_id, logprob): (u32, f32)| Alternative { token_id, logprob: logprob.into() };
        Self {
            r#type: "token",
            token: text,
            token_id: id.map_or(Either::B(Null), Either::A),
            logprob: logprob.map(f64::from),
            top_logprobs: (!top.is_empty()).then(|| top.into_iter().map(alternative).collect()),
        }
    }
}
