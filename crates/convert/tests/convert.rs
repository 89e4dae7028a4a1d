//! Whole conversions of small checkpoints.
#![allow(clippy::unwrap_used, reason = "tests")]

use mlx_serving_checkpoint::synth::Module;
use mlx_serving_checkpoint::{Checkpoint, Dtype, LinearFormat};
use mlx_serving_convert::{Conversion, ConvertError, Converted, Format, Pattern, Plan};
use safetensors::tensor::{TensorView, serialize_to_file};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

const ROWS: usize = 24;
const POOLING: &str = r#"{"pooling_mode_mean_tokens": true}"#;

fn modules() -> Vec<Module> {
    let linear = |name: &str, rows, cols, bias| Module::Linear { name: name.into(), rows, cols, bias };
    vec![
        linear("model.embed", ROWS, 128, false),
        linear("model.up", ROWS, 128, true),
        // Its rows are no whole groups of 64.
        linear("model.odd", ROWS, 96, false),
        Module::Stack { name: "model.experts".into(), count: 3, rows: 16, cols: 64 },
        Module::Norm { name: "model.norm".into(), len: 128 },
    ]
}

/// bf16 values, different in each place; `one` takes the place of the first.
fn values(count: usize, one: f32) -> Vec<u8> {
    let value = |i: usize| ((i * 37 % 101) as f32 - 50.0) / 64.0;
    (0..count)
        .flat_map(|i| {
            (if i == 0 { one } else { value(i) }).to_bits().to_be_bytes()[..2].iter().rev().copied().collect::<Vec<_>>()
        })
        .collect()
}

fn source(dir: &Path, first_of_up: f32) {
    let shapes: [(&str, &[usize]); 7] = [
        ("model.embed.weight", &[ROWS, 128]),
        ("model.up.weight", &[ROWS, 128]),
        ("model.up.bias", &[ROWS]),
        ("model.odd.weight", &[ROWS, 96]),
        ("model.experts.weight", &[3, 16, 64]),
        ("model.norm.weight", &[128]),
        ("vision.weight", &[4, 4]),
    ];
    let data: Vec<Vec<u8>> = shapes
        .iter()
        .map(|(name, shape)| {
            values(shape.iter().product(), if *name == "model.up.weight" { first_of_up } else { 0.25 })
        })
        .collect();
    let views = shapes
        .iter()
        .zip(&data)
        .map(|((name, shape), data)| (*name, TensorView::new(Dtype::BF16, shape.to_vec(), data).unwrap()));
    fs::create_dir_all(dir).unwrap();
    serialize_to_file(views, None, &dir.join("model.safetensors")).unwrap();
    fs::write(dir.join("config.json"), json!({ "model_type": "test", "eos_token_id": 2 }).to_string()).unwrap();
    fs::write(dir.join("tokenizer.json"), "{}").unwrap();
    fs::write(dir.join("notes.md"), "not wanted").unwrap();
    let modules = json!([
        { "idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer" },
        { "idx": 1, "name": "1", "path": "2_Pooling", "type": "sentence_transformers.models.Pooling" },
    ]);
    fs::write(dir.join("modules.json"), modules.to_string()).unwrap();
    for (file, text) in [
        ("2_Pooling/config.json", POOLING),
        ("additional_chat_templates/tool.jinja", "{{ x }}"),
        ("onnx/config.json", "{}"),
    ] {
        let file = dir.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
}

fn convert(from: &Path, out: &Path, plan: &Plan, file_bytes: u64) -> Result<Converted, ConvertError> {
    let source = Checkpoint::open(from)?;
    let mut last = (0, 0);
    let converted = Conversion { source: &source, modules: &modules(), plan, out, threads: 2, file_bytes }
        .run(&mut |done, total| last = (done, total));
    assert!(converted.is_err() || last.0 == last.1 && last.1 > 0, "{last:?}");
    converted
}

fn four() -> Format {
    Format::Affine { bits: 4, group: 64 }
}

/// All files of a folder.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries.filter(|entry| entry.path().is_file()).map(file).collect()
}

#[test]
fn a_checkpoint_is_quantized_by_plan_and_opens() {
    let dir = tempfile::tempdir().unwrap();
    let (from, out) = (dir.path().join("from"), dir.path().join("out"));
    source(&from, 0.25);
    let plan = Plan { format: four(), rules: vec![(Pattern("*embed".into()), Format::Mxfp8)] };
    let converted = convert(&from, &out, &plan, Conversion::FILE_BYTES).unwrap();
    assert_eq!(converted.left_out, ["vision.weight"]);
    assert_eq!(converted.left_dense, ["model.odd"]);

    let names: Vec<String> = files(&out).into_keys().collect();
    assert_eq!(names, ["config.json", "model.safetensors", "modules.json", "tokenizer.json"]);
    assert_eq!(fs::read(out.join("2_Pooling/config.json")).unwrap(), POOLING.as_bytes());
    assert!(out.join("additional_chat_templates/tool.jinja").is_file() && !out.join("onnx").exists());
    let config: Value = serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
    let expected = json!({
        "group_size": 64, "bits": 4, "mode": "affine", "model.odd": false,
        "model.embed": { "group_size": 32, "bits": 8, "mode": "mxfp8" },
    });
    assert_eq!((&config["quantization"], &config["quantization_config"]), (&expected, &expected));
    assert_eq!(config["eos_token_id"], 2);

    let opened = Checkpoint::open(&out).unwrap();
    assert!(opened.warnings().is_empty(), "{:?}", opened.warnings());
    assert!(matches!(opened.linear("model.up", ROWS, 128).unwrap(), LinearFormat::Quantized { .. }));
    assert!(matches!(opened.linear("model.embed", ROWS, 128).unwrap(), LinearFormat::SmallFloat(_)));
    assert!(matches!(opened.linear("model.odd", ROWS, 96).unwrap(), LinearFormat::Dense { .. }));
    assert!(matches!(opened.stack("model.experts", 3, 16, 64).unwrap(), LinearFormat::Quantized { .. }));
    assert_eq!(opened.total_bytes(), converted.bytes);
    let mut bias = vec![0; 2 * ROWS];
    opened.read("model.up.bias", 0, &mut bias).unwrap();
    assert_eq!(bias, values(ROWS, 0.25));
}

