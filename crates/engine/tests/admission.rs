//! Admission of requests, and the fate of answers that nobody reads.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{endless, read, ring, scripted, start, until};
use mlx_serving_device::fake::{FakeControl, FakeDevice, FakeOptions, Fault, QueueKind};
use mlx_serving_engine::{Engine, EngineError, Event, Options, Request};

fn engine(options: Options) -> (FakeControl, Engine) {
    let device = FakeDevice::new(FakeOptions { compute: false, ..FakeOptions::default() }).unwrap();
    (device.control(), start(device, &ring(3), &options).unwrap())
}

#[test]
fn more_than_can_ever_run_and_wait_is_refused_for_good() {
    let (_, engine) = engine(Options { max_sequences: 1, max_waiting: 0, ..Options::default() });
    let error = engine.submit_all(vec![endless(1, 4), endless(2, 4)]).unwrap_err();
    assert!(
        matches!(&error, EngineError::Invalid { param: "n", message } if message.contains("no more than 1")),
        "{error}"
    );
    assert_eq!(engine.live(), 0);
    assert_eq!(read(engine.submit(endless(1, 4)).unwrap()).unwrap().tokens, scripted(&engine, 1, 4));
    assert!(engine.submit_all(Vec::new()).unwrap().is_empty());
}

#[test]
fn all_are_checked_before_any_is_let_in() {
    let (_, engine) = engine(Options { max_sequences: 2, max_waiting: 2, ..Options::default() });
    let mut requests = vec![endless(1, 4); 5];
    requests[4].prompt.clear();
    let error = engine.submit_all(requests).unwrap_err();
    assert!(matches!(error, EngineError::Invalid { param: "prompt", .. }), "{error}");
    assert_eq!((engine.live(), engine.pace().steps), (0, 0));
}

#[test]
fn too_many_for_now_are_refused_with_true_numbers_and_none_is_let_in() {
    let (control, engine) = engine(Options { max_sequences: 2, max_waiting: 2, ..Options::default() });
    control.hang_submissions(QueueKind::Compute, Fault::ALWAYS);
    let streams = engine.submit_all((0..3).map(|seed| endless(seed, 4)).collect()).unwrap();
    let error = engine.submit_all(vec![endless(8, 4), endless(9, 4)]).unwrap_err();
    assert_eq!(error, EngineError::Overloaded { live: 3, limit: 4, asked: 2 });
    assert!(error.to_string().starts_with("3 requests run or wait already, of 4 that may"), "{error}");
    assert_eq!(engine.live(), 3);
    let last = engine.submit(endless(3, 4)).unwrap();
    assert!(matches!(engine.submit(endless(4, 4)), Err(EngineError::Overloaded { live: 4, .. })));
    control.hang_submissions(QueueKind::Compute, Fault::NEVER);
    control.release();
    for (seed, stream) in streams.into_iter().chain([last]).enumerate() {
        assert_eq!(read(stream).unwrap().tokens, scripted(&engine, seed as u64, 4));
    }
    until("places are free again", || engine.live() == 0);
}

#[test]
fn an_answer_that_nobody_reads_is_abandoned_and_others_go_on() {
    const TOKENS: usize = 2000;
    let options = Options { max_sequences: 2, kv_tokens: 8192, unread_stream_bytes: 64 << 10, ..Options::default() };
    let (_, engine) = engine(options);
    let mut unread = engine.submit(Request { logprobs: Some(20), ..endless(1, TOKENS) }).unwrap();
    let others: Vec<_> = (2..5).map(|seed| read(engine.submit(endless(seed, TOKENS)).unwrap()).unwrap()).collect();
    for (seed, answer) in (2..).zip(&others) {
        assert_eq!(answer.tokens, scripted(&engine, seed, TOKENS));
    }
    until("its place and its blocks are free", || engine.live() == 0);
    assert!(engine.unread_bytes() < 1024, "{} bytes are kept", engine.unread_bytes());
    match unread.next_blocking() {
        Some(Event::Failed(error @ EngineError::Slow(_))) => {
            assert!(error.to_string().starts_with("the client reads too slowly: "), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((unread.next_blocking(), engine.unread_bytes()), (None, 0));
    until("the gauge follows", || engine.metrics().kv_usage.get() == 0.0);
}

#[test]
fn what_lies_unread_is_freed_with_its_stream() {
    let (_, engine) = engine(Options::default());
    let streams: Vec<_> = (0..4).map(|seed| engine.submit(endless(seed, 50)).unwrap()).collect();
    until("all are computed", || engine.live() == 0);
    assert!(engine.unread_bytes() > 4 * 50 * 50);
    drop(streams);
    assert_eq!(engine.unread_bytes(), 0);
}
