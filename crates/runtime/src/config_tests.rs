use super::*;
use mlx_serving_cpu::{CpuDevice, CpuOptions};
use mlx_serving_device::Device;

fn parse(text: &str, path: &Path) -> Result<File, ConfigError> {
    File::parse(text, path)
}

fn refused(text: &str) -> String {
    parse(text, Path::new("runtime.yaml")).expect_err(text).to_string()
}

#[test]
fn the_shipped_file_is_the_default_with_all_optimizations_off() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/runtime.yaml");
    let loaded = parse(&std::fs::read_to_string(&path).unwrap(), &path).unwrap();
    assert_eq!(loaded.config, Config::default());
    let m = &loaded.config.metal_optimizations;
    assert!(!m.enabled && !m.memory_pool.enabled && !m.blit_queue.enabled && !m.command_buffer_ring.enabled);
}

#[test]
fn errors_name_file_line_key_and_range() {
    let message = refused("engine:\n  max_sequences: 1000\n");
    for part in ["runtime.yaml", "line 2", "max_sequences", "256"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    let message = refused("server:\n  prot: 1\n");
    assert!(message.contains("line 2") && message.contains("`prot`") && message.contains("port"), "{message}");
    let message = refused("server:\n  port: many\n");
    assert!(message.contains("line 2"), "{message}");
    let message = refused("metal_optimizations:\n  command_buffer_ring: { ring_size: 9 }\n");
    assert!(message.contains("ring_size") && message.contains('8'), "{message}");
}

#[test]
fn ranges_are_named_with_both_ends() {
    for (text, told) in [
        ("engine: { max_batch_rows: 8 }", "`engine.max_batch_rows` must be 16 to 8192"),
        ("engine: { max_batch_rows: 9000 }", "`engine.max_batch_rows` must be 16 to 8192"),
        ("engine:\n  max_sequences: 1000\n", "`engine.max_sequences` must be 1 to 256"),
        ("server: { limits: { idle_s: 0 } }", "`server.limits.idle_s` must be 1 to 86400"),
    ] {
        let message = refused(text);
        assert!(message.contains(told) && !message.contains(" than "), "{message}");
    }
    let config = Config { engine: Engine { threads: 5000, ..Engine::default() }, ..Config::default() };
    let message = config.check().unwrap_err();
    assert!(message.contains("engine.threads: must be 0 to 1024"), "{message}");
}

#[test]
fn all_unknown_keys_are_named_with_the_ones_that_were_meant() {
    let message = refused("engine:\n  treads: 1\n  foo: 2\nsever: {prot: 1}\nserver:\n  prot: 1\n  threads: 2\n");
    let lines: Vec<&str> = message.lines().map(str::trim).collect();
    assert_eq!(lines[0], "configuration runtime.yaml: 5 unknown keys");
    assert_eq!(lines[1], "line 2: engine has no key `treads`; did you mean `threads`?");
    assert!(lines[2].starts_with("line 3: engine has no key `foo`; it has device, arithmetic, "), "{message}");
    assert_eq!(lines[3], "line 4: there is no section `sever`; did you mean `server`?");
    assert_eq!(lines[4], "line 6: server has no key `prot`; did you mean `port`?");
    assert_eq!(lines[5], "line 7: server has no key `threads`; did you mean `engine.threads`?");
    assert_eq!(lines.len(), 6, "nothing is said of keys below an unknown one: {message}");
    let message = refused("zoo: 1\n");
    assert!(message.contains("there are server, engine, models, metal_optimizations, telemetry"), "{message}");
}

#[test]
fn a_value_of_the_wrong_type_is_told_what_the_key_takes() {
    for (text, told) in [
        ("server: { port: abc }", "line 1 column 17: `server.port` takes a whole number from 0 to 65535"),
        ("server: { port: 70000 }", "`server.port` takes a whole number from 0 to 65535"),
        ("engine: { arithmetic: slow }", "`engine.arithmetic` takes one of fast, exact"),
        ("engine: { max_batch_rows: x }", "`engine.max_batch_rows` takes a whole number from 16 to 8192 or null"),
        ("models: { serve: x }", "`models.serve` takes a list, [a, b]; each is text"),
        ("engine: [1, 2]", "`engine` takes keys of its own: device, arithmetic, "),
        ("metal_optimizations: { enabled: maybe }", "`metal_optimizations.enabled` takes true or false"),
        (
            "metal_optimizations:\n  memory_pool: { warmup_buffer_sizes_mb: [1, x] }",
            "each is a whole number from 1 to 1024",
        ),
    ] {
        let message = refused(text);
        assert!(message.contains(told), "{message}");
        assert!(
            message.contains("--> runtime.yaml:") && !message.contains("error") && !message.contains("invalid"),
            "{message}"
        );
    }
}

#[test]
fn a_host_is_an_address_or_a_name() {
    for host in ["127.0.0.1", "::1", "[::1]", "fe80::1%eth0", "localhost", "gpu-box.lan", "my_service", "a.b."] {
        parse(&format!("server: {{ host: '{host}' }}"), Path::new("r.yaml")).expect(host);
    }
    for host in ["", "no such host", "127.0.0.1:8080", "http://localhost", "300.1.2.3", "1.2.3", "*", "-x", "a..b"] {
        let message = refused(&format!("server: {{ host: '{host}' }}"));
        assert!(
            message.contains(&format!("line 1 column 17: `server.host`: {host:?} is not an address; ")),
            "{message}"
        );
    }
}

#[test]
fn a_switch_under_a_closed_master_switch_is_warned_of() {
    let warnings = |text: &str, memory| parse(text, Path::new("r.yaml")).unwrap().config.warnings(memory);
    let closed = warnings("metal_optimizations: { memory_pool: { enabled: true } }", None);
    assert_eq!(closed.len(), 1, "{closed:?}");
    assert!(closed[0].starts_with("metal_optimizations.memory_pool.enabled is true, but"), "{closed:?}");
    assert_eq!(warnings("metal_optimizations: { enabled: true, memory_pool: { enabled: true } }", None), [""; 0]);
    assert_eq!(warnings("", Some(1 << 40)), [""; 0]);
}

#[test]
fn limits_beyond_the_machines_memory_are_warned_of() {
    let text = "server: { limits: { bodies_mb: 5000, unread_mb: 5000 } }";
    let config = parse(text, Path::new("r.yaml")).unwrap().config;
    let told = config.warnings(Some(4096 << 20));
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("bodies_mb is 5000") && told[0].contains("4096 MiB"), "{told:?}");
    assert_eq!(config.warnings(Some(5000 << 20)), [""; 0]);
    assert_eq!(config.warnings(None), [""; 0]);
}

