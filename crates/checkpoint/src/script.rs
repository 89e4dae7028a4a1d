//! Scripted checkpoints: models that say what they are told, so that streams, markup and stop strings have exact answers.
//!
//! The next token is a table of the last one. Embeddings are one-hot, attention and feed-forward add nothing, and the head's column of a
//! token is its row of the table: logit(r) = W\[r, t\] · √H after token t, which no arithmetic rounds to another order. Rows lie √H apart,
//! so that sampling changes nothing either.
//!
//! Under a grammar that forbids what the table says, the model closes what is open as soon as it may: it prefers its end, then `"`, `}`, `]`
//! and so on. Answers that have to follow a schema are therefore short and valid.

use crate::{CheckpointError, Result};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Character that tells tokens of the same text apart; the decoder drops it.
const MARK: char = '\u{E000}';
/// Characters of a token where an answer is not cut by hand.
const PIECE: usize = 4;
/// Tokens of a vocabulary at most: both tables grow with its square.
const MAX_VOCAB: usize = 4096;
/// Width of what adds nothing.
const IDLE: usize = 64;
const START: &str = "<|im_start|>";
const END: &str = "<|im_end|>";
/// Preference for the next token of an answer, above all [`CLOSING`].
const NEXT: f32 = 16.0;
/// Texts that are preferred where the answer's next token is forbidden, the best first and behind [`END`]. Quotes come before brackets, which
/// would go on in a string.
const CLOSING: [&str; 8] = ["\"", "}", "]", ":", ",", "0", "{", "["];

/// Answers of a scripted model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Answers by name: one follows a prompt that ends with `<|answer:NAME|>`, which the chat template writes.
    #[serde(deserialize_with = "answers")]
    pub answers: BTreeMap<String, Answer>,
    /// The model's chat template, if it has one.
    #[serde(default)]
    pub chat_template: Option<String>,
    /// Tokens that the tokenizer finds in text, such as `<tool_call>`. One of them can stand once in all answers.
    #[serde(default)]
    pub added_tokens: Vec<AddedToken>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// A text, cut into pieces of four characters.
    Text(String),
    /// A text token by token.
    Tokens(Vec<String>),
}

/// Answers by name; errors tell which of them is at fault.
fn answers<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<BTreeMap<String, Answer>, D::Error> {
    let answer = |(name, value): (String, Value)| match serde_json::from_value(value) {
        Ok(answer) => Ok((name, answer)),
        Err(_) => Err(D::Error::custom(format!("answer {name} has to be a text, or a list of texts, one a token"))),
    };
    BTreeMap::<String, Value>::deserialize(deserializer)?.into_iter().map(answer).collect()
}

/// A token beside the vocabulary.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddedToken {
    /// Its text.
    pub content: String,
    /// Does not appear in decoded text.
    #[serde(default)]
    pub special: bool,
}

impl Script {
    /// A script from its file's JSON.
    ///
    /// # Errors
    /// [`CheckpointError::Synth`], which names the place.
    pub fn parse(json: &[u8]) -> Result<Self> {
        serde_json::from_slice(json).map_err(|e| CheckpointError::Synth(format!("the script cannot be read: {e}")))
    }

