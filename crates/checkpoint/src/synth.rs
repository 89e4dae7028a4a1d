//! Random checkpoints of known shapes, for benchmarks and tests without a download.

use crate::CheckpointError;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// What to write.
#[derive(Debug, Clone)]
pub struct Synth {
    /// A name of [`SHAPES`].
    pub shape: String,
    /// Bits of a weight.
    pub bits: u8,
    /// Weights that share a scale and a bias.
    pub group_size: u16,
    /// Seed of the weights.
    pub seed: u64,
}

/// Name, model type, hidden size, layers, intermediate size, heads, key/value heads, head width, vocabulary, tied.
type Shape = (&'static str, &'static str, usize, usize, usize, usize, usize, usize, usize, bool);

/// Shapes known: those of real models, and small ones of every architecture.
pub const SHAPES: [Shape; 7] = [
    ("qwen2.5-0.5b", "qwen2", 896, 24, 4864, 14, 2, 64, 151_936, true),
    ("qwen2.5-1.5b", "qwen2", 1536, 28, 8960, 12, 2, 128, 151_936, true),
    ("qwen2.5-7b", "qwen2", 3584, 28, 18_944, 28, 4, 128, 152_064, false),
    ("tiny-qwen2", "qwen2", 128, 2, 256, 4, 2, 32, 512, true),
    ("tiny-qwen3", "qwen3", 128, 2, 256, 4, 2, 64, 512, false),
    ("tiny-llama", "llama", 128, 2, 256, 4, 2, 32, 512, false),
    ("tiny-mistral", "mistral", 128, 2, 256, 4, 2, 32, 512, false),
];

/// How a tensor is filled.
enum Fill {
    /// Uniform bits.
    Bits,
    /// bf16 scales: ±20 % around this.
    Scale(f32),
    /// bf16 biases that centre the group: −scale · (2^bits − 1) / 2, drawn like the scales.
    Centre(f32, f32),
    /// bf16 in ± this.
    Small(f32),
    /// bf16 ones, ±10 %.
    Ones,
}

struct Tensor {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    fill: Fill,
}

/// Writes checkpoint, configuration and tokenizer into `dir`, which is made if need be.
pub fn write(synth: &Synth, dir: &Path) -> Result<(), CheckpointError> {
    let Some(shape) = SHAPES.iter().find(|s| s.0 == synth.shape) else {
        let names: Vec<&str> = SHAPES.iter().map(|s| s.0).collect();
        return Err(CheckpointError::Synth(format!("--shape is {:?}; known are {}", synth.shape, names.join(", "))));
    };
    let group = usize::from(synth.group_size);
    let (hidden, ff) = (shape.2, shape.4);
    if !matches!(synth.bits, 2 | 3 | 4 | 5 | 6 | 8) || !matches!(group, 32 | 64 | 128) {
        let message =
            format!("{} bits in groups of {group}: bits are 2, 3, 4, 5, 6 or 8, groups 32, 64 or 128", synth.bits);
        return Err(CheckpointError::Synth(message));
    }
    if !hidden.is_multiple_of(group) || !ff.is_multiple_of(group) {
        let message = format!("groups of {group} do not divide the widths {hidden} and {ff} of {}", shape.0);
        return Err(CheckpointError::Synth(message));
    }
    std::fs::create_dir_all(dir).map_err(|e| CheckpointError::read(dir, e))?;
    let path = dir.join("model.safetensors");
    write_tensors(&tensors(shape, synth), synth.seed, &path).map_err(|e| CheckpointError::read(&path, e))?;
    for (name, value) in [
        ("config.json", config(shape, synth)),
        ("generation_config.json", json!({ "eos_token_id": [shape.8 - 1, shape.8 - 3], "do_sample": false })),
        ("tokenizer.json", tokenizer(shape.8)),
        ("tokenizer_config.json", tokenizer_config()),
    ] {
        let path = dir.join(name);
        std::fs::write(&path, value.to_string()).map_err(|e| CheckpointError::read(&path, e))?;
    }
    Ok(())
}

fn config(s: &Shape, synth: &Synth) -> Value {
    let quantization = json!({ "group_size": synth.group_size, "bits": synth.bits });
    json!({
        "model_type": s.1, "hidden_size": s.2, "num_hidden_layers": s.3, "intermediate_size": s.4,
        "num_attention_heads": s.5, "num_key_value_heads": s.6, "head_dim": s.7, "vocab_size": s.8,
        "tie_word_embeddings": s.9, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 32_768,
        "hidden_act": "silu", "eos_token_id": s.8 - 1, "torch_dtype": "bfloat16", "quantization": quantization,
    })
}

