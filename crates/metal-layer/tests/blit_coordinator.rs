//! Asynchronous transfers on the CPU device: the bytes, the order, the bounds, and what is reported when something fails.
#![allow(clippy::unit_arg, reason = "a closure of one expression is the plainest")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_cpu::{CpuDevice, CpuOptions};
use mlx_serving_device::fake::{FakeDevice, FakeOptions, Fault, QueueKind};
use mlx_serving_device::ops::Copy;
use mlx_serving_device::{Buffer, Device, DeviceError, Op, Point, Status, Storage, Submission};
use mlx_serving_metal_layer::config::BlitQueueConfig;
use mlx_serving_metal_layer::{
    Activity, Allocate, BlitCoordinator, CachingAllocator, InlineTransfer, Ticket, Track, Transfer, Wiring,
};
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

struct Bench {
    device: Arc<dyn Device>,
    allocate: Arc<dyn Allocate>,
    wiring: Wiring,
    compute: Track,
}

impl Bench {
    fn new() -> Self {
        Self::on(CpuDevice::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() }).unwrap())
    }

    fn on(device: Arc<dyn Device>) -> Self {
        let wiring = Wiring::new(device.clone());
        let compute = wiring.frontier.track(device.new_timeline().unwrap());
        let allocate = Arc::new(CachingAllocator::new(&wiring));
        Self { device, allocate, wiring, compute }
    }

    fn coordinator(&self, config: &BlitQueueConfig) -> BlitCoordinator {
        BlitCoordinator::new(&self.wiring, self.allocate.clone(), &self.compute, config).unwrap()
    }

    fn inline(&self) -> InlineTransfer {
        InlineTransfer::new(&self.wiring, self.allocate.clone(), &self.compute)
    }

    fn buffer(&self, len: u64, storage: Storage) -> Buffer {
        let buffer = self.device.new_buffer(len, storage).unwrap();
        buffer.write(0, &vec![0u8; len as usize]).unwrap();
        buffer
    }

    /// Copies on the compute queue after `waits`.
    fn compute(&self, from: &Buffer, to: &Buffer, waits: &[Point]) -> Arc<dyn Submission> {
        let queue = self.device.compute_queue();
        let mut encoder = queue.encoder().unwrap();
        encoder.record(Op::Copy(Copy { from: from.clone(), to: to.clone() })).unwrap();
        queue.submit(encoder.finish().unwrap(), waits, Some(self.compute.issue())).unwrap()
    }
}

fn small() -> BlitQueueConfig {
    BlitQueueConfig { enabled: true, staging_buffer_size_mb: 1, ..BlitQueueConfig::default() }
}

fn upload(transfer: &dyn Transfer, to: &Buffer, byte: u8) -> Ticket {
    transfer.upload(to, Box::new(move |bytes| Ok(bytes.fill(byte)))).unwrap()
}

fn download(transfer: &dyn Transfer, from: &Buffer) -> (Ticket, mpsc::Receiver<Vec<u8>>) {
    let (told, bytes) = mpsc::channel();
    let sink = move |bytes: &[u8]| told.send(bytes.to_vec()).map_err(|e| e.to_string());
    (transfer.download(from, Box::new(sink)).unwrap(), bytes)
}

#[test]
fn statistics_begin_anew() {
    let bench = Bench::new();
    let transfer = bench.coordinator(&small());
    let buffer = bench.buffer(64, Storage::Shared);
    upload(&transfer, &buffer, 1).wait(LONG).unwrap();
    transfer.reset_statistics();
    let (stats, none) = (transfer.stats(), (0, 0, 0.0));
    assert_eq!((stats.total_uploads, stats.bytes_uploaded, stats.avg_upload_ms), none);
    upload(&transfer, &buffer, 2).wait(LONG).unwrap();
    assert_eq!((transfer.stats().total_uploads, transfer.stats().bytes_uploaded), (1, 64));
}

