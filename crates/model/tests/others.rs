//! Checkpoints as others write them, which say less than ours, or more: each is the same model as its plain form.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Loaded, Narrow, cpu, goldens, load, try_load};
use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_device::Arithmetic;
use mlx_serving_model::eval::Evaluator;
use mlx_serving_model::{HeadWeights, ModelError};
use serde_json::{Map, Value, json};
use std::path::Path;

/// A case's checkpoint, to be changed.
struct Case {
    name: &'static str,
    config: Value,
    /// Entries of the safetensors header, and the bytes behind it.
    header: Map<String, Value>,
    data: Vec<u8>,
}

impl Case {
    fn of(name: &'static str) -> Self {
        let from = goldens().join(name);
        let config = serde_json::from_slice(&std::fs::read(from.join("config.json")).unwrap()).unwrap();
        let bytes = std::fs::read(from.join("model.safetensors")).unwrap();
        let len = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header = serde_json::from_slice(&bytes[8..len]).unwrap();
        Self { name, config, header, data: bytes[len..].to_vec() }
    }

    /// Sets keys of the configuration.
    fn with(mut self, keys: &Value) -> Self {
        self.config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        self
    }

    /// Removes a key of the configuration.
    fn without(mut self, key: &str) -> Self {
        self.config.as_object_mut().unwrap().remove(key).unwrap();
        self
    }

    /// Packs a module's values of four bits in eight: the same weights, taking more room.
    fn widen(mut self, module: &str) -> Self {
        let entry = &mut self.header[&format!("{module}.weight")];
        let [start, end] = ["0", "1"].map(|i| entry.pointer(&format!("/data_offsets/{i}")).unwrap().as_u64().unwrap());
        let narrow = self.data[start as usize..end as usize].to_vec();
        let wide: Vec<u8> = narrow.iter().flat_map(|byte| [byte & 15, byte >> 4]).collect();
        let width = entry["shape"][1].as_u64().unwrap();
        entry["shape"][1] = json!(2 * width);
        entry["data_offsets"] = json!([self.data.len() - narrow.len(), self.data.len() + narrow.len()]);
        // Tensors fill a file without gaps.
        for other in self.header.values_mut().filter_map(|entry| entry.get_mut("data_offsets")) {
            let offsets = other.as_array_mut().unwrap();
            if offsets[0].as_u64().unwrap() >= end && offsets[1].as_u64().unwrap() <= self.data.len() as u64 {
                offsets.iter_mut().for_each(|offset| *offset = json!(offset.as_u64().unwrap() - narrow.len() as u64));
            }
        }
        self.data.drain(start as usize..end as usize);
        self.data.extend(wide);
        self
    }

    /// Makes it the model of text of a larger one, whose module `root` is what was called `model`, with `head` for the module of its head and
    /// a tower beside it.
    fn wrap(mut self, model_type: &str, root: &str, head: &str) -> Self {
        let rename = |name: String| match (name.strip_prefix("model."), name.strip_prefix("lm_head.")) {
            (Some(rest), _) => format!("{root}.{rest}"),
            (_, Some(rest)) => format!("{head}.{rest}"),
            _ => name,
        };
        self.header = self.header.into_iter().map(|(name, entry)| (rename(name), entry)).collect();
        for name in ["vision_tower.patch.weight", "multi_modal_projector.linear.weight"] {
            let start = self.data.len();
            self.data.extend([0xff; 16]);
            let tensor = json!({ "dtype": "F32", "shape": [2, 2], "data_offsets": [start, start + 16] });
            self.header.insert(name.to_owned(), tensor);
        }
        let text = std::mem::take(&mut self.config);
        self.config = json!({ "model_type": model_type, "text_config": text, "vision_config": { "hidden_size": 8 } });
        self
    }

    fn write(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let header = Value::Object(self.header.clone()).to_string();
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &self.data].concat();
        std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
        std::fs::write(dir.path().join("config.json"), self.config.to_string()).unwrap();
        dir
    }

    /// Checks that it is the model of the case as it is committed, whose logits are mlx-lm's.
    fn is_the_same(&self) {
        let dir = self.write();
        let found = logits(&mut load(dir.path(), cpu(Arithmetic::Exact)));
        assert!(found == plain(self.name), "{} with {}", self.name, self.config);
    }

    /// Checks that it is the model of the case but for the order in which sums are taken.
    fn is_nearly_the_same(&self, arithmetic: Arithmetic) {
        let dir = self.write();
        let found = logits(&mut load(dir.path(), cpu(arithmetic)));
        let same = logits(&mut load(&goldens().join(self.name), cpu(arithmetic)));
        let apart = found.iter().zip(&same).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-4, "{} with {}: {apart}", self.name, self.config);
    }

    fn refusal(&self) -> String {
        let dir = self.write();
        let Err(error) = try_load(dir.path(), cpu(Arithmetic::Exact)) else { panic!("{}", self.config) };
        error.to_string()
    }
}

