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