#[test]
fn bytes_of_several_buffers_come_and_go_as_one_run() {
    let bench = Bench::new();
    for verify_checksums in [false, true] {
        let transfer = bench.coordinator(&BlitQueueConfig { verify_checksums, ..small() });
        for storage in [Storage::Shared, Storage::Private] {
            let parts = [bench.buffer(1000, storage), bench.buffer(24, storage), bench.buffer(3000, storage)];
            let run: Vec<u8> = (0..4024u32).map(|i| (i % 251) as u8).collect();
            let sent = run.clone();
            let fill = move |bytes: &mut [u8]| Ok(bytes.copy_from_slice(&sent));
            transfer.scatter(&parts, Box::new(fill)).unwrap().wait(LONG).unwrap();
            assert_eq!(parts[1].to_vec::<u8>().unwrap(), run[1000..1024]);
            let (told, found) = mpsc::channel();
            let sink = move |bytes: &[u8]| told.send(bytes.to_vec()).map_err(|e| e.to_string());
            transfer.gather(&parts, Box::new(sink)).unwrap().wait(LONG).unwrap();
            assert_eq!(found.recv().unwrap(), run);
        }
        let stats = transfer.stats();
        assert_eq!((stats.total_uploads, stats.bytes_uploaded), (2, 8048));
        assert_eq!((stats.total_downloads, stats.bytes_downloaded), (2, 8048));
        assert_eq!((stats.pending_operations, stats.checksum_failures, stats.fallback_events), (0, 0, 0));
    }
}

#[test]
fn the_device_waits_for_an_upload_while_the_host_goes_on() {
    let bench = Bench::new();
    let transfer = bench.coordinator(&small());
    for storage in [Storage::Shared, Storage::Private] {
        let (to, out) = (bench.buffer(512, storage), bench.buffer(512, Storage::Shared));
        let (go, gate) = mpsc::channel::<()>();
        let fill = move |bytes: &mut [u8]| {
            gate.recv().map_err(|e| e.to_string())?;
            Ok(bytes.fill(7))
        };
        let ticket = transfer.upload(&to, Box::new(fill)).unwrap();
        let step = bench.compute(&to, &out, &[ticket.point.clone().unwrap()]);
        assert_eq!((ticket.status(), step.status()), (Status::Pending, Status::Pending));
        go.send(()).unwrap();
        step.wait(LONG).unwrap();
        assert_eq!(out.to_vec::<u8>().unwrap(), [7; 512]);
    }
}

#[test]
fn a_download_sees_what_was_submitted_before_and_a_later_step_leaves_it_alone() {
    let bench = Bench::new();
    let transfer = bench.coordinator(&small());
    for storage in [Storage::Shared, Storage::Private] {
        let (ones, twos) = (bench.buffer(4 << 10, storage), bench.buffer(4 << 10, storage));
        let cache = bench.buffer(4 << 10, storage);
        ones.write(0, &[1u8; 4 << 10]).unwrap();
        twos.write(0, &[2u8; 4 << 10]).unwrap();
        let timeline = bench.device.new_timeline().unwrap();
        bench.compute(&ones, &cache, &[Point { timeline: timeline.clone(), value: 1 }]);
        let (ticket, found) = download(&transfer, &cache);
        let step = bench.compute(&twos, &cache, &[ticket.point.clone().unwrap()]);
        assert_eq!(step.status(), Status::Pending);
        timeline.signal(1);
        ticket.wait(LONG).unwrap();
        assert_eq!(found.recv().unwrap(), [1; 4 << 10]);
        step.wait(LONG).unwrap();
        assert_eq!(cache.to_vec::<u8>().unwrap(), [2; 4 << 10]);
    }
}

#[test]
fn an_upload_that_fails_or_panics_reaches_its_point_and_those_behind_it_go_on() {
    let bench = Bench::new();
    let transfer = bench.coordinator(&small());
    for storage in [Storage::Shared, Storage::Private] {
        let to = bench.buffer(64, storage);
        let failed = transfer.upload(&to, Box::new(|_| Err("the disk went away".into()))).unwrap();
        let panicked = transfer.upload(&to, Box::new(|_| panic!("a defect"))).unwrap();
        let good = upload(&transfer, &to, 3);
        let error = failed.wait(LONG).unwrap_err().to_string();
        assert!(error.contains("the disk went away"), "{error}");
        assert!(panicked.wait(LONG).unwrap_err().to_string().contains("panicked"));
        good.wait(LONG).unwrap();
        for ticket in [failed, panicked, good] {
            ticket.point.unwrap().wait(LONG).unwrap();
        }
        assert_eq!(to.to_vec::<u8>().unwrap(), [3; 64]);
    }
}

