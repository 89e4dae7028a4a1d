//! Log-probabilities as the two routes write them.

use crate::error::ApiError;
use crate::generation::Token;
use mlx_serving_engine::{Logprobs, PromptToken};
use mlx_serving_text::{Detokenizer, Tokenizer};
use serde_json::{Map, Value, json};

/// OpenAI's number for a token that is all but impossible: JSON has no infinity.
const UNLIKELY: f32 = -9999.0;

/// Names of tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenNames<'a> {
    pub tokenizer: &'a Tokenizer,
    /// `token_id:N` instead of text, as vLLM has it.
    pub as_ids: bool,
}

impl TokenNames<'_> {
    /// The token's name where a name must tell it from others. Special tokens have theirs, as vLLM has it, though an answer's text leaves
    /// them out; bytes that are part of a character are `bytes:\xNN`, as OpenAI has it.
    fn name(self, id: u32) -> String {
        if self.as_ids {
            return format!("token_id:{id}");
        }
        let bytes = self.tokenizer.token_bytes(id).unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_else(|e| {
            e.as_bytes().iter().fold("bytes:".to_owned(), |name, byte| format!("{name}\\x{byte:02x}"))
        })
    }

    /// A token of chat completions. Its bytes stand beside the name, in which U+FFFD is what is no whole character.
    fn described(self, id: u32, logprob: f32) -> Value {
        let bytes = self.tokenizer.token_bytes(id).unwrap_or_default();
        let name = if self.as_ids { self.name(id).into() } else { String::from_utf8_lossy(&bytes) };
        json!({ "token": name, "logprob": logprob.max(UNLIKELY), "bytes": bytes })
    }

    /// The entry of chat completions' `logprobs.content` for one token.
    pub(crate) fn chat(self, token: &Token) -> Option<Value> {
        let logprobs = token.logprobs.as_ref()?;
        let mut entry = self.described(token.id, logprobs.chosen);
        entry["top_logprobs"] = logprobs.top.iter().map(|&(id, p)| self.described(id, p)).collect();
        Some(entry)
    }
}

/// vLLM's list of a prompt's tokens, each an object of token ids: the token itself and the `top` most likely ones. Nothing predicts the
/// first. A rank is known of tokens that are among the most likely.
pub(crate) fn prompt_logprobs(tokenizer: &Tokenizer, tokens: &[PromptToken], top: usize) -> Value {
    let entry = |id: u32, logprob: f32, rank: Option<usize>| {
        let bytes = tokenizer.token_bytes(id).unwrap_or_default();
        json!({ "logprob": logprob.max(UNLIKELY), "rank": rank, "decoded_token": String::from_utf8_lossy(&bytes) })
    };
    let told = |token: &PromptToken| {
        let Some(logprobs) = &token.logprobs else { return Value::Null };
        let rank = logprobs.top.iter().position(|(id, _)| *id == token.id).map(|place| place + 1);
        let mut told = Map::from_iter([(token.id.to_string(), entry(token.id, logprobs.chosen, rank))]);
        for (place, &(id, logprob)) in logprobs.top.iter().take(top).enumerate() {
            told.entry(id.to_string()).or_insert_with(|| entry(id, logprob, Some(place + 1)));
        }
        Value::Object(told)
    };
    tokens.iter().map(told).collect()
}

/// Text completions' `logprobs` object.
#[derive(Debug)]
pub(crate) struct Columns<'a> {
    names: TokenNames<'a>,
    /// Alternatives beside each token.
    alternatives: usize,
    tokens: Vec<String>,
    chosen: Vec<Value>,
    top: Vec<Value>,
    offsets: Vec<usize>,
}

impl<'a> Columns<'a> {
    /// No tokens yet, of which each will have so many alternatives.
    pub(crate) fn new(names: TokenNames<'a>, alternatives: usize) -> Self {
        Self { names, alternatives, tokens: vec![], chosen: vec![], top: vec![], offsets: vec![] }
    }

