//! Commands as users run them.

use crate::common::{binary, run, stdout};
use serde_json::Value;

#[test]
fn generate_answers_with_the_bundled_model() {
    let args = ["generate", "--prompt", "What Is Ownership?", "--temperature", "0", "--max-tokens", "12"];
    let text = stdout(&args);
    assert!(text.split_whitespace().count() > 4, "{text:?}");
    let json: Value = serde_json::from_str(&stdout(&[&args[..], &["--json"]].concat())).unwrap();
    assert_eq!(json["text"].as_str().unwrap().trim_end(), text.trim_end());
    assert_eq!(json["token_ids"].as_array().unwrap().len(), 12);
    assert_eq!(json["finish_reason"], "length");
}

#[test]
fn a_prompt_can_come_from_standard_input() {
    use std::io::Write as _;
    let mut child = binary()
        .args(["generate", "--prompt", "-", "--raw", "--temperature", "0", "--max-tokens", "3"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"fn main() {").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && !output.stdout.is_empty());
}

#[test]
fn exit_codes_tell_wrong_usage_from_failure() {
    for (args, code) in [
        (&["generate"][..], 2),
        (&["bench", "synth", "--shape", "gpt-9", "--out", "/nonexistent"], 2),
        (&["nonsense"], 2),
        (&["generate", "--prompt", "x", "--metal-opts", "turbo"], 2),
        (&["generate", "--prompt", "x", "--device", "vulkan:99"], 1),
        (&["generate", "--prompt", "x", "--device", "abacus"], 2),
        (&["--config", "/nonexistent.yaml", "config", "show"], 2),
        (&["generate", "--prompt", "x", "--temperature", "9"], 2),
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.is_empty(), "{args:?} wrote results");
        assert!(!output.stderr.is_empty(), "{args:?} said nothing");
    }
}

#[test]
fn every_flag_has_its_environment_twin() {
    let output = binary()
        .args(["generate"])
        .env("MLX_SERVING_PROMPT", "What Is Ownership?")
        .env("MLX_SERVING_MAX_TOKENS", "2")
        .env("MLX_SERVING_JSON", "true")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["completion_tokens"], 2);
}

#[test]
fn a_pipe_gets_no_color_and_no_progress_bar() {
    let output = run(&["doctor"]);
    assert!(output.status.success());
    for bytes in [&output.stdout, &output.stderr] {
        assert!(!bytes.contains(&0x1b), "{}", String::from_utf8_lossy(bytes));
    }
}

#[test]
#[cfg(not(target_vendor = "apple"))]
fn the_doctor_reports_where_the_configured_device_is_missing() {
    let output = run(&["doctor", "--device", "metal"]);
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(report.contains("machine") && report.contains("! no Metal device"), "{report}");
}

#[test]
fn a_synthetic_checkpoint_can_be_measured() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("tiny");
    let out = out.to_str().unwrap();
    stdout(&["bench", "synth", "--shape", "tiny-qwen2", "--out", out]);
    let file = dir.path().join("record.json");
    let file = file.to_str().unwrap();
    stdout(&[
        "bench",
        "throughput",
        "-m",
        out,
        "-q",
        "3",
        "--prompt-tokens",
        "20",
        "--max-tokens",
        "5",
        "--output",
        file,
    ]);
    let record: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    for key in ["throughput_tok_s", "prefill_tok_s", "decode_tok_s", "device_utilization"] {
        assert!(record[key].as_f64().unwrap() > 0.0, "{key}: {record}");
    }
    assert_eq!(record["total_tokens"], 15);
    assert!(record["ttft_ms"]["p50"].as_f64().unwrap() > 0.0 && record["itl_ms"]["p99"].as_f64().unwrap() > 0.0);
}