#[test]
fn a_full_ring_makes_the_caller_wait_and_then_copy_synchronously() {
    let bench = Bench::new();
    let transfer = bench.coordinator(&BlitQueueConfig { max_pending_ops: 1, timeout_ms: 100, ..small() });
    let (held, other) = (bench.buffer(64, Storage::Shared), bench.buffer(64, Storage::Private));
    let (go, gate) = mpsc::channel::<()>();
    let fill = move |bytes: &mut [u8]| {
        gate.recv().map_err(|e| e.to_string())?;
        Ok(bytes.fill(1))
    };
    let ticket = transfer.upload(&held, Box::new(fill)).unwrap();
    std::thread::scope(|scope| {
        // Synchronous, it waits for the one in flight all the same, so that the order stays.
        let late = scope.spawn(|| upload(&transfer, &other, 2));
        while transfer.stats().fallback_events == 0 {
            std::thread::yield_now();
        }
        go.send(()).unwrap();
        late.join().unwrap().wait(LONG).unwrap();
    });
    ticket.wait(LONG).unwrap();
    assert_eq!(other.to_vec::<u8>().unwrap(), [2; 64]);
    upload(&transfer, &other, 5).wait(LONG).unwrap();
    assert_eq!(transfer.stats().fallback_events, 1);
    assert_eq!(transfer.stats().total_uploads, 3);
}

#[test]
fn what_is_longer_than_the_ring_still_gets_there() {
    let bench = Bench::new();
    let transfer = bench.coordinator(&small());
    let to = bench.buffer(3 << 20, Storage::Private);
    assert!(transfer.max_chunk() <= 1 << 20);
    upload(&transfer, &to, 9).wait(LONG).unwrap();
    assert!(to.to_vec::<u8>().unwrap().iter().all(|&b| b == 9));
}

#[test]
fn the_stream_queues_without_bound_and_lets_what_is_due_pass() {
    let bench = Bench::new();
    let transfer = bench.coordinator(&BlitQueueConfig { max_pending_ops: 2, ..small() });
    for storage in [Storage::Shared, Storage::Private] {
        let weights: Vec<Buffer> = (0..40).map(|_| bench.buffer(100 << 10, storage)).collect();
        let order = Arc::new(Mutex::new(Vec::new()));
        let ((go, gate), (begun, first)) = (mpsc::channel::<()>(), mpsc::channel::<()>());
        let mut gate = Some((gate, begun));
        let stream: Vec<Ticket> = (0..40u8)
            .map(|i| {
                let (order, gate) = (order.clone(), gate.take());
                let fill = move |bytes: &mut [u8]| {
                    if let Some((gate, begun)) = gate {
                        begun.send(()).map_err(|e| e.to_string())?;
                        gate.recv().map_err(|e| e.to_string())?;
                    }
                    order.lock().unwrap().push(i);
                    Ok(bytes.fill(i))
                };
                transfer.stream(&weights[usize::from(i)], Box::new(fill)).unwrap()
            })
            .collect();
        first.recv().unwrap();
        let due = bench.buffer(64, storage);
        let noted = order.clone();
        let fill = move |bytes: &mut [u8]| {
            noted.lock().unwrap().push(255);
            Ok(bytes.fill(1))
        };
        let ticket = transfer.upload(&due, Box::new(fill)).unwrap();
        go.send(()).unwrap();
        ticket.wait(LONG).unwrap();
        stream.iter().for_each(|t| t.wait(LONG).unwrap());
        let order = order.lock().unwrap().clone();
        assert_eq!(order[1], 255, "{order:?}");
        assert!(order.iter().filter(|&&i| i != 255).copied().eq(0..40), "{order:?}");
        assert!(weights.iter().zip(0..).all(|(w, i)| w.to_vec::<u8>().unwrap().iter().all(|&b| b == i)));
    }
}

