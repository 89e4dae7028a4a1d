//! Broken and hostile checkpoints: one clear error each.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_checkpoint::Checkpoint;
use std::path::Path;

/// Opens the bundled model's configuration, changed, beside the given files; the error's words.
fn refusal(config: (&str, &str), files: &[(&str, &[u8])]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/rustbook-5m-4bit/config.json");
    let text = std::fs::read_to_string(bundled).unwrap();
    assert!(text.contains(config.0), "the test changes something that is not there");
    std::fs::write(dir.path().join("config.json"), text.replacen(config.0, config.1, 1)).unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    Checkpoint::open(dir.path()).unwrap_err().to_string()
}

fn safetensors(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}

fn broken_weights(bytes: &[u8]) -> String {
    let error = refusal(("", ""), &[("model.safetensors", bytes)]);
    assert!(error.contains("model.safetensors") && error.contains("download it again"), "{error}");
    error
}

#[test]
fn a_header_longer_than_the_file() {
    let error = broken_weights(&[&(1u64 << 60).to_le_bytes()[..], b"{}"].concat());
    assert!(error.contains("claims 1152921504606846976 bytes"), "{error}");
}

#[test]
fn truncated_and_overlapping_tensors() {
    broken_weights(b"abc");
    broken_weights(&safetensors(r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#, 8));
    broken_weights(&safetensors(
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
        12,
    ));
}

#[test]
fn an_unknown_quantization_mode() {
    let error = refusal(("\"bits\": 4", "\"bits\": 4, \"mode\": \"mxfp3\""), &[]);
    assert!(error.contains("mode is \"mxfp3\", expected affine, mxfp4, nvfp4 or mxfp8"), "{error}");
    for (keys, words) in [
        ("\"bits\": 4, \"mode\": \"mxfp4\"", "group_size is 64, expected 32, which is all that mxfp4 has"),
        ("\"bits\": 4, \"group_size\": 32, \"mode\": \"mxfp8\"", "bits is 4, expected 8, which is all that mxfp8 has"),
    ] {
        let error = refusal(("\"bits\": 4", keys), &[]);
        assert!(error.contains(words), "{error}");
    }
}

/// A copy of the bundled model's configuration and weights.
fn copied() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/rustbook-5m-4bit");
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(bundled.join(file), dir.path().join(file)).unwrap();
    }
    dir
}

/// Checks that pipes, sockets and devices are refused: opening one would wait for ever, or reading one never end.
#[cfg(unix)]
#[test]
fn files_that_are_pipes_sockets_and_devices() {
    let names = [
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "tokenizer.json",
        "chat_template.jinja",
    ];
    for name in names {
        for kind in ["pipe", "socket", "device"] {
            let dir = copied();
            let path = dir.path().join(name);
            let _ = std::fs::remove_file(&path);
            let _socket = match kind {
                "pipe" => {
                    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
                    None
                }
                "socket" => Some(std::os::unix::net::UnixListener::bind(&path).unwrap()),
                _ => {
                    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
                    None
                }
            };
            let message = Checkpoint::open(dir.path()).unwrap_err().to_string();
            assert!(message.contains(&format!("{name} is a {kind}")), "{message}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("config.json")).unwrap();
    let message = Checkpoint::open(dir.path()).unwrap_err().to_string();
    assert!(message.contains("config.json is a folder"), "{message}");
}

#[test]
fn a_file_that_changes_after_it_was_opened() {
    for what in ["shorter", "longer", "other bytes"] {
        let dir = copied();
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let mut bytes = [0; 512];
        checkpoint.read("model.norm.weight", 0, &mut bytes).unwrap();
        let file = std::fs::File::options().write(true).open(dir.path().join("model.safetensors")).unwrap();
        let before = file.metadata().unwrap();
        match what {
            "shorter" => file.set_len(4096).unwrap(),
            "longer" => file.set_len(before.len() + 1).unwrap(),
            _ => file.set_modified(before.modified().unwrap() + std::time::Duration::from_secs(1)).unwrap(),
        }
        let message = checkpoint.read("model.norm.weight", 0, &mut bytes).expect_err(what).to_string();
        assert!(message.contains("model.safetensors changed while it was read"), "{message}");
    }
}

/// A download that is renamed into the place of a file leaves the open one as it was.
#[cfg(unix)]
#[test]
fn a_file_that_is_replaced_or_removed_is_read_to_its_end() {
    let dir = copied();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    std::fs::write(dir.path().join("other"), b"junk").unwrap();
    std::fs::rename(dir.path().join("other"), dir.path().join("model.safetensors")).unwrap();
    checkpoint.read("model.norm.weight", 0, &mut [0; 512]).unwrap();
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    checkpoint.read("model.norm.weight", 0, &mut [0; 512]).unwrap();
}
