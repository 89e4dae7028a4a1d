//! Random checkpoints of known shapes, for benchmarks and tests without a download. Their bytes are computed when they are read.

use crate::head::head_of;
use crate::shard::{Generate, Shard};
use crate::{Checkpoint, CheckpointError, Config, GenerationDefaults};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Random weights of a checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct Weights {
    /// Bits of a weight.
    pub bits: u8,
    /// Weights that share a scale and a bias.
    pub group_size: u16,
    /// Seed of the weights.
    pub seed: u64,
}

/// Shape of a model's tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Name of the shape, as `--shape` has it.
    pub name: &'static str,
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
    /// True if the head's weights are the embedding's.
    pub tied: bool,
    /// Activation of the gate.
    pub activation: &'static str,
    /// Further numbers of the configuration, by their keys.
    pub numbers: &'static [(&'static str, f64)],
}

impl Shape {
    /// A small shape that every architecture can have.
    #[rustfmt::skip]
    pub const TINY: Self = Self {
        name: "tiny", hidden: 128, layers: 2, intermediate: 256,
        heads: 4, kv_heads: 2, head_dim: 32, vocab: 512, tied: false, activation: "silu", numbers: &[],
    };

    /// Checks that such weights fit this shape.
    ///
    /// # Errors
    /// [`CheckpointError::Synth`], which names what is known.
    pub fn check(&self, bits: u8, group_size: u16) -> Result<(), CheckpointError> {
        if !matches!(bits, 2 | 3 | 4 | 5 | 6 | 8) || !matches!(group_size, 32 | 64 | 128) {
            let message =
                format!("{bits} bits in groups of {group_size}: bits are 2, 3, 4, 5, 6 or 8, groups 32, 64 or 128");
            return Err(CheckpointError::Synth(message));
        }
        let expert =
            self.numbers.iter().find(|(key, _)| *key == "moe_intermediate_size").map(|(_, width)| *width as usize);
        let widths: Vec<usize> = [self.hidden, self.intermediate].into_iter().chain(expert).collect();
        match widths.iter().all(|width| width.is_multiple_of(group_size.into())) {
            true => Ok(()),
            false => Err(CheckpointError::Synth(format!(
                "groups of {group_size} do not divide the widths {widths:?} of {}",
                self.name
            ))),
        }
    }

    /// A model's `config.json`.
    pub fn config(&self, model_type: &str, weights: &Weights) -> Result<Config, CheckpointError> {
        let quantization = json!({ "group_size": weights.group_size, "bits": weights.bits });
        let mut keys = json!({
            "model_type": model_type, "hidden_size": self.hidden, "num_hidden_layers": self.layers,
            "intermediate_size": self.intermediate, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "head_dim": self.head_dim, "vocab_size": self.vocab,
            "tie_word_embeddings": self.tied, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 32_768,
            "hidden_act": self.activation, "eos_token_id": self.vocab - 1, "torch_dtype": "bfloat16",
            "quantization": quantization,
        });
        for &(key, number) in self.numbers {
            // Counts are whole numbers.
            keys[key] = if number.fract() == 0.0 { json!(number as i64) } else { json!(number) };
        }
        Config::from_value(keys, Path::new("config.json"))
    }
}

/// A module of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Module {
    /// A quantized matrix.
    Linear {
        /// Path of the matrix in the model.
        name: String,
        /// Features out.
        rows: usize,
        /// Features in.
        cols: usize,
        /// True if a bias is added to the product.
        bias: bool,
    },
    /// Quantized matrices of one shape, stacked.
    Stack {
        /// Path of the stack in the model.
        name: String,
        /// Matrices.
        count: usize,
        /// Features out of each.
        rows: usize,
        /// Features in.
        cols: usize,
    },
    /// Small numbers that are added to others.
    Vector {
        /// Path of the vector in the model.
        name: String,
        /// Numbers.
        len: usize,
    },
    /// The weight of an RMS norm.
    Norm {
        /// Path of the norm in the model.
        name: String,
        /// Width of the norm.
        len: usize,
    },
}