    /// Writes checkpoint, configuration and tokenizer into `dir`, which is made if need be.
    ///
    /// # Errors
    /// [`CheckpointError::Synth`] for a script that cannot be a model, [`CheckpointError::Read`] for files that cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let mut vocab = Vocabulary::new(&self.added_tokens);
        let openers: Vec<String> = self.answers.keys().map(|name| format!("<|answer:{name}|>")).collect();
        openers.iter().try_for_each(|opener| vocab.add(opener, true))?;
        let mut next: HashMap<usize, usize> = HashMap::new();
        for (opener, (name, answer)) in openers.iter().zip(&self.answers) {
            let mut last = vocab.ids[opener];
            for text in answer.tokens() {
                let id =
                    vocab.step(&text).map_err(|fault| CheckpointError::Synth(format!("answer {name}: {fault}")))?;
                next.insert(last, id);
                last = id;
            }
            next.insert(last, vocab.ids[END]);
        }
        if vocab.tokens.len() > MAX_VOCAB {
            let message =
                format!("the script needs {} tokens, but at most {MAX_VOCAB} are possible", vocab.tokens.len());
            return Err(CheckpointError::Synth(message));
        }
        let usual = vocab.usual();
        let rows = |token: usize| {
            let step = next.get(&token).map(|&next| (next, NEXT));
            usual.iter().copied().filter(|&(row, _)| step.is_none_or(|(next, _)| next != row)).chain(step).collect()
        };
        let mut config = json!({ "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": null, "eos_token": END,
                                 "clean_up_tokenization_spaces": false });
        if let Some(template) = &self.chat_template {
            config["chat_template"] = json!(template);
        }
        write_table(dir, vocab.tokens.len(), vocab.ids[END], &rows)?;
        write_files(dir, &[("tokenizer.json", &vocab.file()), ("tokenizer_config.json", &config)])
    }
}

impl Answer {
    fn tokens(&self) -> Vec<String> {
        match self {
            Answer::Tokens(tokens) => tokens.clone(),
            Answer::Text(text) => {
                let chars: Vec<char> = text.chars().collect();
                chars.chunks(PIECE).map(|piece| piece.iter().collect()).collect()
            }
        }
    }
}

/// Bytes, printable ASCII and the tokens of the answers, each found in no text; then the added ones.
struct Vocabulary {
    /// Tokens by their ids.
    tokens: Vec<String>,
    ids: HashMap<String, usize>,
    /// Tokens that the tokenizer finds in text, and whether they are special.
    added: Vec<(usize, bool)>,
    /// Uses of a text so far.
    used: HashMap<String, usize>,
}

impl Vocabulary {
    fn new(added: &[AddedToken]) -> Self {
        let mut this = Self { tokens: Vec::new(), ids: HashMap::new(), added: Vec::new(), used: HashMap::new() };
        (0..=255u8).for_each(|byte| _ = this.push(format!("<0x{byte:02X}>")));
        (' '..='~').for_each(|c| _ = this.push(c.to_string()));
        for (content, special) in
            [(START, true), (END, true)].into_iter().chain(added.iter().map(|a| (a.content.as_str(), a.special)))
        {
            if !this.ids.contains_key(content) {
                let id = this.push(content.to_owned());
                this.added.push((id, special));
            }
        }
        this
    }

    fn push(&mut self, token: String) -> usize {
        let id = self.tokens.len();
        self.ids.insert(token.clone(), id);
        self.tokens.push(token);
        id
    }

    fn add(&mut self, content: &str, special: bool) -> Result<()> {
        if self.ids.contains_key(content) {
            return Err(CheckpointError::Synth(format!("{content:?} is a token already")));
        }
        let id = self.push(content.to_owned());
        self.added.push((id, special));
        Ok(())
    }

    /// A token of this text that nothing else is.
    fn step(&mut self, text: &str) -> std::result::Result<usize, String> {
        if text.is_empty() || text.contains(MARK) {
            return Err(format!("{text:?} cannot be a token: it is empty or has U+E000"));
        }
        let uses = self.used.entry(text.to_owned()).or_default();
        *uses += 1;
        let added = self.ids.get(text).copied().filter(|id| self.added.iter().any(|(other, _)| other == id));
        match added {
            Some(id) if *uses == 1 && text != END => Ok(id),
            Some(_) => Err(format!("{text:?} is an added token, which can stand once in all answers")),
            None => {
                let marks = MARK.to_string().repeat(*uses);
                Ok(self.push(format!("{text}{marks}")))
            }
        }
    }

