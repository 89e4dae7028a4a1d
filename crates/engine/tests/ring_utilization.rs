//! On a device with known latencies the ring keeps the device busy, where one slot leaves it idle while the host encodes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{endless, ring, start};
use mlx_serving_device::Device;
use mlx_serving_device::fake::{FakeDevice, FakeOptions, Latency};
use mlx_serving_engine::{Event, Options, Request};
use std::time::Duration;

const ENCODE: Duration = Duration::from_millis(2);
const EXECUTE: Duration = Duration::from_millis(5);
/// Longer, so that a busy machine's own delays do not count.
const SLOWED: u32 = 10;

/// Busy time over time, both by the device's clock, between two of an answer's tokens.
fn utilization(ring_size: usize, request: &Request, slowed: u32) -> f64 {
    let latency = Latency { finish: slowed * ENCODE, execute: slowed * EXECUTE, ..Latency::default() };
    let device = FakeDevice::new(FakeOptions { compute: false, latency, ..FakeOptions::default() }).unwrap();
    let engine = start(device.clone(), &ring(ring_size), &Options::default()).unwrap();
    let mut stream = engine.submit(request.clone()).unwrap();
    let mut readings = Vec::new();
    while let Some(Event::Token(_)) = stream.next_blocking() {
        readings.push((device.now(), device.counters().busy));
    }
    // The first steps fill the ring, the last ones empty it.
    let (first, last) = (readings[3], readings[readings.len() - 4]);
    (last.1 - first.1).as_secs_f64() / (last.0 - first.0).as_secs_f64()
}

/// The best of several tries: a machine that is busy with other work can only lower it.
fn best(ring_size: usize, request: &Request, slowed: u32, enough: f64) -> f64 {
    let mut best = 0.0f64;
    for _ in 0..15 {
        best = best.max(utilization(ring_size, request, slowed));
        if best >= enough {
            break;
        }
    }
    best
}

#[test]
fn one_slot_leaves_the_device_idle_while_the_host_encodes() {
    let share = best(1, &endless(1, 24), SLOWED, 0.68);
    assert!((0.5..0.74).contains(&share), "{share}: 50 of 70 ms are 0.714");
}

#[test]
fn the_ring_keeps_the_device_busy() {
    let share = best(3, &endless(1, 32), SLOWED, 0.95);
    assert!(share >= 0.95, "{share}");
}

#[test]
fn the_ring_keeps_the_device_busy_with_an_answer_that_may_stop_at_any_token() {
    let request = Request { stop: vec!["no such text".into()], ..endless(1, 32) };
    let share = best(3, &request, SLOWED, 0.95);
    assert!(share >= 0.95, "{share}");
}

#[test]
#[ignore = "needs a machine without other work; run by ./test --deep"]
fn two_and_five_milliseconds_do_as_well() {
    let (ring, one) = (best(3, &endless(1, 200), 1, 0.95), best(1, &endless(1, 200), 1, 0.68));
    println!("utilization: {ring:.3} with the ring, {one:.3} without");
    assert!(ring >= 0.95 && (0.5..0.74).contains(&one), "{ring}, {one}");
}
