//! Queues, timelines and submissions: the ordering rules of the contract.

use super::rig::{LIMIT, room, submit, upload};
use crate::ops::{Copy, Observe};
use crate::{
    Buffer, CommandBuffer, Device, DeviceError, Memory, Op, Point, QueueId, Result, Status, Storage, Submission,
    Timeline,
};
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(5);

fn copy(from: &Buffer, to: &Buffer) -> Op {
    Op::Copy(Copy { from: from.clone(), to: to.clone() })
}

fn point(device: &Arc<dyn Device>, value: u64) -> Point {
    Point { timeline: device.new_timeline().expect("a timeline is granted"), value }
}

fn good(submission: Result<Arc<dyn Submission>>) -> Arc<dyn Submission> {
    submission.expect("valid commands are submitted")
}

fn bytes(buffer: &Buffer) -> Vec<u8> {
    buffer.to_vec().expect("shared")
}

/// An op that records well and fails when it runs.
fn failing(device: &Arc<dyn Device>) -> Op {
    let (history, tokens) = (room(device, 16), upload(device, &[9u32]));
    Op::Observe(Observe { history, vocab: 4, history_row: 0, tokens, count: 1, prompt: 1 })
}

/// Rules 1 and 2: a chain of copies, each of which reads what the one before wrote, in one command buffer and over many.
pub fn ops_and_command_buffers_run_in_order(device: &Arc<dyn Device>) {
    const LEN: usize = 300_001;
    for queue in [device.compute_queue(), device.transfer_queue()] {
        let chain: Vec<Buffer> = (0..8u8).map(|i| upload(device, &vec![i; LEN])).collect();
        let ops = |range: std::ops::Range<usize>| range.map(|i| copy(&chain[i], &chain[i + 1])).collect::<Vec<_>>();
        good(submit(&queue, ops(0..4), &[], None));
        (4..6).for_each(|i| drop(good(submit(&queue, ops(i..i + 1), &[], None))));
        good(submit(&queue, ops(6..7), &[], None)).wait(LIMIT).expect("copies succeed");
        assert!(bytes(&chain[7]).iter().all(|byte| *byte == 0), "{queue:?}");
    }
}

/// Rule 3: each queue waits for the other and for the host, on the device.
pub fn queues_wait_for_each_other(device: &Arc<dyn Device>) {
    let (a, b, c) = (upload(device, &[1u8; 4]), upload(device, &[2u8; 4]), upload(device, &[3u8; 4]));
    let gate = point(device, 1);
    let at = |value| Point { value, ..gate.clone() };
    let (compute, transfer) = (device.compute_queue(), device.transfer_queue());
    let last = good(submit(&transfer, [copy(&c, &a)], &[at(3)], Some(at(4))));
    let middle = good(submit(&compute, [copy(&b, &c)], &[at(1), at(2)], Some(at(3))));
    assert_eq!((last.status(), middle.status()), (Status::Pending, Status::Pending));
    assert!(matches!(last.wait(SHORT), Err(DeviceError::Timeout { .. })));
    assert_eq!((bytes(&a), bytes(&c)), (vec![1; 4], vec![3; 4]), "nothing has run");
    gate.timeline.signal(2);
    at(4).wait(LIMIT).expect("everything runs");
    assert_eq!((last.status(), middle.status()), (Status::Completed, Status::Completed));
    assert_eq!((bytes(&a), bytes(&c)), (vec![2; 4], vec![2; 4]));
}

/// A wait of the encoder holds the ops after it, and other queues go on meanwhile.
pub fn a_wait_between_ops_holds_what_follows(device: &Arc<dyn Device>) {
    let [a, b, c] = [1u8, 2, 3].map(|byte| upload(device, &[byte; 4]));
    let (first, second) = (point(device, 5), point(device, 1));
    let queue = device.compute_queue();
    let mut encoder = queue.encoder().expect("an encoder is granted");
    encoder.record(copy(&a, &b)).expect("valid");
    encoder.wait(first.clone()).expect("valid");
    encoder.wait(second.clone()).expect("valid");
    encoder.record(copy(&b, &c)).expect("valid");
    let submission = good(queue.submit(encoder.finish().expect("valid"), &[], None));
    second.timeline.signal(1);
    assert!(matches!(submission.wait(SHORT), Err(DeviceError::Timeout { .. })));
    assert_eq!(bytes(&c), [3; 4]);
    let other = good(submit(&device.transfer_queue(), [copy(&a, &upload(device, &[0u8; 4]))], &[], Some(first)));
    submission.wait(LIMIT).expect("both points are reached");
    assert_eq!((other.status(), bytes(&c)), (Status::Completed, vec![1; 4]));
}

