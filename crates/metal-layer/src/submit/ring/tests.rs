use super::*;
use crate::CachingAllocator;
use mlx_serving_cpu::{CpuDevice, CpuOptions};
use mlx_serving_device::Timeline;
use proptest::prelude::*;

const LONG: Duration = Duration::from_secs(60);

/// A ring on the CPU device, whose n-th step completes once the gate has been opened for n steps.
struct Bench {
    ring: CommandBufferRing,
    gate: Arc<dyn Timeline>,
    submitted: u64,
}

impl Bench {
    fn new(ring_size: usize, graceful: bool) -> Self {
        let device: Arc<dyn Device> =
            CpuDevice::new(&CpuOptions { threads: Some(1), ..CpuOptions::default() }).unwrap();
        let policy = FallbackPolicy { graceful, log: false };
        let wiring = Wiring { policy, ..Wiring::new(device.clone()) };
        let compute = wiring.frontier.track(device.new_timeline().unwrap());
        let allocate = Arc::new(CachingAllocator::new(&wiring));
        let config = CommandBufferRingConfig {
            enabled: true,
            ring_size,
            max_wait_ms: 10_000,
            ..CommandBufferRingConfig::default()
        };
        let gate = device.new_timeline().unwrap();
        let mut ring = CommandBufferRing::new(&wiring, allocate, &compute, &config);
        ring.reserve_inputs(1024).unwrap();
        Self { ring, gate, submitted: 0 }
    }

    /// Makes a bench with so little patience that a closed gate is too late.
    fn impatient(ring_size: usize, graceful: bool) -> Self {
        let mut bench = Self::new(ring_size, graceful);
        bench.ring.config.max_wait_ms = 20;
        bench
    }

    fn submit(&mut self, slot: Slot) -> InFlight {
        self.submitted += 1;
        let open = Point { timeline: self.gate.clone(), value: self.submitted };
        self.ring.submit(slot, &[open]).unwrap()
    }

    fn step(&mut self) -> InFlight {
        let slot = self.ring.acquire().unwrap();
        self.submit(slot)
    }

    /// Lets the first `steps` steps complete.
    fn open(&self, steps: u64) {
        self.gate.signal(steps);
    }

    fn complete(&mut self, step: &InFlight) {
        self.ring.complete(step, LONG).unwrap();
    }
}

impl Drop for Bench {
    /// The device's thread must not wait for ever.
    fn drop(&mut self) {
        self.open(u64::MAX);
    }
}

#[test]
fn as_many_slots_as_the_ring_has_are_in_flight_without_a_wait() {
    let mut bench = Bench::new(3, true);
    let steps: Vec<InFlight> = (0..3).map(|_| bench.step()).collect();
    assert_eq!(steps.iter().map(|s| s.index).collect::<Vec<_>>(), [0, 1, 2]);
    let stats = bench.ring.stats();
    assert_eq!((stats.in_flight_count, stats.available_count, stats.wait_events), (3, 0, 0));
    assert_eq!((stats.total_acquired, stats.total_submitted, stats.total_released, stats.rotations), (3, 3, 0, 1));
    bench.open(3);
    steps.iter().for_each(|s| bench.complete(s));
    let stats = bench.ring.stats();
    assert_eq!((stats.in_flight_count, stats.available_count, stats.total_released), (0, 3, 3));
}

#[test]
fn a_full_ring_hands_out_the_slot_of_the_oldest_step_that_has_completed() {
    let mut bench = Bench::new(2, true);
    let (first, second) = (bench.step(), bench.step());
    bench.open(1);
    let third = bench.ring.acquire().unwrap();
    assert_eq!(third.index, first.index);
    assert_eq!(bench.ring.stats().in_flight_count, 1);
    // How the first ended can be asked all the same, and frees nothing a second time.
    bench.complete(&first);
    let third = bench.submit(third);
    bench.open(3);
    bench.complete(&second);
    bench.complete(&third);
    assert_eq!(bench.ring.stats().total_released, 3);
}

