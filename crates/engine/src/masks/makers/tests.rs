use super::*;
use crate::masks::board::{Board, Order};
use crate::masks::toy::{Faults, Gate, Toy};
use mlx_serving_device::fake::{FakeDevice, FakeOptions};
use mlx_serving_device::{Buffer, Device, Point, Storage};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

const VOCAB: usize = 300;
const WORDS: usize = VOCAB.div_ceil(32);
const LIMIT: Duration = Duration::from_secs(60);

struct Rig {
    makers: Makers,
    metrics: GrammarMetrics,
}

fn rig() -> Rig {
    let metrics = GrammarMetrics::default();
    Rig { makers: Makers::new(1, metrics.clone()), metrics }
}

fn toy(faults: Faults) -> Toy {
    Toy { faults, ..Toy::new(VOCAB, &[0, 2], 20) }
}

fn board() -> (Arc<Board>, Order, Buffer) {
    let device = FakeDevice::new(FakeOptions::default()).unwrap();
    let memory = device.new_buffer(4 * WORDS as u64, Storage::Shared).unwrap();
    let point = Point { timeline: device.new_timeline().unwrap(), value: 1 };
    let (board, mut orders) = Board::new(memory.clone(), WORDS, 1, point);
    (board, orders.remove(0), memory)
}

impl Rig {
    /// The outcome of one job, and the mask that it wrote.
    fn make(&self, job: impl FnOnce(Duty) -> Job) -> (Result<Made, Fault>, Vec<u32>) {
        let (board, order, memory) = board();
        self.makers.hand_out(job(order.duty()));
        assert_eq!(board.wait(LIMIT, || false), 0);
        (order.take(), memory.to_vec().unwrap())
    }

    fn after(&self, toy: &Toy, take: &[u32]) -> (Result<Made, Fault>, Vec<u32>) {
        self.make(|duty| job(duty, toy, take))
    }
}

fn job(duty: Duty, toy: &Toy, take: &[u32]) -> Job {
    Job { duty, matcher: None, rules: Arc::new(toy.clone()), take: take.to_vec(), avoid: None, admit: Vec::new() }
}

/// Tokens that the rules allow, one after the other.
fn path(toy: &Toy, length: usize) -> Vec<u32> {
    let mut taken = Vec::new();
    while taken.len() < length {
        let next = toy.next(&taken);
        taken.push((3..VOCAB as u32).find(|token| toy.allows(&next, *token)).unwrap());
    }
    taken
}

#[test]
fn a_mask_is_that_of_the_tokens_taken_and_the_state_comes_back() {
    let (rig, toy) = (rig(), toy(Faults::default()));
    let taken = path(&toy, 4);
    let (made, mask) = rig.after(&toy, &taken[..2]);
    assert_eq!(mask, toy.mask_after(&taken[..2]));
    let (again, mask) = rig.make(|duty| Job { matcher: made.unwrap().matcher, ..job(duty, &toy, &taken[2..]) });
    assert_eq!((mask, again.unwrap().forced.len()), (toy.mask_after(&taken), 1));
    assert_eq!(rig.metrics.masks.get(), 2);
}

#[test]
fn a_job_that_panics_or_cannot_go_on_fails_alone() {
    let rig = rig();
    for (faults, expected) in [
        (Faults { panics_at: Some(0), ..Faults::default() }, Fault::Died),
        (
            Faults { stuck_at: Some(0), ..Faults::default() },
            Fault::Stuck("the grammar cannot go on: a planted fault".into()),
        ),
    ] {
        assert_eq!(rig.after(&toy(faults), &[]).0.err(), Some(expected));
        // There is one thread.
        assert!(rig.after(&toy(Faults::default()), &[]).0.is_ok());
    }
    let (nothing, _) = rig.after(&Toy { ends: Vec::new(), length: 0, ..toy(Faults::default()) }, &[]);
    assert_eq!(nothing.err(), Some(Fault::Stuck("no token can come next".into())));
}

#[test]
fn an_order_that_ends_frees_the_thread_that_works_for_it() {
    let (rig, gate) = (rig(), Arc::new(Gate::default()));
    let held = toy(Faults { held_at: Some((0, gate.clone())), ..Faults::default() });
    let (board, order, _memory) = board();
    rig.makers.hand_out(job(order.duty(), &held, &[]));
    while !gate.reached.load(SeqCst) {
        std::thread::yield_now();
    }
    drop(order);
    assert_eq!(board.wait(Duration::ZERO, || false), 0);
    assert!(rig.after(&toy(Faults::default()), &[]).0.is_ok());
}

#[test]
fn ends_are_avoided_as_long_as_anything_else_may_come() {
    let (rig, toy) = (rig(), toy(Faults::default()));
    let bit = |mask: &[u32], token: usize| mask[token / 32] >> (token % 32) & 1;
    for (length, ends) in [(15, [0, 0]), (20, [1, 1])] {
        let taken = path(&toy, length);
        let (_, mask) = rig.after(&toy, &taken);
        assert_eq!([bit(&mask, 0), bit(&mask, 2)], [1, 1], "the text may end after {length}");
        let avoid = Some(Arc::from([0, 2, 9999]));
        let (made, mask) = rig.make(|duty| Job { avoid, ..job(duty, &toy, &taken) });
        assert_eq!([bit(&mask, 0), bit(&mask, 2)], ends);
        assert_eq!(made.unwrap().only_ends, ends == [1, 1]);
    }
}

#[test]
fn one_token_may_be_let_in() {
    let (rig, toy) = (rig(), toy(Faults::default()));
    let mut expected = toy.mask_after(&[]);
    let outside = (0..VOCAB as u32).find(|t| expected[*t as usize / 32] >> (t % 32) & 1 == 0).unwrap();
    expected[outside as usize / 32] |= 1 << (outside % 32);
    let (_, mask) = rig.make(|duty| Job { admit: vec![outside], ..job(duty, &toy, &[]) });
    assert_eq!(mask, expected);
}

#[test]
fn what_the_rules_refuse_before_reasoning_leaves_the_tokens_that_begin_it() {
    let (rig, toy) = (rig(), toy(Faults::default()));
    let (refused, admit) = ((3..).find(|token| !toy.allows(&toy.next(&[]), *token)).unwrap(), vec![33]);
    let (made, mask) = rig.make(|duty| Job { admit: admit.clone(), ..job(duty, &toy, &[refused]) });
    assert!(made.unwrap().matcher.is_none(), "it is begun anew");
    let bits: Vec<u32> = (0..VOCAB as u32).filter(|t| mask[*t as usize / 32] >> (t % 32) & 1 == 1).collect();
    assert_eq!(bits, admit);
    assert!(matches!(rig.after(&toy, &[refused]).0.err(), Some(Fault::Stuck(_))), "reasoning cannot begin");
}
