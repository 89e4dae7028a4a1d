use super::*;
use crate::{Finish, FinishReason, Logprobs, TokenEvent, Usage};
use mlx_serving_text::Segment;
use proptest::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Has readers wait, all with one waker.
fn wait_for(receivers: &mut [Receiver], count: &Arc<Count>) {
    let waker = Waker::from(count.clone());
    for receiver in receivers {
        assert_eq!(receiver.poll(&Context::from_waker(&waker)), Poll::Pending);
    }
}

fn token(bytes: usize) -> Event {
    let logprobs = Some(Logprobs { chosen: -1.0, top: vec![(3, -1.0); 2] });
    Event::Token(TokenEvent { id: 1, segments: vec![Segment::Content("x".repeat(bytes))], offset: 0, logprobs })
}

fn last() -> Event {
    Event::Finished(Finish { reason: FinishReason::Stop, stop: None, segments: vec![], usage: Usage::default() })
}

fn backlog(stream: usize, all: usize) -> Arc<Backlog> {
    Backlog::new(UnreadLimits { stream, all }, Waker::noop().clone())
}

fn now(receiver: &mut Receiver) -> Poll<Option<Event>> {
    receiver.next_until(Some(Instant::now()))
}

fn slow(event: Poll<Option<Event>>) -> String {
    match event {
        Poll::Ready(Some(Event::Failed(error @ EngineError::Slow(_)))) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn events_come_in_order_and_none_after_the_last() {
    let (sender, mut receiver) = backlog(10_000, 10_000).open();
    assert_eq!(now(&mut receiver), Poll::Pending);
    [token(1), token(2), last(), token(3)].into_iter().for_each(|event| sender.send(event));
    assert!(sender.unwanted());
    for expected in [Some(token(1)), Some(token(2)), Some(last()), None, None] {
        assert_eq!(receiver.next_until(None), Poll::Ready(expected));
    }
}

#[test]
fn a_sender_that_goes_without_a_last_event_ends_the_stream() {
    let (sender, mut receiver) = backlog(10_000, 10_000).open();
    sender.send(token(1));
    drop(sender);
    assert_eq!(now(&mut receiver), Poll::Ready(Some(token(1))));
    assert_eq!(now(&mut receiver), Poll::Ready(None));
}

#[test]
fn a_reader_that_waits_is_woken() {
    let (sender, mut receiver) = backlog(10_000, 10_000).open();
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || (0..3).map(|_| receiver.next_until(None)).collect::<Vec<_>>());
        while sender.0.lock().reader.is_none() {
            std::thread::yield_now();
        }
        sender.send(token(5));
        sender.send(last());
        drop(sender);
        let read = [Some(token(5)), Some(last()), None].map(Poll::Ready);
        assert_eq!(reader.join().unwrap(), read);
    });
}

#[test]
fn a_reader_of_many_streams_is_woken_once_when_all_events_are_there() {
    let backlog = backlog(10_000, 1 << 20);
    let (senders, mut receivers): (Vec<_>, Vec<_>) = (0..4).map(|_| backlog.open()).unzip();
    let (count, other) = (Arc::new(Count::default()), Arc::new(Count::default()));
    wait_for(&mut receivers[..3], &count);
    wait_for(&mut receivers[3..], &other);
    let wake = backlog.wake_once();
    senders.iter().for_each(|sender| sender.send(token(1)));
    // Whoever reads meanwhile waits for what comes next.
    assert_eq!(now(&mut receivers[0]), Poll::Ready(Some(token(1))));
    wait_for(&mut receivers[..1], &count);
    senders[0].send(last());
    drop(senders);
    assert_eq!((count.get(), other.get()), (0, 0));
    drop(wake);
    assert_eq!((count.get(), other.get()), (1, 1));
    assert_eq!(now(&mut receivers[0]), Poll::Ready(Some(last())));
    for receiver in &mut receivers[1..] {
        assert_eq!([now(receiver), now(receiver)], [Some(token(1)), None].map(Poll::Ready));
    }
}

