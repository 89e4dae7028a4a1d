//! A model that streams in from a slow file: when the first token comes, and what a request learns of a file that cannot be read.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{blit, endless, read, scripted, start_on};
use mlx_serving_device::fake::{FakeControl, FakeDevice, FakeOptions, Fault, Latency, QueueKind};
use mlx_serving_device::{Buffer, Result as DeviceResult};
use mlx_serving_engine::{Engine, EngineError, Health, Options};
use mlx_serving_metal_layer::config::MetalOptimizations;
use mlx_serving_metal_layer::{BlitStats, Fill, MetalLayer, Sink, Ticket, Transfer};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A file that gives so many bytes of device memory a second, and perhaps fails one read.
#[derive(Debug, Default)]
struct File {
    bytes_per_second: Option<f64>,
    failing: Option<usize>,
    reads: usize,
    free: Option<Instant>,
}

impl File {
    fn read(&mut self, bytes: usize) -> Result<(), String> {
        self.reads += 1;
        if self.failing == Some(self.reads) {
            return Err("input/output error".into());
        }
        if let Some(rate) = self.bytes_per_second {
            let now = Instant::now();
            let free = self.free.map_or(now, |free| free.max(now)) + Duration::from_secs_f64(bytes as f64 / rate);
            self.free = Some(free);
            std::thread::sleep(free - now);
        }
        Ok(())
    }
}

/// Reads weights from a [`File`].
#[derive(Debug)]
struct FromFile {
    inner: Arc<dyn Transfer>,
    file: Arc<Mutex<File>>,
}

impl Transfer for FromFile {
    fn scatter(&self, to: &[Buffer], fill: Fill) -> DeviceResult<Ticket> {
        self.inner.scatter(to, fill)
    }

    fn gather(&self, from: &[Buffer], sink: Sink) -> DeviceResult<Ticket> {
        self.inner.gather(from, sink)
    }

    fn stream(&self, to: &Buffer, fill: Fill) -> DeviceResult<Ticket> {
        let file = self.file.clone();
        let slow = move |bytes: &mut [u8]| {
            file.lock().unwrap().read(bytes.len())?;
            fill(bytes)
        };
        self.inner.stream(to, Box::new(slow))
    }

    fn max_chunk(&self) -> u64 {
        self.inner.max_chunk()
    }

    fn stats(&self) -> BlitStats {
        self.inner.stats()
    }
}

fn engine(options: FakeOptions, config: &MetalOptimizations, file: File) -> (FakeControl, Engine) {
    let device = FakeDevice::new(options).unwrap();
    let control = device.control();
    let mut layer = MetalLayer::new(device.clone(), config).unwrap();
    layer.transfer = Arc::new(FromFile { inner: layer.transfer.clone(), file: Arc::new(Mutex::new(file)) });
    (control, start_on(device, layer, &Options::default()).unwrap())
}

/// Seconds until the engine was there, and until its first token was.
fn cold_start(options: FakeOptions, config: &MetalOptimizations, bytes_per_second: Option<f64>) -> (f64, f64) {
    let began = Instant::now();
    let (_, engine) = engine(options, config, File { bytes_per_second, ..File::default() });
    let ready = began.elapsed().as_secs_f64();
    read(engine.submit(endless(1, 1)).unwrap()).unwrap();
    (ready, began.elapsed().as_secs_f64())
}

/// The larger of the two, within a tenth, instead of the sum.
fn streams_in_while_it_computes(unified_memory: bool) {
    // About 1.2 s for 3.1 MB of weights, and 0.4 s for the 34 ops of a step.
    let latency = Latency { op: Duration::from_millis(12), ..Latency::default() };
    let options = FakeOptions { compute: false, unified_memory, latency, ..FakeOptions::default() };
    let slow = Some(2.6e6);
    let mut seen = Vec::new();
    for _ in 0..15 {
        let (_, compute) = cold_start(options, &MetalOptimizations::default(), None);
        let (load, sum) = cold_start(options, &MetalOptimizations::default(), slow);
        let (ready, overlapped) = cold_start(options, &blit(), slow);
        seen.push((load, compute, sum, ready, overlapped));
        // Synchronous, the two follow each other; streamed, the engine is there at once and the first token with the slower of
        // the two. A busy machine only ever adds time: one good run of a few shows what the queue does.
        let slower = load.max(compute);
        if sum > 0.9 * (load + compute) && sum > 1.2 * slower && ready < 0.5 * load && overlapped <= 1.1 * slower {
            return;
        }
    }
    panic!("load, compute, sum, ready, overlapped: {seen:?}");
}

#[test]
fn on_unified_memory_the_first_token_comes_when_the_slower_of_load_and_compute_is_done() {
    streams_in_while_it_computes(true);
}

#[test]
fn on_a_discrete_device_the_first_token_comes_when_the_slower_of_load_and_compute_is_done() {
    streams_in_while_it_computes(false);
}

fn quick(unified_memory: bool) -> FakeOptions {
    FakeOptions { compute: false, unified_memory, ..FakeOptions::default() }
}