#[test]
fn kernels_are_measured_and_their_sums_are_their_parts() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kernels.json");
    let shape = ["bench", "kernels", "--shape", "tiny-qwen2", "--device", "cpu", "--threads", "1"];
    let args = ["--rows", "1,3,128", "--context", "20,150", "--output", file.to_str().unwrap()];
    let table = stdout(&[&shape[..], &args].concat());
    assert!(table.contains("GB/s") && table.contains("norm, gate, up") && table.contains("prefill"), "{table}");
    let record: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!((&record["settings"]["shape"], &record["device"]["backend"]), (&"tiny-qwen2".into(), &"cpu".into()));
    let copy = record["copy"]["gb_s"].as_f64().unwrap();
    assert!(copy > 0.0, "{record}");
    let kernels = record["kernels"].as_array().unwrap();
    // Of 1 and 3 rows all nine and Attend once more; of the chunk all but head and sampling, which are as of 1 row.
    assert_eq!(kernels.len(), 2 * 10 + 8, "{record}");
    for k in kernels {
        let (median, minimum) = (k["median_us"].as_f64().unwrap(), k["minimum_us"].as_f64().unwrap());
        assert!(0.0 < minimum && minimum <= median && k["bytes"].as_u64().unwrap() > 0, "{k}");
        let gb_s = k["bytes"].as_f64().unwrap() / median / 1e3;
        assert!((k["gb_s"].as_f64().unwrap() / gb_s - 1.0).abs() < 1e-6, "{k}");
        assert!((k["copy_share"].as_f64().unwrap() * copy / gb_s - 1.0).abs() < 1e-6, "{k}");
    }
    let steps = |name: &str| record[name].as_array().unwrap().clone();
    let (decode, prefill) = (steps("decode"), steps("prefill"));
    assert_eq!((decode.len(), prefill.len()), (4, 2));
    for step in decode.iter().chain(&prefill) {
        let last_rows = if step["rows"] == 128 { Value::from(1) } else { step["rows"].clone() };
        let parts = kernels.iter().filter(|k| {
            let rows = if k["kernel"] == "lm_head" || k["kernel"] == "sample" { &last_rows } else { &step["rows"] };
            k["rows"] == *rows && (k["context"].is_null() || k["context"] == step["context"])
        });
        let (mut count, mut us, mut bytes) = (0, 0.0, 0);
        for k in parts {
            let calls = k["calls_per_step"].as_u64().unwrap();
            assert_eq!(
                calls,
                if ["qkv", "attend", "o", "gate_up", "down"].iter().any(|n| k["kernel"] == *n) { 2 } else { 1 }
            );
            count += 1;
            us += calls as f64 * k["median_us"].as_f64().unwrap();
            bytes += calls * k["bytes"].as_u64().unwrap();
        }
        assert_eq!((count, step["bytes"].as_u64().unwrap()), (9, bytes), "{step}");
        assert!((step["ms"].as_f64().unwrap() * 1e3 / us - 1.0).abs() < 1e-6, "{step}");
        let tok_s = step["rows"].as_f64().unwrap() * 1e6 / us;
        assert!((step["tok_s"].as_f64().unwrap() / tok_s - 1.0).abs() < 1e-6, "{step}");
    }
}

#[test]
fn kernels_that_cannot_be_measured_are_refused() {
    for (args, part) in [
        (&["--shape", "gpt-9"][..], "qwen2.5-0.5b"),
        (&["--shape", "tiny-qwen2", "--bits", "7"], "2, 3, 4, 5, 6 or 8"),
        (&["--rows", "0"], "--rows"),
        (&["--rows", "1,x"], "--rows"),
        (&["--context", ""], "--context"),
    ] {
        let output = run(&[&["bench", "kernels", "--device", "cpu"], args].concat());
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
        assert!(message.contains(part) && output.stdout.is_empty(), "{args:?}: {message}");
    }
}

#[test]
fn logits_are_written_as_numpy_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("logits.npy");
    stdout(&["eval", "logits", "--tokens", "5,6,7", "--output", file.to_str().unwrap()]);
    let bytes = std::fs::read(file).unwrap();
    assert_eq!(&bytes[..6], b"\x93NUMPY");
    let header = String::from_utf8_lossy(&bytes[10..128]).into_owned();
    assert!(header.contains("'descr': '<f4'") && header.contains("(3, 4096)"), "{header}");
    let start = bytes.len() - 3 * 4096 * 4;
    assert_eq!(start % 64, 0);
    let values: Vec<f32> = bytes[start..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert!(values.iter().all(|v| v.is_finite()) && values.iter().any(|v| *v != values[0]));
}

#[test]
fn configuration_is_checked_shown_and_described() {
    assert!(stdout(&["config", "check"]).contains("config/runtime.yaml"));
    assert!(stdout(&["config", "show"]).contains("metal_optimizations.enabled: false"));
    let schema: Value = serde_json::from_str(&stdout(&["config", "schema"])).unwrap();
    assert!(schema["properties"]["metal_optimizations"].is_object());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.yaml");
    std::fs::write(&file, "server:\n  prot: 1\n").unwrap();
    let output = run(&["--config", file.to_str().unwrap(), "config", "check"]);
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("prot") && message.contains("line 2"), "{message}");
    let output = run(&["config", "check", "--device", "vulkan:9999"]);
    assert_eq!(output.status.code(), Some(1), "the device is missing");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no Vulkan device"));
}

