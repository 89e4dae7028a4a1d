//! Random checkpoints of known shapes, for benchmarks and tests without a download.

use crate::CheckpointError;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Parameters of a checkpoint to write.
#[derive(Debug, Clone)]
pub struct Synth {
    /// Name of one of [`SHAPES`].
    pub shape: String,
    /// Bits of a weight.
    pub bits: u8,
    /// Weights that share a scale and a bias.
    pub group_size: u16,
    /// Seed of the weights.
    pub seed: u64,
}

/// Shape of a model's tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// As `--shape` has it.
    pub name: &'static str,
    /// Architecture, as in `config.json`.
    pub model_type: &'static str,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Width of the feed-forward part.
    pub intermediate: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Tokens of the vocabulary.
    pub vocab: usize,
    /// The head's weights are the embedding's.
    pub tied: bool,
}

#[rustfmt::skip]
const QWEN_0_5B: Shape = Shape {
    name: "qwen2.5-0.5b", model_type: "qwen2", hidden: 896, layers: 24, intermediate: 4864,
    heads: 14, kv_heads: 2, head_dim: 64, vocab: 151_936, tied: true,
};

#[rustfmt::skip]
const TINY: Shape = Shape {
    name: "tiny-qwen2", model_type: "qwen2", hidden: 128, layers: 2, intermediate: 256,
    heads: 4, kv_heads: 2, head_dim: 32, vocab: 512, tied: true,
};

/// Shapes known: those of real models, and small ones of every architecture.
#[rustfmt::skip]
pub const SHAPES: [Shape; 7] = [
    QWEN_0_5B,
    Shape { name: "qwen2.5-1.5b", hidden: 1536, layers: 28, intermediate: 8960, heads: 12, head_dim: 128, ..QWEN_0_5B },
    Shape {
        name: "qwen2.5-7b", model_type: "qwen2", hidden: 3584, layers: 28, intermediate: 18_944,
        heads: 28, kv_heads: 4, head_dim: 128, vocab: 152_064, tied: false,
    },
    TINY,
    Shape { name: "tiny-qwen3", model_type: "qwen3", head_dim: 64, tied: false, ..TINY },
    Shape { name: "tiny-llama", model_type: "llama", tied: false, ..TINY },
    Shape { name: "tiny-mistral", model_type: "mistral", tied: false, ..TINY },
];

impl Shape {
    /// The shape of that name, if weights of `bits` in groups of `group_size` fit it.
    ///
    /// # Errors
    /// [`CheckpointError::Synth`], which names what is known.
    pub fn find(name: &str, bits: u8, group_size: u16) -> Result<&'static Self, CheckpointError> {
        let Some(shape) = SHAPES.iter().find(|s| s.name == name) else {
            let names: Vec<&str> = SHAPES.iter().map(|s| s.name).collect();
            return Err(CheckpointError::Synth(format!("--shape is {name:?}; known are {}", names.join(", "))));
        };
        if !matches!(bits, 2 | 3 | 4 | 5 | 6 | 8) || !matches!(group_size, 32 | 64 | 128) {
            let message =
                format!("{bits} bits in groups of {group_size}: bits are 2, 3, 4, 5, 6 or 8, groups 32, 64 or 128");
            return Err(CheckpointError::Synth(message));
        }
        let (hidden, ff) = (shape.hidden, shape.intermediate);
        if !hidden.is_multiple_of(group_size.into()) || !ff.is_multiple_of(group_size.into()) {
            let message = format!("groups of {group_size} do not divide the widths {hidden} and {ff} of {name}");
            return Err(CheckpointError::Synth(message));
        }
        Ok(shape)
    }
}

/// Values of a tensor.
enum Fill {
    /// Uniform bits.
    Bits,
    /// bf16 scales: ±20 % around this.
    Scale(f32),
    /// bf16 biases that center the group: −scale · (2^bits − 1) / 2, drawn like the scales.
    Center(f32, f32),
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

/// The bytes of one quantized matrix, as a checkpoint has them.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// Packed values.
    pub values: Vec<u8>,
    /// bf16 scales, (rows, cols / group size).
    pub scales: Vec<u8>,
    /// bf16 biases, as the scales.
    pub biases: Vec<u8>,
}