fn logits(model: &mut Loaded) -> Vec<f32> {
    let tokens: Vec<u32> = (0..40).map(|i| i * 7 % 131).collect();
    model.logits(&tokens, 40, 64)
}

fn plain(case: &str) -> Vec<f32> {
    logits(&mut load(&goldens().join(case), cpu(Arithmetic::Exact)))
}

const DOWN: &str = "model.layers.0.mlp.down_proj";

#[test]
fn bits_and_groups_that_no_name_gives_follow_from_the_shapes() {
    for quantization in [
        json!({ "group_size": 64, "bits": 4 }),
        json!({ "group_size": 32, "bits": 8 }),
        json!({ "group_size": 64, "bits": 4, "language_model.model.embed_tokens": { "group_size": 32, "bits": 8 } }),
        json!({ "group_size": 64, "bits": 4, "model.embed_tokens": { "bits": 8 } }),
        json!({ "group_size": 64, "bits": 4, "model.embed_tokens": { "group_size": 32 } }),
        json!({}),
        json!(null),
    ] {
        Case::of("qwen2-overrides").with(&json!({ "quantization": quantization })).is_the_same();
    }
    let alone = Case::of("qwen2").without("quantization");
    alone.is_the_same();
    alone.without("quantization_config").is_the_same();
    for module in [DOWN, "model.embed_tokens", "model.layers.1.self_attn.k_proj"] {
        Case::of("qwen2").widen(module).is_nearly_the_same(Arithmetic::Exact);
        let said = json!({ "quantization": { "group_size": 64, "bits": 4, module: { "bits": 8 } } });
        Case::of("qwen2").widen(module).with(&said).is_nearly_the_same(Arithmetic::Exact);
    }
}

#[test]
fn bits_and_groups_that_the_shapes_contradict_are_refused() {
    let said =
        |of: Value| Case::of("qwen2").with(&json!({ "quantization": { "group_size": 64, "bits": 4, DOWN: of } }));
    for (of, words) in [
        (json!({ "bits": 8 }), "down_proj.weight is U32 [64, 16], expected U32 [64, 32]"),
        (json!({ "group_size": 32 }), "down_proj.scales is BF16 [64, 2], expected F32 or F16 or BF16 [64, 4]"),
        (json!(false), "down_proj is false, expected no such key"),
    ] {
        let message = said(of).refusal();
        assert!(message.contains(words), "{message}");
    }
    let mut odd = Case::of("qwen2");
    odd.header[&format!("{DOWN}.scales")]["shape"] = json!([16, 8]);
    let message = odd.refusal();
    assert!(
        message.contains(
            "down_proj.weight is U32 [64, 16] with scales of BF16 [16, 8], expected 128 values of a row in groups"
        ),
        "{message}"
    );
    let mut bytes = Case::of("qwen2");
    let scales = &mut bytes.header[&format!("{DOWN}.scales")];
    (scales["dtype"], scales["shape"]) = (json!("U8"), json!([64, 4]));
    let message = bytes.refusal();
    assert!(message.contains("down_proj.biases is BF16 [64, 2], expected no such tensor of mxfp4"), "{message}");
    let affine = json!({ "quantization": { "group_size": 64, "bits": 4, DOWN: { "mode": "affine" } } });
    let message = bytes.with(&affine).refusal();
    assert!(
        message.contains("scales of U8 [64, 4], expected scales of F32, F16 or BF16, as the mode affine"),
        "{message}"
    );
}