#[test]
fn config_check_refuses_what_serve_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("runtime.yaml");
    let pool = "memory_pool: { enabled: true, heap_size_mb: 64, num_heaps: 2, warmup_buffer_sizes_mb: [] }";
    let misfit = format!(
        "engine: {{ kv_cache_tokens: 65536 }}\nmetal_optimizations: {{ enabled: true, graceful_fallback: false, {pool} }}\n"
    );
    for (text, code, parts) in [
        ("models: { serve: [rustbook-5m-4bit, rustbook-5m-4bit] }", 2, &["rustbook-5m-4bit was named twice"][..]),
        ("server: { host: 'no such host' }", 2, &["line 1", "server.host", "no such host"]),
        ("server: { host: nosuchhost.invalid }", 1, &["nosuchhost.invalid", "cannot be listened on"]),
        (
            "engine: { kv_spill_file: /no/such/folder/kv }",
            1,
            &["the KV spill file /no/such/folder/kv", "engine.kv_spill_file"],
        ),
        (&misfit, 1, &["does not fit", "2 heaps of 64 MiB", "graceful_fallback"]),
        ("engine:\n  device: gpu\n", 2, &["line 2", "engine.device", "vulkan:N"]),
    ] {
        std::fs::write(&path, text).unwrap();
        for command in [&["config", "check"][..], &["serve", "--port", "0"]] {
            let output = run(&[command, &["--config", path.to_str().unwrap()]].concat());
            let message = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(code), "{command:?} {text}: {message}");
            assert!(!message.contains("not running"), "{message}");
            for part in parts {
                assert!(message.contains(part), "{part} is not in: {message}");
            }
        }
    }
}

#[test]
fn config_check_warns_of_settings_of_models_that_are_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("runtime.yaml");
    let text = |models: &str| {
        std::fs::write(&path, format!("models: {{ {models} nomodel: {{ sampling_defaults: {{ top_k: -1 }} }} }}\n"))
            .unwrap();
        stdout(&["config", "check", "--config", path.to_str().unwrap()])
    };
    let bundled = format!("serve: [{:?}],", crate::common::root().join("models/rustbook-5m-4bit"));
    assert!(
        text(&bundled).contains("models.nomodel in the configuration matches no served model"),
        "{}",
        text(&bundled)
    );
    assert!(!text("").contains("nomodel"), "serve may be given the model's name by its command line");
}

#[test]
fn config_check_says_when_heaps_and_cache_do_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("runtime.yaml");
    let check = |tokens: usize, pool: bool| {
        let pool =
            format!("memory_pool: {{ enabled: {pool}, heap_size_mb: 64, num_heaps: 2, warmup_buffer_sizes_mb: [] }}");
        let text =
            format!("engine: {{ kv_cache_tokens: {tokens} }}\nmetal_optimizations:\n  enabled: true\n  {pool}\n");
        std::fs::write(&path, text).unwrap();
        stdout(&["config", "check", "--config", path.to_str().unwrap()])
    };
    assert_eq!(check(4096, true).lines().count(), 1);
    assert_eq!(check(65_536, false).lines().count(), 1);
    let told = check(65_536, true);
    let line = told.lines().nth(1).expect(&told);
    for part in ["rustbook-5m-4bit", "2 heaps of 64 MiB", "dedicated", "memory_pool.num_heaps"] {
        assert!(line.contains(part), "{part} is not in: {line}");
    }
}

#[test]
fn memory_beyond_the_machine_is_refused_before_any_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("runtime.yaml");
    for pool in [false, true] {
        let text = format!(
            "engine: {{ kv_spill_mb: 1048576 }}\nmetal_optimizations: {{ enabled: {pool}, memory_pool: {{ enabled: {pool} }} }}\n"
        );
        std::fs::write(&path, text).unwrap();
        let config = ["--config", path.to_str().unwrap(), "--device", "cpu"];
        for command in [&["config", "check"][..], &["serve", "--port", "0"], &["generate", "-p", "Hi"]] {
            let output = run(&[command, &config].concat());
            let message = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{command:?}: {message}");
            for part in [
                "rustbook-5m-4bit does not fit",
                "spilled blocks 1048576 MiB",
                "this machine has",
                "lower engine.kv_spill_mb to ",
            ] {
                assert!(message.contains(part), "{part} is not in: {message}");
            }
        }
        assert!(stdout(&[&["doctor"][..], &config].concat()).contains("does not fit"));
    }
}