#[test]
fn readers_are_woken_at_once_where_nobody_holds_that_back() {
    let backlog = backlog(10_000, 1 << 20);
    drop(backlog.wake_once());
    let ((sender, mut receiver), count) = (backlog.open(), Arc::new(Count::default()));
    for (woken, end) in [(1, false), (2, true)] {
        wait_for(std::slice::from_mut(&mut receiver), &count);
        if !end {
            sender.send(token(1));
            assert_eq!((count.get(), now(&mut receiver)), (woken, Poll::Ready(Some(token(1)))));
        }
    }
    drop(sender);
    assert_eq!((count.get(), now(&mut receiver)), (2, Poll::Ready(None)));
}

#[test]
fn a_panic_leaves_no_reader_asleep() {
    let backlog = backlog(10_000, 1 << 20);
    let (senders, mut receivers): (Vec<_>, Vec<_>) = (0..2).map(|_| backlog.open()).unzip();
    let count = Arc::new(Count::default());
    wait_for(&mut receivers, &count);
    let engine = AssertUnwindSafe(|| {
        let senders = senders;
        let _wake = backlog.wake_once();
        senders[0].send(token(1));
        panic!("a bug");
    });
    assert!(catch_unwind(engine).is_err());
    // Once for the token, once for the sender that was dropped without one.
    assert_eq!(count.get(), 2);
    assert_eq!(receivers.iter_mut().map(now).collect::<Vec<_>>(), [Some(token(1)), None].map(Poll::Ready));
}

#[test]
fn a_stream_that_is_cut_off_wakes_its_reader_with_the_others() {
    // The first is woken by what is sent to the second.
    let backlog = backlog(1 << 20, 1_000);
    let ((first, mut slow_reader), (second, _unread)) = (backlog.open(), backlog.open());
    let count = Arc::new(Count::default());
    wait_for(std::slice::from_mut(&mut slow_reader), &count);
    let wake = backlog.wake_once();
    first.send(token(600));
    wait_for(std::slice::from_mut(&mut backlog.open().1), &count);
    second.send(token(500));
    assert!(first.slow().is_some());
    drop(wake);
    assert_eq!(count.get(), 1);
    slow(now(&mut slow_reader));
}

#[test]
fn no_wake_up_is_lost_between_threads() {
    const STEPS: usize = 2_000;
    let backlog = backlog(1 << 30, 1 << 30);
    let (senders, mut receivers): (Vec<_>, Vec<_>) = (0..4).map(|_| backlog.open()).unzip();
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
            let context = Context::from_waker(&waker);
            let (mut tokens, mut last_read) = (0, Instant::now());
            loop {
                let before = tokens;
                receivers.retain_mut(|receiver| {
                    loop {
                        match receiver.poll(&context) {
                            Poll::Ready(Some(_)) => tokens += 1,
                            Poll::Ready(None) => break false,
                            Poll::Pending => break true,
                        }
                    }
                });
                if receivers.is_empty() {
                    break;
                }
                if tokens > before {
                    last_read = Instant::now();
                }
                assert!(last_read.elapsed() < Duration::from_secs(60), "asleep after {tokens} tokens");
                std::thread::park_timeout(Duration::from_secs(60));
            }
            tokens
        });
        for _ in 0..STEPS {
            let _wake = backlog.wake_once();
            senders.iter().for_each(|sender| sender.send(token(1)));
        }
        drop(senders);
        assert_eq!(reader.join().unwrap(), 4 * STEPS);
    });
}

