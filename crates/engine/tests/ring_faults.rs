//! Steps that fail, come late or never, and a device that is lost, with the ring on.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Answer, endless, fallback, read, ring, ring_stats, scripted, start, until};
use mlx_serving_device::fake::{FakeControl, FakeDevice, FakeOptions, Fault, QueueKind};
use mlx_serving_engine::{Engine, EngineError, Event, FinishReason, Options, Stream};
use mlx_serving_metal_layer::config::MetalOptimizations;
use mlx_serving_metrics::{Families, Format};
use std::time::Duration;

const TOKENS: usize = 20;

/// A device that writes scripted tokens, and an engine on it.
fn engine(config: &MetalOptimizations, step_limit: Duration) -> (FakeControl, Engine) {
    let device = FakeDevice::new(FakeOptions { compute: false, ..FakeOptions::default() }).unwrap();
    let control = device.control();
    (control, start(device, config, &Options { step_limit, ..Options::default() }).unwrap())
}

fn patient() -> (FakeControl, Engine) {
    engine(&ring(3), Duration::from_secs(60))
}

/// A ring that gives a step 100 ms.
fn impatient() -> MetalOptimizations {
    let mut config = ring(3);
    config.command_buffer_ring.max_wait_ms = 100;
    config
}

fn ask(engine: &Engine, seed: u64) -> Stream {
    engine.submit(endless(seed, TOKENS)).unwrap()
}

fn right(engine: &Engine, seed: u64, answer: Result<Answer, EngineError>) {
    let answer = answer.unwrap();
    assert_eq!((answer.tokens, answer.reason), (scripted(engine, seed, TOKENS), FinishReason::Length));
}

/// Asks for `count` answers at once and returns them in order.
fn together(engine: &Engine, count: u64) -> Vec<Result<Answer, EngineError>> {
    let streams: Vec<Stream> = (0..count).map(|seed| ask(engine, seed)).collect();
    streams.into_iter().map(read).collect()
}

#[test]
fn a_step_that_fails_once_is_computed_again() {
    for nth in [1, 2, 5, 9] {
        let (control, engine) = patient();
        control.fail_submissions(QueueKind::Compute, Fault::nth(nth));
        for (seed, answer) in together(&engine, 4).into_iter().enumerate() {
            right(&engine, seed as u64, answer);
        }
        assert!(engine.health().alive);
        let stats = ring_stats(&engine);
        assert_eq!(stats.total_acquired, stats.total_released + stats.in_flight_count as u64);
    }
}

#[test]
fn a_request_whose_steps_keep_failing_fails_alone() {
    let (control, engine) = patient();
    control.fail_submissions(QueueKind::Compute, Fault::ALWAYS);
    let error = read(ask(&engine, 1)).unwrap_err();
    assert!(matches!(&error, EngineError::Device(why) if why.contains("command buffer failed")), "{error}");
    control.fail_submissions(QueueKind::Compute, Fault::NEVER);
    right(&engine, 2, read(ask(&engine, 2)));
}

#[test]
fn a_late_step_leaves_one_slot_in_flight_and_the_answer_right() {
    let (control, engine) = engine(&impatient(), Duration::from_secs(60));
    control.hang_submissions(QueueKind::Compute, Fault::nth(5));
    let stream = ask(&engine, 3);
    until("the step that hangs is submitted", || engine.pace().steps >= 5);
    // Ten times the ring's patience.
    std::thread::sleep(Duration::from_secs(1));
    control.release();
    right(&engine, 3, read(stream));
    assert!(fallback(&engine).unwrap().contains("max_wait_ms"), "{:?}", engine.stats());
    assert!(ring_stats(&engine).timeout_events >= 1);
    right(&engine, 4, read(ask(&engine, 4)));
}

#[test]
fn without_graceful_fallback_a_late_step_fails_its_request() {
    let config = MetalOptimizations { graceful_fallback: false, ..impatient() };
    let (control, engine) = engine(&config, Duration::from_secs(60));
    control.hang_submissions(QueueKind::Compute, Fault::nth(5));
    let error = read(ask(&engine, 3)).unwrap_err();
    assert!(matches!(&error, EngineError::Device(why) if why.contains("max_wait_ms")), "{error}");
    control.release();
    assert_eq!(fallback(&engine), None);
    right(&engine, 4, read(ask(&engine, 4)));
}

#[test]
fn a_step_that_never_completes_stops_the_engine_with_a_reason() {
    let (control, engine) = engine(&impatient(), Duration::from_millis(500));
    control.hang_submissions(QueueKind::Compute, Fault::nth(5));
    for answer in together(&engine, 3) {
        let error = answer.unwrap_err();
        assert!(matches!(&error, EngineError::Stopped(why) if why.contains("step_limit_s")), "{error}");
    }
    let health = engine.health();
    assert!(!health.alive && health.reason.unwrap().contains("hangs"));
    let refused = engine.submit(endless(9, 1)).unwrap_err();
    assert!(matches!(&refused, EngineError::Stopped(why) if why.contains("hangs")), "{refused}");
    // The device's thread must not wait for ever.
    control.release();
}

#[test]
fn requests_that_the_engine_had_not_taken_yet_fail_and_count_with_the_others() {
    let (control, engine) = engine(&ring(1), Duration::from_secs(1));
    control.hang_submissions(QueueKind::Compute, Fault::ALWAYS);
    let mut streams = vec![ask(&engine, 0)];
    until("the engine waits for a step", || engine.pace().steps > 0);
    streams.extend((1..4).map(|seed| ask(&engine, seed)));
    for stream in streams {
        let error = read(stream).unwrap_err();
        assert!(matches!(&error, EngineError::Stopped(why) if why.contains("step_limit_s")), "{error}");
    }
    let mut families = Families::default();
    engine.tell_metrics(&mut families.labeled(&[]));
    let text = families.write(Format::OpenMetrics).unwrap();
    assert!(text.contains("request_failure_total{finished_reason=\"error\"} 4"), "{text}");
    control.release();
}

#[test]
fn a_lost_device_ends_every_request_with_the_reason() {
    let (control, engine) = patient();
    let mut streams: Vec<Stream> = (0..4).map(|seed| engine.submit(endless(seed, 1900)).unwrap()).collect();
    assert!(matches!(streams[0].next_blocking(), Some(Event::Token(_))));
    control.lose("unplugged");
    for stream in streams {
        let error = read(stream).unwrap_err();
        assert!(matches!(&error, EngineError::Stopped(why) if why.contains("device lost: unplugged")), "{error}");
    }
    let health = engine.health();
    assert!(!health.alive && health.reason.unwrap().contains("unplugged"));
}
