//! Faults that are planted in a run on the fake device, each of which has to be found by name; and runs in which nothing may be found.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_device::QueueKind;
use mlx_serving_device::fake::{FakeControl, FakeDevice, FakeOptions, Fault};
use mlx_serving_engine::{Event, Request};
use mlx_serving_metal_layer::Switched;
use mlx_serving_runtime::{Config, Runtime, Source};
use mlx_serving_soak::{
    Answer, Clock, Facts, Footprint, Gauges, Origin, Outcome, Record, Refusal, Served, Settings, Subject, Way, judge,
    soak,
};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A fault, or something that is none. It begins in the middle of the run.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Plant {
    Nothing,
    Leak,
    WrongToken,
    Slowdown,
    SlowMachine,
    UnsteadyMachine,
    StuckStep,
    Pause,
    PauseInProbe,
    UnreleasedRange,
    LostDescriptor,
    Thread,
}

/// A clock that the subject's tokens move on, and nothing else but pauses and waits for what does not come.
struct Virtual {
    now: Cell<Duration>,
    /// Time of a calibration, and whether every other one takes a fifth longer.
    calibration: Cell<Duration>,
    unsteady: Cell<bool>,
    /// Place at which the process is paused: before the wait in which it is, or after it while nothing has come yet. Nothing comes in either.
    pause: Cell<Option<Duration>>,
    silent: Cell<bool>,
    /// Something will not come: time passes while it is waited for. Elsewhere a wait costs nothing, however busy the machine is.
    hangs: bool,
}

impl Virtual {
    fn pass(&self, time: Duration) {
        self.now.set(self.now.get() + time);
    }
}

impl Clock for Virtual {
    fn now(&self) -> Duration {
        self.now.get()
    }

    fn sleep(&self, time: Duration) {
        self.pass(time);
    }

    fn wait(&self, _: Duration) {
        if let Some(pause) = self.pause.take() {
            return self.pass(pause);
        }
        self.silent.set(false);
        let (begun, real) = (Instant::now(), Duration::from_secs(1));
        std::thread::park_timeout(real);
        if self.hangs && begun.elapsed() >= real {
            self.pass(Duration::from_secs(4));
        }
    }

    fn moment(&self) {
        std::thread::sleep(Duration::from_millis(1));
    }

    fn calibrate(&self, _: usize) -> Duration {
        let time = self.calibration.get();
        self.pass(time);
        if self.unsteady.get() {
            self.calibration.set(Duration::from_millis(if time.as_millis() == 50 { 60 } else { 50 }));
        }
        time
    }
}

/// The real subject on the fake device, with a fault.
struct Planted {
    served: Served,
    clock: Rc<Virtual>,
    plant: Plant,
    middle: Duration,
    /// Time of a token of the traffic.
    cost: Duration,
    begun: Option<Duration>,
    controls: Arc<Mutex<Vec<FakeControl>>>,
    /// Requests to the engine that is open now.
    asked: u64,
    done: bool,
}

impl Planted {
    /// True in the second half of the run.
    fn is_due(&self, plant: Plant) -> bool {
        self.plant == plant && self.begun.is_some_and(|begun| self.clock.now() > begun + self.middle)
    }
}

impl Subject for Planted {
    fn open(&mut self, optimizations: &str, way: Way) -> Result<(), String> {
        self.asked = 0;
        self.served.open(optimizations, way)
    }

    fn opened(&mut self) -> Result<bool, String> {
        self.served.opened()
    }

    fn facts(&self) -> Result<Facts, String> {
        self.served.facts()
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        self.served.encode(text)
    }

