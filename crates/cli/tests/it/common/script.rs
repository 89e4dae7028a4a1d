//! Scripted models with tokenizers of their own: each token is always followed by one other. Streaming, stop strings and
//! log-probabilities then have exact answers.

use mlx_serving_checkpoint::script::write_table;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

/// Writes a checkpoint with the tokenizer `file` whose answer to a prompt that ends with the first of `script` is the others.
pub fn write(dir: &Path, file: &Value, script: &[&str], config: &Value) {
    let mut ids: HashMap<&str, usize> = file["model"]["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(t, id)| (t.as_str(), id.as_u64().unwrap() as usize))
        .collect();
    ids.extend(
        file["added_tokens"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| (t["content"].as_str().unwrap(), t["id"].as_u64().unwrap() as usize)),
    );
    let vocab = ids.values().max().unwrap() + 1;
    let eos = ids[script.last().unwrap()];
    let mut next = vec![eos; vocab];
    for pair in script.windows(2) {
        next[ids[pair[0]]] = ids[pair[1]];
    }
    write_table(dir, vocab, eos, &|token| vec![(next[token], 1.0)]).unwrap();
    // A short context, so that a test can fill it.
    let model = dir.join("config.json");
    let mut short: Value = serde_json::from_slice(&std::fs::read(&model).unwrap()).unwrap();
    short["max_position_embeddings"] = 2048.into();
    std::fs::write(model, short.to_string()).unwrap();
    for (name, value) in [("tokenizer.json", file), ("tokenizer_config.json", config)] {
        std::fs::write(dir.join(name), value.to_string()).unwrap();
    }
}

/// Llama-2-like: `words` beside single characters and bytes, a space before the first word.
pub fn sentencepiece(words: &[&str]) -> Value {
    let bytes = (0..=255u8).map(|byte| format!("<0x{byte:02X}>"));
    let characters = ('!'..='~').map(String::from);
    let mut vocab: Vec<String> =
        ["<unk>", "<s>", "</s>"].map(String::from).into_iter().chain(bytes).chain(["▁".to_owned()]).collect();
    vocab.extend(characters);
    file(
        vocab,
        words,
        &["<s>", "</s>", "[INST]", "[/INST]"],
        &json!({
            "normalizer": { "type": "Sequence", "normalizers": [
                { "type": "Prepend", "prepend": "▁" }, { "type": "Replace", "pattern": { "String": " " }, "content": "▁" }] },
            "decoder": { "type": "Sequence", "decoders": [
                { "type": "Replace", "pattern": { "String": "▁" }, "content": " " }, { "type": "ByteFallback" }, { "type": "Fuse" },
                { "type": "Strip", "content": " ", "start": 1, "stop": 0 }] },
        }),
    )
}

/// GPT-2-like: `words` in byte letters (`Ġ` for a space) beside the single ones.
pub fn byte_level(words: &[&str]) -> Value {
    let letters = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ').chain('Ā'..='Ń').map(String::from).collect();
    file(
        letters,
        words,
        &["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        &json!({
            "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
            "decoder": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        }),
    )
}

fn file(mut vocab: Vec<String>, words: &[&str], special: &[&str], settings: &Value) -> Value {
    let mut merges: Vec<[String; 2]> = Vec::new();
    for word in words {
        let ends = word.char_indices().map(|(i, c)| (i, i + c.len_utf8())).skip(1);
        for (begin, end) in ends {
            let merge = [word[..begin].to_owned(), word[begin..end].to_owned()];
            if !vocab.iter().any(|token| *token == word[..end]) {
                vocab.push(word[..end].to_owned());
                merges.push(merge);
            }
        }
    }
    let mut next = vocab.len();
    let added: Vec<Value> = special
        .iter()
        .map(|content| {
            let id = vocab.iter().position(|token| token == content).unwrap_or_else(|| {
                next += 1;
                next - 1
            });
            json!({ "id": id, "content": content, "special": true, "normalized": false, "single_word": false,
                    "lstrip": false, "rstrip": false })
        })
        .collect();
    let byte_fallback = vocab.iter().any(|token| token == "<0x00>");
    let vocab: serde_json::Map<String, Value> =
        vocab.into_iter().enumerate().map(|(id, token)| (token, json!(id))).collect();
    let mut file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": null,
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
                   "fuse_unk": false, "byte_fallback": byte_fallback, "ignore_merges": false, "vocab": vocab, "merges": merges },
    });
    for (key, value) in settings.as_object().unwrap() {
        file[key] = value.clone();
    }
    file
}
