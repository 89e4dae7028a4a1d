use super::*;
use mlx_serving_device::fake::{FakeDevice, FakeOptions};
use mlx_serving_device::{Device, Storage};
use proptest::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

const WORDS: usize = 3;

struct Rig {
    memory: Buffer,
    point: Point,
    board: Arc<Board>,
    orders: Vec<Option<Order>>,
    duties: Vec<Option<Duty>>,
}

fn rig(rows: usize) -> Rig {
    let device = FakeDevice::new(FakeOptions::default()).unwrap();
    let memory = device.new_buffer((4 * WORDS * rows) as u64, Storage::Shared).unwrap();
    memory.write(0, &vec![0u32; WORDS * rows]).unwrap();
    let point = Point { timeline: device.new_timeline().unwrap(), value: 7 };
    let (board, orders) = Board::new(memory.clone(), WORDS, rows, point.clone());
    let duties = orders.iter().map(|order| Some(order.duty())).collect();
    Rig { memory, point, board, orders: orders.into_iter().map(Some).collect(), duties }
}

impl Rig {
    fn masks(&self) -> Vec<Vec<u32>> {
        self.memory.to_vec::<u32>().unwrap().chunks_exact(WORDS).map(<[u32]>::to_vec).collect()
    }
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Finish(usize),
    Fail(usize),
    Fill(usize),
    DropDuty(usize),
    DropOrder(usize),
    Late,
    Abandon,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let row = 0usize..4;
    let act = prop_oneof![
        4 => row.clone().prop_map(Act::Finish),
        1 => row.clone().prop_map(Act::Fail),
        1 => row.clone().prop_map(Act::Fill),
        1 => row.clone().prop_map(Act::DropDuty),
        1 => row.prop_map(Act::DropOrder),
        1 => Just(Act::Late),
        1 => Just(Act::Abandon),
    ];
    prop::collection::vec(act, 0..12)
}

proptest! {
    /// Compares with a list of what settled each row first. All that threads can do is some sequence of these acts.
    #[test]
    fn a_row_is_settled_once_and_the_last_one_signals(acts in acts(), rows in 1usize..5) {
        let mut rig = rig(rows);
        let mut first: Vec<Option<Option<u32>>> = vec![None; rows];
        for (act, mark) in acts.into_iter().zip(1u32..) {
            let open = first.iter().filter(|row| row.is_none()).count();
            let mut settles = |row: usize, mask: Option<u32>| first[row] = first[row].or(Some(mask));
            let mask = [mark; WORDS];
            match act {
                Act::Finish(row) => if let Some(duty) = rig.duties.get_mut(row).and_then(Option::take) {
                    duty.finish(Ok((&mask, Made::default())));
                    settles(row, Some(mark));
                },
                Act::Fail(row) => if let Some(duty) = rig.duties.get_mut(row).and_then(Option::take) {
                    duty.finish(Err(Fault::Stuck("x".into())));
                    settles(row, None);
                },
                Act::Fill(row) => if let Some(order) = rig.orders.get(row).and_then(Option::as_ref) {
                    order.fill(&mask);
                    settles(row, Some(mark));
                },
                Act::DropDuty(row) => if rig.duties.get_mut(row).and_then(Option::take).is_some() {
                    settles(row, None);
                },
                Act::DropOrder(row) => if rig.orders.get_mut(row).and_then(Option::take).is_some() {
                    settles(row, None);
                },
                Act::Late => {
                    prop_assert_eq!(rig.board.wait(Duration::ZERO, || false), open);
                    (0..rows).for_each(|row| settles(row, None));
                }
                Act::Abandon => {
                    rig.board.abandon();
                    (0..rows).for_each(|row| settles(row, None));
                }
            }
            prop_assert_eq!(rig.point.reached(), first.iter().all(Option::is_some), "{:?}", first);
            let expected: Vec<_> = first.iter().map(|row| vec![row.flatten().unwrap_or(0); WORDS]).collect();
            prop_assert_eq!(rig.masks(), expected);
        }
        for (order, first) in rig.orders.into_iter().zip(&first) {
            if let (Some(order), Some(first)) = (order, first) {
                prop_assert_eq!(order.take().is_ok(), first.is_some());
            }
        }
        prop_assert!(rig.point.reached() || rig.duties.iter().all(Option::is_none), "every order is gone");
    }
}

#[test]
fn a_mask_that_comes_late_is_written_nowhere() {
    let mut rig = rig(1);
    let (order, duty) = (rig.orders.remove(0).unwrap(), rig.duties.remove(0).unwrap());
    let canceled = Arc::new(AtomicUsize::new(0));
    let count = canceled.clone();
    assert!(duty.begin(0) && duty.stops_by(Box::new(move || _ = count.fetch_add(1, SeqCst))));
    assert_eq!(rig.board.wait(Duration::from_millis(5), || false), 1);
    assert!(rig.point.reached());
    assert_eq!(canceled.load(SeqCst), 1, "the work is stopped");
    duty.finish(Ok((&[9; WORDS], Made::default())));
    assert_eq!(rig.masks(), [[0; WORDS]]);
    assert_eq!(order.take().err(), Some(Fault::Late(Duration::from_millis(5))));
}