#[test]
fn a_key_that_is_given_twice_is_named() {
    let message = refused("server:\n  port: 1\n  port: 2\n");
    assert!(message.contains("key port is given twice") && message.contains("line 3"), "{message}");
    assert!(!message.contains("Options"), "{message}");
}

#[test]
fn a_device_that_has_no_such_name_is_refused_with_its_place() {
    for name in ["gpu", "cpu:0", "vulkan:x", "\"\""] {
        let message = refused(&format!("engine:\n  device: {name}\n"));
        assert!(
            message.contains("line 2") && message.contains("engine.device") && message.contains("vulkan:N"),
            "{message}"
        );
        assert!(!message.contains("--device"), "{message}");
    }
    let schema = schemars::schema_for!(Config).to_value();
    let engine = &schema["$defs"]["Engine"]["properties"];
    assert!(engine["device"]["pattern"].is_string(), "{engine}");
    assert_eq!(engine["max_batch_rows"]["maximum"], 8192, "{engine}");
}

#[test]
fn a_spill_file_without_a_name_is_refused() {
    for path in ["\"\"", "/tmp/", "spill/"] {
        let message = refused(&format!("engine:\n  kv_spill_file: {path}\n"));
        assert!(message.contains("kv_spill_file") && message.contains("names no file"), "{message}");
    }
    for (text, file) in [("null", None), ("/tmp/kv", Some("/tmp/kv"))] {
        let loaded = parse(&format!("engine:\n  kv_spill_file: {text}\n"), Path::new("r.yaml")).unwrap();
        assert_eq!(loaded.config.engine.kv_spill_file, file.map(PathBuf::from));
    }
}

#[test]
fn keys_that_contradict_each_other_are_refused() {
    let message = refused("metal_optimizations:\n  memory_pool: { heap_size_mb: 1024, max_heap_size_mb: 512 }\n");
    assert!(message.contains("heap_size_mb") && message.contains("max_heap_size_mb"), "{message}");
    let message = refused("metal_optimizations:\n  memory_pool: { num_heaps: 2, min_heaps: 4 }\n");
    assert!(message.contains("num_heaps") && message.contains("min_heaps"), "{message}");
}

