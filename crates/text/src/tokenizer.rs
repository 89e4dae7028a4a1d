//! `tokenizer.json` through the `tokenizers` crate.

use crate::byte_level::{self, byte_level};
use crate::config::{Config, read_text};
use crate::cuts::Cuts;
use crate::error::TextError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use tokenizers::{DecoderWrapper, Encoding, ModelWrapper, Token};

/// Text to token ids and back. Clones share one vocabulary.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    tokenizer: tokenizers::Tokenizer,
    cuts: Cuts,
    bytes: Bytes,
    vocab_size: u32,
    bos: Option<String>,
    eos: Option<String>,
}

/// A vocabulary's place for bytes that are no characters of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bytes {
    /// Every token is a string of bytes, each written as one printable character (GPT-2, Llama 3, Qwen).
    Level,
    /// 256 tokens `<0xHH>` beside tokens of whole characters (sentencepiece: Llama 2, Mistral, Gemma).
    Fallback,
    /// Nowhere: tokens are whole characters only.
    None,
}

impl Tokenizer {
    /// Loads `tokenizer.json` of a checkpoint folder, with the added and special tokens that
    /// `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` declare. Truncation and padding settings of the
    /// file are switched off: a prompt is never cut in silence.
    ///
    /// # Errors
    /// A file that is missing, unreadable, malformed, or at odds with the other.
    pub fn from_dir(dir: &Path) -> Result<Self, TextError> {
        let path = dir.join("tokenizer.json");
        let text = read_text(&path)?.ok_or_else(|| match dir.join("tokenizer.model").is_file() {
            true => TextError::Unconverted { path: path.clone(), dir: dir.to_owned() },
            false => TextError::Missing {
                path: path.clone(),
                hint: "the model needs a Hugging Face tokenizer; save one with transformers' AutoTokenizer(…).save_pretrained",
            },
        })?;
        let broken = |reason| TextError::Tokenizer { path: path.clone(), reason };
        let mut tokenizer = guarded(|| tokenizers::Tokenizer::from_bytes(text.as_bytes()).map_err(|e| e.to_string()))
            .map_err(broken)?;
        tokenizer.with_truncation(None).map_err(|e| broken(e.to_string()))?.with_padding(None);

        byte_level::settle_decoder(&mut tokenizer).map_err(broken)?;

        let config = Config::from_dir(dir)?;
        add_declared_tokens(&mut tokenizer, &config)?;
        let vocab = tokenizer.get_vocab(true);
        let vocab_size = vocab.values().max().map_or(0, |id| id.saturating_add(1));
        let cuts = Cuts::of(&tokenizer, &vocab);
        Ok(Self {
            inner: Arc::new(Inner {
                cuts,
                bytes: Bytes::of(tokenizer.get_decoder()),
                vocab_size,
                bos: config.special_token("bos_token").map(str::to_owned),
                eos: config.special_token("eos_token").map(str::to_owned),
                tokenizer,
            }),
        })
    }

    /// The ids of `text`. `add_special_tokens` puts the model's own begin and end tokens around it: wanted for
    /// a raw prompt, not for a rendered chat template, which writes them itself.
    ///
    /// # Errors
    /// [`TextError::Encode`] when the tokenizer has no token for some text and no unknown token either.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TextError> {
        let encode = || self.inner.tokenizer.encode_fast(text, add_special_tokens).map_err(|e| e.to_string());
        let encoding = guarded(encode).map_err(|reason| TextError::Encode { reason })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of a whole sequence. Ids outside the vocabulary have no text (some models pad their output
    /// layer with them); bytes that are no UTF-8 become U+FFFD. For a stream, use [`crate::Detokenizer`].
    ///
    /// # Errors
    /// [`TextError::Decode`] when the decoder that `tokenizer.json` configures fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TextError> {
        let ids: Vec<u32> = ids.iter().copied().filter(|&id| self.is_visible(id, skip_special)).collect();
        if ids.is_empty() {
            return Ok(String::new());
        }
        guarded(|| self.inner.tokenizer.decode(&ids, false).map_err(|e| e.to_string()))
            .map_err(|reason| TextError::Decode { reason })
    }