#[test]
fn an_engine_that_waits_for_a_reader_is_woken_by_it() {
    let count = Arc::new(Count::default());
    let limits = UnreadLimits { stream: 10_000, all: 10_000 };
    let (sender, mut receiver) = Backlog::new(limits, Waker::from(count.clone())).open();
    (0..3).for_each(|_| sender.send(token(1)));
    assert!(!sender.awaits_reader(0, 4));
    assert!(now(&mut receiver).is_ready());
    assert_eq!(count.get(), 0);
    assert!(sender.awaits_reader(1, 3), "what is in flight counts");
    assert!(now(&mut receiver).is_ready() && now(&mut receiver).is_ready());
    assert_eq!(count.get(), 1);
    assert!(sender.awaits_reader(1, 1) && !sender.awaits_reader(0, 1));
    sender.send(token(1));
    assert!(sender.awaits_reader(0, 1));
    drop(receiver);
    assert_eq!(count.get(), 2);
    assert!(!sender.awaits_reader(5, 1), "there is no reader to wait for");
}

#[test]
fn a_stream_that_nobody_reads_is_cut_off_and_others_go_on() {
    let backlog = backlog(2_000, 1 << 20);
    let (unread, mut late) = backlog.open();
    let (sender, mut receiver) = backlog.open();
    for i in 0.. {
        unread.send(token(300));
        sender.send(token(300));
        assert_eq!(now(&mut receiver), Poll::Ready(Some(token(300))));
        assert!(i < 10, "it was not cut off");
        if unread.unwanted() {
            break;
        }
    }
    assert!(!sender.unwanted() && unread.slow().is_some() && sender.slow().is_none());
    assert!(backlog.unread() < 1_000, "what nobody reads is freed: {}", backlog.unread());
    let why = slow(now(&mut late));
    assert!(why.contains("reads too slowly") && why.contains("more than 2000"), "{why}");
    assert_eq!(now(&mut late), Poll::Ready(None));
    assert_eq!(backlog.unread(), 0);
}

#[test]
fn beyond_the_limit_of_all_the_slowest_is_cut_off_though_it_was_computed_to_its_end() {
    let backlog = backlog(1 << 20, 10_000);
    let (done, mut late) = backlog.open();
    (0..20).for_each(|_| done.send(token(300)));
    done.send(last());
    drop(done);
    let (sender, mut receiver) = backlog.open();
    while late.0.lock().slow.is_none() {
        assert!(!sender.unwanted(), "the wrong stream was cut off");
        sender.send(token(300));
    }
    let why = slow(now(&mut late));
    assert!(why.contains("the most of all streams"), "{why}");
    assert_eq!(now(&mut receiver), Poll::Ready(Some(token(300))));
}

#[test]
fn one_event_is_never_too_much() {
    let backlog = backlog(100, 1 << 20);
    let (sender, mut receiver) = backlog.open();
    for _ in 0..3 {
        sender.send(token(5_000));
        assert_eq!(now(&mut receiver), Poll::Ready(Some(token(5_000))));
    }
}

proptest! {
    /// Whatever is sent, read and dropped in whatever order: what is counted is what lies in the queues, and in the end nothing.
    #[test]
    fn the_count_is_exact(steps in prop::collection::vec((0usize..4, 0u8..6, 1usize..400), 1..200)) {
        let backlog = backlog(1_500, 4_000);
        let mut streams: Vec<_> = (0..4).map(|_| { let (s, r) = backlog.open(); (Some(s), Some(r)) }).collect();
        for (i, action, bytes) in steps {
            let (sender, receiver) = &mut streams[i];
            match action {
                0..3 => if let Some(sender) = sender { sender.send(token(bytes)); },
                3 => if let Some(receiver) = receiver { drop(now(receiver)); },
                4 if bytes < 40 => *sender = None,
                5 if bytes < 40 => *receiver = None,
                _ => {}
            }
            let open = backlog.open.lock().unwrap();
            let queued: usize = open.queues.values().map(|q| q.lock().events.iter().map(super::bytes).sum::<usize>()).sum();
            prop_assert_eq!(backlog.unread(), queued);
            prop_assert!(queued <= 4_000 + 4 * 600);
        }
        drop(streams);
        prop_assert_eq!(backlog.unread(), 0);
        prop_assert!(backlog.open.lock().unwrap().queues.is_empty());
    }
}