    /// A prompt's tokens, each with the place of its text.
    pub(crate) fn prompt(mut self, tokens: &[PromptToken], offsets: &[usize]) -> Self {
        for (token, &offset) in tokens.iter().zip(offsets) {
            self.push(token.id, token.logprobs.as_ref(), offset);
        }
        self
    }

    /// An answer's tokens; the answer begins at character `start`.
    pub(crate) fn answer(mut self, tokens: &[Token], start: usize) -> Self {
        for token in tokens.iter().filter(|token| token.logprobs.is_some()) {
            self.push(token.id, token.logprobs.as_ref(), start + token.offset);
        }
        self
    }

    /// Nothing predicts a prompt's first token: null.
    fn push(&mut self, id: u32, logprobs: Option<&Logprobs>, offset: usize) {
        let name = self.names.name(id);
        self.chosen.push(logprobs.map_or(Value::Null, |l| json!(l.chosen.max(UNLIKELY))));
        self.top.push(logprobs.map_or(Value::Null, |l| Value::Object(self.likely(&name, l))));
        self.tokens.push(name);
        self.offsets.push(offset);
    }

    /// The most likely tokens and the chosen one. Of tokens with one name the more likely stays, but the chosen one always: clients look
    /// it up.
    fn likely(&self, chosen: &str, logprobs: &Logprobs) -> Map<String, Value> {
        let mut likely = Map::new();
        for &(id, p) in logprobs.top.iter().take(self.alternatives) {
            likely.entry(self.names.name(id)).or_insert_with(|| json!(p.max(UNLIKELY)));
        }
        likely.insert(chosen.to_owned(), json!(logprobs.chosen.max(UNLIKELY)));
        likely
    }

    pub(crate) fn into_json(self) -> Value {
        json!({
            "tokens": self.tokens, "token_logprobs": self.chosen,
            "top_logprobs": self.top, "text_offset": self.offsets,
        })
    }
}

/// Characters of `text` before each token's own. Tokens that the tokenizer adds around a text, such as a begin token, have no text of their
/// own, nor does a piece of a character: they stand where the next text begins. A character that no token finishes is a U+FFFD at its own
/// place.
pub(crate) fn offsets(tokenizer: &Tokenizer, ids: &[u32], text: &str) -> Result<Vec<usize>, ApiError> {
    let mut pieces = Detokenizer::new(tokenizer, false);
    let (mut rest, mut offset) = (text, 0);
    let mut offsets = Vec::with_capacity(ids.len());
    for &id in ids {
        let piece = pieces.push(id).map_err(|e| ApiError::internal(e.to_string()))?;
        let own = after(&piece.text, piece.before);
        let earlier = &piece.text[..piece.text.len() - own.len()];
        let mut pass = |part: &str| {
            // Some tokenizers put a space before a text, and some rewrite it: then the length is all there is to go by.
            let behind =
                rest.strip_prefix(part).or_else(|| rest.strip_prefix(part.trim_start())).unwrap_or_else(|| {
                    let known = tokenizer.is_special(id);
                    if known { rest } else { after(rest, part.chars().count()) }
                });
            offset += rest[..rest.len() - behind.len()].chars().count();
            rest = behind;
            offset
        };
        offsets.push(pass(earlier));
        pass(own);
    }
    Ok(offsets)
}