#[test]
fn limits_of_the_server_are_checked() {
    let message = refused("server:\n  limits: { idle_s: 0 }\n");
    assert!(message.contains("idle_s") && message.contains("line 2"), "{message}");
    let message = refused("server:\n  body_limit_mb: 100\n");
    assert!(message.contains("bodies_mb is 64") && message.contains("body_limit_mb, 100"), "{message}");
    let message = refused("server:\n  limits: { answer_mb: 1000 }\n");
    assert!(message.contains("unread_mb is 256") && message.contains("1000"), "{message}");
    let message = refused("server:\n  cors_origins: [\"https://app.example/\"]\n");
    assert!(message.contains("it ends with a slash; write https://app.example"), "{message}");
    let message = refused("server:\n  cors_origins: \"*\" # all\n");
    assert!(message.contains("each is text; write [\"*\"]"), "{message}");
    for origin in ["app.example", "https://", "https://app.example/path", ""] {
        let message = refused(&format!("server:\n  cors_origins: [\"{origin}\"]\n"));
        assert!(message.contains("cors_origins") && message.contains("http://host:port"), "{message}");
    }
    let text = "server:\n  cors_origins: [\"*\", \"https://app.example:8443\"]\n  allowed_hosts: [model.lan]\n";
    parse(text, Path::new("r.yaml")).unwrap();
}

#[test]
fn a_file_names_the_keys_that_it_sets() {
    let file = parse("engine:\n  device: cpu\n  threads: 3\nmodels: { serve: [a, b] }\n", Path::new("r.yaml")).unwrap();
    assert_eq!(file.keys, ["engine.device", "engine.threads", "models.serve"]);
}

#[test]
fn values_from_elsewhere_are_checked_too() {
    let mut config = Config::default();
    assert_eq!(config.check(), Ok(()));
    config.engine.threads = 5000;
    assert!(config.check().unwrap_err().contains("engine.threads"));
}

#[test]
fn a_section_without_keys_is_empty() {
    let text = "server:\n  # port: 1\nengine: ~\nmodels:\nmetal_optimizations:\n  enabled: true\n  memory_pool:\n  #  enabled: true\n";
    let config = parse(text, Path::new("r.yaml")).unwrap().config;
    assert_eq!((&config.server, &config.engine), (&Server::default(), &Engine::default()));
    assert!(config.metal_optimizations.enabled);
    let text = "server:\n  limits:\n    # idle_s: 1\ntelemetry: null\n";
    assert_eq!(parse(text, Path::new("r.yaml")).unwrap().config, Config::default());
}

#[test]
fn a_key_with_dots_is_told_to_be_nested() {
    for (text, told) in [
        ("server.port: 1\n", "line 1: `server.port`: keys are nested, without dots: `server: {port: …}`"),
        (
            "\nserver.limits.idle_s: 1\n",
            "line 2: `server.limits.idle_s`: keys are nested, without dots: `server: {limits: {idle_s: …}}`",
        ),
        ("server: {limits.idle_s: 1}\n", "`limits: {idle_s: …}`"),
    ] {
        let message = refused(text);
        assert!(message.contains(told), "{message}");
    }
}

#[test]
fn faults_of_a_document_are_told_in_sentences() {
    let deep = format!("models: {{serve: {}x{}}}", "[".repeat(3000), "]".repeat(3000));
    let many = format!("models: {{serve: [{}]}}", "a,".repeat(300_000));
    for (text, told) in [
        ("server: {port: 1}\n---\nserver: {port: 2}\n", "a configuration is one"),
        ("server: {host: null}\n", "`server.host` takes text"),
        ("server: &a {host: *a}\n", "(`*name`)"),
        (&deep, "nested deeper"),
        (&many, "more in it"),
    ] {
        let message = refused(text);
        assert!(message.contains(told), "{told}: {message}");
        for advice in ["from_str", "Option<", "budget", "weak", "breached"] {
            assert!(!message.contains(advice), "{advice}: {message}");
        }
    }
}

#[test]
fn what_is_too_long_for_a_configuration_is_not_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("long.yaml");
    std::fs::write(&long, "#".repeat((1 << 20) + 1)).unwrap();
    for path in [&long, Path::new("/dev/zero")] {
        if path.exists() {
            let message = File::read(path).unwrap_err().to_string();
            assert!(message.contains("more than 1 MiB"), "{message}");
        }
    }
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(parse("# nothing\n\n", Path::new("r.yaml")).unwrap().config, Config::default());
}

