//! `/metrics` as Prometheus reads it: with one model and with two, idle and under load, in both formats.

use crate::common;
use crate::common::Server;
use crate::exposition;
use crate::exposition::Family;
use serde_json::json;
use std::collections::BTreeMap;

const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Asks for metrics; the content type and the text.
fn ask(server: &Server, accept: Option<&str>) -> (String, String) {
    let request = ureq::get(server.url("/metrics"));
    let request = accept.into_iter().fold(request, |request, accept| request.header("accept", accept));
    let mut response = request.call().unwrap();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    (kind, response.body_mut().read_to_string().unwrap())
}

/// All families, from OpenMetrics; the older format is read too, and must have the same.
fn families(server: &Server) -> BTreeMap<String, Family> {
    // HTTP answers are there once there was one.
    server.get("/health");
    let (kind, text) = ask(server, Some("application/openmetrics-text; version=1.0.0"));
    assert_eq!(kind, OPEN);
    let open = exposition::read(&text, true).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let (kind, text) = ask(server, Some("text/plain"));
    assert_eq!(kind, PLAIN);
    let plain = exposition::read(&text, false).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let names = |families: &BTreeMap<String, Family>| -> Vec<String> {
        families.keys().map(|name| name.strip_suffix("_total").unwrap_or(name).to_owned()).collect()
    };
    assert_eq!(names(&open), names(&plain));
    open
}

