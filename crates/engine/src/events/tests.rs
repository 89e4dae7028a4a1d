use super::*;
use crate::{Finish, FinishReason, Logprobs, TokenEvent, Usage};
use proptest::prelude::*;

fn token(bytes: usize) -> Event {
    let logprobs = Some(Logprobs { chosen: -1.0, top: vec![(3, -1.0); 2] });
    Event::Token(TokenEvent { id: 1, text: "x".repeat(bytes), offset: 0, logprobs })
}

fn last() -> Event {
    Event::Finished(Finish { reason: FinishReason::Stop, text: String::new(), usage: Usage::default() })
}

fn backlog(stream: usize, all: usize) -> Arc<Backlog> {
    Backlog::new(UnreadLimits { stream, all })
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
