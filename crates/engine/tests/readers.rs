//! Readers: when they are woken, how far an engine runs ahead of them, and what it computes for those that have gone.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{answers, endless, on_cpu, read, requests, ring, ring_stats, scripted, start, tight, until};
use mlx_serving_device::fake::{FakeControl, FakeDevice, FakeOptions, Fault, Latency, QueueKind};
use mlx_serving_engine::{Engine, EngineError, Event, Options, Request, Stream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

fn engine(ring_size: usize, options: &Options) -> (FakeControl, Engine) {
    let device = FakeDevice::new(FakeOptions { compute: false, ..FakeOptions::default() }).unwrap();
    (device.control(), start(device, &ring(ring_size), options).unwrap())
}

/// Waker of a thread that counts how often it is woken.
struct Bell {
    thread: Thread,
    rung: AtomicU64,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.fetch_add(1, Ordering::Release);
        self.thread.unpark();
    }
}

/// Reads all streams to their ends, polling only when it is woken. Returns their last events, the number of tokens, and how often it
/// was woken.
fn read_together(mut streams: Vec<Stream>) -> (Vec<Event>, usize, u64) {
    let bell = Arc::new(Bell { thread: std::thread::current(), rung: AtomicU64::new(0) });
    let waker = Waker::from(bell.clone());
    let mut context = Context::from_waker(&waker);
    let (mut ends, mut tokens, mut answered) = (Vec::new(), 0, 0);
    loop {
        streams.retain_mut(|stream| {
            loop {
                match stream.poll_next(&mut context) {
                    Poll::Ready(Some(event)) if event.is_last() => ends.push(event),
                    Poll::Ready(Some(_)) => tokens += 1,
                    Poll::Ready(None) => break false,
                    Poll::Pending => break true,
                }
            }
        });
        if streams.is_empty() {
            return (ends, tokens, bell.rung.load(Ordering::Acquire));
        }
        until("the reader is woken", || bell.rung.load(Ordering::Acquire) > answered);
        answered = bell.rung.load(Ordering::Acquire);
    }
}

fn ask(engine: &Engine, count: u64, max_tokens: usize) -> Vec<Stream> {
    engine.submit_all((0..count).map(|seed| endless(seed, max_tokens)).collect()).unwrap()
}

#[test]
fn a_step_wakes_a_reader_of_many_streams_once() {
    for ring_size in [1, 3] {
        let (_, engine) = engine(ring_size, &Options::default());
        let (ends, tokens, woken) = read_together(ask(&engine, 8, 100));
        assert!(ends.iter().all(|end| matches!(end, Event::Finished(_))), "{ends:?}");
        let steps = engine.pace().steps;
        assert_eq!((ends.len(), tokens), (8, 800));
        assert!((1..=steps).contains(&woken), "woken {woken} times in {steps} steps");
    }
}

#[test]
fn whatever_ends_a_stream_wakes_its_reader() {
    for ring_size in [1, 3] {
        let (control, engine) = engine(ring_size, &Options::default());
        control.fail_submissions(QueueKind::Compute, Fault::ALWAYS);
        let (ends, ..) = read_together(ask(&engine, 4, 100));
        assert!(ends.iter().all(|end| matches!(end, Event::Failed(EngineError::Device(_)))), "{ends:?}");
        control.fail_submissions(QueueKind::Compute, Fault::NEVER);
        control.hang_submissions(QueueKind::Compute, Fault::nth(5));
        let streams = ask(&engine, 4, 100);
        let reader = std::thread::spawn(|| read_together(streams));
        until("tokens have come", || engine.metrics().generation_tokens.get() >= 4);
        control.lose("unplugged");
        let (ends, ..) = reader.join().unwrap();
        assert!(ends.iter().all(|end| matches!(end, Event::Failed(EngineError::Stopped(_)))), "{ends:?}");
    }
}

#[test]
fn an_engine_that_is_dropped_wakes_its_readers() {
    let (control, engine) = engine(3, &Options { max_sequences: 2, ..Options::default() });
    // Nothing of it is computed to its end meanwhile.
    control.set_latency(Latency { execute: Duration::from_millis(50), ..Latency::default() });
    let paused = Request { read_ahead: Some(1), ..endless(9, 1900) };
    let mut paused = engine.submit(paused).unwrap();
    until("it is behind", || engine.metrics().generation_tokens.get() == 1);
    let streams = ask(&engine, 3, 1900);
    let reader = std::thread::spawn(|| read_together(streams));
    until("the others take its place", || engine.metrics().running.get() == 2);
    assert!(matches!(paused.next_blocking(), Some(Event::Token(_))));
    drop(engine);
    let (mut ends, ..) = reader.join().unwrap();
    ends.extend(read(paused).err().map(Event::Failed));
    let stopped = ends.iter().filter(|end| matches!(end, Event::Failed(EngineError::Stopped(_)))).count();
    assert_eq!((ends.len(), stopped), (4, 4), "{ends:?}");
}

