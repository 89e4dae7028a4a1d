//! `POST /v1/embeddings`

use super::prompts::{Prompt, Prompts};
use crate::admission::{Charge, Work};
use crate::error::{ApiError, shorten};
use crate::generation::{Names, off_thread};
use crate::request::Body;
use crate::request::object::{object, word};
use crate::request::whole::Whole;
use crate::state::AppState;
use axum::extract::State;
use axum::response::Response;
use futures::stream::{FuturesUnordered, StreamExt};
use mlx_serving_engine::{EngineError, Event};
use mlx_serving_runtime::{Events, Generate, Input, PromptError};
use serde::Serialize;
use serde::de::{Deserialize, Deserializer};
use std::sync::Arc;

/// Inputs of one request at most, as OpenAI has it.
const MAX_INPUTS: usize = 2048;
/// Inputs of one request that run or wait at once: as many as a step takes by default. The rest follows as these end, so that others find
/// places too.
const AT_ONCE: usize = 32;
/// Bytes of JSON around a vector.
const ENTRY: usize = 64;

object! {
    /// The body.
    pub(crate) struct EmbeddingRequest {
        model: String,
        input: Prompts<MAX_INPUTS> = required,
        dimensions: Whole,
        encoding_format: Encoding,
        /// Begin and end tokens are put around a text.
        add_special_tokens: bool,
        /// Goes to the log.
        user: String,
    }
}

/// `encoding_format`: the form of a vector in the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// A list of numbers.
    #[default]
    Float,
    /// The bytes of its 32-bit floats, little-endian, in base64.
    Base64,
}

impl<'de> Deserialize<'de> for Encoding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |format| match format {
            "float" => Ok(Self::Float),
            "base64" => Ok(Self::Base64),
            other => Err(format!("is {:?}, which is none of float and base64", shorten(other))),
        })
    }
}

const NAMES: Names = Names(&[("prompt", "input")]);

impl EmbeddingRequest {
    /// Dimensions of the vectors, of the `width` that the model's have.
    fn dimensions(&self, width: usize) -> Result<usize, ApiError> {
        let Some(Whole(asked)) = self.dimensions else { return Ok(width) };
        let within = usize::try_from(asked).ok().filter(|dimensions| (1..=width).contains(dimensions));
        let message = || format!("dimensions is {asked}; this model's embeddings have 1 to {width}");
        within.ok_or_else(|| ApiError::invalid("dimensions", message()))
    }

    /// The token ids of every input.
    fn prompts(self, model: &dyn Generate, work: &Work) -> Result<Vec<Vec<u32>>, ApiError> {
        let special = self.add_special_tokens.unwrap_or(true);
        let count = self.input.0.len();
        let ids = |(i, prompt): (usize, Prompt)| {
            let encoded = match prompt.is_empty() {
                true => Err(ApiError::invalid("input", "there is nothing to embed in it; send at least one token")),
                false => encode(model, prompt.into_input(special), work),
            };
            encoded.map_err(|error| if count == 1 { error } else { error.of_entry(&format!("input[{i}]")) })
        };
        self.input.0.into_iter().enumerate().map(ids).collect()
    }

    /// Checks all that can be without a model; for fuzzing.
    pub(crate) fn check(self) {
        // Refusals are as good as requests here: neither may panic.
        let _ = self.dimensions(64);
    }
}

/// The token ids of an input. There is no answer with which it would have to share the context.
fn encode(model: &dyn Generate, input: Input, work: &Work) -> Result<Vec<u32>, ApiError> {
    let prepared = model.prepare(input, None, &mut || work.goes_on());
    prepared.map(|prepared| prepared.ids).map_err(|error| match error {
        PromptError::TooLong { tokens, exact, .. } => {
            let (least, context) = (if exact { "" } else { "at least " }, model.card().info.max_context);
            let message = format!(
                "the input has {least}{tokens} tokens; this model's maximum context length is {context} tokens"
            );
            ApiError::context_length("input", message)
        }
        error => NAMES.unprepared(&error, false),
    })
}

/// Embeds texts.
pub(crate) async fn embeddings(
    State(state): State<Arc<AppState>>,
    Body(request, permit, account): Body<EmbeddingRequest>,
) -> Result<Response, ApiError> {
    let model = state.model(request.model.as_deref())?;
    let id = model.card().id.clone();
    account.entries().model = Some(id.clone());
    if let Some(user) = &request.user {
        tracing::debug!(user, model = id, "embeddings");
    }
    let dimensions = request.dimensions(model.card().info.width)?;
    let format = request.encoding_format.unwrap_or_default();
    let bytes = request.input.0.len() * (ENTRY + format.bytes(dimensions));
    state.unread.holds(
        bytes,
        "input",
        "send fewer inputs, ask for fewer dimensions, or for encoding_format \"base64\"",
    )?;
    let prompts = off_thread(permit, &model, move |model, work| request.prompts(model, work)).await?;
    let prompt_tokens = prompts.iter().map(Vec::len).sum();
    account.entries().prompt_tokens = Some(prompt_tokens);
    let charge = state.unread.charge("input");
    let vectors = vectors(&*model, prompts, dimensions, &charge).await?;
    let build = move || {
        let entry = |(index, vector)| Entry { object: "embedding", index, embedding: format.values(vector) };
        let data = vectors.into_iter().enumerate().map(entry).collect();
        List { object: "list", data, model: id, usage: Usage { prompt_tokens, total_tokens: prompt_tokens } }
    };
    state.admission.whole(charge, build).await
}