    /// Preferences after every token: what closes an answer first, then printable characters; white space and bytes last, which
    /// could go on forever.
    fn usual(&self) -> Vec<(usize, f32)> {
        let best = [END].iter().chain(&CLOSING).zip(0u8..).map(|(text, i)| (self.ids[*text], 12.0 - f32::from(i)));
        let best: Vec<(usize, f32)> = best.collect();
        let is_best = |id: usize| best.iter().any(|&(other, _)| other == id);
        let bytes = (0..256).chain([self.ids[" "]]).map(|id| (id, -1.0));
        let printable = ('!'..='~').map(|c| self.ids[&c.to_string()]).filter(|&id| !is_best(id)).map(|id| (id, 1.0));
        best.iter().copied().chain(bytes).chain(printable).collect()
    }

    /// `tokenizer.json`: no merges, so that text becomes characters and bytes, and the answers' tokens stay theirs.
    fn file(&self) -> Value {
        let added: Vec<Value> = self
            .added
            .iter()
            .map(|&(id, special)| {
                json!({ "id": id, "content": self.tokens[id], "special": special, "normalized": false,
                        "single_word": false, "lstrip": false, "rstrip": false })
            })
            .collect();
        let vocab: Map<String, Value> = self.tokens.iter().zip(0..).map(|(t, id)| (t.clone(), json!(id))).collect();
        let decoders = json!([
            { "type": "Replace", "pattern": { "String": MARK.to_string() }, "content": "" },
            { "type": "ByteFallback" },
            { "type": "Fuse" },
        ]);
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
            "pre_tokenizer": null, "post_processor": null, "decoder": { "type": "Sequence", "decoders": decoders },
            "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                       "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": true, "ignore_merges": false,
                       "vocab": vocab, "merges": [] },
        })
    }
}

/// Writes a checkpoint of `vocab` tokens into `dir`, which is made if need be: the rows of `head`, and no others, are preferred after a
/// token, the one with the largest value first. `end` ends answers.
///
/// # Errors
/// [`CheckpointError::Read`] for files that cannot be written.
pub fn write_table(dir: &Path, vocab: usize, end: usize, head: &dyn Fn(usize) -> Vec<(usize, f32)>) -> Result<()> {
    let hidden = vocab.next_multiple_of(IDLE);
    let table = |ones: &dyn Fn(usize) -> Vec<(usize, usize, f32)>| {
        let mut bytes = vec![0; 2 * vocab * hidden];
        for (row, column, value) in (0..vocab).flat_map(ones) {
            // bf16 holds whole numbers up to 256 as they are.
            let value = (value.to_bits() >> 16) as u16;
            bytes[2 * (row * hidden + column)..][..2].copy_from_slice(&value.to_le_bytes());
        }
        (vec![vocab, hidden], bytes)
    };
    let filled = |shape: Vec<usize>, value: f32| {
        let value = ((value.to_bits() >> 16) as u16).to_le_bytes();
        let bytes = value.repeat(shape.iter().product());
        (shape, bytes)
    };
    let zeros = |rows, columns| filled(vec![rows, columns], 0.0);
    let layer = |name: &str| format!("model.layers.0.{name}.weight");
    let tensors = [
        ("model.embed_tokens.weight".to_owned(), table(&|token| vec![(token, token, 1.0)])),
        (
            "lm_head.weight".to_owned(),
            table(&|token| head(token).into_iter().map(|(row, value)| (row, token, value)).collect()),
        ),
        ("model.norm.weight".to_owned(), filled(vec![hidden], 1.0)),
        (layer("input_layernorm"), filled(vec![hidden], 1.0)),
        (layer("post_attention_layernorm"), filled(vec![hidden], 1.0)),
        (layer("self_attn.q_proj"), zeros(IDLE, hidden)),
        (layer("self_attn.k_proj"), zeros(IDLE, hidden)),
        (layer("self_attn.v_proj"), zeros(IDLE, hidden)),
        (layer("self_attn.o_proj"), zeros(hidden, IDLE)),
        (layer("mlp.gate_proj"), zeros(IDLE, hidden)),
        (layer("mlp.up_proj"), zeros(IDLE, hidden)),
        (layer("mlp.down_proj"), zeros(hidden, IDLE)),
    ];
    let (mut header, mut data) = (json!({ "__metadata__": { "format": "mlx" } }), Vec::new());
    for (name, (shape, bytes)) in tensors {
        let begin = data.len();
        data.extend(bytes);
        header[name] = json!({ "dtype": "BF16", "shape": shape, "data_offsets": [begin, data.len()] });
    }
    let mut header = header.to_string();
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    let config = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": hidden, "num_hidden_layers": 1,
        "intermediate_size": IDLE, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": IDLE,
        "vocab_size": vocab, "rms_norm_eps": 1e-6, "max_position_embeddings": 32_768, "rope_theta": 10000.0,
        "tie_word_embeddings": false, "eos_token_id": end, "torch_dtype": "bfloat16",
    });
    write_files(dir, &[("config.json", &config)])?;
    let path = dir.join("model.safetensors");
    let weights = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    std::fs::write(&path, weights).map_err(|e| CheckpointError::read(&path, e))
}

