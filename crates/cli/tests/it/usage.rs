//! Wrong usage, variables of the environment, and configurations that do not do.

use crate::common::{binary, run, stdout};
use serde_json::Value;
use std::process::Output;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command line with variables, and a hub's cache that is empty.
fn with(variables: &[(&str, &str)], args: &[&str]) -> Output {
    let cache = tempfile::tempdir().unwrap();
    let mut command = binary();
    command.env("HF_HUB_CACHE", cache.path()).env("HF_HUB_OFFLINE", "1");
    command.envs(variables.iter().copied()).args(args).output().unwrap()
}

#[test]
fn every_command_ends_with_2_on_wrong_usage_and_with_1_on_a_failure() {
    let model = |rest: &'static [&'static str]| [rest, &["--device", "cpu"]].concat();
    for (args, code) in [
        (vec![], 2),
        (vec!["nonsense"], 2),
        (vec!["serve", "--bogus"], 2),
        (vec!["serve", "extra"], 2),
        (vec!["serve", "--port", "abc"], 2),
        (vec!["serve", "--port", "70000"], 2),
        (vec!["serve", "--host", ""], 2),
        (vec!["serve", "--host", "no such host"], 2),
        (vec!["serve", "--host", "127.0.0.1:8080"], 2),
        (vec!["serve", "--cors-origin", "app.example"], 2),
        (vec!["serve", "--device", "abacus"], 2),
        (vec!["serve", "--threads", "5000"], 2),
        (vec!["serve", "--metal-opts", "turbo"], 2),
        (vec!["serve", "--arithmetic", "slow"], 2),
        (vec!["serve", "--log-format", "xml"], 2),
        (vec!["serve", "--config", "/nonexistent.yaml"], 2),
        (vec!["serve", "-m", "rustbook-5m-4bit", "-m", "rustbook-5m-4bit", "--port", "0"], 2),
        (vec!["serve", "--device", "vulkan:99", "--port", "0"], 1),
        (vec!["serve", "-m", "org/gone", "--port", "0"], 1),
        (vec!["chat", "--bogus"], 2),
        (vec!["chat", "--temperature", "hot"], 2),
        (vec!["chat", "-m", "no such model"], 2),
        (vec!["chat", "-m", "org/gone"], 1),
        (vec!["generate"], 2),
        (vec!["generate", "--prompt", "x", "--seed", "1.5"], 2),
        (vec!["generate", "--prompt", "x", "--model", "no such model"], 2),
        (vec!["generate", "--prompt", "x", "--model", "org/gone"], 1),
        (vec!["pull"], 2),
        (vec!["pull", "no such id"], 2),
        (vec!["pull", "org/gone"], 1),
        (vec!["completions"], 2),
        (vec!["completions", "tcsh"], 2),
        (vec!["man", "extra"], 2),
        (vec!["man", "--out", "/dev/null/pages"], 1),
        (vec!["health", "--port", "abc"], 2),
        (vec!["list", "--bogus"], 2),
        (vec!["list", "--device", "abacus"], 2),
        (vec!["rm"], 2),
        (vec!["rm", "no such id"], 2),
        (vec!["rm", "org/gone"], 1),
        (vec!["bench"], 2),
        (vec!["bench", "throughput", "-q", "0"], 2),
        (vec!["bench", "throughput", "--concurrency", "0"], 2),
        (model(&["bench", "throughput", "--prompt-tokens", "1000000"]), 2),
        (vec!["bench", "compare", "--optimizations", "turbo"], 2),
        (vec!["bench", "compare", "--repetitions", "0"], 2),
        (vec!["bench", "compare", "--repetitions", "18446744073709551615"], 2),
        (vec!["bench", "compare", "--questions", "18446744073709551615"], 2),
        (vec!["bench", "compare", "--max-tokens", "18446744073709551615"], 2),
        (vec!["bench", "compare", "--prefix-tokens", "18446744073709551615"], 2),
        (vec!["bench", "compare", "--concurrency", "4096", "--prompt-tokens", "1048576"], 2),
        (vec!["bench", "throughput", "--prompt-tokens", "18446744073709551615"], 2),
        (vec!["bench", "throughput", "--concurrency", "18446744073709551615"], 2),
        (vec!["bench", "compare", "--turns", "3"], 2),
        (vec!["bench", "compare", "--load", "conversations", "-q", "3"], 2),
        (vec!["bench", "compare", "--load", "conversations", "--turns", "1"], 2),
        (vec!["bench", "compare", "--load", "poem"], 2),
        (vec!["bench", "compare", "--max-regression", "101"], 2),
        (vec!["bench", "compare", "--baseline", "/nonexistent.json"], 2),
        (vec!["bench", "compare", "-o", "x.html"], 2),
        (vec!["bench", "compare", "-o", "/tmp"], 2),
        (vec!["bench", "throughput", "-o", "/tmp"], 2),
        (vec!["bench", "kernels", "--shape", "gpt-9"], 2),
        (vec!["bench", "kernels", "--rows", "0"], 2),
        (vec!["bench", "synth", "--shape", "tiny-qwen2"], 2),
        (vec!["bench", "synth", "--out", "/dev/null/x"], 2),
        (vec!["bench", "synth", "--shape", "tiny-qwen2", "--script", "x.json", "--out", "/dev/null/x"], 2),
        (vec!["bench", "synth", "--script", "/nonexistent.json", "--out", "/dev/null/x"], 1),
        (vec!["bench", "synth", "--shape", "tiny-qwen2", "--bits", "7", "--out", "/dev/null/x"], 2),
        (vec!["bench", "synth", "--shape", "tiny-qwen2", "--out", "/dev/null/x"], 1),
        (vec!["eval"], 2),
        (vec!["eval", "logits", "--tokens", "1"], 2),
        (vec!["eval", "logits", "--tokens", "a", "--output", "/dev/null"], 2),
        (model(&["eval", "logits", "--tokens", "99999999", "--output", "/dev/null"]), 2),
        (model(&["eval", "logits", "--tokens", "1", "--output", "/dev/null/x"]), 1),
        (vec!["eval", "perplexity"], 2),
        (vec!["eval", "perplexity", "--text", "/nonexistent.txt"], 1),
        (vec!["config"], 2),
        (vec!["config", "check", "--config", "/nonexistent.yaml"], 2),
        (vec!["config", "check", "--port", "abc"], 2),
        (vec!["config", "check", "--device", "vulkan:99"], 1),
        (vec!["config", "show", "--host", "no such host"], 2),
        (vec!["config", "schema", "--bogus"], 2),
        (vec!["doctor", "--threads", "many"], 2),
    ] {
        let output = with(&[], &args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", said(&output));
        assert!(output.stdout.is_empty(), "{args:?} wrote results");
        assert!(!output.stderr.is_empty(), "{args:?} said nothing");
        assert!(!said(&output).contains("in string"), "{}", said(&output));
    }
}

