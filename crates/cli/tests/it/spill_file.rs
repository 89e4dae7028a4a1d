//! The file that KV blocks spill to, from the outside.

use crate::common::{Server, binary};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A configuration under which prompts evict each other into a file; its path, and the file's.
fn config(folder: &Path) -> (String, PathBuf) {
    let (path, file) = (folder.join("runtime.yaml"), folder.join("kv"));
    let text = format!(
        "engine: {{ kv_cache_tokens: 512, kv_spill_file: {}, kv_spill_file_mb: 16 }}\n",
        file.to_str().unwrap()
    );
    std::fs::write(&path, text).unwrap();
    (path.to_str().unwrap().to_owned(), folder.join("kv.rustbook-5m-4bit"))
}

fn ask(server: &Server, salt: u64) -> Value {
    let prompt: Vec<u64> = (0..120).map(|i| 5 + (i * 31 + salt * 977) % 3900).collect();
    let body = json!({ "prompt": prompt, "max_tokens": 8, "temperature": 0 });
    let (status, answer) = server.post("/v1/completions", &body);
    assert_eq!(status, 200, "{answer}");
    answer["choices"].clone()
}

fn stop(server: &Server) {
    assert!(Command::new("kill").arg(server.pid().to_string()).status().unwrap().success());
}

fn refused(config: &str) -> String {
    let output = binary().args(["serve", "--port", "0", "--device", "cpu", "--config", config]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    stderr(&output)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn only_the_file_that_was_made_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (config, file) = config(dir.path());
    let start = || Server::start(&["--device", "cpu", "--config", &config]);
    let server = start();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(refused(&config).contains("another engine uses it"));
    stop(&server);
    server.until("the file's end", |_| !file.exists());

    let server = start();
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, "a stranger's").unwrap();
    stop(&server);
    server.until("the server's end", |s| std::net::TcpStream::connect(&s.address).is_err());
    drop(server);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "a stranger's");

    for content in ["a stranger's", ""] {
        std::fs::write(&file, content).unwrap();
        assert!(refused(&config).contains("not a spill file"));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), content);
    }
}

#[test]
fn what_a_killed_server_left_is_recreated() {
    let dir = tempfile::tempdir().unwrap();
    let (config, file) = config(dir.path());
    drop(Server::start(&["--device", "cpu", "--config", &config]));
    assert!(file.exists(), "it was killed");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let _server = Server::start(&["--device", "cpu", "--config", &config]);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_start_that_fails_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let (config, file) = config(dir.path());
    // Files may have no bytes at all: as if the disk were full.
    let script = "trap '' XFSZ; ulimit -f 0; exec \"$0\" serve --port 0 --device cpu --config \"$1\"";
    let binary = binary();
    let output = Command::new("bash").arg("-c").arg(script).arg(binary.get_program()).arg(&config).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("kv.rustbook-5m-4bit"), "{}", stderr(&output));
    assert!(!file.exists(), "an empty file is left");
}

#[test]
fn damaged_blocks_are_computed_again_and_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let (config, file) = config(dir.path());
    let server = Server::start(&["--device", "cpu", "--config", &config]);
    let expected: Vec<Value> = (0..16).map(|salt| ask(&server, salt)).collect();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.iter_mut().skip(16).for_each(|b| *b = !*b);
    std::fs::write(&file, bytes).unwrap();
    let again: Vec<Value> = (0..16).map(|salt| ask(&server, salt)).collect();
    assert_eq!(again, expected);
    assert!(server.metric("kv_spill_damaged_blocks_total") >= 4.0, "too few blocks were damaged to tell");
    let told = server.lines().iter().filter(|line| line.contains("computed again")).count();
    assert!((1..=2).contains(&told), "{:#?}", server.lines());
}