#[test]
fn a_wait_for_a_step_is_counted_and_measured() {
    let mut bench = Bench::new(2, true);
    let step = bench.step();
    let gate = bench.gate.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            gate.signal(1);
        });
        bench.complete(&step);
    });
    // The host may come too late to have to wait, if it is held up for longer than the device.
    let stats = bench.ring.stats();
    assert_eq!(stats.wait_events == 1, stats.max_wait_time_us > 0.0);
    assert!((stats.avg_wait_time_us - stats.max_wait_time_us).abs() < 1e-6, "{stats:?}");
}

#[test]
fn a_step_that_takes_too_long_leaves_one_slot_in_flight() {
    let mut bench = Bench::impatient(3, true);
    let steps: Vec<InFlight> = (0..3).map(|_| bench.step()).collect();
    let error = bench.ring.complete(&steps[0], Duration::from_millis(30)).unwrap_err();
    assert!(matches!(error, DeviceError::Timeout { .. }), "{error}");
    bench.ring.config.max_wait_ms = 10_000;
    assert_eq!(bench.ring.depth(), 1);
    assert!(bench.ring.fallen_back().unwrap().contains("max_wait_ms"));
    assert_eq!((bench.ring.stats().timeout_events, bench.ring.stats().in_flight_count), (1, 3));
    bench.open(3);
    steps.iter().for_each(|s| bench.complete(s));
    // Once the late step has completed, work goes on one step at a time.
    let fourth = bench.step();
    bench.open(4);
    let fifth = bench.step();
    assert_eq!(bench.ring.stats().in_flight_count, 1, "the fifth step did not wait for the fourth");
    bench.complete(&fourth);
    bench.ring.reset();
    assert_eq!((bench.ring.depth(), bench.ring.fallen_back()), (3, None));
    bench.step();
    bench.step();
    assert_eq!(bench.ring.stats().in_flight_count, 3);
    drop(fifth);
}

#[test]
fn a_slot_that_is_not_given_back_in_time_is_an_error_and_a_fallback() {
    let mut bench = Bench::impatient(2, true);
    let _steps = (bench.step(), bench.step());
    assert!(matches!(bench.ring.acquire(), Err(DeviceError::Timeout { .. })));
    assert_eq!((bench.ring.depth(), bench.ring.stats().timeout_events), (1, 1));
    assert_eq!(bench.ring.stats().in_flight_count, 2, "a step that goes on must keep its slot");
}

#[test]
fn without_graceful_fallback_a_late_step_fails_and_the_depth_stays() {
    let mut bench = Bench::impatient(2, false);
    let step = bench.step();
    let error = bench.ring.complete(&step, LONG).unwrap_err();
    assert!(matches!(&error, DeviceError::CommandFailed(reason) if reason.contains("max_wait_ms")), "{error}");
    assert_eq!((bench.ring.depth(), bench.ring.fallen_back()), (2, None));
}

#[test]
fn the_ring_recovers_when_the_device_keeps_time_again() {
    let mut bench = Bench::impatient(2, true);
    let late = bench.step();
    bench.ring.complete(&late, Duration::from_millis(20)).unwrap_err();
    bench.ring.config.max_wait_ms = 10_000;
    bench.open(u64::MAX);
    bench.complete(&late);
    for _ in 1..STEPS_TO_RECOVER {
        assert_eq!(bench.ring.depth(), 1);
        let step = bench.step();
        bench.complete(&step);
    }
    assert_eq!((bench.ring.depth(), bench.ring.stats().timeout_events), (2, 1));
}