#[test]
fn a_switch_in_the_environment_is_taken_as_booleans_are_elsewhere() {
    for (value, json) in
        [("1", true), ("true", true), ("yes", true), ("on", true), ("0", false), ("false", false), ("", false)]
    {
        let output = with(&[("MLX_SERVING_JSON", value)], &["config", "show"]);
        assert_eq!(output.status.code(), Some(0), "{value}: {}", said(&output));
        assert_eq!(output.stdout.starts_with(b"{"), json, "{value}");
    }
    let output = with(&[("MLX_SERVING_JSON", "maybe")], &["config", "show"]);
    assert_eq!(output.status.code(), Some(2));
    let message = said(&output);
    assert!(message.contains("it takes true or false") && message.contains("variable MLX_SERVING_JSON"), "{message}");
}

#[test]
fn config_check_and_show_know_every_variable() {
    for (name, value, part) in [
        ("MLX_SERVING_PORT", "abc", "it takes a whole number"),
        ("MLX_SERVING_HOST", "no such host", "is not an address"),
        ("MLX_SERVING_CORS_ORIGIN", "app.example", "is not an origin"),
        ("MLX_SERVING_DEVICE", "abacus", "is not a device"),
        ("MLX_SERVING_MAX_TOKENS", "many", "variable MLX_SERVING_MAX_TOKENS"),
        ("MLX_SERVING_BITS", "x", "variable MLX_SERVING_BITS"),
        ("MLX_SERVING_ARITHMETIC", "slow", "it takes fast or exact"),
        ("MLX_SERVING_RAW", "perhaps", "variable MLX_SERVING_RAW"),
        ("MLX_SERVING_METAL_OPTS", "turbo", "MLX_SERVING_METAL_OPTS: "),
        ("MLX_SERVING_PORT", "tcp://10.0.0.1:8080", "enableServiceLinks"),
    ] {
        let output = with(&[(name, value)], &["config", "check"]);
        let message = said(&output);
        assert_eq!(output.status.code(), Some(2), "{name}: {message}");
        assert!(message.contains(part) && message.contains(value), "{message}");
    }
    let set = [
        ("MLX_SERVING_HOST", "::1"),
        ("MLX_SERVING_PORT", "9000"),
        ("MLX_SERVING_MODEL", "a,b"),
        ("MLX_SERVING_DEVICE", "cpu"),
        ("MLX_SERVING_TEMPERATURE", "0.5"),
    ];
    let shown = String::from_utf8(with(&set, &["config", "show", "--port", "9001"]).stdout).unwrap();
    for line in [
        "server.host: \"::1\"  # MLX_SERVING_HOST",
        "server.port: 9001  # --port",
        "models.serve: [\"a\",\"b\"]  # MLX_SERVING_MODEL",
        "engine.device: \"cpu\"  # MLX_SERVING_DEVICE",
        "MLX_SERVING_TEMPERATURE=0.5  # chat, generate",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
    }
    assert!(shown.starts_with("# differs from the default\nserver.host"), "{shown}");
    let json: Value = serde_json::from_slice(&with(&set, &["config", "show", "--json"]).stdout).unwrap();
    assert_eq!(json["values"]["server.port"]["origin"], "MLX_SERVING_PORT");
    assert_eq!(json["variables"]["MLX_SERVING_TEMPERATURE"], "0.5");
}

