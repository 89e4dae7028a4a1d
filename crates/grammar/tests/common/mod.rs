//! Tokenizers, random numbers and random walks for tests.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

pub mod random;

use mlx_serving_grammar::{Compiler, Grammar, GrammarError, Matcher, Structure};
use mlx_serving_text::Tokenizer;
use std::path::Path;

/// A compiler, and what tests ask of its vocabulary.
pub struct Subject {
    pub tokenizer: Tokenizer,
    pub compiler: Compiler,
    pub vocab: usize,
    pub ends: Vec<u32>,
    bytes: Vec<Vec<u8>>,
    closing: Vec<bool>,
}

impl Subject {
    /// The bundled model's vocabulary: 4096 byte-level tokens, and some more of the output layer that the tokenizer does not know.
    pub fn bundled() -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/rustbook-5m-4bit");
        Self::new(Tokenizer::from_dir(&dir).unwrap(), 40)
    }

    /// The bundled model's, with the markers of calls: `<tool_call>` is text, as Qwen has it, and the others are special.
    pub fn with_markers() -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/rustbook-5m-4bit");
        let with = tempfile::tempdir().unwrap();
        std::fs::copy(dir.join("tokenizer.json"), with.path().join("tokenizer.json")).unwrap();
        let config = std::fs::read(dir.join("tokenizer_config.json")).unwrap();
        let mut config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        let first = Tokenizer::from_dir(&dir).unwrap().vocab_size();
        let markers = [
            "<tool_call>",
            "</tool_call>",
            "[TOOL_CALLS]",
            "[ARGS]",
            "[CALL_ID]",
            "<|tool_call>",
            "<tool_call|>",
            "<|\"|>",
            "<|python_tag|>",
            "<|start|>",
            "<|channel|>",
            "<|message|>",
            "<|constrain|>",
            "<|call|>",
            "<|return|>",
        ];
        for (i, marker) in markers.into_iter().enumerate() {
            config["added_tokens_decoder"][(first + i).to_string()] = serde_json::json!({
                "content": marker, "special": i > 1, "lstrip": false, "rstrip": false, "normalized": false, "single_word": false,
            });
        }
        std::fs::write(with.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        Self::new(Tokenizer::from_dir(with.path()).unwrap(), 2)
    }

    /// A small vocabulary as sentencepiece makes it: characters with `▁` for a space, and 256 tokens for bytes.
    pub fn metaspace() -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../text/tests/data/metaspace");
        Self::new(Tokenizer::from_dir(&dir).unwrap(), 3)
    }

    fn new(tokenizer: Tokenizer, padding: usize) -> Self {
        let vocab = tokenizer.vocab_size() + padding;
        let ends: Vec<u32> = tokenizer.eos_token().and_then(|token| tokenizer.token_to_id(token)).into_iter().collect();
        assert_eq!(ends.len(), 1);
        let bytes: Vec<Vec<u8>> = (0..vocab as u32).map(|id| tokenizer.token_bytes(id).unwrap()).collect();
        let closing = bytes.iter().map(|bytes| matches!(bytes.first(), Some(b'"' | b'}' | b']'))).collect();
        let compiler = Compiler::new(&tokenizer, vocab, &ends).unwrap();
        Self { compiler, vocab, ends, bytes, closing, tokenizer }
    }

    pub fn compile(&self, structure: &Structure) -> Result<Grammar, GrammarError> {
        self.compiler.compile(structure, &mut || true)
    }

    pub fn lark(&self, lark: &str) -> Grammar {
        self.compile(&Structure::Lark(lark.into())).unwrap()
    }

    /// The message of a refusal.
    pub fn refusal(&self, structure: &Structure) -> String {
        match self.compile(structure) {
            Err(GrammarError::Structure { message }) => message,
            other => panic!("{structure:?}: {other:?}"),
        }
    }

    /// Ids that may come next.
    pub fn allowed(&self, matcher: &mut Matcher) -> Result<Vec<u32>, GrammarError> {
        let mut words = vec![u32::MAX; self.vocab.div_ceil(32)];
        matcher.mask(&mut words)?;
        let set = |&id: &u32| words[id as usize / 32] >> (id % 32) & 1 == 1;
        let beyond = (self.vocab as u32..words.len() as u32 * 32).filter(set).count();
        assert_eq!(beyond, 0, "bits beyond the vocabulary");
        Ok((0..self.vocab as u32).filter(set).collect())
    }

    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    pub fn bytes(&self, id: u32) -> &[u8] {
        &self.bytes[id as usize]
    }

    /// The text of ids, end tokens left out.
    pub fn text(&self, ids: &[u32]) -> String {
        let bytes = ids.iter().filter(|&&id| !self.is_end(id)).flat_map(|&id| self.bytes(id).iter().copied()).collect();
        String::from_utf8(bytes).unwrap()
    }

    /// The text of ids with special tokens and bytes as they are.
    pub fn raw(&self, ids: &[u32]) -> String {
        self.tokenizer.decode(ids, false).unwrap()
    }

    /// True if a text is whole: the grammar takes it, and an end token may follow or nothing at all.
    pub fn takes(&self, grammar: &Grammar, text: &str) -> bool {
        let mut matcher = grammar.matcher();
        let ids = self.tokenizer.encode(text, false).unwrap();
        ids.iter().all(|&id| matcher.take(id).is_ok())
            && (matcher.ended() || self.allowed(&mut matcher).unwrap().iter().any(|&id| self.is_end(id)))
    }

    /// Takes random tokens that the grammar allows until the text ends. `None` where it does not within `most` tokens.
    pub fn walk(&self, grammar: &Grammar, rng: &mut Rng, most: usize) -> Option<Vec<u32>> {
        self.try_walk(grammar, rng, most).unwrap_or_else(|(error, text)| panic!("{error} after {text:?}"))
    }

    /// The same; an error of a step, and the text before it, where the answer cannot go on.
    pub fn try_walk(
        &self,
        grammar: &Grammar,
        rng: &mut Rng,
        most: usize,
    ) -> Result<Option<Vec<u32>>, (GrammarError, String)> {
        let (mut matcher, mut ids) = (grammar.matcher(), Vec::new());
        while !matcher.ended() {
            if ids.len() == most {
                return Ok(None);
            }
            let allowed = self.allowed(&mut matcher).map_err(|error| (error, self.text(&ids)))?;
            assert!(!allowed.is_empty(), "nothing is allowed after {:?}", self.text(&ids));
            let end = allowed.iter().copied().find(|&id| self.is_end(id)).filter(|_| rng.below(3) == 0);
            let closing: Vec<u32> = allowed.iter().copied().filter(|&id| self.closing[id as usize]).collect();
            let pick = match end {
                Some(end) => end,
                None if !closing.is_empty() && rng.below(4) > 0 => closing[rng.below(closing.len())],
                None => allowed[rng.below(allowed.len())],
            };
            matcher.take(pick).unwrap_or_else(|e| panic!("{pick} was allowed after {:?}: {e}", self.text(&ids)));
            ids.push(pick);
        }
        Ok(Some(ids))
    }
}

/// xorshift64*.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    pub fn chance(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}