#[test]
fn statistics_begin_anew_with_the_slots_that_are_out() {
    let mut bench = Bench::new(3, true);
    bench.open(1);
    let first = bench.step();
    bench.complete(&first);
    let second = bench.step();
    let slot = bench.ring.acquire().unwrap();
    bench.ring.reset_statistics();
    let stats = bench.ring.stats();
    assert_eq!((stats.ring_size, stats.in_flight_count, stats.available_count), (3, 1, 1));
    assert_eq!((stats.total_acquired, stats.total_released, stats.total_submitted), (2, 0, 1));
    bench.open(2);
    bench.complete(&second);
    drop(slot);
    let stats = bench.ring.stats();
    assert_eq!((stats.total_acquired, stats.total_released), (2, 2));
}

#[test]
fn a_dropped_slot_is_free_again() {
    let mut bench = Bench::new(2, true);
    for _ in 0..5 {
        drop(bench.ring.acquire().unwrap());
    }
    let held = (bench.ring.acquire().unwrap(), bench.ring.acquire().unwrap());
    assert_ne!(held.0.index, held.1.index);
    let refused = bench.ring.acquire().unwrap_err();
    assert!(matches!(&refused, DeviceError::Contract(why) if why.contains("recorded")), "{refused}");
    assert_eq!(bench.ring.stats().available_count, 0);
    drop(held);
    let stats = bench.ring.stats();
    assert_eq!((stats.available_count, stats.total_acquired, stats.total_released), (2, 7, 7));
    assert_eq!(stats.total_submitted, 0);
}

#[test]
fn waits_are_not_timed_when_statistics_are_off() {
    let mut bench = Bench::new(2, true);
    bench.ring.config.track_statistics = false;
    let step = bench.step();
    bench.ring.complete(&step, Duration::from_millis(50)).unwrap_err();
    let stats = bench.ring.stats();
    assert_eq!((stats.wait_events, stats.max_wait_time_us), (0, 0.0));
    assert_eq!(stats.total_acquired, 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Slots are recorded, dropped, submitted and completed in any order: no two slots that are taken are one and the same,
    /// their inputs never overlap, and every slot handed out is recorded, in flight or released.
    #[test]
    fn no_slot_is_taken_twice(ring_size in 2usize..5, actions in prop::collection::vec((0u8..5, 0usize..8), 1..60)) {
        let mut bench = Bench::impatient(ring_size, true);
        let (mut recording, mut flying) = (Vec::<Slot>::new(), VecDeque::<InFlight>::new());
        let mut opened = 0;
        for (action, pick) in actions {
            match action {
                0 | 1 => match bench.ring.acquire() {
                    Ok(slot) => {
                        prop_assert!(recording.iter().all(|s| s.index != slot.index && !s.inputs.overlaps(&slot.inputs)));
                        recording.push(slot);
                    }
                    Err(DeviceError::Contract(_)) => {
                        prop_assert!(!recording.is_empty(), "a slot is free or can be waited for");
                    }
                    // All are in flight, and the oldest waits at the gate.
                    Err(error) => {
                        prop_assert!(matches!(error, DeviceError::Timeout { .. }), "{}", error);
                        prop_assert!(opened < bench.submitted);
                    }
                },
                2 if !recording.is_empty() => drop(recording.remove(pick % recording.len())),
                3 if !recording.is_empty() => {
                    let slot = recording.remove(pick % recording.len());
                    flying.push_back(bench.submit(slot));
                }
                _ => if let Some(step) = flying.pop_front() {
                    opened += 1;
                    bench.open(opened);
                    bench.complete(&step);
                    prop_assert_eq!(step.submission.status(), Status::Completed);
                }
            }
            let stats = bench.ring.stats();
            prop_assert_eq!(stats.total_acquired, stats.total_released + (recording.len() + stats.in_flight_count) as u64);
            prop_assert!(stats.in_flight_count <= flying.len());
            prop_assert!(stats.in_flight_count + recording.len() <= ring_size);
        }
        drop(recording);
        bench.open(u64::MAX);
        flying.iter().for_each(|step| bench.complete(step));
        let stats = bench.ring.stats();
        prop_assert_eq!((stats.total_acquired, stats.available_count), (stats.total_released, ring_size));
    }
}