#[test]
fn a_step_that_waits_for_the_stream_does_not_lock_up_transfers_that_wait_for_the_step() {
    let bench = Bench::new();
    for use_shared_events in [true, false] {
        let transfer = bench.coordinator(&BlitQueueConfig { max_pending_ops: 4, use_shared_events, ..small() });
        for storage in [Storage::Shared, Storage::Private] {
            let weights: Vec<Buffer> = (0..20).map(|_| bench.buffer(200 << 10, storage)).collect();
            let cache = bench.buffer(200 << 10, storage);
            let (go, gate) = mpsc::channel::<()>();
            let mut gate = Some(gate);
            let mut stream = |weight| {
                let gate = gate.take();
                let fill = move |bytes: &mut [u8]| {
                    gate.map_or(Ok(()), |gate| gate.recv().map_err(|e| e.to_string()))?;
                    Ok(bytes.fill(4))
                };
                transfer.stream(weight, Box::new(fill)).unwrap()
            };
            let tickets: Vec<Ticket> = weights.iter().map(&mut stream).collect();
            let waits: Vec<Point> = tickets.last().unwrap().point.clone().into_iter().collect();
            assert_eq!(waits.is_empty(), !use_shared_events);
            let step = bench.compute(&weights[19], &cache, &waits);
            let (spilled, found) = download(&transfer, &cache);
            let restored = upload(&transfer, &cache, 6);
            go.send(()).unwrap();
            step.wait(LONG).unwrap();
            spilled.wait(LONG).unwrap();
            restored.wait(LONG).unwrap();
            tickets.iter().for_each(|t| t.wait(LONG).unwrap());
            if use_shared_events {
                assert!(found.recv().unwrap().iter().all(|&b| b == 4));
            }
            assert!(cache.to_vec::<u8>().unwrap().iter().all(|&b| b == 6));
        }
    }
}

#[test]
fn dropping_it_carries_out_what_is_due_and_fails_the_rest_of_the_stream() {
    let bench = Bench::new();
    let transfer = bench.coordinator(&small());
    let (go, gate) = mpsc::channel::<()>();
    let (begin, begun) = mpsc::channel::<()>();
    let to = bench.buffer(64, Storage::Shared);
    let fill = move |bytes: &mut [u8]| {
        begin.send(()).map_err(|e| e.to_string())?;
        gate.recv().map_err(|e| e.to_string())?;
        Ok(bytes.fill(1))
    };
    let first = transfer.stream(&to, Box::new(fill)).unwrap();
    begun.recv().unwrap();
    let second = transfer.stream(&to, Box::new(|_| Ok(()))).unwrap();
    let due = upload(&transfer, &bench.buffer(64, Storage::Private), 2);
    std::thread::scope(|scope| {
        let dropped = scope.spawn(|| drop(transfer));
        // Let the first go once the drop has had a chance to begin.
        std::thread::sleep(Duration::from_millis(20));
        go.send(()).unwrap();
        dropped.join().unwrap();
    });
    first.wait(Duration::ZERO).unwrap();
    due.wait(Duration::ZERO).unwrap();
    if let Err(error) = second.wait(Duration::ZERO) {
        assert!(error.to_string().contains("shut down"), "{error}");
    }
    assert!(second.point.unwrap().reached());
}

