//! The three optimizations from the command line and the configuration to `/v1/metal/stats` and `/metrics`.

use crate::common::{Server, run, stdout};
use serde_json::{Value, json};

/// Small heaps: a test must not take a gigabyte.
fn config(extra: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "engine: {{ kv_cache_tokens: 1024 }}\nmetal_optimizations:\n  memory_pool: {{ heap_size_mb: 64, num_heaps: 2, \
         warmup_buffer_sizes_mb: [1] }}\n  blit_queue: {{ staging_buffer_size_mb: 8 }}\n{extra}"
    );
    std::fs::write(file.path(), text).unwrap();
    file
}

fn serve(config: &tempfile::NamedTempFile, args: &[&str]) -> Server {
    let path = config.path().to_str().unwrap();
    Server::start(&[&["--device", "cpu", "--threads", "1", "--config", path], args].concat())
}

fn complete(server: &Server) -> Value {
    let body = json!({ "prompt": "Ownership is", "max_tokens": 12, "temperature": 0.8, "seed": 11 });
    let (status, answer) = server.post("/v1/completions", &body);
    assert_eq!(status, 200, "{answer}");
    answer["choices"].clone()
}

fn stats(server: &Server) -> Value {
    serde_json::from_str(&server.get("/v1/metal/stats").1).unwrap()
}

#[test]
fn switching_all_on_shows_in_statistics_and_metrics_and_changes_no_answer() {
    let config = config("");
    let off = serve(&config, &[]);
    let expected = complete(&off);
    let baselines = json!({ "enabled": false });
    assert_eq!(stats(&off)["memory_pool"], baselines);
    assert_eq!(stats(&off)["command_buffer_ring"], baselines);
    assert!(!off.get("/metrics").1.contains("command_ring"));

    let on = serve(&config, &["--metal-opts", "all"]);
    assert_eq!(complete(&on), expected);
    on.until("the last step's end in the statistics", |s| stats(s)["command_buffer_ring"]["in_flight_count"] == 0);
    let stats = stats(&on);
    for name in ["memory_pool", "blit_queue", "command_buffer_ring"] {
        assert_eq!(stats[name]["enabled"], true, "{stats}");
    }
    assert_eq!(stats["device"]["backend"], "cpu");
    let ring = &stats["command_buffer_ring"];
    assert!(
        ring["total_acquired"].as_u64().unwrap() >= 12 && ring["total_acquired"] == ring["total_released"],
        "{ring}"
    );
    assert!(stats["memory_pool"]["bytes_in_use"].as_u64().unwrap() > 0);
    assert!(on.metric("command_ring_submitted_total") >= 12.0);
    assert!(on.metric("metal_pool_acquired_total") > 0.0);
    assert!(on.metric("blit_upload_duration_seconds_count") > 0.0);
    assert_eq!(on.metric("command_ring_timeouts_total"), 0.0);
}

#[test]
fn metrics_can_be_hidden() {
    let server = serve(&config("  expose_metrics: false\n"), &["--metal-opts", "all"]);
    assert_eq!(stats(&server)["memory_pool"]["enabled"], true);
    let text = server.get("/metrics").1;
    assert!(text.contains("vllm:num_requests_running") && !text.contains("metal_pool"), "{text}");
}

#[test]
fn the_command_line_overrides_the_file_and_names_what_it_takes() {
    let file = config("  enabled: true\n  command_buffer_ring: { enabled: true }\n");
    let path = file.path().to_str().unwrap();
    let line = |args: &[&str]| stdout(&[&["config", "show", "--config", path], args].concat());
    assert!(line(&[]).contains("metal_optimizations.command_buffer_ring.enabled: true"));
    let none = line(&["--metal-opts", "none"]);
    assert!(none.contains("metal_optimizations.enabled: false  # --metal-opts\n"), "{none}");
    let wrong = run(&["config", "check", "--metal-opts", "ring"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("command_buffer_ring"), "{wrong:?}");
}