#[test]
fn what_was_broken_off_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (from, out, whole) = (dir.path().join("from"), dir.path().join("out"), dir.path().join("whole"));
    source(&from, 0.25);
    let plan = Plan::uniform(four());
    convert(&from, &whole, &plan, 2000).unwrap();
    let whole = files(&whole);
    assert!(whole.keys().filter(|name| name.ends_with(".safetensors")).count() > 2, "{:?}", whole.keys());
    let index: Value = serde_json::from_slice(&whole["model.safetensors.index.json"]).unwrap();
    assert_eq!(index["weight_map"]["model.up.biases"], index["weight_map"]["model.up.weight"]);

    // As if it were ended behind the first files.
    let source = Checkpoint::open(&from).unwrap();
    let modules = modules();
    let conversion =
        Conversion { source: &source, modules: &modules, plan: &plan, out: &out, threads: 2, file_bytes: 2000 };
    let killed = catch_unwind(AssertUnwindSafe(|| conversion.run(&mut |done, _| assert!(done < 9000, "killed"))));
    assert!(killed.is_err());
    let left = files(&out);
    assert!(left.keys().any(|name| name.ends_with(".part")) && !left.contains_key("config.json"), "{:?}", left.keys());
    let kept = out.join(left.keys().find(|name| name.ends_with(".safetensors")).unwrap());
    let before = fs::metadata(&kept).unwrap().modified().unwrap();

    let message = convert(&from, &out, &Plan::uniform(Format::Mxfp4), 2000).unwrap_err().to_string();
    assert!(message.contains("another plan"), "{message}");
    let state = fs::File::open(out.join("unfinished-conversion.json")).unwrap();
    state.lock().unwrap();
    let message = convert(&from, &out, &plan, 2000).unwrap_err().to_string();
    assert!(message.contains("another run is writing it"), "{message}");
    drop(state);
    convert(&from, &out, &plan, 2000).unwrap();
    assert_eq!(fs::metadata(&kept).unwrap().modified().unwrap(), before, "it is not written again");
    assert!(files(&out) == whole, "{:?}", files(&out).keys());
}

#[test]
fn a_weight_without_a_code_is_refused_by_its_module() {
    let dir = tempfile::tempdir().unwrap();
    let (from, out) = (dir.path().join("from"), dir.path().join("out"));
    source(&from, f32::NAN);
    let error = convert(&from, &out, &Plan::uniform(four()), 2000).unwrap_err();
    assert!(matches!(&error, ConvertError::NotFinite { module } if module == "model.up"), "{error}");
    assert!(!out.join("config.json").exists(), "it must not look whole");
    // What is left was made of other weights.
    source(&from, 0.25);
    let message = convert(&from, &out, &Plan::uniform(four()), 2000).unwrap_err().to_string();
    assert!(message.contains("another checkpoint"), "{message}");
}

#[test]
fn sources_plans_and_folders_that_do_not_do_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (from, out) = (dir.path().join("from"), dir.path().join("out"));
    source(&from, 0.25);
    let refused = |plan: &Plan, from: &Path, out: &Path| convert(from, out, plan, 2000).unwrap_err().to_string();
    let rule = |pattern: &str, format| Plan { format: four(), rules: vec![(Pattern(pattern.into()), format)] };
    let message = refused(&rule("*.down", Format::Dense), &from, &out);
    assert!(message.contains("*.down") && message.contains("model.embed"), "{message}");
    let message = refused(&rule("*.odd", four()), &from, &out);
    assert!(message.contains("model.odd") && message.contains("96"), "{message}");
    assert!(!out.exists(), "nothing is written before the plan fits");

    let message = refused(&Plan::uniform(four()), &from, &from);
    assert!(message.contains("the source itself"), "{message}");
    let full = dir.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("letter.txt"), "to be kept").unwrap();
    let message = refused(&Plan::uniform(four()), &from, &full);
    assert!(message.contains("not empty"), "{message}");
    convert(&from, &out, &Plan::uniform(Format::Mxfp4), 2000).unwrap();
    let message = refused(&Plan::uniform(four()), &from, &out);
    assert!(message.contains("a model already"), "{message}");
    let message = refused(&Plan::uniform(four()), &out, &dir.path().join("twice"));
    assert!(message.contains("quantized already"), "{message}");
}