/// Rule 5's exception: after submission, another thread writes what ops behind a wait read, and signals. Neither what comes before
/// the wait nor the other queue is held up meanwhile, and many such command buffers may be in flight.
pub fn ops_behind_a_wait_read_what_the_host_wrote_before_its_signal(device: &Arc<dyn Device>) {
    const LEN: usize = 5000;
    let (queue, masks, done) = (device.compute_queue(), point(device, 0), point(device, 0));
    let [early, whole] = [1u8, 0].map(|byte| upload(device, &[byte; LEN]));
    let at = |point: &Point, value| Point { value, ..point.clone() };
    let steps: Vec<_> = (1..=3u64)
        .map(|value| {
            let [before, late, after] = [0u8; 3].map(|byte| upload(device, &[byte; LEN]));
            let mut encoder = queue.encoder().expect("an encoder is granted");
            encoder.record(copy(&early, &before)).expect("valid");
            encoder.wait(at(&masks, value)).expect("valid");
            encoder.record(copy(&late, &after)).expect("valid");
            let commands = encoder.finish().expect("valid");
            let submission = good(queue.submit(commands, &[], Some(at(&done, value))));
            (value, before, late, after, submission)
        })
        .collect();
    let beside = good(submit(&device.transfer_queue(), [copy(&early, &whole)], &[], None));
    beside.wait(LIMIT).expect("the other queue goes on");
    for (value, before, late, after, submission) in steps {
        assert_eq!(submission.status(), Status::Pending, "step {value} waits for the host");
        std::thread::scope(|scope| {
            let masks = masks.timeline.clone();
            scope.spawn(move || {
                late.write(0, &[10 + value as u8; LEN]).expect("shared memory is written by the host");
                masks.signal(value);
            });
        });
        at(&done, value).wait(LIMIT).expect("the host has signaled");
        assert_eq!((bytes(&before), bytes(&after)), (vec![1; LEN], vec![10 + value as u8; LEN]));
        assert_eq!(submission.status(), Status::Completed);
    }
}

/// Rule 4: a failure ends its command buffer only, and its point is signaled.
pub fn a_failure_signals_and_the_next_one_runs(device: &Arc<dyn Device>) {
    let (a, b) = (upload(device, &[1u8; 4]), upload(device, &[2u8; 4]));
    let (queue, done) = (device.compute_queue(), point(device, 1));
    let failed = good(submit(&queue, [failing(device), copy(&a, &b)], &[], Some(done.clone())));
    done.wait(LIMIT).expect("a failure signals");
    assert!(matches!(failed.status(), Status::Failed(DeviceError::Contract(_))), "{:?}", failed.status());
    assert!(matches!(failed.wait(Duration::ZERO), Err(DeviceError::Contract(_))));
    assert_eq!(bytes(&b), [2; 4], "what follows the failure does not run");
    good(submit(&queue, [copy(&a, &b)], &[done], None)).wait(LIMIT).expect("the queue goes on");
    assert_eq!(bytes(&b), [1; 4]);
}

/// Checks that whoever sees the point sees the end, and the results.
pub fn a_reached_point_means_that_the_submission_has_ended(device: &Arc<dyn Device>) {
    let timeline = device.new_timeline().expect("a timeline is granted");
    let (queue, to) = (device.compute_queue(), upload(device, &[0u8; 4]));
    for value in 1..=200u64 {
        let from = upload(device, &[value as u8; 4]);
        let done = Point { timeline: timeline.clone(), value };
        let submission = good(submit(&queue, [copy(&from, &to)], &[], Some(done.clone())));
        while !done.reached() {
            std::thread::yield_now();
        }
        assert_eq!(submission.status(), Status::Completed);
        assert_eq!(bytes(&to), [value as u8; 4]);
    }
    let empty = Point { timeline, value: 300 };
    good(submit(&queue, [], &[], Some(empty.clone())));
    empty.wait(LIMIT).expect("no ops are no failure");
}

/// Host waits end in time and say how far things came; what has happened needs no time.
pub fn waits_have_limits(device: &Arc<dyn Device>) {
    let gate = point(device, 3);
    let submission = good(submit(&device.compute_queue(), [], std::slice::from_ref(&gate), None));
    gate.timeline.signal(2);
    let expected = DeviceError::Timeout { value: 3, reached: 2, waited: SHORT };
    assert_eq!(gate.wait(SHORT), Err(expected));
    assert!(matches!(gate.wait(Duration::ZERO), Err(DeviceError::Timeout { .. })));
    assert!(matches!(submission.wait(Duration::ZERO), Err(DeviceError::Timeout { .. })));
    gate.timeline.signal(3);
    gate.wait(Duration::ZERO).expect("it is reached");
    submission.wait(Duration::MAX).expect("it ends");
    submission.wait(Duration::ZERO).expect("it has ended");
}