/// The text after its first `n` characters.
fn after(text: &str, n: usize) -> &str {
    text.char_indices().nth(n).map_or("", |(at, _)| &text[at..])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::path::Path;

    /// The bundled model's.
    pub(crate) fn tokenizer() -> Tokenizer {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/rustbook-5m-4bit");
        Tokenizer::from_dir(&dir).unwrap()
    }

    pub(crate) fn logprobs(chosen: f32, top: &[(u32, f32)]) -> Logprobs {
        Logprobs { chosen, top: top.to_vec() }
    }

    fn event(id: u32, offset: usize, logprobs: Logprobs) -> Token {
        Token { id, offset, logprobs: Some(logprobs) }
    }

    #[test]
    fn joined_names_are_the_text_and_pieces_of_characters_are_bytes() {
        let tokenizer = tokenizer();
        let text = "Each value in Rust, <|im_end|> 😀.\n\n";
        let ids = tokenizer.encode(text, false).unwrap();
        let names = TokenNames { tokenizer: &tokenizer, as_ids: false };
        let joined: String = ids.iter().map(|&id| names.name(id)).collect();
        let (before, after) = text.split_once('😀').unwrap();
        assert!(joined.starts_with(before) && joined.ends_with(after), "{joined}");
        assert!(joined.contains("bytes:\\xf0"), "{joined}");
        assert_eq!(TokenNames { tokenizer: &tokenizer, as_ids: true }.name(7), "token_id:7");
    }

    #[test]
    fn offsets_are_those_of_the_text_as_it_was_given() {
        let tokenizer = tokenizer();
        let text = "é 😀 <|im_end|> Ownership";
        let ids = tokenizer.encode(text, false).unwrap();
        let offsets = offsets(&tokenizer, &ids, text).unwrap();
        let names = TokenNames { tokenizer: &tokenizer, as_ids: false };
        for (&id, &offset) in ids.iter().zip(&offsets) {
            let name = names.name(id);
            assert!(name.starts_with("bytes:") || after(text, offset).starts_with(&name), "{name:?} at {offset}");
        }
        assert!(offsets.is_sorted());
    }

    #[test]
    fn a_character_that_is_never_finished_has_a_place_of_its_own() {
        let tokenizer = tokenizer();
        let ids = [165, 67, 68, 165];
        let text = tokenizer.decode(&ids, false).unwrap();
        assert_eq!((text.chars().count(), offsets(&tokenizer, &ids, &text).unwrap()), (4, vec![0, 1, 2, 3]));
    }

    #[test]
    fn a_begin_token_that_the_text_lacks_has_no_width() {
        let tokenizer = tokenizer();
        let mut ids = tokenizer.encode("<|im_start|>", false).unwrap();
        ids.extend(tokenizer.encode("Ownership is", false).unwrap());
        let offsets = offsets(&tokenizer, &ids, "Ownership is").unwrap();
        assert_eq!(offsets[..2], [0, 0]);
        assert_eq!(offsets.last(), Some(&"Ownership".len()));
    }

    #[test]
    fn the_chosen_token_is_among_the_likely_ones_with_its_own_value() {
        let tokenizer = tokenizer();
        let names = TokenNames { tokenizer: &tokenizer, as_ids: false };
        // Two lone bytes have names of their own; of two tokens with one name the more likely stays.
        let columns = Columns::new(names, 20).answer(
            &[
                event(70, 3, logprobs(-9.0, &[(71, -0.5)])),
                event(70, 4, logprobs(-0.5, &[])),
                event(70, 5, logprobs(-0.5, &[(70, -0.5), (71, -0.6), (71, -2.0)])),
            ],
            10,
        );
        let json = columns.into_json();
        let (a, b) = (names.name(70), names.name(71));
        assert_eq!(json["top_logprobs"], json!([{ &b: -0.5, &a: -9.0 }, { &a: -0.5 }, { &a: -0.5, &b: -0.6f32 }]));
        assert_eq!(json["text_offset"], json!([13, 14, 15]));
    }

    #[test]
    fn what_is_all_but_impossible_has_a_number() {
        let tokenizer = tokenizer();
        let names = TokenNames { tokenizer: &tokenizer, as_ids: true };
        let entry = names.chat(&event(5, 0, logprobs(f32::NEG_INFINITY, &[(6, f32::NEG_INFINITY)]))).unwrap();
        assert_eq!((&entry["logprob"], &entry["token"]), (&json!(UNLIKELY), &json!("token_id:5")));
        assert_eq!(entry["top_logprobs"][0]["logprob"], json!(UNLIKELY));
    }
}