#[test]
fn modes_that_no_key_names_follow_from_the_tensors() {
    for name in ["qwen3-mxfp4", "qwen3-nvfp4", "qwen3-mxfp8", "llama-mixed-modes"] {
        Case::of(name).without("quantization").is_the_same();
        for quantization in [json!({}), json!({ "group_size": 64, "bits": 8 }), json!({ "mode": "affine", "bits": 4 })]
        {
            Case::of(name).with(&json!({ "quantization": quantization })).is_the_same();
        }
    }
    for (name, method) in [("qwen3-mxfp4", "mxfp4"), ("qwen3-mxfp8", "mxfp8")] {
        let keys = json!({ "quantization_config": { "quant_method": method, "modules_to_not_convert": ["lm_head"] } });
        Case::of(name).without("quantization").with(&keys).is_the_same();
    }
}

#[test]
fn modes_that_the_tensors_contradict_are_refused() {
    let said = |of: Value| Case::of("qwen3-mxfp4").with(&json!({ "quantization": { DOWN: of } })).refusal();
    for (of, words) in [
        (json!({ "mode": "mxfp8" }), "down_proj.weight is U32 [96, 20], expected U32 [96, 40]"),
        (json!({ "mode": "nvfp4" }), "down_proj.scales is U8 [96, 5], expected U8 [96, 10]"),
        (json!({ "mode": "affine" }), "with scales of U8 [96, 5], expected scales of F32, F16 or BF16"),
        (json!({ "bits": 8 }), "[96, 20] with scales of U8 [96, 5], expected 160 values of a row as mxfp4"),
        (json!({ "mode": "mxfp4", "bits": 8 }), "down_proj.bits is 8, expected 4, which is all that mxfp4 has"),
        (json!({ "mode": "mxfp6" }), "down_proj.mode is \"mxfp6\", expected affine, mxfp4, nvfp4 or mxfp8"),
    ] {
        let message = said(of);
        assert!(message.contains(words), "{message}");
    }
    let rounding = Case::of("qwen3-mxfp8").with(&json!({ "quantize_activations": true })).refusal();
    assert!(rounding.contains("quantize_activations is true, expected false"), "{rounding}");
}

#[test]
fn codes_and_scales_that_are_no_number_are_refused_with_their_module() {
    for (name, tensor, byte) in [
        ("qwen3-mxfp4", "scales", 0xff),
        ("qwen3-nvfp4", "scales", 0x7f),
        ("qwen3-mxfp8", "scales", 0xff),
        ("qwen3-mxfp8", "weight", 0x7f),
    ] {
        let mut case = Case::of(name);
        let offsets = &case.header[&format!("{DOWN}.{tensor}")]["data_offsets"];
        let start = offsets[0].as_u64().unwrap() as usize;
        case.data[start + 3] = byte;
        let message = case.refusal();
        assert!(message.contains(DOWN) && message.contains("is not a number"), "{name}: {message}");
    }
}

#[test]
fn a_gate_and_an_up_of_unlike_bits_are_multiplied_right_or_refused_when_they_are_loaded() {
    let gate = "model.layers.1.mlp.gate_proj";
    for module in [gate, "model.layers.1.mlp.up_proj"] {
        let unlike = Case::of("qwen2").widen(module);
        for arithmetic in [Arithmetic::Exact, Arithmetic::Fast] {
            unlike.is_nearly_the_same(arithmetic);
        }
        let dir = unlike.write();
        let Err(error) = try_load(dir.path(), Narrow::alike(cpu(Arithmetic::Exact))) else { panic!("loaded") };
        assert!(error.to_string().starts_with("model.layers.1.mlp: "), "{error}");
    }
    let both = Case::of("qwen2").widen(gate).widen("model.layers.1.mlp.up_proj");
    try_load(both.write().path(), Narrow::alike(cpu(Arithmetic::Exact))).unwrap();
}

#[test]
fn a_model_of_text_within_another_is_itself_whatever_its_tensors_are_called() {
    // Quantization lies in the text's configuration here, and beside it in the goldens.
    for (case, model_type) in [("gemma3", "gemma3"), ("ministral3", "mistral3"), ("mistral", "mistral3")] {
        for (root, head) in [
            ("language_model.model", "language_model.lm_head"),
            ("model.language_model", "lm_head"),
            ("model", "lm_head"),
        ] {
            let wrapped = Case::of(case).wrap(model_type, root, head);
            wrapped.is_the_same();
            let loaded = load(wrapped.write().path(), cpu(Arithmetic::Exact)).model;
            assert!(loaded.unused().is_empty(), "{case} under {root}: {:?}", loaded.unused());
        }
    }
    let dir = Case::of("gemma3").wrap("gemma3", "language_model.model", "language_model.lm_head").write();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let whole = Checkpoint::open(&goldens().join("gemma3")).unwrap();
    assert_eq!(checkpoint.total_bytes(), whole.total_bytes(), "towers take no memory");
    let [told] = checkpoint.warnings() else { panic!("{:?}", checkpoint.warnings()) };
    assert!(told.ends_with("multi_modal_projector (1 tensors), vision_tower (1 tensors)"), "{told}");
}