    fn ask(&mut self, mut request: Request) -> Result<Box<dyn Answer>, Refusal> {
        let mut cost = if request.salt == 0 { self.cost } else { PROBE_COST };
        if self.is_due(Plant::Slowdown) {
            cost = cost.mul_f64(1.1);
        }
        if self.is_due(Plant::SlowMachine) {
            cost = cost.mul_f64(1.3);
            self.clock.calibration.set(Duration::from_millis(65));
        }
        if self.is_due(Plant::StuckStep) && !self.done {
            let controls = self.controls.lock().unwrap();
            controls.last().unwrap().hang_submissions(QueueKind::Compute, Fault::next(1));
            self.done = true;
        }
        let pauses = (self.is_due(Plant::Pause) && self.asked > 20 && request.salt == 0)
            || (self.is_due(Plant::PauseInProbe) && request.salt != 0);
        if pauses && !self.done {
            self.clock.pause.set(Some(PAUSE));
            self.clock.silent.set(true);
            self.done = true;
        }
        // Neither the first requests of an opening nor probes are compared.
        let compared = self.asked > 20 && request.salt == 0 && request.sampling.temperature == 0.0;
        let wrong = self.is_due(Plant::WrongToken) && !self.done && compared;
        // What the fake device samples follows from the seed, greedy or not, and from a place that penalties take in memory; it
        // computes no log-probabilities.
        request.sampling.seed.get_or_insert(1);
        (request.sampling.repetition_penalty, request.sampling.frequency_penalty) = (1.0, 0.0);
        request.logprobs = None;
        let answer = self.served.ask(request)?;
        self.asked += 1;
        self.done |= wrong;
        Ok(Box::new(PlantedAnswer { answer, clock: self.clock.clone(), cost, wrong }))
    }

    fn unload(&mut self) -> Result<(), String> {
        self.served.unload()
    }

    fn close(&mut self) -> Result<u64, String> {
        // The references are there: the run begins.
        self.begun.get_or_insert(self.clock.now());
        self.served.close()
    }

    fn gauges(&self) -> Option<Gauges> {
        let mut gauges = self.served.gauges()?;
        if self.is_due(Plant::UnreleasedRange)
            && let Switched::On { stats, .. } = &mut gauges.stats.memory_pool
        {
            stats.total_acquired += self.asked / 20;
        }
        Some(gauges)
    }

    fn footprint(&self) -> Footprint {
        let leaked = match self.plant {
            Plant::Leak => (self.clock.now().as_secs() / 60) << 23,
            _ => 0,
        };
        Footprint {
            resident_bytes: Some((100 << 20) + leaked),
            descriptors: Some(12 + u64::from(self.is_due(Plant::LostDescriptor))),
            threads: Some(8 + u64::from(self.is_due(Plant::Thread))),
        }
    }
}

struct PlantedAnswer {
    answer: Box<dyn Answer>,
    clock: Rc<Virtual>,
    cost: Duration,
    wrong: bool,
}

impl Answer for PlantedAnswer {
    fn poll(&mut self) -> Option<Event> {
        if self.clock.silent.get() {
            return None;
        }
        let mut event = self.answer.poll()?;
        if let Event::Token(token) = &mut event {
            self.clock.pass(self.cost);
            if std::mem::take(&mut self.wrong) {
                token.id ^= 1;
            }
        }
        Some(event)
    }
}

/// Time of a token of a probe.
const PROBE_COST: Duration = Duration::from_millis(5);

/// Length of a pause of the process, which is many times the time after which a step is stuck.
const PAUSE: Duration = Duration::from_secs(120);

