//! The fake device's latencies, faults and log. What every device must do is in `conformance.rs`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_device::fake::{Event, FakeDevice, FakeOptions, Fault, Latency, Mark, QueueKind, scripted_token};
use mlx_serving_device::ops::{Copy, RopeAngles, Sample, SampleParams};
use mlx_serving_device::{Buffer, Device, DeviceError, Encoder, Op, Point, Queue, Result, Status, Storage, Submission};
use std::sync::Arc;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

fn device(options: FakeOptions) -> Arc<FakeDevice> {
    FakeDevice::new(options).unwrap()
}

fn plain() -> Arc<FakeDevice> {
    device(FakeOptions::default())
}

fn buffer(device: &FakeDevice, bytes: &[u8]) -> Buffer {
    let buffer = device.new_buffer(bytes.len() as u64, Storage::Shared).unwrap();
    buffer.write(0, bytes).unwrap();
    buffer
}

fn copy(from: &Buffer, to: &Buffer) -> Op {
    Op::Copy(Copy { from: from.clone(), to: to.clone() })
}

/// An op that computes: cheap, and of any device.
fn angles(device: &FakeDevice) -> Op {
    let positions = buffer(device, &[0; 4]);
    let (inv_freq, out) = (buffer(device, &[0; 4]), buffer(device, &[0; 8]));
    Op::RopeAngles(RopeAngles { positions, inv_freq, pairs: 1, scale: 1.0, growth: None, rows: 1, out })
}

fn encoder(queue: &Arc<dyn Queue>, ops: impl IntoIterator<Item = Op>) -> Box<dyn Encoder> {
    let mut encoder = queue.encoder().unwrap();
    ops.into_iter().for_each(|op| encoder.record(op).unwrap());
    encoder
}

fn try_submit(
    queue: &Arc<dyn Queue>,
    ops: impl IntoIterator<Item = Op>,
    signal: Option<Point>,
) -> Result<Arc<dyn Submission>> {
    queue.submit(encoder(queue, ops).finish()?, &[], signal)
}

fn point(device: &FakeDevice) -> Point {
    Point { timeline: device.new_timeline().unwrap(), value: 1 }
}

#[test]
fn allocations_are_refused_by_fault_and_by_budget() {
    let device = device(FakeOptions { memory_budget: 1000, ..FakeOptions::default() });
    let control = device.control();
    let refused = |len| matches!(device.new_buffer(len, Storage::Shared), Err(DeviceError::OutOfMemory { .. }));
    control.refuse_allocations(Fault::nth(2));
    let first = device.new_buffer(600, Storage::Shared).unwrap();
    assert!(refused(1), "the second");
    assert!(device.new_heap(400, Storage::Private).is_ok(), "the third");
    assert!(refused(401), "beyond the budget");
    drop(first);
    assert!(!refused(1000));
    assert_eq!((device.counters().allocations, device.counters().bytes_allocated), (3, 0));
    control.refuse_allocations(Fault::ALWAYS);
    assert!(refused(1) && refused(1));
    control.refuse_allocations(Fault::NEVER);
    assert!(!refused(1));
    assert_eq!(control.log()[1], Event::Refused { bytes: 1 });
}

#[test]
fn a_discrete_device_keeps_the_host_out_of_private_memory() {
    let options = FakeOptions { unified_memory: false, ..FakeOptions::default() };
    let (discrete, unified) = (device(options), plain());
    let private = discrete.new_buffer(4, Storage::Private).unwrap();
    assert!(private.write(0, &[1u8]).is_err() && private.read(0, &mut [0u8]).is_err());
    assert!(private.lend(&mut |_| ()).is_err());
    let (from, to) = (buffer(&discrete, &[1, 2, 3, 4]), buffer(&discrete, &[0; 4]));
    let queue = discrete.transfer_queue();
    try_submit(&queue, [copy(&from, &private), copy(&private, &to)], None).unwrap().wait(LIMIT).unwrap();
    assert_eq!(to.to_vec::<u8>().unwrap(), [1, 2, 3, 4]);
    unified.new_buffer(4, Storage::Private).unwrap().write(0, &[1u8]).unwrap();
}

