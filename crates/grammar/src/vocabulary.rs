//! A model's tokens, as llguidance knows them: a trie of their bytes, and the tokens that a text is canonically cut into.

use crate::error::{GrammarError, reason};
use llguidance::panic_utils::catch_unwind;
use llguidance::toktrie::{INVALID_TOKEN, TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use mlx_serving_text::Tokenizer;
use std::panic::AssertUnwindSafe;

/// Text before a text: sentencepiece tokenizers put a space before the first character, which one in the middle must not have.
const BEFORE: &str = "\n";

pub(crate) struct Vocabulary {
    tokenizer: Tokenizer,
    trie: TokTrie,
}

impl Vocabulary {
    /// The tokens of an output layer of `size` ids. Those that the tokenizer does not know have no bytes, so that no grammar allows them.
    pub(crate) fn new(tokenizer: &Tokenizer, size: usize, ends: &[u32]) -> Result<Self, GrammarError> {
        let fault =
            |message: String| GrammarError::structure(format!("no grammar can be enforced for this model: {message}"));
        let size = u32::try_from(size).map_err(|e| fault(e.to_string()))?;
        let mut words = Vec::with_capacity(size as usize);
        for id in 0..size {
            words.push(bytes(tokenizer, id).map_err(|e| fault(format!("token {id} has no text: {e}")))?);
        }
        let ends: Vec<u32> = ends.iter().copied().filter(|&id| id < size).collect();
        let info = TokRxInfo::new(size, ends.first().copied().unwrap_or(INVALID_TOKEN));
        let build = || {
            let trie = TokTrie::from(&info, &words);
            Ok(if ends.is_empty() { trie } else { trie.with_eos_tokens(&ends) })
        };
        let trie = catch_unwind(AssertUnwindSafe(build)).map_err(|e| fault(reason(&e)))?;
        Ok(Self { tokenizer: tokenizer.clone(), trie })
    }

    /// The ids that the tokenizer makes of a text, if their bytes are those of the text: one that reads a special token in it, or begins
    /// it with a space of its own, says something else.
    fn encode(&self, text: &str) -> Option<Vec<u32>> {
        let exact = |ids: &[u32], bytes: &[u8]| -> bool {
            let mut rest = bytes;
            ids.iter().all(|&id| match rest.strip_prefix(self.trie.token(id)) {
                Some(after) if !self.trie.token(id).is_empty() => {
                    rest = after;
                    true
                }
                _ => false,
            }) && rest.is_empty()
        };
        let ids = self.tokenizer.encode(text, false).ok()?;
        if exact(&ids, text.as_bytes()) {
            return Some(ids);
        }
        let ids = self.tokenizer.encode(&[BEFORE, text].concat(), false).ok()?;
        let start = (0..=ids.len()).find(|&start| exact(&ids[start..], text.as_bytes()))?;
        Some(ids[start..].to_vec())
    }
}

/// The bytes of a token in the middle of a text. Special tokens are no text: llguidance knows them by a byte that no text has.
fn bytes(tokenizer: &Tokenizer, id: u32) -> Result<Vec<u8>, mlx_serving_text::TextError> {
    if !tokenizer.is_special(id) {
        return tokenizer.token_bytes(id);
    }
    let name = tokenizer.id_to_token(id).unwrap_or_default();
    Ok([&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat())
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let mut ids = Vec::new();
        for chunk in bytes.utf8_chunks() {
            let text = chunk.valid();
            ids.extend(self.encode(text).unwrap_or_else(|| self.trie.greedy_tokenize(text.as_bytes())));
            ids.extend(self.trie.greedy_tokenize(chunk.invalid()));
        }
        ids
    }
}