#[test]
fn a_model_of_text_that_is_not_there_or_of_another_kind_is_refused() {
    for (case, model_type, keys, words) in [
        ("gemma3", "gemma3", json!({ "text_config": null }), "text_config is missing, expected an object"),
        ("gemma3", "gemma3", json!({ "text_config": [] }), "text_config is [], expected an object"),
        ("gemma3", "gemma3", json!({ "text_config": { "model_type": "gemma2" } }), "expected gemma3_text"),
        (
            "ministral3",
            "mistral3",
            json!({ "text_config": { "model_type": "mistral4" } }),
            "text_config.model_type is \"mistral4\", expected ministral3, mistral or llama",
        ),
        ("gemma3", "llava", json!({}), "model_type is \"llava\", expected one of the architectures"),
    ] {
        let message = Case::of(case).wrap(model_type, "language_model.model", "lm_head").with(&keys).refusal();
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn shards_need_no_index_and_survive_a_stale_one() {
    let index = "model.safetensors.index.json";
    let from = goldens().join("qwen2-sharded");
    for text in [None, Some(r#"{"weight_map": {"model.norm.weight": "model-00001-of-00007.safetensors"}}"#)] {
        let dir = tempfile::tempdir().unwrap();
        for file in ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
            std::fs::copy(from.join(file), dir.path().join(file)).unwrap();
        }
        if let Some(text) = text {
            std::fs::write(dir.path().join(index), text).unwrap();
        }
        assert!(logits(&mut load(dir.path(), cpu(Arithmetic::Exact))) == plain("qwen2-sharded"), "{text:?}");
    }
}

#[test]
fn windows_that_reach_no_layer_change_nothing() {
    let full = vec!["full_attention"; 2];
    let sliding = ["full_attention", "sliding_attention"];
    for name in ["qwen2", "qwen3"] {
        for keys in [
            json!({ "use_sliding_window": true, "sliding_window": 4, "max_window_layers": 2 }),
            json!({ "use_sliding_window": true, "sliding_window": 4, "max_window_layers": 28 }),
            json!({ "use_sliding_window": true, "sliding_window": 4 }),
            json!({ "use_sliding_window": true, "sliding_window": null, "max_window_layers": 0 }),
            json!({ "use_sliding_window": true, "sliding_window": 4, "max_window_layers": 0, "layer_types": full }),
            json!({ "use_sliding_window": false, "sliding_window": 4, "max_window_layers": 0 }),
            json!({ "use_sliding_window": false, "sliding_window": 4, "layer_types": sliding }),
        ] {
            Case::of(name).with(&keys).is_the_same();
        }
        for keys in [
            json!({ "use_sliding_window": true, "sliding_window": 4, "max_window_layers": 1 }),
            json!({ "use_sliding_window": true, "sliding_window": 4, "layer_types": sliding }),
            json!({ "use_sliding_window": true, "max_window_layers": 0 }),
            json!({ "use_sliding_window": true, "sliding_window": 4, "max_window_layers": -1 }),
        ] {
            let message = Case::of(name).with(&keys).refusal();
            assert!(message.contains("window") && message.contains("config.json"), "{message}");
        }
    }
    for (name, keys) in [
        ("llama", json!({ "sliding_window": 4 })),
        ("llama", json!({ "sliding_window": 0, "layer_types": full })),
        ("llama-tied", json!({ "sliding_window": "none", "use_sliding_window": true })),
        ("mistral", json!({ "sliding_window": 4, "layer_types": full })),
        ("mistral", json!({ "sliding_window": null })),
        ("smollm3", json!({ "use_sliding_window": true, "sliding_window": null })),
        ("smollm3", json!({ "use_sliding_window": false, "sliding_window": 4 })),
    ] {
        Case::of(name).with(&keys).is_the_same();
    }
}

#[test]
fn positions_in_sections_are_plain_ones_for_text() {
    let sections = json!([4, 2, 2]);
    for scaling in [
        json!({ "type": "mrope", "mrope_section": sections }),
        json!({ "rope_type": "mrope", "mrope_section": sections }),
        json!({ "type": "mrope", "rope_type": "default", "mrope_section": sections, "mrope_interleaved": true }),
        json!({ "rope_type": "default", "type": "default", "mrope_section": sections }),
    ] {
        Case::of("qwen2").with(&json!({ "rope_scaling": scaling })).is_the_same();
        Case::of("qwen3").with(&json!({ "rope_theta": 1e6, "rope_parameters": scaling })).is_the_same();
    }
    let linear = json!({ "type": "mrope", "rope_type": "linear", "factor": 2 });
    assert!(Case::of("qwen2").with(&json!({ "rope_scaling": linear })).refusal().contains("rope_type"));
}

#[test]
fn a_head_is_tied_where_neither_the_configuration_nor_the_tensors_have_one() {
    for (name, tied) in [
        ("llama", false),
        ("mistral", false),
        ("qwen2-untied-f16", false),
        ("qwen3-untied-f16-head-128", false),
        ("smollm3-untied-no-rope-layers", false),
        ("llama-dense-head", false),
        ("llama-tied", true),
        ("qwen2", true),
        ("qwen3", true),
        ("smollm3", true),
        ("olmo2", false),
        ("granite", true),
        ("granite-untied-biases", false),
        ("phi3", false),
        ("phi3-longrope", true),
        ("glm4", false),
    ] {
        let case = Case::of(name).without("tie_word_embeddings");
        case.is_the_same();
        case.with(&json!({ "tie_word_embeddings": null })).is_the_same();
        let model = load(&goldens().join(name), cpu(Arithmetic::Exact)).model;
        let head = if tied { HeadWeights::Tied } else { HeadWeights::Own };
        assert_eq!((model.blueprint().head, model.unused().len()), (Some(head), 0), "{name}");
    }
    // A llama says mistral, too: mlx-lm's are one.
    Case::of("llama-tied").without("tie_word_embeddings").with(&json!({ "model_type": "mistral" })).is_the_same();
}

/// A case whose tensors lie at the root, as in the checkpoints of embedding models.
fn flat(mut case: Case) -> Case {
    let bare = |name: String| name.strip_prefix("model.").map_or(name.clone(), str::to_owned);
    case.header = case.header.into_iter().map(|(name, entry)| (bare(name), entry)).collect();
    case
}

#[test]
fn names_without_the_prefix_are_the_same_model() {
    for name in ["qwen2", "qwen3", "qwen3-untied-f16-head-128", "llama-mlp-bias", "mistral", "olmo2", "phi3", "glm4"] {
        let case = flat(Case::of(name));
        case.is_the_same();
        assert!(load(case.write().path(), cpu(Arithmetic::Exact)).model.unused().is_empty(), "{name}");
    }
    let message = flat(Case::of("qwen2")).with(&json!({ "num_hidden_layers": 1 })).refusal();
    assert!(message.contains("layers.1.") && message.contains("has 1 layers"), "{message}");
}

#[test]
fn a_model_without_weights_of_a_head_makes_embeddings_alone() {
    let untied = Case::of("llama-tied").with(&json!({ "tie_word_embeddings": false }));
    let named = Case::of("llama-tied").write();
    std::fs::create_dir(named.path().join("1_Pooling")).unwrap();
    std::fs::write(named.path().join("1_Pooling/config.json"), r#"{ "pooling_mode": "mean" }"#).unwrap();
    for dir in [untied.write(), flat(untied).write(), named] {
        let mut loaded = load(dir.path(), cpu(Arithmetic::Exact));
        assert!(!loaded.model.generates() && loaded.model.unused().is_empty());
        let refused = Evaluator::new(&loaded.model, &loaded.device, &mut loaded.layer, 16, 16).err();
        assert!(matches!(refused, Some(ModelError::NoHead)));
    }
}

#[test]
fn a_folder_without_its_shards_is_refused_before_its_weights_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let from = goldens().join("qwen2-sharded");
    for file in ["config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json"] {
        std::fs::copy(from.join(file), dir.path().join(file)).unwrap();
    }
    let refused = |dir: &Path| {
        let Err(error) = try_load(dir, cpu(Arithmetic::Exact)) else { panic!("loaded") };
        assert!(error.to_string().contains("model-00002-of-00002.safetensors missing"), "{error}");
    };
    refused(dir.path());
    std::fs::remove_file(dir.path().join("model.safetensors.index.json")).unwrap();
    refused(dir.path());
}
