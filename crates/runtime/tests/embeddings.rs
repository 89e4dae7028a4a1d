//! Embedding models, opened from random checkpoints of known shapes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_model::synth::Synth;
use mlx_serving_runtime::{
    Config, Generate, Input, Model, OpenOptions, Parameters, Pooling, Runtime, RuntimeError, Source,
};
use std::path::Path;

/// A random model with these files of sentence-transformers, written into `dir` and opened.
fn open(dir: &Path, files: &[(&str, &str)]) -> Result<Model, RuntimeError> {
    let synth = Synth { shape: "tiny-qwen3".into(), bits: 4, group_size: 64, seed: 7 };
    synth.write(dir).unwrap();
    for (name, text) in files {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let mut config = Config::default();
    (config.engine.device, config.engine.threads) = ("cpu".into(), 2);
    Runtime::new(config).open(&Source::from(dir.to_str()), OpenOptions::default())
}

fn text() -> Input {
    Input::Text { text: "Ownership is a set of rules.".into(), special: true }
}

fn length(vector: &[f32]) -> f32 {
    vector.iter().map(|x| x * x).sum::<f32>().sqrt()
}

#[test]
fn a_model_embeds_as_its_files_say() {
    const MODULES: &str = r#"[{"path": "", "type": "sentence_transformers.models.Transformer"},
                              {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]"#;
    let mut vectors = Vec::new();
    for (pooling, name) in [(Pooling::Last, "lasttoken"), (Pooling::Mean, "mean"), (Pooling::First, "cls")] {
        let (plain, scaled) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mode = format!(r#"{{"pooling_mode": "{name}"}}"#);
        let files = [("1_Pooling/config.json", mode.as_str()), ("modules.json", MODULES)];
        let plain = open(plain.path(), &files).unwrap();
        let scaled = open(scaled.path(), &files[..1]).unwrap();
        assert!(!plain.card().info.generates);
        assert_eq!(plain.card().embedder.request(vec![1]).embed, Some(pooling));
        let (long, one) = (plain.embed(text()).unwrap(), scaled.embed(text()).unwrap());
        assert_eq!((long.len(), one.len()), (128, 128));
        assert!((length(&one) - 1.0).abs() < 1e-5 && (length(&long) - 1.0).abs() > 0.1, "{name}");
        let shortened = long.iter().map(|x| x / length(&long));
        assert!(one.iter().zip(shortened).all(|(a, b)| (a - b).abs() < 1e-6), "{name}");
        vectors.push(one);
    }
    assert!(vectors[0] != vectors[1] && vectors[1] != vectors[2]);
    let dir = tempfile::tempdir().unwrap();
    let generates = open(dir.path(), &[]).unwrap();
    assert_eq!(generates.embed(text()).unwrap(), vectors[0], "the last token's where nothing is said");
    generates.complete(text(), &Parameters { max_tokens: Some(2), ..Parameters::default() }).unwrap();
}

#[test]
fn an_embedding_model_answers_nothing_and_one_that_is_not_implemented_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let model = open(dir.path(), &[("1_Pooling/config.json", r#"{"pooling_mode": "mean"}"#)]).unwrap();
    let error = model.complete(text(), &Parameters::default()).unwrap_err().to_string();
    assert!(error.contains("embeddings"), "{error}");
    let error = open(dir.path(), &[("1_Pooling/config.json", r#"{"pooling_mode": "max"}"#)]).unwrap_err().to_string();
    assert!(error.contains("1_Pooling/config.json: pooling_mode is max, expected lasttoken, mean or cls"), "{error}");
}