fn write_files(dir: &Path, files: &[(&str, &Value)]) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|e| CheckpointError::read(dir, e))?;
    for (name, value) in files {
        let path = dir.join(name);
        std::fs::write(&path, value.to_string()).map_err(|e| CheckpointError::read(&path, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Checkpoint;

    fn refusal(json: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        Script::parse(json.as_bytes()).and_then(|script| script.write(dir.path())).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_a_script_is_refused_by_name() {
        for (json, named) in [
            ("{", "the script cannot be read"),
            (r#"{"answers": {}, "extra": 1}"#, "extra"),
            (r#"{"answers": {"a": ["x", ""]}}"#, "answer a"),
            (r#"{"answers": {"a": "x\ue000"}}"#, "U+E000"),
            (r#"{"answers": {"a": ["<|im_end|>"]}}"#, "answer a"),
            (r#"{"answers": {"a": ["<t>", "<t>"]}, "added_tokens": [{"content": "<t>"}]}"#, "once in all answers"),
            (r#"{"answers": {"a": "x"}, "added_tokens": [{"content": "<|answer:a|>"}]}"#, "is a token already"),
        ] {
            let message = refusal(json);
            assert!(message.contains(named), "{json}: {message}");
        }
        let long = format!(r#"{{"answers": {{"a": {:?}}}}}"#, "x".repeat(PIECE * MAX_VOCAB));
        assert!(refusal(&long).contains("at most 4096"), "{}", refusal(&long));
    }

    #[test]
    fn the_head_leads_from_each_token_of_an_answer_to_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let script = Script::parse(br#"{"answers": {"a": ["x", "y", "x"], "b": "x"}}"#).unwrap();
        script.write(dir.path()).unwrap();
        let file: Value = serde_json::from_slice(&std::fs::read(dir.path().join("tokenizer.json")).unwrap()).unwrap();
        let id = |token: &str| file["model"]["vocab"][token].as_u64().unwrap() as usize;
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let [vocab, hidden] = checkpoint.get("lm_head.weight").unwrap().shape[..] else { panic!("a matrix") };
        let mut head = vec![0; 2 * vocab * hidden];
        checkpoint.read("lm_head.weight", 0, &mut head).unwrap();
        let value = |row: usize, column: usize| {
            let at = 2 * (row * hidden + column);
            f32::from_bits(u32::from(u16::from_le_bytes([head[at], head[at + 1]])) << 16)
        };
        let next = |token: usize| (0..vocab).max_by(|&a, &b| value(a, token).total_cmp(&value(b, token))).unwrap();
        let marked = |text: &str, uses: usize| id(&format!("{text}{}", MARK.to_string().repeat(uses)));
        let a = [id("<|answer:a|>"), marked("x", 1), marked("y", 1), marked("x", 2), id(END)];
        let b = [id("<|answer:b|>"), marked("x", 3), id(END)];
        for answer in [&a[..], &b] {
            answer.windows(2).for_each(|pair| assert_eq!(next(pair[0]), pair[1], "{answer:?}"));
        }
        assert_eq!(next(id("}")), id(END), "any other token ends the answer");
    }
}
