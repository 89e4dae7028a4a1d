//! KV blocks that are spilled and restored: the answers stay the same, prompts are not computed again, and faults in between
//! cost time only.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Answer, read, start, until};
use mlx_serving_cpu::{CpuDevice, CpuOptions};
use mlx_serving_device::Device;
use mlx_serving_device::fake::{FakeControl, FakeDevice, FakeOptions, Fault, QueueKind};
use mlx_serving_engine::{Engine, Options, Request, SpillOptions};
use mlx_serving_metal_layer::config::MetalOptimizations;
use mlx_serving_metrics::{Families, Format};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A cache of 6 blocks: room for two of the prompts.
fn options(spill: SpillOptions) -> Options {
    Options { kv_tokens: 96, max_sequences: 2, max_batch_rows: 32, spill, ..Options::default() }
}

fn in_memory() -> SpillOptions {
    SpillOptions { memory_bytes: 64 << 20, ..SpillOptions::default() }
}

fn in_file(path: &Path) -> SpillOptions {
    SpillOptions { file: Some(path.to_owned()), file_bytes: 64 << 20, ..SpillOptions::default() }
}

fn optimized(names: &str, change: impl Fn(&mut MetalOptimizations)) -> MetalOptimizations {
    let mut config = MetalOptimizations::default();
    config.select(names).unwrap();
    change(&mut config);
    config
}

fn request(which: u32) -> Request {
    let prompt = (0..38).map(|i| 300 + (i * 7 + which * 131) % 3000).collect();
    let mut request = Request { prompt, max_tokens: Some(4), ignore_eos: true, ..Request::default() };
    request.sampling.seed = Some(u64::from(which));
    request.sampling.temperature = 0.8;
    request
}

/// Four prompts in turn, twice: each has been evicted by the others when it comes again.
fn rounds(engine: &Engine) -> Vec<Answer> {
    (0..8).map(|i| read(engine.submit(request(i % 4)).unwrap()).unwrap()).collect()
}

fn cpu() -> Arc<dyn Device> {
    CpuDevice::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() }).unwrap()
}