#[test]
fn an_unknown_variable_is_warned_of_with_the_nearest_one() {
    let output = with(&[("MLX_SERVING_MODLE", "x"), ("MLX_SERVING_REQUIRE_VULKAN", "0")], &["list"]);
    let message = said(&output);
    assert!(message.contains("MLX_SERVING_MODLE is unknown and ignored; did you mean MLX_SERVING_MODEL?"), "{message}");
    assert!(!message.contains("REQUIRE_VULKAN"), "{message}");
    // What a command does not read cannot stop it.
    let output = with(&[("MLX_SERVING_DEVICE", "abacus"), ("MLX_SERVING_THREADS", "x")], &["list"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[test]
fn a_broken_configuration_stops_only_what_needs_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broken.yaml");
    std::fs::write(&path, "server: {prot: 1}\nengine: {treads: 2}\n").unwrap();
    let broken = [("MLX_SERVING_CONFIG", path.to_str().unwrap())];
    let out = dir.path().join("tiny");
    for (args, code) in [
        (&["config", "check"][..], 2),
        (&["config", "show"], 2),
        (&["serve", "--port", "0"], 2),
        (&["generate", "-p", "x"], 2),
        (&["config", "schema"], 0),
        (&["list"], 0),
        (&["doctor"], 0),
        (&["rm", "org/gone"], 1),
        (&["bench", "synth", "--shape", "tiny-qwen2", "--out", out.to_str().unwrap()], 0),
        (&["--help"], 0),
        (&["--version"], 0),
        (&["help", "serve"], 0),
    ] {
        let output = with(&broken, args);
        let message = said(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {message}");
        if code == 2 {
            assert!(message.contains("2 unknown keys") && message.contains("broken.yaml"), "{message}");
            assert!(
                message.contains("did you mean `port`?") && message.contains("did you mean `threads`?"),
                "{message}"
            );
        }
    }
    let report = String::from_utf8(with(&broken, &["doctor"]).stdout).unwrap();
    assert!(report.contains("! configuration") && report.contains("did you mean `threads`?"), "{report}");
}

#[test]
fn config_check_and_doctor_warn_of_what_is_hardly_meant() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("runtime.yaml");
    std::fs::write(
        &path,
        "metal_optimizations: {memory_pool: {enabled: true}}\nserver: {limits: {unread_mb: 1048576}}\n",
    )
    .unwrap();
    let config = ["--device", "cpu", "--config", path.to_str().unwrap()];
    for command in [&["config", "check"][..], &["doctor"]] {
        let told = stdout(&[command, &config].concat()).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            told.contains("metal_optimizations.memory_pool.enabled is true, but metal_optimizations.enabled"),
            "{told}"
        );
        assert!(told.contains("server.limits.unread_mb is 1048576, more than this machine's memory"), "{told}");
    }
    let output = run(&[&["generate", "-p", "x", "--max-tokens", "1"], &config[..]].concat());
    assert!(said(&output).contains("memory_pool.enabled is true, but"), "{}", said(&output));
}

#[test]
fn pages_in_a_pipe_have_no_color_and_80_columns() {
    for args in
        [&["--help"][..], &["serve", "--help"], &["config", "show"], &["config", "check"], &["doctor"], &["list"]]
    {
        let output = with(&[], args);
        for bytes in [&output.stdout, &output.stderr] {
            assert!(!bytes.contains(&0x1b), "{args:?}: {}", String::from_utf8_lossy(bytes));
        }
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            assert!(line.chars().count() <= 80, "{args:?}: {line}");
        }
    }
}