/// Settings under which all metrics are there.
fn config(folder: &std::path::Path) -> String {
    let path = folder.join("runtime.yaml");
    let text = "engine: { kv_cache_tokens: 1024 }\nmetal_optimizations:\n  memory_pool: { heap_size_mb: 64, num_heaps: 2, \
                warmup_buffer_sizes_mb: [1] }\n  blit_queue: { staging_buffer_size_mb: 8 }\n";
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn under_load(server: &Server, models: &[&str]) {
    let body = |model: &str| json!({ "model": model, "prompt": "Ownership is", "max_tokens": 300, "ignore_eos": true });
    std::thread::scope(|scope| {
        let asked: Vec<_> = (models.iter().cycle().take(6))
            .map(|model| scope.spawn(|| server.post("/v1/completions", &body(model)).0))
            .collect();
        server.until("load", |s| s.metric("vllm:num_requests_running") > 0.0);
        for _ in 0..20 {
            families(server);
        }
        assert!(asked.into_iter().all(|asked| asked.join().unwrap() == 200));
    });
    let families = families(server);
    for model in models {
        let label = [("model_name", *model)];
        let answers = 6.0 / models.len() as f64;
        for (name, count) in [
            ("vllm:request_prompt_tokens", answers),
            ("vllm:request_generation_tokens", answers),
            ("vllm:request_max_num_generation_tokens", answers),
            ("vllm:request_params_max_tokens", answers),
            ("vllm:time_to_first_token_seconds", answers),
        ] {
            assert_eq!(families[name].value("_count", &label), count, "{name} of {model}");
        }
        assert_eq!(families["vllm:request_generation_tokens"].value("_sum", &label), 300.0 * answers);
        assert!(families["vllm:iteration_tokens_total"].value("_sum", &label) >= 299.0 * answers);
        let ends = |reason| families["vllm:request_success"].value("", &[label[0], ("finished_reason", reason)]);
        assert_eq!((ends("length"), ends("stop")), (answers, 0.0));
    }
}

#[test]
fn metrics_of_one_model_are_well_formed() {
    let server = Server::start(&["--device", "cpu"]);
    let idle = families(&server);
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    assert_eq!(idle["mlx_serving_build_info"].value("", &version), 1.0);
    under_load(&server, &["rustbook-5m-4bit"]);
    #[cfg(target_os = "linux")]
    {
        let families = families(&server);
        let value = |name: &str| families[name].value("", &[]);
        assert!(value("process_resident_memory_bytes") > 1e6 && value("process_cpu_seconds") > 0.0);
        assert!(value("process_open_fds") >= 3.0 && value("process_max_fds") > value("process_open_fds"));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - value("process_start_time_seconds");
        assert!((-2.0..3600.0).contains(&age), "started {age} s ago");
    }
}

#[test]
fn two_models_share_their_families() {
    let dir = tempfile::tempdir().unwrap();
    let (twin, config) = (common::copy_model(dir.path(), "twin"), config(dir.path()));
    let bundled = common::root().join("models/rustbook-5m-4bit");
    let models = ["-m", bundled.to_str().unwrap(), "-m", twin.to_str().unwrap()];
    let server = Server::start(
        &[&["--device", "cpu", "--threads", "1", "--config", &config, "--metal-opts", "all"], &models[..]].concat(),
    );
    let idle = families(&server);
    for name in ["vllm:num_requests_running", "metal_pool_reserved_bytes", "blit_pending_operations"] {
        let models: Vec<&str> = idle[name].samples.iter().map(|s| s.labels["model_name"].as_str()).collect();
        assert_eq!(models, ["rustbook-5m-4bit", "twin"], "{name}");
    }
    let label = [("model_name", "twin")];
    let (reserved, used) =
        (idle["metal_pool_reserved_bytes"].value("", &label), idle["metal_pool_in_use_bytes"].value("", &label));
    assert!(0.0 < used && used <= reserved, "{used} of {reserved}");
    under_load(&server, &["rustbook-5m-4bit", "twin"]);
}

#[test]
fn the_format_is_the_one_that_is_asked_for() {
    let server = Server::start(&["--device", "cpu"]);
    for (accept, kind) in [
        (None, PLAIN),
        (Some("*/*"), PLAIN),
        (Some("text/plain;version=0.0.4"), PLAIN),
        (Some("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"), OPEN),
        (Some("application/openmetrics-text;version=1.0.0;q=0.2,text/plain;version=0.0.4;q=0.5"), PLAIN),
    ] {
        let (found, text) = ask(&server, accept);
        assert_eq!(found, kind, "{accept:?}");
        assert_eq!(text.ends_with("# EOF\n"), kind == OPEN);
    }
}

#[test]
fn answers_are_counted_by_route_method_and_status() {
    let server = Server::start(&["--device", "cpu"]);
    server.get("/v1/models/rustbook-5m-4bit");
    server.get("/v1/models/no/such/model");
    server.get("/v1/models/neither");
    server.get("/secret/path?with=things");
    server.get("/v1/completions");
    server.post("/v1/completions", &json!({ "prompt": "A", "max_tokens": 1 }));
    server.post("/v1/completions", &json!({ "prompt": 3 }));
    let families = families(&server);
    let count = |handler, method, status| {
        families["http_requests"].value("", &[("handler", handler), ("method", method), ("status", status)])
    };
    assert_eq!(count("/v1/models/{*id}", "GET", "200"), 1.0);
    assert_eq!(count("/v1/models/{*id}", "GET", "404"), 2.0);
    assert_eq!(count("", "GET", "404"), 1.0);
    assert_eq!(count("/v1/completions", "GET", "405"), 1.0);
    assert_eq!(count("/v1/completions", "POST", "200"), 1.0);
    assert_eq!(count("/v1/completions", "POST", "400"), 1.0);
    let all = families["http_requests"].samples.iter();
    assert!(all.clone().all(|s| !s.labels["handler"].contains("secret")), "a path became a label");
}

#[test]
fn a_client_that_hangs_up_is_no_success() {
    let server = Server::start(&["--device", "cpu"]);
    let body = json!({ "prompt": "Ownership", "max_tokens": 1900, "ignore_eos": true, "stream": true });
    drop(server.open("/v1/completions", &body, 400));
    server.until("the end of the request", |s| s.metric("request_failure_total") == 1.0);
    let families = families(&server);
    let value = |name: &str, labels: &[(&str, &str)]| families[name].value("", labels);
    assert_eq!(value("request_failure", &[("finished_reason", "abort")]), 1.0);
    assert_eq!(server.metric("vllm:request_success_total"), 0.0);
    assert_eq!(server.metric("vllm:e2e_request_latency_seconds_count"), 0.0);
}

#[test]
fn preempted_prompts_are_counted_once_and_their_own_blocks_are_no_hits() {
    let server = Server::configured("engine: { kv_cache_tokens: 640, max_sequences: 8, max_batch_rows: 64 }\n");
    let ask = |salt: u32| {
        let prompt: Vec<u32> = (0..190).map(|i| 5 + (i * 31 + salt * 977) % 3900).collect();
        let body = json!({ "prompt": prompt, "max_tokens": 200, "ignore_eos": true, "temperature": 0 });
        let (status, answer) = server.post("/v1/completions", &body);
        assert_eq!((status, &answer["usage"]["prompt_tokens"]), (200, &json!(190)), "{answer}");
        answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_f64().unwrap()
    };
    let cached: f64 = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..12).map(|salt| scope.spawn(move || ask(salt))).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).sum()
    });
    assert!(server.metric("vllm:num_preemptions_total") > 0.0, "nothing was preempted");
    server.until("the counters", |s| s.metric("vllm:prompt_tokens_total") >= 12.0 * 190.0);
    assert_eq!(server.metric("vllm:prompt_tokens_total"), 12.0 * 190.0);
    assert_eq!(server.metric("vllm:prefix_cache_queries_total"), 12.0 * 190.0);
    assert_eq!(server.metric("vllm:prefix_cache_hits_total"), cached);
}
