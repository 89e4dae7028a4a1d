//! A model that says what it is told: each token is always followed by one other. Embeddings are one-hot, attention and
//! feed-forward add nothing, the head is a table. Streaming, stop strings and log-probabilities then have exact answers.

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
    let hidden = vocab.next_multiple_of(64);
    let eos = ids[script.last().unwrap()];
    let mut next = vec![eos; vocab];
    for pair in script.windows(2) {
        next[ids[pair[0]]] = ids[pair[1]];
    }
    let table = |rows: usize, columns: usize, one: &dyn Fn(usize) -> Vec<usize>| {
        let mut values = vec![0f32; rows * columns];
        (0..rows).for_each(|row| one(row).into_iter().for_each(|column| values[row * columns + column] = 1.0));
        (vec![rows, columns], values)
    };
    let zeros = |rows: usize, columns: usize| table(rows, columns, &|_| vec![]);
    let ones = |n: usize| (vec![n], vec![1f32; n]);
    let layer = |name: &str| format!("model.layers.0.{name}.weight");
    let tensors = [
        ("model.embed_tokens.weight".to_owned(), table(vocab, hidden, &|row| vec![row])),
        ("lm_head.weight".to_owned(), table(vocab, hidden, &|row| (0..vocab).filter(|&t| next[t] == row).collect())),
        ("model.norm.weight".to_owned(), ones(hidden)),
        (layer("input_layernorm"), ones(hidden)),
        (layer("post_attention_layernorm"), ones(hidden)),
        (layer("self_attn.q_proj"), zeros(64, hidden)),
        (layer("self_attn.k_proj"), zeros(64, hidden)),
        (layer("self_attn.v_proj"), zeros(64, hidden)),
        (layer("self_attn.o_proj"), zeros(hidden, 64)),
        (layer("mlp.gate_proj"), zeros(64, hidden)),
        (layer("mlp.up_proj"), zeros(64, hidden)),
        (layer("mlp.down_proj"), zeros(hidden, 64)),
    ];
    let mut header = json!({ "__metadata__": { "format": "mlx" } });
    let mut data: Vec<u8> = Vec::new();
    for (name, (shape, values)) in &tensors {
        let begin = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        header[name] = json!({ "dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()] });
    }
    let mut header = header.to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    let weights = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    let model = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": hidden, "num_hidden_layers": 1,
        "intermediate_size": 64, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 64, "vocab_size": vocab,
        "rms_norm_eps": 1e-6, "max_position_embeddings": 2048, "rope_theta": 10000.0, "tie_word_embeddings": false, "eos_token_id": eos,
    });
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("model.safetensors"), weights).unwrap();
    for (name, value) in [("tokenizer.json", file), ("tokenizer_config.json", config), ("config.json", &model)] {
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