/// Values of a tensor.
#[derive(Debug, Clone, Copy)]
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

/// A checkpoint of these modules, in memory: its tensors are computed when they are read.
pub fn checkpoint(config: Config, modules: &[Module], weights: &Weights) -> Result<Checkpoint, CheckpointError> {
    let tensors: Vec<Tensor> = modules.iter().flat_map(|module| tensors(module, weights)).collect();
    let (mut header, mut places, mut end, mut draws) = (Map::new(), Vec::new(), 0u64, 0);
    for t in tensors {
        let start = end;
        end += t.shape.iter().product::<usize>() as u64 * if t.dtype == "U32" { 4 } else { 2 };
        header.insert(t.name, json!({ "dtype": t.dtype, "shape": t.shape, "data_offsets": [start, end] }));
        places.push(Place { start, first_draw: draws, fill: t.fill });
        // One more than the words of a packed matrix, for a rest.
        draws += (end - start) / t.fill.unit() + u64::from(matches!(t.fill, Fill::Bits));
    }
    let values = Values { places, random: Random(weights.seed ^ 0x9e37_79b9_7f4a_7c15) };
    let header = Value::Object(header).to_string();
    let shard = Shard::generated("random weights".into(), header.as_bytes(), end, Box::new(values))?;
    Ok(Checkpoint::generated(config, GenerationDefaults::default(), shard))
}

/// Writes a checkpoint, its configuration and a tokenizer of `vocab` tokens into `dir`, which is made if need be.
pub fn write(checkpoint: &Checkpoint, vocab: usize, dir: &Path) -> Result<(), CheckpointError> {
    std::fs::create_dir_all(dir).map_err(|e| CheckpointError::read(dir, e))?;
    write_tensors(checkpoint, &dir.join("model.safetensors"))?;
    for (name, text) in [
        ("config.json", checkpoint.config.json()),
        ("generation_config.json", json!({ "eos_token_id": [vocab - 1, vocab - 3], "do_sample": false }).to_string()),
        ("tokenizer.json", tokenizer(vocab).to_string()),
        ("tokenizer_config.json", tokenizer_config().to_string()),
    ] {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|e| CheckpointError::read(&path, e))?;
    }
    Ok(())
}

fn bf16(name: String, shape: Vec<usize>, fill: Fill) -> Tensor {
    Tensor { name, dtype: "BF16", shape, fill }
}

/// Tensors of a quantized weight with a row of `cols` values for each of `outer`.
fn matrices(name: &str, outer: &[usize], cols: usize, weights: &Weights) -> Vec<Tensor> {
    let (bits, group) = (usize::from(weights.bits), usize::from(weights.group_size));
    let [values, scales, biases] = Fill::of_matrix(cols, weights.bits);
    let shape = |width: usize| [outer, &[width]].concat();
    vec![
        Tensor { name: format!("{name}.weight"), dtype: "U32", shape: shape(cols * bits / 32), fill: values },
        bf16(format!("{name}.scales"), shape(cols / group), scales),
        bf16(format!("{name}.biases"), shape(cols / group), biases),
    ]
}

fn tensors(module: &Module, weights: &Weights) -> Vec<Tensor> {
    match module {
        Module::Linear { name, rows, cols, bias } => {
            let mut all = matrices(name, &[*rows], *cols, weights);
            if *bias {
                all.push(bf16(format!("{name}.bias"), vec![*rows], Fill::Small(0.1)));
            }
            all
        }
        Module::Stack { name, count, rows, cols } => matrices(name, &[*count, *rows], *cols, weights),
        Module::Vector { name, len } => vec![bf16(name.clone(), vec![*len], Fill::Small(0.1))],
        Module::Norm { name, len } => vec![bf16(format!("{name}.weight"), vec![*len], Fill::Ones)],
    }
}

