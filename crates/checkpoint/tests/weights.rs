//! Files of weights: which are read, whatever an index says, and which are missed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_checkpoint::{Checkpoint, WeightFiles};
use std::path::Path;

/// A folder with a configuration, and with files that each hold a vector of each name.
fn folder(files: &[(&str, &[&str])], index: Option<&str>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), "{}").unwrap();
    for (file, tensors) in files {
        let entry = |(i, name): (usize, &&str)| {
            format!(r#""{name}":{{"dtype":"F32","shape":[1],"data_offsets":[{},{}]}}"#, 4 * i, 4 * i + 4)
        };
        let header = format!("{{{}}}", tensors.iter().enumerate().map(entry).collect::<Vec<_>>().join(","));
        let data = vec![0; 4 * tensors.len()];
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
        std::fs::write(dir.path().join(file), bytes).unwrap();
    }
    if let Some(index) = index {
        std::fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
    }
    dir
}

fn index(files: &[(&str, &str)]) -> String {
    let map: Vec<String> = files.iter().map(|(tensor, file)| format!(r#""{tensor}":"{file}""#)).collect();
    format!(r#"{{"weight_map":{{{}}}}}"#, map.join(","))
}

fn tensors(dir: &Path) -> (Vec<String>, Vec<String>) {
    let checkpoint = Checkpoint::open(dir).unwrap();
    (checkpoint.names().map(str::to_owned).collect(), checkpoint.warnings().to_vec())
}

fn refusal(dir: &Path) -> String {
    let found = WeightFiles::find(dir);
    let message = Checkpoint::open(dir).unwrap_err().to_string();
    assert!(
        found.is_ok() || found.unwrap_err().to_string() == message,
        "one rule for the loader and the cache: {message}"
    );
    message
}

const HALVES: [(&str, &[&str]); 2] =
    [("model-00001-of-00002.safetensors", &["a"]), ("model-00002-of-00002.safetensors", &["b"])];
const WHOLE: (&str, &[&str]) = ("model.safetensors", &["a", "b"]);

#[test]
fn shards_without_an_index_are_read_together() {
    assert_eq!(tensors(folder(&HALVES, None).path()), (vec!["a".into(), "b".into()], vec![]));
    let from_0 = [("model-00000-of-00002.safetensors", HALVES[0].1), ("model-00001-of-00002.safetensors", HALVES[1].1)];
    assert_eq!(tensors(folder(&from_0, None).path()).0, ["a", "b"]);
    let named = [("model-language.safetensors", HALVES[0].1), ("model_more.safetensors", HALVES[1].1)];
    assert_eq!(tensors(folder(&named, None).path()).0, ["a", "b"]);
}

#[test]
fn missing_shards_are_named_with_an_index_and_without() {
    let of_3 = index(&[("a", "model-00001-of-00003.safetensors"), ("b", "model-00003-of-00003.safetensors")]);
    for index in [None, Some(of_3.as_str())] {
        let dir = folder(&[("model-00001-of-00003.safetensors", &["a"])], index);
        let message = refusal(dir.path());
        assert!(message.contains("model-00003-of-00003.safetensors missing; pull the model again"), "{message}");
        assert!(index.is_some() || message.contains("model-00002-of-00003.safetensors"), "{message}");
    }
    let message = refusal(folder(&[("model-1-of-999999999.safetensors", &["a"])], None).path());
    assert!(message.contains("model-000000009-of-999999999.safetensors and 999999990 more missing"), "{message}");
    let irregular = index(&[("a", "model.safetensors"), ("b", "more.safetensors")]);
    let message = refusal(folder(&[("model.safetensors", &["a"])], Some(&irregular)).path());
    assert!(message.contains("more.safetensors missing"), "{message}");
    let message = refusal(folder(&[], None).path());
    assert!(message.contains("no model*.safetensors") && message.contains("pull the model"), "{message}");
    let message = refusal(folder(&[], Some(&of_3)).path());
    assert!(message.contains("names model-00001-of-00003.safetensors, model-00003"), "{message}");
}

#[test]
fn an_index_of_another_build_is_said_once_and_what_is_there_is_read() {
    let stale = index(&[("a", "model-00001-of-00003.safetensors"), ("c", "model-00002-of-00003.safetensors")]);
    for files in [&[WHOLE][..], &HALVES] {
        let dir = folder(files, Some(&stale));
        let (names, warnings) = tensors(dir.path());
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        assert_eq!(names, ["a", "b"]);
        assert!(warning.contains("model.safetensors.index.json names model-00001-of-00003.safetensors"), "{warning}");
        assert!(warning.ends_with(&files.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")), "{warning}");
    }
}

#[test]
fn an_index_that_cannot_be_followed_leads_nowhere() {
    let leaving = |file: &str| index(&[("a", file)]);
    let leaving = ["../1.safetensors", "/etc/passwd", "..", "", "./model.safetensors"].map(leaving);
    let broken = ["", "{", "[]", "{}", r#"{"weight_map":[]}"#, r#"{"weight_map":{"a":1}}"#, r#"{"weight_map":{}}"#];
    for index in leaving.iter().map(String::as_str).chain(broken) {
        let (names, warnings) = tensors(folder(&[WHOLE], Some(index)).path());
        assert_eq!((names.len(), warnings.len()), (2, 1), "{index}: {warnings:?}");
        let message = refusal(folder(&[("1.safetensors", &["a"])], Some(index)).path());
        assert!(message.contains("no model*.safetensors (model.safetensors.index.json "), "{index}: {message}");
    }
}

#[test]
fn an_index_that_is_whole_is_followed_and_need_not_know_every_tensor() {
    let named = index(&[("a", "1.safetensors"), ("gone", "2.safetensors")]);
    let dir = folder(&[("1.safetensors", &["a", "c"]), ("2.safetensors", &["b"])], Some(&named));
    assert_eq!(tensors(dir.path()), (vec!["a".into(), "b".into(), "c".into()], vec![]));
    let error = Checkpoint::open(dir.path()).unwrap().read("gone", 0, &mut []).unwrap_err().to_string();
    assert!(error.contains("no tensor gone"), "{error}");
}

#[test]
fn files_beside_the_weights_add_tensors_or_are_left_out_and_named() {
    let whole = index(&[("a", HALVES[0].0), ("b", HALVES[1].0)]);
    let further: (&str, &[&str]) = ("model-mtp.safetensors", &["c"]);
    let other: (&str, &[&str]) = ("model-fp16.safetensors", &["a", "b", "d"]);
    let shard: (&str, &[&str]) = ("model-00001-of-00009.safetensors", &["a"]);
    for (files, index) in [(&HALVES[..], Some(whole.as_str())), (&[WHOLE], None)] {
        let (names, warnings) = tensors(folder(&[files, &[further, other, shard]].concat(), index).path());
        assert_eq!(names, ["a", "b", "c"]);
        assert!(warnings.len() == 2 && warnings[0].contains(shard.0) && warnings[1].contains(other.0), "{warnings:?}");
        assert!(warnings[1].contains("is not read") && warnings[1].contains("its tensor a too"), "{warnings:?}");
    }
    let dir = folder(&[WHOLE], None);
    std::fs::write(dir.path().join("model-2.safetensors"), b"junk").unwrap();
    let (names, warnings) = tensors(dir.path());
    assert!(names == ["a", "b"] && warnings.len() == 1 && warnings[0].contains("model-2.safetensors"), "{warnings:?}");
    // Shards that another build left behind.
    let (names, warnings) = tensors(folder(&[HALVES[0], HALVES[1], shard], None).path());
    assert!(names == ["a", "b"] && warnings.len() == 1 && warnings[0].contains(shard.0), "{warnings:?}");
}

#[test]
fn two_builds_between_which_nothing_decides_are_refused() {
    let other = [("model-00001-of-00001.safetensors", &["a", "b"][..])];
    let message = refusal(folder(&[&HALVES[..], &other].concat(), None).path());
    assert!(message.contains("tensor a is in") && message.contains("-00001-of-00001.safetensors too"), "{message}");
    let named = index(&[("a", "1.safetensors"), ("b", "2.safetensors")]);
    let message = refusal(folder(&[("1.safetensors", &["a"]), ("2.safetensors", &["a", "b"])], Some(&named)).path());
    assert!(message.contains("2.safetensors: tensor a is in") && message.contains("1.safetensors too"), "{message}");
}