#[test]
fn a_bound_of_nothing_is_refused_by_name() {
    let (_, engine) = engine(1, &Options::default());
    let error = engine.submit(Request { read_ahead: Some(0), ..endless(1, 4) }).unwrap_err();
    assert!(matches!(error, EngineError::Invalid { param: "read_ahead", .. }), "{error}");
}

#[test]
fn an_engine_stops_where_a_reader_is_behind_and_goes_on_with_it() {
    for ring_size in [1, 3] {
        let (_, engine) = engine(ring_size, &Options::default());
        let generated = || engine.metrics().generation_tokens.get();
        let behind = engine.submit(Request { read_ahead: Some(5), ..endless(1, 100) }).unwrap();
        until("it is behind", || generated() == 5);
        assert_eq!(read(engine.submit(endless(2, 1000)).unwrap()).unwrap().tokens, scripted(&engine, 2, 1000));
        assert_eq!((generated(), engine.live()), (1005, 1));
        assert_eq!(read(behind).unwrap().tokens, scripted(&engine, 1, 100));
    }
}

#[test]
fn an_engine_that_waits_for_its_readers_rests() {
    let (_, engine) = engine(3, &Options::default());
    let streams: Vec<_> =
        (0..4).map(|seed| engine.submit(Request { read_ahead: Some(2), ..endless(seed, 10) }).unwrap()).collect();
    until("all are behind", || engine.metrics().generation_tokens.get() == 8);
    // One that looks again and again shows it within so long.
    until("it does nothing", || {
        let before = engine.health().heartbeat;
        std::thread::sleep(Duration::from_millis(50));
        engine.health().heartbeat == before
    });
    let health = engine.health();
    assert_eq!((health.alive, health.step), (true, None));
    for (seed, stream) in streams.into_iter().enumerate() {
        assert_eq!(read(stream).unwrap().tokens, scripted(&engine, seed as u64, 10));
    }
}

#[test]
fn answers_are_the_same_however_slowly_they_are_read() {
    let expected = answers(&on_cpu(&ring(1), &tight()), requests());
    for (ring_size, bound) in [(1, 1), (3, 2), (3, 7)] {
        let engine = on_cpu(&ring(ring_size), &tight());
        // Read one after the other: those behind it give way, whether they have a place already or not.
        let slowly = requests().into_iter().map(|request| Request { read_ahead: Some(bound), ..request }).collect();
        assert_eq!(answers(&engine, slowly), expected, "a ring of {ring_size}, {bound} tokens ahead");
        assert_eq!((engine.live(), engine.unread_bytes()), (0, 0));
    }
}

#[test]
fn one_that_waits_for_its_reader_can_be_canceled() {
    let (_, engine) = engine(3, &Options { max_sequences: 1, ..Options::default() });
    for bound in [1, 4] {
        let before = engine.metrics().generation_tokens.get();
        let behind = engine.submit(Request { read_ahead: Some(bound), ..endless(1, 1900) }).unwrap();
        until("it is behind", || engine.metrics().generation_tokens.get() == before + bound as u64);
        drop(behind);
        until("it has ended, though nothing else wakes the engine", || engine.live() == 0);
        assert_eq!(engine.metrics().generation_tokens.get(), before + bound as u64);
    }
    until("its blocks are free", || engine.metrics().kv_usage.get() == 0.0);
}

/// Tokens that were computed, those that nobody was told of included.
fn computed(engine: &Engine, ring_size: usize) -> u64 {
    let discarded = if ring_size > 1 { ring_stats(engine).discarded_steps } else { 0 };
    engine.metrics().generation_tokens.get() + discarded
}

#[test]
fn a_reader_that_goes_costs_no_more_than_the_steps_in_flight() {
    for (ring_size, most) in [(1, 2), (3, 4)] {
        let (control, engine) = engine(ring_size, &Options::default());
        for seed in 0..30 {
            let mut stream = engine.submit(endless(seed, 1900)).unwrap();
            (0..=seed % 7).for_each(|_| drop(stream.next_blocking()));
            drop(stream);
            let at_end = computed(&engine, ring_size);
            until("it has ended", || engine.live() == 0 && engine.health().step.is_none());
            let after = computed(&engine, ring_size) - at_end;
            assert!(after <= most, "{after} tokens after the end with a ring of {ring_size}");
        }
        // The worst time: all slots are in flight, and the engine waits.
        control.hang_submissions(QueueKind::Compute, Fault::nth(9));
        let (before, steps) = (computed(&engine, ring_size), engine.pace().steps);
        let stream = engine.submit(endless(1, 1900)).unwrap();
        until("all slots are in flight", || engine.pace().steps == steps + 8 + ring_size as u64);
        until("all others are told", || computed(&engine, ring_size) == before + 8);
        drop(stream);
        control.release();
        until("it has ended", || engine.live() == 0 && engine.health().step.is_none());
        until("all slots are counted", || computed(&engine, ring_size) == before + 8 + ring_size as u64);
        assert_eq!(engine.pace().steps, steps + 8 + ring_size as u64);
    }
}
