//! The layer as a configuration makes it: what runs, what falls back, what the statistics and metrics say.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_device::fake::{FakeControl, FakeDevice, FakeOptions, Fault};
use mlx_serving_device::{DeviceError, Storage};
use mlx_serving_metal_layer::config::MetalOptimizations;
use mlx_serving_metal_layer::{MetalLayer, MetalLayerError};
use mlx_serving_metrics::{Families, Format};
use serde_json::{Value, json};
use std::time::Duration;

fn config(list: &str) -> MetalOptimizations {
    let mut config = MetalOptimizations::default();
    config.select(list).unwrap();
    config.log_fallbacks = false;
    config.memory_pool.heap_size_mb = 64;
    config.memory_pool.num_heaps = 2;
    config.memory_pool.warmup_buffer_sizes_mb = Vec::new();
    config
}

fn strict(list: &str) -> MetalOptimizations {
    MetalOptimizations { graceful_fallback: false, ..config(list) }
}

/// A layer on a device that was told to refuse some allocations first.
fn layer(config: &MetalOptimizations, refused: Fault) -> (FakeControl, Result<MetalLayer, MetalLayerError>) {
    layer_on(FakeOptions::default(), config, refused)
}

fn layer_on(
    options: FakeOptions,
    config: &MetalOptimizations,
    refused: Fault,
) -> (FakeControl, Result<MetalLayer, MetalLayerError>) {
    let device = FakeDevice::new(options).unwrap();
    let control = device.control();
    control.refuse_allocations(refused);
    (control, MetalLayer::new(device, config))
}

fn stats(layer: &MetalLayer) -> Value {
    serde_json::to_value(layer.stats()).unwrap()
}

/// Runs an empty step.
fn step(layer: &mut MetalLayer) {
    let slot = layer.submit.acquire().unwrap();
    let step = layer.submit.submit(slot, &[]).unwrap();
    layer.submit.complete(&step, Duration::from_secs(60)).unwrap();
}

fn metrics(layer: &MetalLayer) -> String {
    let mut families = Families::default();
    if let Some(metrics) = layer.metrics() {
        metrics.tell(&layer.stats(), &mut families.labeled(&[]));
    }
    families.write(Format::OpenMetrics).unwrap()
}

#[test]
fn what_is_off_says_no_more_than_that() {
    let layer = layer(&MetalOptimizations::default(), Fault::NEVER).1.unwrap();
    let off = json!({ "enabled": false });
    let stats = stats(&layer);
    assert_eq!((&stats["memory_pool"], &stats["blit_queue"], &stats["command_buffer_ring"]), (&off, &off, &off));
    let device = json!({ "name": "fake device", "backend": "fake", "instructions": null, "utilization": 0.0 });
    assert_eq!(stats["device"], device);
    assert_eq!(layer.submit.depth(), 1);
    let mut master = config("all");
    master.enabled = false;
    assert_eq!(self::stats(&self::layer(&master, Fault::NEVER).1.unwrap())["memory_pool"], off);
}

#[test]
fn statistics_have_the_documented_keys() {
    let layer = layer(&config("all"), Fault::NEVER).1.unwrap();
    let stats = stats(&layer);
    let keys = |of: &Value| of.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(
        keys(&stats["memory_pool"]),
        "enabled total_acquired total_released exhaustion_events fallback_events pool_size available_count utilization \
         bytes_reserved bytes_in_use peak_bytes_in_use fragmentation"
    );
    assert_eq!(
        keys(&stats["blit_queue"]),
        "enabled total_uploads total_downloads bytes_uploaded bytes_downloaded pending_operations avg_upload_ms \
         avg_download_ms overlap_ratio sync_wait_count avg_sync_wait_ms checksum_failures fallback_events"
    );
    assert_eq!(
        keys(&stats["command_buffer_ring"]),
        "enabled ring_size available_count in_flight_count total_acquired total_released wait_events timeout_events \
         avg_wait_time_us max_wait_time_us rotations discarded_steps"
    );
    assert!(["memory_pool", "blit_queue", "command_buffer_ring"].iter().all(|name| stats[name]["enabled"] == true));
    assert_eq!(
        (&stats["memory_pool"]["pool_size"], &stats["command_buffer_ring"]["ring_size"]),
        (&json!(2), &json!(3))
    );
}

#[test]
fn an_optimization_that_does_not_start_is_off_with_its_reason() {
    let layer = layer(&config("memory_pool"), Fault::ALWAYS).1.unwrap();
    let pool = &stats(&layer)["memory_pool"];
    assert_eq!(pool["enabled"], false);
    assert!(pool["reason"].as_str().unwrap().contains("out of device memory"), "{pool}");
    assert!(!metrics(&layer).contains("metal_pool"), "there are no counters of what never ran");
}

#[test]
fn the_baseline_takes_over_from_what_does_not_start() {
    let (control, layer) = layer(&config("memory_pool"), Fault::next(2));
    let layer = layer.unwrap();
    assert_eq!(stats(&layer)["memory_pool"]["enabled"], false);
    control.refuse_allocations(Fault::NEVER);
    assert_eq!(layer.allocate.allocate(100, Storage::Private, "test").unwrap().len(), 100);
}