#[test]
fn ops_may_bind_only_so_much() {
    let device = device(FakeOptions { max_buffer_len: 64, ..FakeOptions::default() });
    let large = buffer(&device, &[0; 130]);
    let (from, to) = (large.slice(0..65).unwrap(), large.slice(65..130).unwrap());
    let mut encoder = device.compute_queue().encoder().unwrap();
    assert!(matches!(encoder.record(copy(&from, &to)), Err(DeviceError::Contract(_))));
    encoder.record(copy(&from.slice(0..64).unwrap(), &to.slice(0..64).unwrap())).unwrap();
}

#[test]
fn a_copy_fails_once_and_its_point_is_signaled() {
    let device = plain();
    let (a, b) = (buffer(&device, &[1]), buffer(&device, &[2]));
    device.control().fail_copies(QueueKind::Transfer, Fault::next(1));
    let (transfer, done) = (device.transfer_queue(), point(&device));
    let compute = try_submit(&device.compute_queue(), [copy(&b, &a)], None).unwrap();
    compute.wait(LIMIT).unwrap();
    let failed = try_submit(&transfer, [copy(&a, &b)], Some(done.clone())).unwrap();
    done.wait(LIMIT).unwrap();
    assert!(matches!(failed.status(), Status::Failed(DeviceError::CommandFailed(_))), "{:?}", failed.status());
    try_submit(&transfer, [copy(&a, &b)], None).unwrap().wait(LIMIT).unwrap();
}

#[test]
fn a_corrupted_copy_says_nothing() {
    let device = plain();
    let (a, b) = (buffer(&device, &[7; 9]), buffer(&device, &[0; 9]));
    device.control().corrupt_copies(QueueKind::Transfer, Fault::next(1));
    let queue = device.transfer_queue();
    try_submit(&queue, [copy(&a, &b)], None).unwrap().wait(LIMIT).unwrap();
    assert_eq!(b.to_vec::<u8>().unwrap().iter().filter(|byte| **byte != 7).count(), 1);
    try_submit(&queue, [copy(&a, &b)], None).unwrap().wait(LIMIT).unwrap();
    assert_eq!(b.to_vec::<u8>().unwrap(), [7; 9]);
}

#[test]
fn a_failed_submission_runs_none_of_its_ops() {
    let device = plain();
    let (a, b) = (buffer(&device, &[1]), buffer(&device, &[2]));
    device.control().fail_submissions(QueueKind::Compute, Fault::nth(2));
    let queue = device.compute_queue();
    let submissions = [(); 3].map(|()| try_submit(&queue, [copy(&a, &b)], None).unwrap());
    let ended = submissions.map(|submission| submission.wait(LIMIT).is_ok());
    assert_eq!(ended, [true, false, true]);
}

#[test]
fn a_hung_submission_holds_its_queue_until_released() {
    let device = plain();
    let control = device.control();
    let (a, b) = (buffer(&device, &[1]), buffer(&device, &[2]));
    control.hang_submissions(QueueKind::Compute, Fault::next(1));
    let (compute, done) = (device.compute_queue(), point(&device));
    let hung = try_submit(&compute, [copy(&a, &b)], Some(done.clone())).unwrap();
    let behind = try_submit(&compute, [copy(&a, &b)], None).unwrap();
    try_submit(&device.transfer_queue(), [copy(&a, &buffer(&device, &[0]))], None).unwrap().wait(LIMIT).unwrap();
    assert!(matches!(hung.wait(SHORT), Err(DeviceError::Timeout { .. })));
    assert!(matches!(done.wait(Duration::ZERO), Err(DeviceError::Timeout { value: 1, reached: 0, .. })));
    assert_eq!((behind.status(), b.to_vec::<u8>().unwrap()), (Status::Pending, vec![2]));
    control.release();
    behind.wait(LIMIT).unwrap();
    assert_eq!((hung.status(), b.to_vec::<u8>().unwrap()), (Status::Completed, vec![1]));
}