#[test]
fn rows_of_a_step_are_the_devices_unless_they_are_given() {
    let on = |text: &str, backend| {
        let info = DeviceInfo { backend, ..cpu() };
        parse(text, Path::new("r.yaml")).unwrap().config.engine.batch_rows(&info)
    };
    assert_eq!([on("", "cpu"), on("", "vulkan"), on("engine: { max_batch_rows: 64 }", "vulkan")], [128, 512, 64]);
    assert!(refused("engine: { max_batch_rows: 8 }").contains("max_batch_rows"));
}

fn cpu() -> DeviceInfo {
    CpuDevice::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() }).unwrap().info().clone()
}

#[test]
fn a_model_has_sampling_defaults_under_its_name() {
    let text = "models:\n  serve: [a]\n  org/Qwen2.5-0.5B:\n    sampling_defaults: {temperature: 0.7, top_k: 20}\n";
    let file = parse(text, Path::new("runtime.yaml")).unwrap();
    let key = |name: &str| format!("models.\"org/Qwen2.5-0.5B\".sampling_defaults.{name}");
    assert_eq!(file.keys, ["models.serve".to_owned(), key("temperature"), key("top_k")]);
    let own = mlx_serving_engine::Sampling { temperature: 0.1, top_p: 0.9, ..Default::default() };
    let set = file.config.models.sampling("org/Qwen2.5-0.5B", own.clone());
    assert_eq!((set.temperature, set.top_k, set.top_p), (0.7, 20, 0.9));
    assert_eq!(file.config.models.sampling("other", own.clone()), own);
    let mut shown = Vec::new();
    leaves(&serde_json::to_value(&file.config.models).unwrap(), &mut |key, _| shown.push(key.to_owned()));
    let below = |name: &str| key(name).replace("models.", "");
    let own = ["serve", "chat_template", "tool_call_format", "reasoning_format"].map(str::to_owned);
    assert_eq!(shown, [&own[..], &[below("temperature"), below("top_k")]].concat());
    let value = serde_json::json!({ "models": { "Qwen2.5": { "sampling_defaults": { "top_p": 0.5 } } } });
    assert_eq!(Config::from_value(&value).unwrap().models.named["Qwen2.5"].sampling_defaults.top_p, Some(0.5));
}

#[test]
fn what_is_wrong_with_a_models_settings_is_told_with_its_place() {
    for (text, told) in [
        (
            "models: {m: {sampling_defaults: {temperature: 3}}}",
            vec!["`models.m.sampling_defaults.temperature`", "must be 0 to 2"],
        ),
        ("models: {m: {sampling_defaults: {temprature: 1}}}", vec!["did you mean `temperature`?"]),
        ("models: {m: {sampling_default: {}}}", vec!["did you mean `sampling_defaults`?"]),
        ("models: {m: {sampling_defaults: {top_p: many}}}", vec!["takes a number from 0 to 1"]),
        ("models: {Qwen2.5: {sampling_defaults: {top_k: many}}}", vec!["`models.\"Qwen2.5\".sampling_defaults.top_k`"]),
        ("models: {serv: [a]}", vec!["models has no key `serv`; did you mean `serve`?"]),
        ("models: {x: 1}", vec!["models has no key `x`; it has serve, ", "any other key is a model's name"]),
        (
            "models: {q2.5: {sampling_defaults: {temperature: 3}}}",
            vec!["sampling_defaults.temperature` must be 0 to 2"],
        ),
        ("models: {m: {sampling_defaults: {top_k: -2}}}", vec!["sampling_defaults.top_k` must be -1 to 4294967295"]),
        (
            "models: {m: {sampling_defaults: {repetition_penalty: 0.001}}}",
            vec!["0, which is taken as 1, or from 0.01 to 10"],
        ),
    ] {
        let message = refused(text);
        for part in told {
            assert!(message.contains(part), "{part} is not in: {message}");
        }
    }
    for (value, key) in [
        (
            serde_json::json!({ "Qwen2.5": { "sampling_defaults": { "top_p": 2 } } }),
            "models.Qwen2.5.sampling_defaults.top_p",
        ),
        (
            serde_json::json!({ "Qwen2.5": { "sampling_defaults": { "top_p": "x" } } }),
            "models.\"Qwen2.5\".sampling_defaults.top_p",
        ),
        (serde_json::json!({ "Qwen2.5": { "color": 1 } }), "models.\"Qwen2.5\".color"),
        (serde_json::json!({ "serv": [] }), "models.serv"),
    ] {
        let error = Config::from_value(&serde_json::json!({ "models": value })).unwrap_err();
        assert_eq!(error.key, key, "{error}");
    }
}
