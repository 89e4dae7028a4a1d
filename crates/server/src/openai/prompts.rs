//! `prompt` of text completions and `input` of embeddings: texts or token ids, one or several.

use super::logprobs::offsets;
use crate::error::ApiError;
use crate::request::object::{TextOrList, at_most, text_or_list};
use crate::request::whole::TokenId;
use mlx_serving_runtime::Input;
use mlx_serving_text::Tokenizer;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess};

/// Prompts of one request at most.
const MAX_PROMPTS: usize = 64;

/// One prompt.
#[derive(Debug)]
pub(crate) enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

/// `prompt`: a text, its token ids, or a list of such, answered in order.
#[derive(Debug)]
pub(crate) struct Prompts<const MOST: usize = MAX_PROMPTS>(pub Vec<Prompt>);

/// The first entry of a list, which says what the list is.
enum First {
    Prompt(Prompt),
    Id(u32),
}

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_list(deserializer)
    }
}

impl<'de, const MOST: usize> Deserialize<'de> for Prompts<MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_list(deserializer)
    }
}

impl<'de> Deserialize<'de> for First {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_list(deserializer)
    }
}

/// The rest of a list of token ids behind those that there are.
fn ids<'de, A: SeqAccess<'de>>(mut list: A, mut ids: Vec<u32>) -> Result<Vec<u32>, A::Error> {
    while let Some(TokenId(id)) = list.next_element()? {
        ids.push(id);
    }
    Ok(ids)
}

impl TextOrList for Prompt {
    const EXPECTED: &'static str = "a string or a list of token ids";

    fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    fn list<'de, A: SeqAccess<'de>>(list: A) -> Result<Self, A::Error> {
        ids(list, Vec::new()).map(Self::Ids)
    }
}

impl TextOrList for First {
    const EXPECTED: &'static str = "a string, a token id, or a list of token ids";

    fn text(text: &str) -> Self {
        Self::Prompt(Prompt::text(text))
    }

    fn list<'de, A: SeqAccess<'de>>(list: A) -> Result<Self, A::Error> {
        Prompt::list(list).map(Self::Prompt)
    }

    fn number<E: Error>(id: i64) -> Result<Self, E> {
        u32::try_from(id).map(Self::Id).map_err(|_| E::custom(format!("is {id}, which is not a token id")))
    }
}

impl<const MOST: usize> TextOrList for Prompts<MOST> {
    const EXPECTED: &'static str = "a string, a list of strings, a list of token ids, or a list of such lists";

    fn text(text: &str) -> Self {
        Self(vec![Prompt::text(text)])
    }

    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        match list.next_element()? {
            None => Err(A::Error::custom("is empty; send at least one")),
            Some(First::Prompt(first)) => at_most(MOST, list, vec![first]).map(Self),
            Some(First::Id(first)) => Ok(Self(vec![Prompt::Ids(ids(list, vec![first])?)])),
        }
    }
}

impl Prompt {
    /// The prompt in no dialect. `special` puts the model's own begin and end tokens around a text.
    pub(crate) fn into_input(self, special: bool) -> Input {
        match self {
            Self::Text(text) => Input::Text { text, special },
            Self::Ids(ids) => Input::Ids(ids),
        }
    }

    /// It has neither text nor ids.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Ids(ids) => ids.is_empty(),
        }
    }

    /// Its text, if it came as one.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Ids(_) => None,
        }
    }
}

/// A prompt, echoed before its answer.
#[derive(Debug)]
pub(crate) struct Echo {
    pub text: String,
    pub chars: usize,
    /// Characters before each of its tokens, if log-probabilities are asked for.
    pub offsets: Option<Vec<usize>>,
}

impl Echo {
    /// Echo of a prompt with these ids, and this text if it came as one; `located` if log-probabilities are asked for.
    pub(crate) fn new(
        tokenizer: &Tokenizer,
        ids: &[u32],
        text: Option<String>,
        located: bool,
    ) -> Result<Self, ApiError> {
        let text = match text {
            Some(text) => text,
            None => tokenizer.decode(ids, false).map_err(|e| ApiError::internal(e.to_string()))?,
        };
        let offsets = located.then(|| offsets(tokenizer, ids, &text)).transpose()?;
        Ok(Self { chars: text.chars().count(), text, offsets })
    }
}
