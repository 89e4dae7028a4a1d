use super::*;
use proptest::prelude::*;

const NOW: Duration = Duration::ZERO;

fn put(gate: &Gate<u32>, len: u64, job: u32) -> bool {
    gate.put(len, NOW, job, |job| (job, ())).is_ok()
}

fn run(gate: &Gate<u32>) -> (Room, u32) {
    match gate.take(|_| true) {
        Taken::Run(room, job) => (room, job),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_ring_refuses_in_time_and_takes_again_when_the_oldest_goes() {
    let gate = Gate::new(1024, 8);
    assert!(put(&gate, 512, 1) && put(&gate, 512, 2) && !put(&gate, 1, 3));
    let ((first, _), (second, _)) = (run(&gate), run(&gate));
    gate.release(&second);
    assert!(!put(&gate, 512, 4), "the oldest is still held");
    gate.release(&first);
    assert!(put(&gate, 1024, 5));
}

#[test]
fn places_are_bounded_whatever_their_length() {
    let gate = Gate::new(1024, 2);
    assert!(put(&gate, 0, 1) && put(&gate, 0, 2) && !put(&gate, 0, 3));
    let (room, _) = run(&gate);
    gate.release(&room);
    assert!(put(&gate, 0, 4));
}

#[test]
fn what_is_due_goes_first_unless_it_waits_for_the_stream() {
    let gate = Gate::new(1024, 4);
    gate.stream(100, || (10, ()));
    gate.stream(100, || (11, ()));
    assert!(put(&gate, 100, 1) && put(&gate, 100, 2));
    assert_eq!(run(&gate).1, 1);
    assert!(matches!(gate.take(|_| false), Taken::Run(_, 10)));
    assert!(matches!(gate.take(|_| false), Taken::Run(_, 11)));
    assert!(matches!(gate.take(|_| false), Taken::Run(_, 2)), "the stream is empty");
}

#[test]
fn closing_runs_what_is_due_and_abandons_the_stream() {
    let gate = Gate::new(1024, 4);
    gate.stream(100, || (10, ()));
    put(&gate, 100, 1);
    gate.close();
    assert!(matches!(gate.take(|_| false), Taken::Run(_, 1)));
    assert_eq!(gate.take(|_| false), Taken::Abandon(10));
    assert_eq!(gate.take(|_| false), Taken::End);
}

#[test]
fn the_stream_does_not_wait_for_room_that_copies_which_hang_hold() {
    let gate = Gate::new(1024, 1);
    gate.stream(1024, || (1, ()));
    gate.stream(1024, || (2, ()));
    assert!(matches!(gate.take(|_| true), Taken::Run(_, 1)));
    gate.set_quarantined(true);
    assert_eq!(gate.take(|_| true), Taken::Abandon(2));
}

proptest! {
    #[test]
    fn places_lie_inside_and_never_overlap(steps in prop::collection::vec((any::<bool>(), 0u64..900, 0usize..8), 1..200)) {
        let mut ring = Ring::new(2048, 5);
        let mut held: Vec<Room> = Vec::new();
        for (take, len, which) in steps {
            if take {
                if let Some(room) = ring.reserve(len, false) {
                    prop_assert!(room.range.end <= 2048 && room.range.end - room.range.start >= len);
                    let apart = |h: &Room| room.range.is_empty() || h.range.is_empty() || h.range.end <= room.range.start || room.range.end <= h.range.start;
                    prop_assert!(held.iter().all(apart), "{room:?} among {held:?}");
                    held.push(room);
                }
                prop_assert!(held.len() <= 5);
            } else if !held.is_empty() {
                ring.release(held.remove(which % held.len()).id);
            }
        }
        held.iter().for_each(|room| ring.release(room.id));
        prop_assert!(ring.reserve(2048, false).is_some(), "bytes were lost");
    }
}