fn tensors(s: &Shape, synth: &Synth) -> Vec<Tensor> {
    let &(_, model_type, hidden, layers, ff, heads, kv_heads, head_dim, vocab, tied) = s;
    let (bits, group) = (usize::from(synth.bits), usize::from(synth.group_size));
    let mut all = Vec::new();
    let mut add = |name: String, dtype, shape, fill| all.push(Tensor { name, dtype, shape, fill });
    let mut linear = |module: String, rows: usize, cols: usize, bias: bool| {
        // Uniform q has a deviation of 2^bits / √12 steps; a deviation of 1 / √cols keeps activations of order one.
        let levels = f32::from((1u16 << bits) - 1);
        let scale = 12f32.sqrt() / (levels + 1.0) / (cols as f32).sqrt();
        add(format!("{module}.weight"), "U32", vec![rows, cols * bits / 32], Fill::Bits);
        add(format!("{module}.scales"), "BF16", vec![rows, cols / group], Fill::Scale(scale));
        add(format!("{module}.biases"), "BF16", vec![rows, cols / group], Fill::Centre(scale, levels / 2.0));
        if bias {
            add(format!("{module}.bias"), "BF16", vec![rows], Fill::Small(0.1));
        }
    };
    linear("model.embed_tokens".into(), vocab, hidden, false);
    if !tied {
        linear("lm_head".into(), vocab, hidden, false);
    }
    let qkv_bias = model_type == "qwen2";
    for i in 0..layers {
        let l = format!("model.layers.{i}");
        linear(format!("{l}.self_attn.q_proj"), heads * head_dim, hidden, qkv_bias);
        linear(format!("{l}.self_attn.k_proj"), kv_heads * head_dim, hidden, qkv_bias);
        linear(format!("{l}.self_attn.v_proj"), kv_heads * head_dim, hidden, qkv_bias);
        linear(format!("{l}.self_attn.o_proj"), hidden, heads * head_dim, false);
        linear(format!("{l}.mlp.gate_proj"), ff, hidden, false);
        linear(format!("{l}.mlp.up_proj"), ff, hidden, false);
        linear(format!("{l}.mlp.down_proj"), hidden, ff, false);
    }
    let mut norm = |name: String, len| all.push(Tensor { name, dtype: "BF16", shape: vec![len], fill: Fill::Ones });
    for i in 0..layers {
        let l = format!("model.layers.{i}");
        norm(format!("{l}.input_layernorm.weight"), hidden);
        norm(format!("{l}.post_attention_layernorm.weight"), hidden);
        if model_type == "qwen3" {
            norm(format!("{l}.self_attn.q_norm.weight"), head_dim);
            norm(format!("{l}.self_attn.k_norm.weight"), head_dim);
        }
    }
    norm("model.norm.weight".into(), hidden);
    all
}

fn write_tensors(tensors: &[Tensor], seed: u64, path: &Path) -> std::io::Result<()> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({ "format": "mlx" }));
    let mut end = 0;
    let mut sizes = Vec::new();
    for t in tensors {
        let bytes = t.shape.iter().product::<usize>() * if t.dtype == "U32" { 4 } else { 2 };
        header
            .insert(t.name.clone(), json!({ "dtype": t.dtype, "shape": t.shape, "data_offsets": [end, end + bytes] }));
        end += bytes;
        sizes.push(bytes);
    }
    let mut header = Value::Object(header).to_string();
    header += &" ".repeat((8 + header.len()).next_multiple_of(64) - 8 - header.len());
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    let mut random = Random(seed ^ 0x9e37_79b9_7f4a_7c15);
    for (t, bytes) in tensors.iter().zip(sizes) {
        t.fill.write(bytes, &mut random, &mut out)?;
    }
    out.flush()
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in −1 … 1.
    fn symmetric(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

impl Fill {
    fn write(&self, bytes: usize, random: &mut Random, out: &mut impl Write) -> std::io::Result<()> {
        if let Fill::Bits = self {
            for _ in 0..bytes / 8 {
                out.write_all(&random.next().to_le_bytes())?;
            }
            return out.write_all(&random.next().to_le_bytes()[..bytes % 8]);
        }
        for _ in 0..bytes / 2 {
            let value = match *self {
                Fill::Bits => 0.0,
                Fill::Scale(scale) => scale * (1.0 + 0.2 * random.symmetric()),
                Fill::Centre(scale, middle) => -scale * middle * (1.0 + 0.02 * random.symmetric()),
                Fill::Small(limit) => limit * random.symmetric(),
                Fill::Ones => 1.0 + 0.1 * random.symmetric(),
            };
            // Truncation to bf16: which neighbour is taken does not matter here.
            out.write_all(&((value.to_bits() >> 16) as u16).to_le_bytes())?;
        }
        Ok(())
    }
}

/// A byte-level tokenizer: one token for each byte, fillers, and three special tokens at the vocabulary's end.
fn tokenizer(vocab: usize) -> Value {
    let mut map = Map::new();
    let mut stand_in = 256u32;
    for byte in 0..=255u8 {
        // GPT-2's alphabet: bytes that are not printable are written as characters from U+0100 on.
        let printable = matches!(byte, 33..=126 | 161..=172 | 174..=255);
        let character = if printable {
            char::from(byte)
        } else {
            stand_in += 1;
            char::from_u32(stand_in - 1).unwrap_or('\u{fffd}')
        };
        map.insert(character.to_string(), json!(byte));
    }
    for id in 256..vocab - 3 {
        map.insert(format!("<t{id}>"), json!(id));
    }
    let special: Vec<Value> = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        .iter()
        .enumerate()
        .map(|(i, content)| {
            json!({ "id": vocab - 3 + i, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true })
        })
        .collect();
    let byte_level =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": special, "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                   "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": map, "merges": [] },
    })
}

fn tokenizer_config() -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": null, "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>", "clean_up_tokenization_spaces": false,
        "chat_template": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                          {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    })
}