/// Runs so many minutes of the virtual clock.
fn run(plant: Plant, minutes: u64) -> Record {
    let duration = Duration::from_secs(60 * minutes);
    let mut config = Config::default();
    let options = &mut config.metal_optimizations;
    options.select("memory_pool").unwrap();
    let pool = &mut options.memory_pool;
    (pool.heap_size_mb, pool.num_heaps, pool.warmup_buffer_sizes_mb) = (64, 2, vec![1]);
    let settings = Settings::new(duration, 2, &config, 7).unwrap();
    let controls = Arc::new(Mutex::new(Vec::new()));
    let opened = controls.clone();
    let runtime = move |config| {
        let opened = opened.clone();
        Runtime::with_devices(config, move |_| {
            let device = FakeDevice::new(FakeOptions { compute: false, ..FakeOptions::default() })?;
            opened.lock().unwrap().push(device.control());
            Ok(device)
        })
    };
    let served = Served::new(Source::Bundled, config, settings.clone(), runtime).unwrap();
    let clock = Rc::new(Virtual {
        now: Cell::default(),
        calibration: Cell::new(Duration::from_millis(50)),
        unsteady: Cell::new(plant == Plant::UnsteadyMachine),
        pause: Cell::default(),
        silent: Cell::default(),
        hangs: plant == Plant::StuckStep,
    });
    let (middle, clocked) = (duration / 2, clock.clone());
    // Where the speed is judged, probes have to come often, and few tokens are waited for before each.
    let cost = Duration::from_millis(if minutes == LONG { 25 } else { 100 });
    let mut subject =
        Planted { served, clock: clocked, plant, middle, cost, begun: None, controls, asked: 0, done: false };
    let origin = Origin {
        version: "1".into(),
        commit: "c".into(),
        command: "soak".into(),
        model: None,
        machine: serde_json::Value::Null,
    };
    let record = soak(&mut subject, &*clock, (&settings, &origin), None, &|| false, &mut |_| {}).unwrap();
    // What hangs has to end, or the engine's thread could not.
    subject.controls.lock().unwrap().iter().for_each(FakeControl::release);
    record
}

/// Names of the checks that did not pass, with their outcomes.
fn missed(record: &Record) -> Vec<(&str, Outcome)> {
    let missed = record.verdicts.iter().filter(|verdict| !verdict.outcome.is_fine());
    missed.map(|verdict| (verdict.check.as_str(), verdict.outcome)).collect()
}

fn sentence<'a>(record: &'a Record, check: &str) -> &'a str {
    &record.verdicts.iter().find(|verdict| verdict.check == check).unwrap().sentence
}

/// Minutes in which a series of windows is long enough, and those in which the speed is judged.
const SHORT: u64 = 16;
const LONG: u64 = 22;

#[test]
fn nothing_is_found_where_nothing_is_planted() {
    let record = run(Plant::Nothing, LONG);
    assert_eq!(missed(&record), [], "{:#?}", record.verdicts);
    let passed = |check: &str| record.verdicts.iter().any(|v| v.check == check && v.outcome == Outcome::Pass);
    for check in
        ["greedy answers", "sampled answers", "requests", "refusals", "resident size", "descriptors", "threads"]
    {
        assert!(passed(check), "{check}: {}", sentence(&record, check));
    }
    for check in ["memory pool", "KV blocks", "open requests", "device memory", "stuck steps", "speed"] {
        assert!(passed(check), "{check}: {}", sentence(&record, check));
    }

    let count = |name: &str| record.windows.iter().filter_map(|window| window.counts.get(name)).sum::<u64>();
    let ended = count("ended by stop") + count("ended by length");
    assert!(count("dropped") > 0);
    assert_eq!(sentence(&record, "requests"), format!("all {ended} were answered"));
    let looks = count("looks at balances");
    assert_eq!(sentence(&record, "KV blocks"), format!("in order at each of {looks} idle moments"));
    assert!(record.events.iter().all(|event| event.what != "lengthened"));

    let mut silent = record.clone();
    silent.windows.clear();
    let verdicts = judge(&silent);
    let stuck = verdicts.iter().find(|verdict| verdict.check == "stuck steps").unwrap();
    assert_eq!(stuck.outcome, Outcome::NotJudged, "{}", stuck.sentence);
}