#[test]
fn overlap_is_measured_not_assumed() {
    let bench = Bench::new();
    let transfer = bench.coordinator(&small());
    let to = bench.buffer(64, Storage::Shared);
    upload(&transfer, &to, 1).wait(LONG).unwrap();
    assert_eq!(transfer.stats().overlap_ratio, 0.0, "nothing was computed");
    let (from, out) = (bench.buffer(8 << 20, Storage::Shared), bench.buffer(8 << 20, Storage::Shared));
    let seen = Arc::new(AtomicBool::new(false));
    let begun = seen.clone();
    let (step, started) = mpsc::channel::<Arc<dyn Submission>>();
    let fill = move |bytes: &mut [u8]| {
        begun.store(true, Ordering::Release);
        started.recv().map_err(|e| e.to_string())?.wait(LONG).map_err(|e| e.to_string())?;
        Ok(bytes.fill(2))
    };
    let ticket = transfer.upload(&to, Box::new(fill)).unwrap();
    while !seen.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
    step.send(bench.compute(&from, &out, &[])).unwrap();
    ticket.wait(LONG).unwrap();
    let ratio = transfer.stats().overlap_ratio;
    assert!(ratio > 0.0 && ratio <= 1.0, "{ratio}");
    let copies = bench.wiring.intervals.all();
    assert!(copies.iter().all(|copy| (copy.activity, copy.bytes) == (Activity::Upload, 64)), "{copies:?}");
    let overlapped: Vec<Duration> = copies.iter().map(|copy| copy.overlapped).collect();
    assert!(overlapped.len() == 2 && overlapped[0].is_zero() && !overlapped[1].is_zero(), "{copies:?}");
    assert!(copies[1].overlapped <= copies[1].to - copies[1].from && copies[0].to <= copies[1].from, "{copies:?}");
}

#[test]
fn counters_can_be_switched_off() {
    let bench = Bench::new();
    let transfer = bench.coordinator(&BlitQueueConfig { track_metrics: false, ..small() });
    upload(&transfer, &bench.buffer(64, Storage::Shared), 1).wait(LONG).unwrap();
    assert_eq!(transfer.stats(), Default::default());
}

#[test]
fn an_abandoned_copy_may_land_until_it_has_ended() {
    let device = FakeDevice::new(FakeOptions { unified_memory: false, ..FakeOptions::default() }).unwrap();
    let control = device.control();
    let bench = Bench::on(device);
    let transfer = bench.coordinator(&BlitQueueConfig { timeout_ms: 100, ..small() });
    control.hang_submissions(QueueKind::Transfer, Fault::nth(1));
    let to = bench.device.new_buffer(64, Storage::Private).unwrap();
    let ticket = upload(&transfer, &to, 1);
    let error = ticket.wait(LONG).unwrap_err().to_string();
    assert!(error.contains("timeout_ms") && ticket.may_still_land(), "{error}");
    ticket.point.as_ref().unwrap().wait(LONG).unwrap();
    control.release();
    upload(&transfer, &to, 2).wait(LONG).unwrap();
    assert!(!ticket.may_still_land());
}

#[test]
fn room_that_a_late_copy_held_is_given_back_when_it_has_ended() {
    let device = FakeDevice::new(FakeOptions { unified_memory: false, ..FakeOptions::default() }).unwrap();
    let control = device.control();
    let bench = Bench::on(device);
    let transfer = bench.coordinator(&BlitQueueConfig { timeout_ms: 100, max_pending_ops: 1, ..small() });
    control.hang_submissions(QueueKind::Transfer, Fault::nth(1));
    let to = bench.device.new_buffer(64, Storage::Private).unwrap();
    upload(&transfer, &to, 1).wait(LONG).unwrap_err();
    upload(&transfer, &to, 2).wait(LONG).unwrap();
    assert!(transfer.fallen_back().is_some(), "the only place is held");
    control.release();
    let began = Instant::now();
    while transfer.fallen_back().is_some() {
        assert!(began.elapsed() < LONG, "it goes on without the queue");
        upload(&transfer, &to, 3).wait(LONG).unwrap();
    }
}

#[test]
fn a_transfer_that_one_thread_waits_for_tells_others_its_state() {
    let device = FakeDevice::new(FakeOptions { unified_memory: false, ..FakeOptions::default() }).unwrap();
    let control = device.control();
    let bench = Bench::on(device);
    control.hang_submissions(QueueKind::Compute, Fault::nth(1));
    let ticket = upload(&bench.inline(), &bench.device.new_buffer(64, Storage::Private).unwrap(), 1);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| ticket.wait(LONG));
        let (told, status) = mpsc::channel();
        let asking = ticket.clone();
        std::thread::spawn(move || {
            // Until the waiter waits, most likely.
            for _ in 0..50 {
                std::thread::sleep(Duration::from_millis(1));
                drop(told.send(asking.status()));
            }
        });
        for _ in 0..50 {
            assert_eq!(status.recv_timeout(LONG / 4), Ok(Status::Pending));
        }
        control.release();
        waiter.join().unwrap().unwrap();
    });
}