/// The value of a counter on the page of metrics.
fn counter(engine: &Engine, name: &str) -> u64 {
    let mut families = Families::default();
    engine.tell_metrics(&mut families.labeled(&[]));
    let text = families.write(Format::OpenMetrics).unwrap();
    let line = text.lines().find(|l| l.starts_with(name) && !l.starts_with('#')).unwrap_or_else(|| panic!("{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn hits(engine: &Engine) -> u64 {
    counter(engine, "vllm:prefix_cache_hits_total")
}

#[test]
fn prompts_are_restored_from_memory_and_file_with_the_same_answers_however_they_are_copied() {
    let dir = tempfile::tempdir().unwrap();
    let plain = start(cpu(), &MetalOptimizations::default(), &options(SpillOptions::default())).unwrap();
    let expected = rounds(&plain);
    assert_eq!(hits(&plain), 0, "the cache is too large for this test");
    let configs = [
        MetalOptimizations::default(),
        optimized("blit_queue", |_| ()),
        optimized("blit_queue", |c| c.blit_queue.use_shared_events = false),
        optimized("blit_queue,command_buffer_ring", |_| ()),
        optimized("all", |c| c.memory_pool.heap_size_mb = 64),
    ];
    for (i, config) in configs.iter().enumerate() {
        let both = SpillOptions { memory_bytes: 100 << 10, ..in_file(&dir.path().join(format!("both-{i}"))) };
        // What the store does is the same for all; the first has all three.
        let alone = (i == 0).then(|| [in_memory(), in_file(&dir.path().join("alone"))]);
        for spill in alone.into_iter().flatten().chain([both]) {
            let engine = start(cpu(), config, &options(spill.clone())).unwrap();
            assert!(rounds(&engine) == expected, "{config:?}, {spill:?}");
            // Every prompt but the first four finds 32 tokens in whole blocks.
            assert_eq!(hits(&engine), 4 * 32, "{config:?}, {spill:?}");
            assert_eq!(counter(&engine, "kv_spill_restored_blocks_total"), 4 * 2);
            assert_eq!(counter(&engine, "kv_spill_damaged_blocks_total"), 0);
        }
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "spill files are left behind");
}

#[test]
fn equal_prompts_under_unequal_salts_share_no_blocks_spilled_or_not() {
    let engine = start(cpu(), &MetalOptimizations::default(), &options(in_memory())).unwrap();
    let ask = |salt| read(engine.submit(Request { salt, ..request(0) }).unwrap()).unwrap();
    let expected = ask(0);
    assert!(ask(0) == expected);
    assert_eq!(hits(&engine), 32, "equal salts share");
    // The first of these find the blocks of others on the device, the last in the store.
    for salt in 1..5 {
        assert!(ask(salt) == expected, "a salt changes no answer");
    }
    assert_eq!((hits(&engine), counter(&engine, "kv_spill_restored_blocks_total")), (32, 0));
    for salt in 0..5 {
        assert!(ask(salt) == expected);
    }
    assert_eq!(hits(&engine), 6 * 32, "each finds its own");
    assert!(counter(&engine, "kv_spill_restored_blocks_total") > 0);
}

#[test]
fn sequences_at_once_with_preemption_answer_as_without_spilling() {
    let ask = |engine: &Engine| -> Vec<Answer> {
        let requests = (0..12).map(|i| {
            let mut request = request(i % 5);
            request.max_tokens = Some(20);
            request
        });
        let streams: Vec<_> = requests.map(|r| engine.submit(r).unwrap()).collect();
        streams.into_iter().map(|s| read(s).unwrap()).collect()
    };
    let expected = ask(&start(cpu(), &MetalOptimizations::default(), &options(SpillOptions::default())).unwrap());
    for config in [MetalOptimizations::default(), optimized("blit_queue,command_buffer_ring", |_| ())] {
        let engine = start(cpu(), &config, &options(in_memory())).unwrap();
        assert!(ask(&engine) == expected, "{config:?}");
        assert!(counter(&engine, "kv_spill_restored_blocks_total") > 0);
    }
}

#[test]
fn a_block_that_was_damaged_on_disk_is_computed_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kv");
    let expected = rounds(&start(cpu(), &MetalOptimizations::default(), &options(SpillOptions::default())).unwrap());
    for config in [MetalOptimizations::default(), optimized("blit_queue", |_| ())] {
        let engine = start(cpu(), &config, &options(in_file(&path))).unwrap();
        assert!(rounds(&engine) == expected);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.iter_mut().skip(16).for_each(|b| *b = !*b);
        std::fs::write(&path, bytes).unwrap();
        assert!(rounds(&engine) == expected);
        assert!(counter(&engine, "kv_spill_damaged_blocks_total") > 0);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_costs_the_cache_and_nothing_else() {
    let expected = rounds(&start(cpu(), &MetalOptimizations::default(), &options(SpillOptions::default())).unwrap());
    let config = optimized("blit_queue", |_| ());
    let engine = start(cpu(), &config, &options(in_file(&PathBuf::from("/dev/full")))).unwrap();
    assert!(rounds(&engine) == expected);
    assert_eq!(hits(&engine), 0);
    assert!(counter(&engine, "kv_spill_dropped_blocks_total") > 0);
}

#[test]
fn a_spill_file_that_cannot_be_used_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("no/such/folder/kv");
    let error = start(cpu(), &MetalOptimizations::default(), &options(in_file(&path))).unwrap_err().to_string();
    assert!(error.contains("no/such/folder/kv") && error.contains("engine.kv_spill_file"), "{error}");
}

/// Time after which a copy is late: long enough for those of the weights on a machine that is busy with other work.
const LATE_MS: u64 = 2000;

/// A discrete device that computes nothing, so that only the copies are on trial.
fn discrete(config: &MetalOptimizations) -> (FakeControl, Engine) {
    let device =
        FakeDevice::new(FakeOptions { compute: false, unified_memory: false, ..FakeOptions::default() }).unwrap();
    let control = device.control();
    (control, start(device, config, &options(in_memory())).unwrap())
}

/// Prompts that evict each other while copies go wrong, and after that.
fn survives(config: &MetalOptimizations, fault: impl Fn(&FakeControl)) -> Engine {
    let (_, sound) = discrete(config);
    let expected = rounds(&sound);
    let (control, engine) = discrete(config);
    assert!(rounds(&engine) == expected);
    fault(&control);
    assert!(rounds(&engine) == expected);
    control.release();
    assert!(rounds(&engine) == expected);
    assert!(engine.health().alive);
    engine
}

#[test]
fn copies_of_blocks_that_fail_are_made_up_for_by_computing_again() {
    for nth in [1, 3, 20] {
        let fault = |control: &FakeControl| control.fail_copies(QueueKind::Transfer, Fault::nth(nth));
        survives(&optimized("blit_queue", |_| ()), fault);
    }
}

#[test]
fn blocks_that_cannot_be_restored_are_no_try_of_their_request() {
    for nth in 1..=4 {
        let (control, engine) = discrete(&optimized("blit_queue", |_| ()));
        let expected = rounds(&engine);
        control.fail_copies(QueueKind::Transfer, Fault::ALWAYS);
        control.fail_submissions(QueueKind::Compute, Fault::nth(nth));
        let answer = read(engine.submit(request(0)).unwrap());
        assert_eq!(answer.unwrap(), expected[0], "submission {nth} failed too");
    }
}

#[test]
fn copies_of_blocks_that_arrive_different_are_noticed_with_checksums() {
    for nth in [1, 3, 20] {
        let fault = |control: &FakeControl| control.corrupt_copies(QueueKind::Transfer, Fault::nth(nth));
        let engine = survives(&optimized("blit_queue", |c| c.blit_queue.verify_checksums = true), fault);
        let stats = engine.stats().blit_queue.counters().unwrap().clone();
        assert_eq!(stats.checksum_failures, 1, "{stats:?}");
    }
}

#[test]
fn a_staging_ring_that_stays_full_makes_copies_synchronous() {
    let config = optimized("blit_queue", |c| {
        c.blit_queue.max_pending_ops = 1;
        c.blit_queue.timeout_ms = LATE_MS;
    });
    let engine = survives(&config, |control| control.hang_submissions(QueueKind::Transfer, Fault::nth(1)));
    let stats = engine.stats().blit_queue.counters().unwrap().clone();
    assert!(stats.fallback_events > 0, "{stats:?}");
}

#[test]
fn a_request_that_waits_for_blocks_of_a_late_copy_keeps_no_processor_busy() {
    let (control, engine) = discrete(&optimized("blit_queue", |c| c.blit_queue.timeout_ms = LATE_MS));
    let expected = rounds(&engine);
    control.hang_submissions(QueueKind::Transfer, Fault::nth(1));
    assert_eq!(read(engine.submit(request(0)).unwrap()).unwrap(), expected[0]);
    let all_blocks = Request { prompt: (300..390).collect(), ..request(9) };
    let stream = engine.submit(all_blocks).unwrap();
    until("it waits", || engine.metrics().waiting.get() == 1);
    let (before, began) = (engine.health().heartbeat, Instant::now());
    std::thread::sleep(Duration::from_millis(300));
    let looks = engine.health().heartbeat - before;
    assert!(u128::from(looks) < began.elapsed().as_millis(), "{looks} looks in {:?}", began.elapsed());
    control.release();
    assert_eq!(read(stream).unwrap().tokens.len(), 4);
}

#[test]
fn blocks_that_a_late_copy_may_still_write_are_quarantined_until_it_has_ended() {
    quarantines(Fault::NEVER);
}

#[test]
fn blocks_of_a_step_that_fails_beside_its_late_copies_are_quarantined_too() {
    quarantines(Fault::nth(1));
}

/// Restores blocks by copies that come late, for a step that has this fault too.
fn quarantines(step: Fault) {
    let config = optimized("blit_queue", |c| c.blit_queue.timeout_ms = LATE_MS);
    let (control, engine) = discrete(&config);
    let expected = rounds(&engine);
    // Copies behind one that hangs hang too: the last of them restores the blocks of this prompt.
    control.hang_submissions(QueueKind::Transfer, Fault::nth(1));
    control.fail_submissions(QueueKind::Compute, step);
    // The gauges follow the last event of an answer.
    let held = |engine: &Engine, settled: fn(f64) -> bool| {
        let usage = || engine.metrics().kv_usage.get();
        let deadline = Instant::now() + Duration::from_secs(20);
        while (engine.metrics().running.get() > 0 || !settled(usage())) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(50));
        usage()
    };
    assert_eq!(read(engine.submit(request(0)).unwrap()).unwrap(), expected[0]);
    assert!(held(&engine, |usage| usage > 0.0) > 0.0, "nothing is in quarantine");
    control.release();
    assert!(rounds(&engine) == expected);
    assert_eq!(held(&engine, |usage| usage == 0.0), 0.0);
}