#[test]
fn dropping_the_device_ends_what_hangs_and_what_waits_in_vain() {
    let device = plain();
    let (a, b) = (buffer(&device, &[1]), buffer(&device, &[2]));
    device.control().hang_submissions(QueueKind::Compute, Fault::ALWAYS);
    let hung = try_submit(&device.compute_queue(), [copy(&a, &b)], None).unwrap();
    let transfer = device.transfer_queue();
    let waiting =
        transfer.submit(encoder(&transfer, [copy(&a, &b)]).finish().unwrap(), &[point(&device)], None).unwrap();
    drop((device, transfer));
    assert!(matches!(hung.status(), Status::Failed(DeviceError::Lost(_))), "{:?}", hung.status());
    assert!(matches!(waiting.status(), Status::Failed(DeviceError::Lost(_))), "{:?}", waiting.status());
}

#[test]
fn a_dropped_signal_never_comes_though_the_work_is_done() {
    let device = plain();
    let (a, b) = (buffer(&device, &[1]), buffer(&device, &[2]));
    device.control().drop_signals(QueueKind::Compute, Fault::next(1));
    let done = point(&device);
    let queue = device.compute_queue();
    let submission = try_submit(&queue, [copy(&a, &b)], Some(done.clone())).unwrap();
    submission.wait(LIMIT).unwrap();
    assert!(matches!(done.wait(SHORT), Err(DeviceError::Timeout { .. })));
    try_submit(&queue, [copy(&a, &b)], Some(done.clone())).unwrap();
    done.wait(LIMIT).unwrap();
}

#[test]
fn a_lost_device_fails_everything_that_is_pending_and_everything_later() {
    let device = plain();
    let (a, b) = (buffer(&device, &[1]), buffer(&device, &[2]));
    let (queue, never, done) = (device.compute_queue(), point(&device), point(&device));
    let commands = encoder(&queue, [copy(&a, &b)]).finish().unwrap();
    let slow = Latency { op: Duration::from_secs(3600), ..Latency::default() };
    device.control().set_latency(slow);
    let running = try_submit(&queue, [angles(&device)], None).unwrap();
    let pending = queue.submit(commands, std::slice::from_ref(&never), Some(done.clone())).unwrap();
    let open = queue.encoder().unwrap();
    device.control().lose("unplugged");
    let lost = Err(DeviceError::Lost("unplugged".into()));
    assert_eq!((running.wait(LIMIT), pending.wait(LIMIT)), (lost.clone(), lost.clone()));
    while !done.reached() {
        std::thread::yield_now();
    }
    assert_eq!(never.wait(LIMIT), lost, "nobody waits for what cannot come");
    assert!(matches!(open.finish(), Err(DeviceError::Lost(_))));
    assert!(matches!(queue.encoder(), Err(DeviceError::Lost(_))));
    assert!(matches!(device.new_timeline(), Err(DeviceError::Lost(_))));
    assert!(matches!(device.new_buffer(1, Storage::Shared), Err(DeviceError::Lost(_))));
    assert_eq!(b.read(0, &mut [0u8]), lost);
}