/// Requests, early and late ones, learn why there will be no answer, and so does whoever may load the model again.
fn failed(engine: &Engine, expected: &[&str]) {
    let refused = |error: EngineError| match error {
        EngineError::Stopped(why) => {
            assert!(expected.iter().all(|part| why.contains(part)), "{expected:?} in: {why}");
        }
        other => panic!("{other}"),
    };
    let streams: Vec<_> = (0..3).map(|seed| engine.submit(endless(seed, 4))).collect();
    streams.into_iter().for_each(|stream| refused(stream.and_then(read).unwrap_err()));
    refused(engine.submit(endless(4, 4)).unwrap_err());
    let health = engine.health();
    assert!(!health.alive && !health.resident, "{health:?}");
}

#[test]
fn a_read_that_fails_ends_the_engine_with_tensor_and_file() {
    for unified in [true, false] {
        let (_, engine) = engine(quick(unified), &blit(), File { failing: Some(30), ..File::default() });
        failed(&engine, &["model.layers.", "model.safetensors", "input/output error"]);
    }
}

#[test]
fn an_engine_without_requests_notices_weights_that_arrive_and_weights_that_fail() {
    let until = |engine: &Engine, what: &str, condition: fn(&Health) -> bool| {
        let began = Instant::now();
        while !condition(&engine.health()) {
            assert!(began.elapsed() < Duration::from_secs(60), "{what}: {:?}", engine.health());
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let slow = || File { bytes_per_second: Some(10e6), ..File::default() };
    let (_, arriving) = engine(quick(true), &blit(), slow());
    assert!(!arriving.health().resident);
    until(&arriving, "arrival", |health| health.resident);
    assert!(arriving.health().alive);
    let (_, failing) = engine(quick(true), &blit(), File { failing: Some(60), ..slow() });
    until(&failing, "failure", |health| !health.alive);
    assert!(failing.health().reason.unwrap().contains("input/output error"));
    let (_, plain) = engine(quick(true), &MetalOptimizations::default(), File::default());
    assert!(plain.health().resident);
}

#[test]
fn a_copy_of_weights_that_fails_ends_the_engine() {
    let device = FakeDevice::new(quick(false)).unwrap();
    device.control().fail_copies(QueueKind::Transfer, Fault::nth(25));
    let layer = MetalLayer::new(device.clone(), &blit()).unwrap();
    let engine = start_on(device, layer, &Options::default()).unwrap();
    failed(&engine, &["model.layers.", "model.safetensors"]);
}

#[test]
fn with_checksums_a_copy_that_fails_or_arrives_different_is_made_again() {
    let mut config = blit();
    config.blit_queue.verify_checksums = true;
    for corrupt in [false, true] {
        let device = FakeDevice::new(quick(false)).unwrap();
        let control = device.control();
        // Every weight is copied in and read back.
        let fault = Fault::nth(51);
        if corrupt {
            control.corrupt_copies(QueueKind::Transfer, fault);
        } else {
            control.fail_copies(QueueKind::Transfer, fault);
        }
        let layer = MetalLayer::new(device.clone(), &config).unwrap();
        let transfer = layer.transfer.clone();
        let engine = start_on(device, layer, &Options::default()).unwrap();
        let answer = read(engine.submit(endless(3, 8)).unwrap()).unwrap();
        assert_eq!(answer.tokens, scripted(&engine, 3, 8));
        assert_eq!(transfer.stats().checksum_failures, u64::from(corrupt));
    }
}

#[test]
fn copies_that_fail_again_and_again_end_the_engine() {
    let mut config = blit();
    config.blit_queue.verify_checksums = true;
    let device = FakeDevice::new(quick(false)).unwrap();
    device.control().fail_copies(QueueKind::Transfer, Fault::ALWAYS);
    let layer = MetalLayer::new(device.clone(), &config).unwrap();
    let engine = start_on(device, layer, &Options::default()).unwrap();
    failed(&engine, &["model.embed_tokens", "a planted fault"]);
}

#[test]
fn a_copy_of_weights_that_hangs_ends_the_engine_in_time() {
    let mut config = blit();
    config.blit_queue.timeout_ms = 100;
    let device = FakeDevice::new(quick(false)).unwrap();
    let control = device.control();
    control.hang_submissions(QueueKind::Transfer, Fault::nth(60));
    let layer = MetalLayer::new(device.clone(), &config).unwrap();
    let engine = start_on(device, layer, &Options::default()).unwrap();
    failed(&engine, &["model.", "timeout_ms"]);
    control.release();
}

#[test]
fn a_device_lost_while_weights_stream_stops_the_engine_with_the_reason() {
    for unified in [true, false] {
        let slow = File { bytes_per_second: Some(10e6), ..File::default() };
        let (control, engine) = engine(quick(unified), &blit(), slow);
        let stream = engine.submit(endless(1, 4)).unwrap();
        control.lose("the cable was pulled");
        let error = read(stream).unwrap_err().to_string();
        assert!(error.contains("the cable was pulled"), "{error}");
    }
}