impl Matrix {
    /// A random one of `rows` × `cols` weights, of which `group_size` share a scale and a bias.
    pub fn random(rows: usize, cols: usize, bits: u8, group_size: u16, seed: u64) -> std::io::Result<Self> {
        let mut random = Random(seed);
        let mut fill = |fill: Fill, bytes: usize| {
            let mut out = Vec::with_capacity(bytes);
            fill.write(bytes, &mut random, &mut out).map(|()| out)
        };
        let [values, scales, biases] = Fill::of_matrix(cols, bits);
        let side = 2 * rows * (cols / usize::from(group_size));
        Ok(Self {
            values: fill(values, rows * cols * usize::from(bits) / 8)?,
            scales: fill(scales, side)?,
            biases: fill(biases, side)?,
        })
    }
}

/// Writes checkpoint, configuration and tokenizer into `dir`, which is made if need be.
pub fn write(synth: &Synth, dir: &Path) -> Result<(), CheckpointError> {
    let shape = Shape::find(&synth.shape, synth.bits, synth.group_size)?;
    std::fs::create_dir_all(dir).map_err(|e| CheckpointError::read(dir, e))?;
    let path = dir.join("model.safetensors");
    write_tensors(&tensors(shape, synth), synth.seed, &path).map_err(|e| CheckpointError::read(&path, e))?;
    for (name, value) in [
        ("config.json", config(shape, synth)),
        ("generation_config.json", json!({ "eos_token_id": [shape.vocab - 1, shape.vocab - 3], "do_sample": false })),
        ("tokenizer.json", tokenizer(shape.vocab)),
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
        "model_type": s.model_type, "hidden_size": s.hidden, "num_hidden_layers": s.layers,
        "intermediate_size": s.intermediate, "num_attention_heads": s.heads, "num_key_value_heads": s.kv_heads,
        "head_dim": s.head_dim, "vocab_size": s.vocab, "tie_word_embeddings": s.tied, "rms_norm_eps": 1e-6,
        "rope_theta": 1e6, "max_position_embeddings": 32_768,
        "hidden_act": "silu", "eos_token_id": s.vocab - 1, "torch_dtype": "bfloat16", "quantization": quantization,
    })
}

fn tensors(s: &Shape, synth: &Synth) -> Vec<Tensor> {
    let &Shape { model_type, hidden, layers, intermediate: ff, heads, kv_heads, head_dim, vocab, tied, .. } = s;
    let (bits, group) = (usize::from(synth.bits), usize::from(synth.group_size));
    let mut all = Vec::new();
    let mut add = |name: String, dtype, shape, fill| all.push(Tensor { name, dtype, shape, fill });
    let mut linear = |module: String, rows: usize, cols: usize, bias: bool| {
        let [values, scales, biases] = Fill::of_matrix(cols, synth.bits);
        add(format!("{module}.weight"), "U32", vec![rows, cols * bits / 32], values);
        add(format!("{module}.scales"), "BF16", vec![rows, cols / group], scales);
        add(format!("{module}.biases"), "BF16", vec![rows, cols / group], biases);
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
    /// Of values, scales and biases of a matrix that keeps activations of order one.
    fn of_matrix(cols: usize, bits: u8) -> [Self; 3] {
        // Uniform q has a deviation of 2^bits / √12 steps; that of the weights is to be 1 / √cols.
        let levels = f32::from((1u16 << bits) - 1);
        let scale = 12f32.sqrt() / (levels + 1.0) / (cols as f32).sqrt();
        [Fill::Bits, Fill::Scale(scale), Fill::Center(scale, levels / 2.0)]
    }

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
                Fill::Center(scale, middle) => -scale * middle * (1.0 + 0.02 * random.symmetric()),
                Fill::Small(limit) => limit * random.symmetric(),
                Fill::Ones => 1.0 + 0.1 * random.symmetric(),
            };
            // Truncation to bf16: which neighbor is taken does not matter here.
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