#[test]
fn latencies_pass_before_results_show() {
    // Longer than the host may be held up.
    let execute = Duration::from_millis(500);
    let latency = Latency { execute, ..Latency::default() };
    let device = device(FakeOptions { latency, ..FakeOptions::default() });
    let (a, b) = (buffer(&device, &[1]), buffer(&device, &[2]));
    let queue = device.compute_queue();
    let began = Instant::now();
    let submission = try_submit(&queue, [angles(&device), angles(&device), copy(&a, &b)], None).unwrap();
    assert_eq!(b.to_vec::<u8>().unwrap(), [2], "not yet");
    submission.wait(LIMIT).unwrap();
    assert!(began.elapsed() >= execute && b.to_vec::<u8>().unwrap() == [1]);
    let (first, last) = submission.times().unwrap();
    assert!(last - first >= execute && last <= device.now());
    assert!(device.counters().busy >= execute);
    let busy = device.counters().busy;
    try_submit(&queue, [copy(&b, &a)], None).unwrap().wait(LIMIT).unwrap();
    try_submit(&device.transfer_queue(), [copy(&b, &a)], None).unwrap().wait(LIMIT).unwrap();
    assert!(device.counters().busy - busy < execute, "copies do not pay for a step");
}

#[test]
fn copies_take_their_bytes_time_on_either_queue() {
    let latency = Latency { copy_bytes_per_second: Some(1 << 20), ..Latency::default() };
    let device = device(FakeOptions { latency, ..FakeOptions::default() });
    let (a, b) = (buffer(&device, &[1; 1 << 15]), buffer(&device, &[2; 1 << 15]));
    for queue in [device.compute_queue(), device.transfer_queue()] {
        let submission = try_submit(&queue, [copy(&a, &b)], None).unwrap();
        submission.wait(LIMIT).unwrap();
        let (first, last) = submission.times().unwrap();
        assert!(last - first >= Duration::from_millis(31), "{:?}", last - first);
    }
}

#[test]
fn waiting_is_not_being_busy() {
    let device = plain();
    let (queue, gate) = (device.compute_queue(), point(&device));
    let mut encoder = encoder(&queue, [angles(&device)]);
    encoder.wait(gate.clone()).unwrap();
    encoder.record(angles(&device)).unwrap();
    let submission = queue.submit(encoder.finish().unwrap(), &[], None).unwrap();
    let began = Instant::now();
    while device.counters().busy.is_zero() {
        assert!(began.elapsed() < LIMIT, "the first op does not run");
        std::thread::yield_now();
    }
    let waited = Duration::from_millis(300);
    std::thread::sleep(waited);
    assert_eq!(submission.status(), Status::Pending);
    gate.timeline.signal(1);
    submission.wait(LIMIT).unwrap();
    let (first, last) = submission.times().unwrap();
    assert!(last - first >= waited, "the wait is within the run");
    // Nothing but two ops without latency, however busy the machine is.
    assert!(device.counters().busy < waited, "{:?}", device.counters().busy);
}

/// Share of time for which the device is busy, with so many steps in flight.
fn utilization(depth: usize) -> f64 {
    const STEPS: usize = 15;
    let latency =
        Latency { finish: Duration::from_millis(20), execute: Duration::from_millis(50), ..Latency::default() };
    let device = device(FakeOptions { compute: false, latency, ..FakeOptions::default() });
    let queue = device.compute_queue();
    let began = Instant::now();
    let mut in_flight = std::collections::VecDeque::new();
    for _ in 0..STEPS {
        if in_flight.len() == depth {
            let oldest: Arc<dyn Submission> = in_flight.pop_front().unwrap();
            oldest.wait(LIMIT).unwrap();
        }
        in_flight.push_back(try_submit(&queue, [angles(&device)], None).unwrap());
    }
    in_flight.iter().for_each(|submission| submission.wait(LIMIT).unwrap());
    device.counters().busy.as_secs_f64() / began.elapsed().as_secs_f64()
}

#[test]
fn encoding_ahead_keeps_the_device_busy() {
    // 50 of 70 ms and all but the first 20 of 770 ms; one good run of a few, for a machine that is busy itself.
    let mut seen = Vec::new();
    while !seen.iter().any(|&(one, two)| one < 0.75 && two > 0.85) {
        assert!(seen.len() < 10, "{seen:?}");
        seen.push((utilization(1), utilization(2)));
    }
}