/// A lower signal changes nothing; one signal wakes all that it satisfies, on whatever thread.
pub fn timelines_never_fall_and_wake_everybody(device: &Arc<dyn Device>) {
    let timeline = device.new_timeline().expect("a timeline is granted");
    assert_eq!(timeline.value(), 0);
    timeline.wait(0, Duration::ZERO).expect("0 is where it begins");
    std::thread::scope(|scope| {
        let waiters = [2, 5, 7, 7].map(|value| {
            let timeline: Arc<dyn Timeline> = timeline.clone();
            scope.spawn(move || timeline.wait(value, LIMIT))
        });
        timeline.signal(5);
        timeline.signal(3);
        assert_eq!(timeline.value(), 5);
        timeline.signal(u64::MAX);
        assert!(waiters.into_iter().all(|waiter| waiter.join().is_ok_and(|outcome| outcome.is_ok())));
    });
}

struct Foreign;

impl CommandBuffer for Foreign {
    fn queue(&self) -> QueueId {
        QueueId::of_new_device()[0]
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

/// The transfer queue copies only; command buffers stay with their queue and their device.
pub fn each_queue_takes_its_own_command_buffers_only(device: &Arc<dyn Device>) {
    let (compute, transfer) = (device.compute_queue(), device.transfer_queue());
    let mut encoder = transfer.encoder().expect("an encoder is granted");
    assert!(matches!(encoder.record(failing(device)), Err(DeviceError::Contract(_))));
    let commands = encoder.finish().expect("nothing was recorded");
    assert!(matches!(compute.submit(commands, &[], None), Err(DeviceError::Contract(_))));
    assert!(matches!(compute.submit(Box::new(Foreign), &[], None), Err(DeviceError::Contract(_))));
    assert_eq!(device.counters().submissions, 0);
}

#[derive(Debug)]
struct Elsewhere;

impl Memory for Elsewhere {
    fn len(&self) -> u64 {
        4
    }
    fn storage(&self) -> Storage {
        Storage::Shared
    }
    fn write(&self, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn read(&self, _: u64, _: &mut [u8]) -> Result<()> {
        Ok(())
    }
    fn lend(&self, _: std::ops::Range<u64>, _: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A buffer of another device is an error, when it is recorded or when it is run.
pub fn memory_of_others_is_refused(device: &Arc<dyn Device>) {
    let (own, foreign) = (upload(device, &[1u8; 4]), Buffer::whole(Arc::new(Elsewhere)));
    for op in [copy(&own, &foreign), copy(&foreign, &own)] {
        let outcome = submit(&device.compute_queue(), [op], &[], None).and_then(|copy| copy.wait(LIMIT));
        assert!(matches!(outcome, Err(DeviceError::Contract(_))), "{outcome:?}");
    }
}

/// Memory is released before a submission's end shows, so that whoever saw it may count on the bytes.
pub fn an_ended_submission_holds_no_memory(device: &Arc<dyn Device>) {
    for _ in 0..100 {
        let (a, b) = (room(device, 5000), room(device, 5000));
        let submission = good(submit(&device.compute_queue(), [copy(&a, &b)], &[], None));
        drop((a, b));
        submission.wait(LIMIT).expect("copies succeed");
        assert_eq!(device.counters().bytes_allocated, 0);
    }
}

/// Times lie on the device's clock in the order of the queue; the compute queue's work makes it busy, the transfer queue's not.
pub fn timestamps_and_counters_follow_the_work(device: &Arc<dyn Device>) {
    let (a, b) = (room(device, 1 << 20), room(device, 1 << 20));
    let transfer = good(submit(&device.transfer_queue(), [copy(&a, &b)], &[], None));
    transfer.wait(LIMIT).expect("copies succeed");
    assert_eq!((device.counters().submissions, device.counters().busy), (1, Duration::ZERO));
    let (queue, asked) = (device.compute_queue(), device.now());
    let submissions = [(); 3].map(|()| good(submit(&queue, [copy(&a, &b)], &[], None)));
    submissions.iter().for_each(|s| s.wait(LIMIT).expect("copies succeed"));
    let (counters, now) = (device.counters(), device.now());
    assert_eq!(counters.submissions, 4);
    assert!(counters.busy > Duration::ZERO && counters.busy <= now - asked, "{counters:?}");
    let mut before = asked;
    for (began, ended) in submissions.iter().filter_map(|submission| submission.times()) {
        assert!(before <= began && began <= ended && ended <= now, "{before:?} {began:?} {ended:?} {now:?}");
        before = ended;
    }
}