#[test]
fn work_that_takes_too_long_fails_alone_and_what_waits_behind_it_has_its_turn() {
    let mut rig = rig(2);
    let [slow, queued] = [0, 1].map(|row| rig.duties[row].take().unwrap());
    let limit = Duration::from_millis(50);
    let (sender, stopped) = std::sync::mpsc::channel();
    assert!(slow.begin(0) && slow.stops_by(Box::new(move || sender.send(()).unwrap())));
    std::thread::scope(|scope| {
        // One maker, who comes to the second row once the first one is given up.
        scope.spawn(move || {
            stopped.recv().unwrap();
            assert!(queued.begin(0));
            queued.finish(Ok((&[5; WORDS], Made::default())));
        });
        assert_eq!(rig.board.wait(limit, || false), 1);
    });
    let outcomes: Vec<_> = rig.orders.into_iter().map(|order| order.unwrap().take().err()).collect();
    assert_eq!(outcomes, [Some(Fault::Late(limit)), None]);
}

#[test]
fn work_that_takes_many_tokens_first_has_time_for_them() {
    let mut rig = rig(1);
    let duty = rig.duties.remove(0).unwrap();
    assert!(duty.begin(10_000));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(250));
            duty.finish(Ok((&[5; WORDS], Made::default())));
        });
        assert_eq!(rig.board.wait(Duration::from_millis(100), || false), 0);
    });
}

#[test]
fn a_step_waits_a_bounded_time_for_masks_that_nobody_begins() {
    let rig = rig(1);
    let began = Instant::now();
    assert_eq!(rig.board.wait(Duration::from_millis(2), || false), 1);
    assert!(began.elapsed() < Duration::from_secs(20));
    assert!(matches!(rig.orders.into_iter().next().unwrap().unwrap().take().err(), Some(Fault::Late(_))));
}

#[test]
fn a_step_that_has_ended_without_its_masks_needs_none() {
    let rig = rig(2);
    assert_eq!(rig.board.wait(Duration::from_secs(60), || true), 0);
    assert!(rig.point.reached());
    let outcomes = rig.orders.into_iter().map(|order| order.unwrap().take().err());
    assert!(outcomes.eq([Some(Fault::Dropped), Some(Fault::Dropped)]));
}

#[test]
fn work_that_nobody_waits_for_does_not_begin_and_stops() {
    let mut rig = rig(2);
    let canceled = Arc::new(AtomicUsize::new(0));
    let cancel = || {
        let count = canceled.clone();
        Box::new(move || _ = count.fetch_add(1, SeqCst)) as Cancel
    };
    let [one, two] = [0, 1].map(|row| rig.duties[row].take().unwrap());
    assert!(one.begin(0) && one.stops_by(cancel()));
    rig.orders.clear();
    assert!(!two.begin(0) && !two.stops_by(cancel()));
    assert_eq!(canceled.load(SeqCst), 1);
    assert!(rig.point.reached());
}

/// Makers, an engine that loses patience, and sequences that end, all at once: whoever saw the point sees masks that stay as they are.
#[test]
fn threads_that_race_leave_every_board_settled() {
    for round in 0..200u64 {
        let mut rig = rig(4);
        let board = rig.board.clone();
        std::thread::scope(|scope| {
            for (row, duty) in rig.duties.drain(..).enumerate() {
                let duty = duty.unwrap();
                scope.spawn(move || {
                    (0..(round * 7 + row as u64 * 13) % 50).for_each(|_| std::thread::yield_now());
                    if duty.begin(0) && duty.stops_by(Box::new(|| ())) && !(round + row as u64).is_multiple_of(5) {
                        duty.finish(Ok((&[row as u32 + 1; WORDS], Made::default())));
                    }
                });
            }
            let ended = rig.orders.pop().unwrap();
            scope.spawn(move || drop(ended));
            scope.spawn(move || board.wait(Duration::from_micros(round), || false));
            rig.point.wait(Duration::from_secs(60)).unwrap();
            let seen = rig.masks();
            std::thread::yield_now();
            assert_eq!(rig.masks(), seen);
        });
        let masks = rig.masks();
        for (order, (row, mask)) in rig.orders.drain(..).zip(masks.into_iter().enumerate()) {
            let written = order.unwrap().take().is_ok();
            assert_eq!(mask, [if written { row as u32 + 1 } else { 0 }; WORDS]);
        }
    }
}
