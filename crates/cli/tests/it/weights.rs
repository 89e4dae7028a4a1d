//! Weight files that are no files, or that somebody writes to while they are loaded: one model fails, the process lives.

use crate::common::{Server, copy_model, run};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A copy of the bundled model that takes long to load.
fn copied(dir: &Path) -> PathBuf {
    let model = copy_model(dir, "copy");
    // The tokenizer is read after the weights' file was opened and before they are: a longer one leaves more time in between.
    let mut tokenizer = File::options().append(true).open(model.join("tokenizer.json")).unwrap();
    tokenizer.write_all(&vec![b' '; 40 << 20]).unwrap();
    model
}

fn shorten(file: &Path, len: u64) {
    File::options().write(true).open(file).unwrap().set_len(len).unwrap();
}

/// Shortens a file as soon as a process has opened it.
fn shorten_once_opened(pid: u32, file: &Path) {
    let opened = || {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|path| path == file)
    };
    let began = Instant::now();
    while !opened() && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_micros(200));
    }
    shorten(file, 4096);
}

fn ask(server: &Server, model: &str) -> (u16, Value) {
    server.post(
        "/v1/completions",
        &json!({ "model": model, "prompt": "Ownership is", "max_tokens": 4, "temperature": 0 }),
    )
}

fn survives(optimizations: &str) {
    let dir = tempfile::tempdir().unwrap();
    let model = copied(&dir.path().canonicalize().unwrap());
    let file = model.join("model.safetensors");
    let whole = std::fs::read(&file).unwrap();
    let args = ["-m", "rustbook-5m-4bit", "-m", model.to_str().unwrap(), "--metal-opts", optimizations];
    let server = Server::start_while(&args, |pid| shorten_once_opened(pid, &file));
    let named = format!("{} changed while it was read", file.display());
    server.until("the failure", |server| {
        let (status, text) = server.get("/ready");
        status == 503 && text.contains("reloading")
    });
    let (_, text) = server.get("/ready");
    assert!(text.contains(&named) || text.contains("not a valid safetensors file"), "{text}");
    assert_eq!(server.get("/health").0, 200);
    let (status, answer) = ask(&server, "copy");
    assert_eq!(status, 503, "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains(&named) && message.contains("is being loaded again"), "{message}");
    let (status, answer) = ask(&server, "rustbook-5m-4bit");
    assert_eq!(status, 200, "{answer}");
    // Whole again, it is served again.
    std::fs::write(&file, whole).unwrap();
    server.until("the model's return", |server| server.get("/ready").0 == 200);
    assert_eq!(ask(&server, "copy").1["choices"][0]["text"], answer["choices"][0]["text"]);
}

#[test]
fn a_file_that_shrinks_while_it_is_loaded_takes_one_model_away_until_it_is_whole() {
    survives("none");
}

#[test]
fn a_file_that_shrinks_while_it_streams_in_takes_one_model_away_until_it_is_whole() {
    survives("all");
}

#[test]
fn weights_that_are_a_pipe_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = copied(dir.path());
    for name in ["model.safetensors", "tokenizer.json"] {
        let file = model.join(name);
        let kept = dir.path().join(name);
        std::fs::rename(&file, &kept).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
        let output = run(&["generate", "-m", model.to_str().unwrap(), "-p", "x", "--max-tokens", "1"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("{name} is a pipe")), "{said}");
        std::fs::rename(&kept, &file).unwrap();
    }
}