    /// The token as the vocabulary spells it, which is not always its text: `Ġthe`, `▁the`, `<0x0A>`.
    #[must_use]
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.tokenizer.id_to_token(id)
    }

    /// The id of a token in the vocabulary's spelling.
    #[must_use]
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.tokenizer.token_to_id(token)
    }

    /// The bytes that the token adds in the middle of a text; may be part of a character. Empty for an id
    /// outside the vocabulary.
    ///
    /// # Errors
    /// [`TextError::Decode`] when the decoder that `tokenizer.json` configures fails.
    pub fn token_bytes(&self, id: u32) -> Result<Vec<u8>, TextError> {
        let Some(token) = self.id_to_token(id) else { return Ok(Vec::new()) };
        match self.inner.bytes {
            Bytes::Level => Ok(byte_level(&token)),
            Bytes::Fallback if fallback_byte(&token).is_some() => Ok(fallback_byte(&token).into_iter().collect()),
            // After another token, so that rules for the beginning of a text do not apply.
            _ => Ok(self.text_after(&[id], id)?.into_bytes()),
        }
    }

    /// Size of the vocabulary: one more than the highest id. A model's output layer may be larger.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.vocab_size as usize
    }

    /// True for tokens such as `<|im_end|>` that mark structure and are not part of an answer.
    #[must_use]
    pub fn is_special(&self, id: u32) -> bool {
        let added = self.inner.tokenizer.get_added_vocabulary();
        added.simple_id_to_token(id).is_some_and(|token| added.is_special_token(&token))
    }

    /// `bos_token` of `tokenizer_config.json`.
    #[must_use]
    pub fn bos_token(&self) -> Option<&str> {
        self.inner.bos.as_deref()
    }

    /// `eos_token` of `tokenizer_config.json`. A model may end its answers with others too: see
    /// `generation_config.json`.
    #[must_use]
    pub fn eos_token(&self) -> Option<&str> {
        self.inner.eos.as_deref()
    }

    pub(crate) fn cuts(&self) -> &Cuts {
        &self.inner.cuts
    }

    /// The ids that are put before and after those of a text.
    pub(crate) fn frame(&self, add_special_tokens: bool) -> Result<(Vec<u32>, Vec<u32>), TextError> {
        let text = Encoding::from_tokens(vec![Token::new(u32::MAX, String::new(), (0, 0))], 0);
        let process = || self.inner.tokenizer.post_process(text, None, add_special_tokens).map_err(|e| e.to_string());
        let framed = guarded(process).map_err(|reason| TextError::Encode { reason })?;
        let mut parts = framed.get_ids().split(|&id| id == u32::MAX).map(<[u32]>::to_vec);
        Ok((parts.next().unwrap_or_default(), parts.next().unwrap_or_default()))
    }

    /// Drops the words that the model keeps the tokens of.
    pub(crate) fn forget_words(&self) {
        if let ModelWrapper::BPE(bpe) = self.inner.tokenizer.get_model() {
            bpe.clear_cache();
        }
    }

    pub(crate) fn bytes(&self) -> Bytes {
        self.inner.bytes
    }

    /// True if decoding looks at this id at all.
    pub(crate) fn is_visible(&self, id: u32, skip_special: bool) -> bool {
        self.inner.tokenizer.id_to_token(id).is_some() && !(skip_special && self.is_special(id))
    }

    /// The text that `id` adds to one whose last tokens are `context`: leading-space rules depend on them.
    pub(crate) fn text_after(&self, context: &[u32], id: u32) -> Result<String, TextError> {
        let before = self.decode(context, false)?;
        let mut after = self.decode(&[context, &[id]].concat(), false)?;
        // A decoder that rewrites what came before would be neither BPE nor sentencepiece nor word piece.
        if !after.starts_with(&before) {
            return self.decode(&[id], false);
        }
        Ok(after.split_off(before.len()))
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Inner { bytes, vocab_size, .. } = &*self.inner;
        f.debug_struct("Tokenizer").field("vocab_size", vocab_size).field("bytes", bytes).finish_non_exhaustive()
    }
}

impl Bytes {
    fn of(decoder: Option<&DecoderWrapper>) -> Self {
        match decoder {
            Some(DecoderWrapper::ByteLevel(_)) => Self::Level,
            Some(DecoderWrapper::ByteFallback(_)) => Self::Fallback,
            Some(DecoderWrapper::Sequence(sequence)) => {
                let has = |kind| sequence.get_decoders().iter().any(|decoder| Self::of(Some(decoder)) == kind);
                let only_bytes = |decoder: &DecoderWrapper| {
                    matches!(decoder, DecoderWrapper::ByteLevel(_) | DecoderWrapper::Fuse(_))
                };
                if has(Self::Level) && sequence.get_decoders().iter().all(only_bytes) {
                    Self::Level
                } else if has(Self::Fallback) {
                    Self::Fallback
                } else {
                    Self::None
                }
            }
            _ => Self::None,
        }
    }
}

/// Adds the tokens that only the files beside `tokenizer.json` have; all must agree on every id.
fn add_declared_tokens(tokenizer: &mut tokenizers::Tokenizer, config: &Config) -> Result<(), TextError> {
    for entry in config.added_tokens()? {
        let token = entry.token.content.clone();
        if tokenizer.token_to_id(&token).is_none() {
            tokenizer.add_tokens(std::slice::from_ref(&entry.token));
        }
        let actual = tokenizer.token_to_id(&token);
        if actual != Some(entry.id) {
            return Err(TextError::Contradiction {
                path: entry.path.to_owned(),
                token,
                declared: entry.id,
                actual: actual.map_or_else(|| "no id".to_owned(), |id| id.to_string()),
            });
        }
    }
    Ok(())
}

/// The `tokenizers` crate panics on some malformed settings (a `Strip` decoder longer than its token, for
/// one); to us that is a broken file like any other.
fn guarded<T>(f: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| Err("the tokenizers library panicked on it".to_owned()))
}

/// The byte that a token `<0xHH>` stands for.
pub(crate) fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}