/// Writes all tensors, in the order of their names.
fn write_tensors(checkpoint: &Checkpoint, path: &Path) -> Result<(), CheckpointError> {
    let head = head_of(checkpoint.names().filter_map(|name| Some((name, checkpoint.get(name)?))));
    let failed = |e| CheckpointError::read(path, e);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).map_err(failed)?);
    out.write_all(&head).map_err(failed)?;
    let mut piece = vec![0; 1 << 20];
    for name in checkpoint.names() {
        let bytes = checkpoint.get(name).map_or(0, |tensor| tensor.bytes);
        for offset in (0..bytes).step_by(piece.len()) {
            let piece = &mut piece[..(bytes - offset).min(1 << 20) as usize];
            checkpoint.read(name, offset, piece)?;
            out.write_all(piece).map_err(failed)?;
        }
    }
    out.flush().map_err(failed)
}

/// The values of all tensors.
#[derive(Debug)]
struct Values {
    /// Places of the tensors, in the order of their starts.
    places: Vec<Place>,
    random: Random,
}

/// A tensor's place among bytes and draws.
#[derive(Debug)]
struct Place {
    start: u64,
    first_draw: u64,
    fill: Fill,
}

impl Generate for Values {
    fn fill(&self, mut offset: u64, mut out: &mut [u8]) {
        while !out.is_empty() {
            let next = self.places.partition_point(|place| place.start <= offset);
            let Some(place) = next.checked_sub(1).map(|i| &self.places[i]) else { return };
            let end = self.places.get(next).map_or(u64::MAX, |place| place.start);
            let (now, later) = out.split_at_mut((end - offset).min(out.len() as u64) as usize);
            offset += now.len() as u64;
            place.fill(self.random, offset - now.len() as u64 - place.start, now);
            out = later;
        }
    }
}

impl Place {
    /// Fills `out` with the tensor's bytes from `offset` on.
    fn fill(&self, random: Random, offset: u64, mut out: &mut [u8]) {
        let unit = self.fill.unit();
        let (mut number, mut skip) = (offset / unit, (offset % unit) as usize);
        while !out.is_empty() {
            let bytes = self.fill.bytes(random.draw(self.first_draw + number));
            let part = &bytes[skip..unit as usize];
            let (now, later) = out.split_at_mut(part.len().min(out.len()));
            now.copy_from_slice(&part[..now.len()]);
            (out, skip, number) = (later, 0, number + 1);
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014), of which every number can be had alone.
#[derive(Debug, Clone, Copy)]
struct Random(u64);

impl Random {
    /// The n-th number.
    fn draw(self, n: u64) -> u64 {
        let z = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(n.wrapping_add(1)));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Fill {
    /// Fills for values, scales and biases of a matrix that keeps activations of order one.
    fn of_matrix(cols: usize, bits: u8) -> [Self; 3] {
        // Uniform q has a deviation of 2^bits / √12 steps; that of the weights is to be 1 / √cols.
        let levels = f32::from((1u16 << bits) - 1);
        let scale = 12f32.sqrt() / (levels + 1.0) / (cols as f32).sqrt();
        [Fill::Bits, Fill::Scale(scale), Fill::Center(scale, levels / 2.0)]
    }

    /// Bytes of one draw.
    fn unit(self) -> u64 {
        if let Fill::Bits = self { 8 } else { 2 }
    }

    /// Bytes of a draw, in the first [`Self::unit`].
    fn bytes(self, draw: u64) -> [u8; 8] {
        // Uniform in −1 … 1.
        let symmetric = (draw >> 40) as f32 / (1 << 23) as f32 - 1.0;
        let value = match self {
            Fill::Bits => return draw.to_le_bytes(),
            Fill::Scale(scale) => scale * (1.0 + 0.2 * symmetric),
            Fill::Center(scale, middle) => -scale * middle * (1.0 + 0.02 * symmetric),
            Fill::Small(limit) => limit * symmetric,
            Fill::Ones => 1.0 + 0.1 * symmetric,
        };
        // Truncation to bf16: which neighbor is taken does not matter here.
        u64::from(value.to_bits() >> 16).to_le_bytes()
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