#[test]
fn a_run_that_is_too_short_for_all_sets_is_lengthened_and_says_so() {
    let record = run(Plant::Nothing, 1);
    assert_eq!(record.events.iter().filter(|event| event.what == "lengthened").count(), 1);
    assert!(record.elapsed_s > 60.0 && record.windows.len() >= 2, "{} s", record.elapsed_s);
    assert_eq!(sentence(&record, "speed"), "needs 20 minutes in one process");
    assert_eq!(sentence(&record, "threads"), "needs 4 windows after the first round; the run was too short");
}

#[test]
fn a_leak_is_found() {
    assert_eq!(missed(&run(Plant::Leak, SHORT)), [("resident size", Outcome::Fail)]);
}

#[test]
fn a_wrong_token_is_found() {
    let record = run(Plant::WrongToken, SHORT);
    assert_eq!(missed(&record), [("greedy answers", Outcome::Fail)]);
    assert!(sentence(&record, "greedy answers").contains("token 0 is "), "{}", sentence(&record, "greedy answers"));
}

#[test]
fn a_slowdown_of_a_tenth_is_found() {
    let record = run(Plant::Slowdown, LONG);
    assert_eq!(missed(&record), [("speed", Outcome::Fail)]);
    assert!(sentence(&record, "speed").starts_with("9.1 % slower"), "{}", sentence(&record, "speed"));
}

#[test]
fn a_slow_machine_is_no_slow_engine() {
    let record = run(Plant::SlowMachine, LONG);
    assert_eq!(missed(&record), [], "{:#?}", record.verdicts);
}

#[test]
fn on_an_unsteady_machine_the_speed_cannot_be_told() {
    assert_eq!(missed(&run(Plant::UnsteadyMachine, LONG)), [("speed", Outcome::CannotTell)]);
}

#[test]
fn a_stuck_step_is_found_and_ends_the_run() {
    let record = run(Plant::StuckStep, SHORT);
    assert_eq!(missed(&record), [("stuck steps", Outcome::Fail)]);
    let said = sentence(&record, "stuck steps");
    // Traffic or a probe of the speed may be what it holds up.
    let held = said.contains("question") || said.contains("a probe");
    assert!(said.contains("no token in 30 s") && said.contains("engine: ") && held, "{said}");
    assert_eq!(record.parts[0].ended.as_deref(), Some("broken off"));
    assert!(record.elapsed_s < 60.0 * SHORT as f64);
}

#[test]
fn a_paused_process_is_not_stuck_and_goes_on() {
    let record = run(Plant::Pause, SHORT);
    assert_eq!(missed(&record), [], "{:#?}", record.verdicts);
    assert_eq!(record.parts[0].ended.as_deref(), Some("complete"));
    let pauses: Vec<_> = record.events.iter().filter(|event| event.what == "paused").collect();
    assert_eq!(pauses.len(), 1, "{pauses:?}");
    assert!(pauses[0].detail.starts_with("this process did not run for 120 s"), "{pauses:?}");
}

#[test]
fn a_probe_in_which_the_process_was_paused_does_not_count() {
    let record = run(Plant::PauseInProbe, SHORT);
    assert_eq!(missed(&record), [], "{:#?}", record.verdicts);
    assert_eq!(record.events.iter().filter(|event| event.what == "paused").count(), 1);
    let speeds: Vec<f64> = record.windows.iter().flat_map(|window| &window.probes).map(|probe| probe.tok_s).collect();
    assert!(speeds.len() > 10 && speeds.iter().all(|speed| *speed > 100.0), "{speeds:?}");
}

#[test]
fn a_range_of_the_pool_that_is_not_released_is_found() {
    assert_eq!(missed(&run(Plant::UnreleasedRange, SHORT)), [("memory pool", Outcome::Fail)]);
}

#[test]
fn a_lost_descriptor_is_found() {
    assert_eq!(missed(&run(Plant::LostDescriptor, SHORT)), [("descriptors", Outcome::Fail)]);
}

#[test]
fn a_thread_that_does_not_end_is_found() {
    assert_eq!(missed(&run(Plant::Thread, SHORT)), [("threads", Outcome::Fail)]);
}