#[test]
fn without_graceful_fallback_the_reason_is_an_error() {
    let error = layer(&strict("memory_pool"), Fault::ALWAYS).1.unwrap_err();
    assert!(matches!(error, MetalLayerError::Optimization { name: "memory_pool", .. }));
    let message = error.to_string();
    for part in ["memory_pool could not start", "out of device memory", "--metal-opts", "graceful_fallback"] {
        assert!(message.contains(part), "{message}");
    }
    // The staging ring of a device whose memory the host does not share.
    let discrete = FakeOptions { unified_memory: false, ..FakeOptions::default() };
    let error = layer_on(discrete, &strict("blit_queue"), Fault::ALWAYS).1.unwrap_err();
    assert!(matches!(error, MetalLayerError::Optimization { name: "blit_queue", .. }), "{error}");
}

#[test]
fn too_little_memory_for_the_slots_leaves_one() {
    let (control, layer) = layer(&config("command_buffer_ring"), Fault::NEVER);
    let mut layer = layer.unwrap();
    control.refuse_allocations(Fault::nth(2));
    layer.submit.reserve_inputs(1 << 20).unwrap();
    assert_eq!(layer.submit.depth(), 1);
    step(&mut layer);
    step(&mut layer);
    let ring = &stats(&layer)["command_buffer_ring"];
    assert!(ring["reason"].as_str().unwrap().contains("step inputs of 3 slots"), "{ring}");
    assert!(metrics(&layer).contains("command_ring_acquired_total 2"), "its counters are worth knowing all the more");

    let (control, layer) = self::layer(&strict("command_buffer_ring"), Fault::NEVER);
    let mut layer = layer.unwrap();
    control.refuse_allocations(Fault::nth(2));
    assert!(matches!(layer.submit.reserve_inputs(1 << 20), Err(DeviceError::OutOfMemory { .. })));
}

#[test]
fn an_exhausted_pool_takes_dedicated_buffers_or_refuses() {
    let too_much = (0..3).map(|_| 60 << 20);
    let graceful = layer(&config("memory_pool"), Fault::NEVER).1.unwrap();
    let held: Vec<_> =
        too_much.clone().map(|len| graceful.allocate.allocate(len, Storage::Private, "test").unwrap()).collect();
    assert_eq!(stats(&graceful)["memory_pool"]["fallback_events"], 1);
    assert_eq!(stats(&graceful)["memory_pool"]["enabled"], true);
    drop(held);

    let strict = layer(&strict("memory_pool"), Fault::NEVER).1.unwrap();
    let held: Vec<_> = too_much.map(|len| strict.allocate.allocate(len, Storage::Private, "test")).collect();
    let error = held.iter().find_map(|h| h.as_ref().err()).unwrap();
    assert!(error.to_string().contains("graceful_fallback is off"), "{error}");
    assert_eq!(held.iter().filter(|h| h.is_ok()).count(), 2);
}

#[test]
fn metrics_have_the_documented_names() {
    let mut layer = layer(&config("all"), Fault::NEVER).1.unwrap();
    layer.submit.reserve_inputs(1024).unwrap();
    step(&mut layer);
    let buffer = layer.allocate.allocate(64, Storage::Private, "test").unwrap();
    let fill = Box::new(|bytes: &mut [u8]| {
        bytes.fill(1);
        Ok(())
    });
    layer.transfer.upload(&buffer, fill).unwrap().wait(Duration::from_secs(60)).unwrap();
    let sink = Box::new(|bytes: &[u8]| if bytes == [1; 64] { Ok(()) } else { Err("other bytes".into()) });
    layer.transfer.download(&buffer, sink).unwrap().wait(Duration::from_secs(60)).unwrap();
    // The transfers' own thread counts after it has told of the end.
    let text = (0..1000)
        .find_map(|_| {
            std::thread::sleep(Duration::from_millis(5));
            Some(metrics(&layer)).filter(|text| text.contains("blit_pending_operations 0"))
        })
        .expect("the transfers end");
    for line in [
        "metal_pool_acquired_total ",
        "metal_pool_released_total 0",
        "metal_pool_available ",
        "metal_pool_exhaustion_total 0",
        "metal_pool_fallback_total 0",
        "metal_pool_utilization ",
        "metal_pool_acquire_duration_seconds_count ",
        "blit_upload_duration_seconds_count 1",
        "blit_download_duration_seconds_count 1",
        "blit_pending_operations 0",
        "blit_overlap_ratio ",
        "command_ring_acquired_total 1",
        "command_ring_submitted_total 1",
        "command_ring_available 3",
        "command_ring_wait_seconds_count ",
        "command_ring_timeouts_total 0",
        "metal_device_utilization ",
    ] {
        assert!(text.lines().any(|l| l.starts_with(line)), "{line} is not in\n{text}");
    }
    let acquired = format!("metal_pool_acquire_duration_seconds_count {}", layer.allocate.stats().total_acquired);
    assert!(text.contains(&acquired), "{acquired} is not in\n{text}");
}

#[test]
fn metrics_can_be_hidden() {
    let hidden = MetalOptimizations { expose_metrics: false, ..config("all") };
    assert!(layer(&hidden, Fault::NEVER).1.unwrap().metrics().is_none());
    let text = metrics(&layer(&config("none"), Fault::NEVER).1.unwrap());
    assert!(!["metal_pool", "blit_", "command_ring"].iter().any(|name| text.contains(name)), "{text}");
}
