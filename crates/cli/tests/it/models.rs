//! Models from a stand-in hub: `pull`, `list`, `rm`, and ids where a folder could stand.

use crate::common;
use crate::standin::{COMMIT, EARLIER, Faults, ID, StandIn};
use serde_json::Value;
use std::path::Path;
use std::process::Output;

/// The bundled model, as a hub would have it.
fn stand_in() -> StandIn {
    let folder = common::root().join("models/rustbook-5m-4bit");
    let names =
        ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    let contents = names.map(|name| std::fs::read(folder.join(name)).unwrap());
    let files: Vec<(&str, &[u8])> = names.into_iter().zip(contents.iter().map(Vec::as_slice)).collect();
    StandIn::start(&files)
}

fn run(hub: &StandIn, cache: &Path, args: &[&str], offline: bool) -> Output {
    let mut command = common::binary();
    command.args(args).env("HF_ENDPOINT", &hub.url).env("HF_HUB_CACHE", cache).env("NO_PROXY", "127.0.0.1");
    if offline {
        command.env("HF_HUB_OFFLINE", "1");
    }
    command.output().unwrap()
}

fn stdout(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_model_is_pulled_listed_run_and_removed() {
    let (hub, dir) = (stand_in(), tempfile::tempdir().unwrap());
    let run = |args: &[&str], offline| run(&hub, dir.path(), args, offline);
    let pulled = run(&["pull", ID], false);
    assert!(stderr(&pulled).contains(&format!("pulling {ID}: model.safetensors")), "{}", stderr(&pulled));
    assert!(!pulled.stderr.contains(&0x1b), "a bar on a pipe");
    let path = stdout(pulled);
    assert!(path.trim().ends_with(COMMIT) && Path::new(path.trim()).join("config.json").is_file(), "{path}");

    let models: Value = serde_json::from_str(&stdout(run(&["list", "--json"], false))).unwrap();
    assert_eq!((&models[0]["id"], &models[0]["revision"]), (&ID.into(), &COMMIT.into()), "{models}");
    assert_eq!((&models[0]["complete"], &models[0]["path"]), (&true.into(), &path.trim().into()));
    assert!(models[0]["size"].as_u64().unwrap() > 1_000_000 && models[0]["last_used"].is_string(), "{models}");
    let table = stdout(run(&["list"], false));
    assert!(table.lines().count() == 2 && table.contains(ID), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");

    // The snapshot is symbolic links; offline, nothing is asked.
    let args = ["generate", "--model", ID, "--prompt", "What Is Ownership?", "--temperature", "0", "--max-tokens", "4"];
    hub.requests();
    let text = stdout(run(&args, true));
    assert_eq!(text, common::stdout(&[&args[..1], &args[3..]].concat()), "not the bundled model's answer");
    assert!(hub.requests().is_empty());

    assert!(stdout(run(&["rm", ID], false)).contains(ID));
    assert_eq!(stdout(run(&["list", "--json"], false)).trim(), "[]");
    let again = run(&["rm", ID], false);
    assert!(again.status.code() == Some(1) && stderr(&again).contains("not in the cache"), "{}", stderr(&again));
}

#[test]
fn a_revision_is_pulled_run_listed_and_removed_by_its_name() {
    let (hub, dir) = (stand_in(), tempfile::tempdir().unwrap());
    let run = |args: &[&str], offline| run(&hub, dir.path(), args, offline);
    let (tagged, commit) = (format!("{ID}@v1"), format!("{ID}@{}", &EARLIER[..8]));
    stdout(run(&["pull", ID], false));
    let args = |model| ["generate", "-m", model, "-p", "What Is Ownership?", "--temperature", "0", "--max-tokens", "4"];
    let text = stdout(run(&args(&tagged), false));
    hub.requests();
    assert_eq!(stdout(run(&args(&commit), true)), text);
    assert!(hub.requests().is_empty());
    let models: Value = serde_json::from_str(&stdout(run(&["list", "--json"], false))).unwrap();
    let listed = |i: usize| (models[i]["id"].as_str(), models[i]["revision"].as_str(), models[i]["refs"].to_string());
    assert_eq!(listed(0), (Some(ID), Some(COMMIT), r#"["main"]"#.into()));
    assert_eq!(listed(1), (Some(ID), Some(EARLIER), r#"["v1"]"#.into()));
    let table = stdout(run(&["list"], false));
    assert!(table.contains(&format!("{} v1", &EARLIER[..8])), "{table}");
    assert!(stdout(run(&["rm", &commit], false)).contains(&commit));
    let gone = run(&args(&tagged), true);
    assert!(gone.status.code() == Some(1) && stderr(&gone).contains(&tagged), "{}", stderr(&gone));
    let unknown = run(&["pull", &format!("{ID}@v9")], false);
    assert!(stderr(&unknown).contains("no revision \"v9\""), "{}", stderr(&unknown));
    stdout(run(&args(ID), true));
}

#[test]
fn an_id_that_is_not_cached_is_pulled_first_unless_offline() {
    let (hub, dir) = (stand_in(), tempfile::tempdir().unwrap());
    let args = ["generate", "--model", ID, "--prompt", "x", "--raw", "--max-tokens", "1"];
    let offline = run(&hub, dir.path(), &args, true);
    assert_eq!(offline.status.code(), Some(1));
    assert!(stderr(&offline).contains("HF_HUB_OFFLINE") && stderr(&offline).contains(ID), "{}", stderr(&offline));
    assert!(hub.requests().is_empty());
    stdout(run(&hub, dir.path(), &args, false));
    assert!(!hub.requests().is_empty());
}

#[test]
fn checking_the_configuration_downloads_nothing() {
    let (hub, dir) = (stand_in(), tempfile::tempdir().unwrap());
    let file = dir.path().join("runtime.yaml");
    std::fs::write(&file, format!("models: {{ serve: [\"{ID}\"] }}\nengine: {{ kv_spill_mb: 1048576 }}\n")).unwrap();
    let args = ["config", "check", "--config", file.to_str().unwrap(), "--device", "cpu"];
    let check = || run(&hub, &dir.path().join("cache"), &args, false);
    let told = stdout(check());
    assert!(told.contains(&format!("{ID}: not downloaded yet")), "{told}");
    assert!(hub.requests().is_empty());
    stdout(run(&hub, &dir.path().join("cache"), &["pull", ID], false));
    let output = check();
    assert!(output.status.code() == Some(1), "a cached model is checked: {}", stderr(&output));
    assert!(stderr(&output).contains(&format!("{ID} does not fit")), "{}", stderr(&output));
}

#[test]
fn what_the_hub_refuses_is_one_clear_line() {
    let (hub, dir) = (stand_in(), tempfile::tempdir().unwrap());
    hub.faults(Faults { refuse: Some((401, "GatedRepo")), ..Faults::default() });
    let output = run(&hub, dir.path(), &["pull", ID], false);
    assert!(output.status.code() == Some(1) && output.stdout.is_empty());
    assert!(stderr(&output).contains("accept its conditions"), "{}", stderr(&output));
    let output = run(&hub, dir.path(), &["pull", "no id"], false);
    assert!(output.status.code() == Some(2) && stderr(&output).contains("looks like"), "{}", stderr(&output));
}