#[test]
fn a_device_that_computes_nothing_still_copies_and_samples() {
    let device = device(FakeOptions { compute: false, ..FakeOptions::default() });
    let params = SampleParams { seed_low: 1, seed_high: 2, position: 3, ..SampleParams::GREEDY };
    let later = SampleParams { position: 4, ..params };
    let (a, b) = (buffer(&device, &[1]), buffer(&device, &[2]));
    let op = Sample {
        logits: buffer(&device, &[0; 2 * 4 * 50]),
        vocab: 50,
        rows: 2,
        params: buffer(&device, bytemuck::cast_slice(&[params, later])),
        biases: buffer(&device, &[]),
        history: None,
        masks: None,
        out: buffer(&device, &[0; 8]),
    };
    let out = op.out.clone();
    let submission = try_submit(&device.compute_queue(), [angles(&device), Op::Sample(op), copy(&a, &b)], None);
    submission.unwrap().wait(LIMIT).unwrap();
    let tokens = out.to_vec::<u32>().unwrap();
    assert_eq!(tokens, [scripted_token(&params, 50), scripted_token(&later, 50)]);
    assert!(tokens[0] != tokens[1] && tokens.iter().all(|token| *token < 50), "{tokens:?}");
    assert_eq!(b.to_vec::<u8>().unwrap(), [1]);
}

#[test]
fn the_log_says_what_was_asked() {
    let device = plain();
    let control = device.control();
    let (a, b) = (buffer(&device, &[1; 3]), buffer(&device, &[2; 3]));
    let (gate, inner, done) = (point(&device), point(&device), point(&device));
    let op = angles(&device);
    control.clear_log();
    let queue = device.compute_queue();
    let mut encoder = encoder(&queue, [copy(&a, &b)]);
    encoder.wait(inner.clone()).unwrap();
    encoder.record(op).unwrap();
    let submission = queue.submit(encoder.finish().unwrap(), std::slice::from_ref(&gate), Some(done.clone())).unwrap();
    gate.timeline.signal(1);
    inner.timeline.signal(1);
    submission.wait(LIMIT).unwrap();
    let log = control.log();
    let submitted = Event::Submitted {
        queue: QueueKind::Compute,
        submission: 0,
        ops: vec!["Copy", "Wait", "RopeAngles"],
        copied: 3,
        waits: vec![Mark::of(&gate), Mark::of(&inner)],
        signal: Some(Mark::of(&done)),
    };
    assert_eq!(log[..3], [submitted, Event::Signaled(Mark::of(&gate)), Event::Signaled(Mark::of(&inner))]);
    let ended = Event::Ended { submission: 0, completed: true };
    let freed = log.iter().filter(|event| matches!(event, Event::Freed { .. })).count();
    assert_eq!((freed, log.last()), (3, Some(&ended)), "memory is released first");
}

/// The contract's own check, which every backend's queues make.
#[test]
fn command_buffers_of_a_twin_device_and_of_the_other_queue_are_refused() {
    let (device, twin) = (plain(), plain());
    let recorded = |queue: &Arc<dyn Queue>| queue.encoder().unwrap().finish().unwrap();
    let (compute, transfer) = (device.compute_queue(), device.transfer_queue());
    let refused = |commands| compute.submit(commands, &[], None).map(drop).unwrap_err().to_string();
    let of_twin = refused(recorded(&twin.compute_queue()));
    assert!(of_twin.contains("a command buffer of another device was submitted to the compute queue"), "{of_twin}");
    let of_transfer = refused(recorded(&transfer));
    assert!(
        of_transfer.contains("recorded for the transfer queue was submitted to the compute queue"),
        "{of_transfer}"
    );
    compute.submit(recorded(&compute), &[], None).unwrap().wait(LIMIT).unwrap();
}