#[test]
fn a_wait_ends_in_time() {
    let bench = Bench::new();
    let transfer = bench.coordinator(&small());
    let (go, gate) = mpsc::channel::<()>();
    let fill = move |_: &mut [u8]| gate.recv().map_err(|e| e.to_string());
    let ticket = transfer.upload(&bench.buffer(64, Storage::Shared), Box::new(fill)).unwrap();
    assert!(matches!(ticket.wait(Duration::from_millis(1)), Err(DeviceError::Timeout { .. })));
    go.send(()).unwrap();
    ticket.wait(LONG).unwrap();
}

/// A step of a random program over four ranges of one buffer.
#[derive(Debug, Clone)]
enum Act {
    Upload(usize, u8),
    UploadTwo(usize, usize, u8),
    Download(usize),
    Compute(usize, usize),
    Wait(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0usize..4, 1u8..255).prop_map(|(i, b)| Act::Upload(i, b)),
        (0usize..4, 1usize..4, 1u8..255).prop_map(|(i, d, b)| Act::UploadTwo(i, (i + d) % 4, b)),
        (0usize..4).prop_map(Act::Download),
        (0usize..4, 1usize..4).prop_map(|(i, d)| Act::Compute(i, (i + d) % 4)),
        any::<prop::sample::Index>().prop_map(|i| Act::Wait(i.index(64))),
    ]
}

/// Bytes that were read, in order, and those that the memory holds in the end.
fn perform(bench: &Bench, transfer: &dyn Transfer, storage: Storage, acts: &[Act]) -> (Vec<Vec<u8>>, Vec<u8>) {
    const LEN: u64 = 5000;
    let whole = bench.buffer(4 * LEN, storage);
    let part = |i: usize| whole.slice(i as u64 * LEN..(i as u64 + 1) * LEN).unwrap();
    let (mut tickets, mut reads): (Vec<Ticket>, Vec<_>) = (Vec::new(), Vec::new());
    for act in acts {
        match *act {
            Act::Upload(i, byte) => tickets.push(upload(transfer, &part(i), byte)),
            Act::UploadTwo(i, j, byte) => {
                let fill = move |bytes: &mut [u8]| {
                    bytes[..LEN as usize].fill(byte);
                    Ok(bytes[LEN as usize..].fill(!byte))
                };
                tickets.push(transfer.scatter(&[part(i), part(j)], Box::new(fill)).unwrap());
            }
            Act::Download(i) => {
                let (ticket, bytes) = download(transfer, &part(i));
                tickets.push(ticket);
                reads.push(bytes);
            }
            Act::Compute(i, j) => {
                // What an engine does: a step waits for the transfers before it.
                let waits: Vec<Point> = tickets.iter().filter_map(|t| t.point.clone()).collect();
                tickets.iter().filter(|t| t.point.is_none()).for_each(|t| t.wait(LONG).unwrap());
                bench.compute(&part(i), &part(j), &waits);
            }
            Act::Wait(i) => {
                if let Some(ticket) = tickets.get(i % tickets.len().max(1)) {
                    ticket.wait(LONG).unwrap();
                }
            }
        }
    }
    tickets.iter().for_each(|t| t.wait(LONG).unwrap());
    bench.compute.latest().wait(LONG).unwrap();
    let read = reads.into_iter().map(|r| r.recv_timeout(LONG).unwrap()).collect();
    (read, whole.to_vec().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_interleaving_ends_as_synchronous_copies_do(
        acts in prop::collection::vec(act(), 1..40), pending in 1usize..6,
        use_shared_events in any::<bool>(), verify_checksums in any::<bool>(), shared in any::<bool>(),
    ) {
        let bench = Bench::new();
        let storage = if shared { Storage::Shared } else { Storage::Private };
        let expected = perform(&bench, &bench.inline(), storage, &acts);
        let config = BlitQueueConfig { max_pending_ops: pending, use_shared_events, verify_checksums, ..small() };
        let found = perform(&bench, &bench.coordinator(&config), storage, &acts);
        prop_assert!(found == expected, "{found:?}\n{expected:?}");
    }
}
