//! `prompt` of text completions: texts or token ids, one or several.

use crate::admission::Work;
use crate::encode::encode;
use crate::error::ApiError;
use crate::logprobs::offsets;
use crate::object::{TextOrList, at_most, text_or_list};
use mlx_serving_runtime::{Generate, Input};
use mlx_serving_text::Tokenizer;
use serde::de::value::SeqAccessDeserializer;
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
pub(crate) struct Prompts(pub Vec<Prompt>);

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

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_list(deserializer)
    }
}

impl<'de> Deserialize<'de> for First {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_list(deserializer)
    }
}

impl TextOrList for Prompt {
    const EXPECTED: &'static str = "a string or a list of token ids";

    fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    fn list<'de, A: SeqAccess<'de>>(list: A) -> Result<Self, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(Self::Ids)
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

    fn number<E: Error>(id: u64) -> Result<Self, E> {
        u32::try_from(id).map(Self::Id).map_err(|_| E::custom(format!("is {id}, which is no token id")))
    }
}

impl TextOrList for Prompts {
    const EXPECTED: &'static str = "a string, a list of strings, a list of token ids, or a list of such lists";

    fn text(text: &str) -> Self {
        Self(vec![Prompt::text(text)])
    }

    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        match list.next_element()? {
            None => Err(A::Error::custom("is empty; send at least one")),
            Some(First::Prompt(first)) => at_most(MAX_PROMPTS, list, vec![first]).map(Self),
            Some(First::Id(first)) => {
                let mut ids = vec![first];
                while let Some(id) = list.next_element()? {
                    ids.push(id);
                }
                Ok(Self(vec![Prompt::Ids(ids)]))
            }
        }
    }
}

impl Prompt {
    /// Its ids, and its text if that is to be echoed. `special` puts the model's own begin and end tokens around a text.
    ///
    /// # Errors
    /// 400 for `prompt`.
    pub(crate) fn encode(
        self,
        model: &dyn Generate,
        special: bool,
        echo: bool,
        work: &Work,
    ) -> Result<(Vec<u32>, Option<String>), ApiError> {
        match self {
            Self::Text(text) => {
                let echoed = echo.then(|| text.clone());
                Ok((encode(model, Input::Text { text, special }, work)?, echoed))
            }
            Self::Ids(ids) => {
                let ids = encode(model, Input::Ids(ids), work)?;
                let text = echo.then(|| model.tokenizer().decode(&ids, false)).transpose();
                Ok((ids, text.map_err(|e| ApiError::internal(e.to_string()))?))
            }
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
    /// Of a prompt with these ids and this text; `located` if log-probabilities are asked for.
    pub(crate) fn new(tokenizer: &Tokenizer, ids: &[u32], text: String, located: bool) -> Result<Self, ApiError> {
        let offsets = located.then(|| offsets(tokenizer, ids, &text)).transpose()?;
        Ok(Self { chars: text.chars().count(), text, offsets })
    }
}