/// The vectors of all prompts, in their order.
async fn vectors(
    model: &dyn Generate,
    prompts: Vec<Vec<u32>>,
    dimensions: usize,
    charge: &Charge,
) -> Result<Vec<Vec<f32>>, ApiError> {
    let embedder = model.card().embedder;
    let mut vectors = vec![Vec::new(); prompts.len()];
    let mut waiting = prompts.into_iter().enumerate().peekable();
    let mut under_way = FuturesUnordered::new();
    loop {
        while under_way.len() < AT_ONCE
            && let Some(&(i, ref prompt)) = waiting.peek()
        {
            match model.submit(vec![embedder.request(prompt.clone())]) {
                Ok(events) => under_way.extend(events.into_iter().map(|events| pooled(i, events))),
                // Others have taken the places meanwhile: those that this request holds come free.
                Err(EngineError::Overloaded { .. }) if !under_way.is_empty() => break,
                Err(error) => return Err(NAMES.error(error)),
            }
            waiting.next();
        }
        let Some(done) = under_way.next().await else { return Ok(vectors) };
        let (i, pooled) = done?;
        vectors[i] = embedder.vector(pooled, dimensions);
        charge.text(size_of_val(&vectors[i][..]), None)?;
    }
}

/// The pooled hidden states of prompt number `i`, once its place is free again.
async fn pooled(i: usize, mut events: Events) -> Result<(usize, Vec<f32>), ApiError> {
    let mut pooled = None;
    loop {
        match events.next().await {
            Some(Event::Embedding(values)) => pooled = Some(values),
            Some(Event::Prompt(_) | Event::Token(_)) => {}
            Some(Event::Failed(error)) => return Err(NAMES.error(error)),
            Some(Event::Finished(_)) | None => {
                let lost = || ApiError::internal("the engine ended without the embedding");
                return pooled.map(|values| (i, values)).ok_or_else(lost);
            }
        }
    }
}

/// The answer.
#[derive(Serialize)]
struct List {
    object: &'static str,
    data: Vec<Entry>,
    model: String,
    usage: Usage,
}

#[derive(Serialize)]
struct Entry {
    object: &'static str,
    index: usize,
    embedding: Values,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Values {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

impl Encoding {
    /// Bytes of JSON that so many dimensions take at most, what is around them left out.
    fn bytes(self, dimensions: usize) -> usize {
        match self {
            // A sign, nine digits, a point, an exponent, a comma.
            Self::Float => 16 * dimensions,
            Self::Base64 => (4 * dimensions).div_ceil(3) * 4,
        }
    }

    fn values(self, vector: Vec<f32>) -> Values {
        match self {
            Self::Float => Values::Float(vector),
            Self::Base64 => Values::Base64(base64(vector.iter().flat_map(|value| value.to_le_bytes()))),
        }
    }
}

/// Bytes in base64 (RFC 4648), padded.
fn base64(bytes: impl Iterator<Item = u8>) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut text, mut bytes) = (String::new(), bytes.peekable());
    while bytes.peek().is_some() {
        let group = [bytes.next(), bytes.next(), bytes.next()];
        let word = group.iter().fold(0, |word, byte| word << 8 | usize::from(byte.unwrap_or(0)));
        let digit = |place: usize| char::from(ALPHABET[word >> (18 - 6 * place) & 63]);
        text.extend([digit(0), digit(1)]);
        text.push(if group[1].is_some() { digit(2) } else { '=' });
        text.push(if group[2].is_some() { digit(3) } else { '=' });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.bytes()), text);
        }
        assert_eq!(base64([0xfb, 0xff, 0xbf].into_iter()), "+/+/");
    }

    #[test]
    fn no_entry_takes_more_bytes_than_a_vector_and_what_is_reckoned_for_the_rest() {
        let entry = Entry { object: "embedding", index: MAX_INPUTS, embedding: Values::Float(vec![]) };
        assert!(serde_json::to_string(&entry).unwrap().len() < ENTRY);
    }

    #[test]
    fn no_vector_takes_more_bytes_than_were_reckoned() {
        let values = [-1.234_567_8e-38, -0.000_012_345_679, f32::MIN, f32::MIN_POSITIVE, 1.0, -0.0, f32::from_bits(1)];
        for format in [Encoding::Float, Encoding::Base64] {
            for dimensions in 1..values.len() {
                let embedding = format.values(values[..dimensions].to_vec());
                let json = serde_json::to_string(&embedding).unwrap();
                // Brackets or quotes are around them.
                assert!(json.len() - 2 <= format.bytes(dimensions), "{json}");
            }
        }
    }
}
