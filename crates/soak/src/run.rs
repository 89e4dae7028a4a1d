//! A run: phases with a set of optimizations each, windows of measurements, probes of the speed, the end.

use crate::client::{Clients, Outcome};
use crate::clock::{Clock, LATE};
use crate::error::SoakError;
use crate::record::{Origin, Part, Record, References, Unbalanced, Window};
use crate::settings::Settings;
use crate::subject::{Refusal, Subject, Way};
use crate::traffic::{LONGEST, Questions, Random, read};
use mlx_serving_engine::Request;
use std::collections::BTreeMap;
use std::time::Duration;

mod balances;
mod notes;
mod probe;

use balances::settle;

/// Seconds between two probes of the speed: forty of them are in ten minutes, and the traffic has nearly all of the time.
const PROBE_S: f64 = 15.0;
/// Traffic between two probes takes at least so many times as long as the last probe did, the wait for an idle engine included.
const PROBE_SHARE: f64 = 10.0;
/// Seconds between two looks at what the process holds, and at whether the engine lives.
const LOOK_S: f64 = 1.0;
/// Longest wait for something to come before the run looks up.
const NAP: Duration = Duration::from_millis(100);
/// Moments in which a model has to be open.
const OPEN: u32 = 1_800_000;
/// Moments between two requests to a model that is being loaded.
const VAIN: u32 = 20;

/// Progress of a run.
#[derive(Debug)]
pub enum Progress<'a> {
    /// The references are being computed.
    References,
    /// A process begins its part. The record has to be written now: a part without an end is the only trace of a process that crashed.
    Begun(&'a Record),
    /// The run takes longer than its duration, so that each set of optimizations has its turn.
    Lengthened,
    /// Traffic goes on; called about once a second.
    Running(&'a Record),
    /// A window is over; the record is whole, and its verdicts are those of now.
    Window(&'a Record),
    /// A check has failed: a sentence.
    Fault(&'a str),
}

/// Reason for an end before the time is over.
enum Halt {
    /// Asked for.
    Stopped,
    /// The model cannot be gone on with: a clause that is in the record already.
    Broken,
}

/// Runs traffic on a model for as long as the settings say, or until `stop` says so. `earlier` is a record that is gone on with.
///
/// # Errors
/// The model cannot be opened or is too small; the earlier record is of another run. What happens once there is traffic is in the record.
pub fn soak(
    subject: &mut dyn Subject,
    clock: &dyn Clock,
    (settings, origin): (&Settings, &Origin),
    earlier: Option<Record>,
    stop: &dyn Fn() -> bool,
    told: &mut dyn FnMut(Progress<'_>),
) -> Result<Record, SoakError> {
    if let Some(earlier) = &earlier {
        refuse("the record is of another run", earlier.differences(settings, origin))?;
        if earlier.elapsed_s >= settings.duration_s {
            return Err(SoakError::Setting(
                "the run of this record is complete; there is nothing to go on with".into(),
            ));
        }
    }
    told(Progress::References);
    let (questions, facts) = references(subject, clock, settings, stop)?;
    let references = References {
        questions: questions.all.len(),
        hash: questions.hash(),
        stuck_after_s: questions.stuck_after().as_secs_f64(),
    };
    let mut record = match earlier {
        Some(earlier) => {
            let mut differences = Vec::new();
            if earlier.facts != facts {
                differences.push(format!("the model or its device was {:?} and is {facts:?}", earlier.facts));
            }
            if earlier.references.hash != references.hash {
                differences.push("the model's answers to the same questions are others".into());
            }
            refuse("the record is of another model", differences)?;
            earlier
        }
        None => Record {
            benchmark: "soak".into(),
            origin: origin.clone(),
            settings: settings.clone(),
            facts,
            references,
            elapsed_s: 0.0,
            phases: 0,
            parts: Vec::new(),
            verdicts: Vec::new(),
            events: Vec::new(),
            events_left_out: 0,
            windows: Vec::new(),
        },
    };
    let (begins_s, part) = (record.elapsed_s, record.parts.len());
    record.parts.push(Part { started: jiff::Timestamp::now().to_string(), begins_s, ended: None });
    if part > 0 {
        record.event(
            begins_s,
            "resumed",
            "another process goes on; what the time in between would have shown is not known",
        );
    }
    record.judge();
    told(Progress::Begun(&record));
    let random = Random::new(settings.seed ^ (part as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut run = Run {
        subject,
        clock,
        stop,
        told,
        zero: clock.now().as_secs_f64() - begins_s,
        clients: Clients::new(settings.concurrency, random),
        questions,
        window: Window::default(),
        counters: BTreeMap::new(),
        base: None,
        ways: 0,
        salt: 0,
        looked_s: begins_s,
        ran: Duration::ZERO,
        probe_s: begins_s,
        probe_every_s: PROBE_S.min(settings.phase_s / 3.0),
        record,
    };
    let ended = run.all_phases();
    Ok(run.end(ended))
}

/// Refuses if there are differences, all of which are named.
fn refuse(what: &str, differences: Vec<String>) -> Result<(), SoakError> {
    if differences.is_empty() { Ok(()) } else { Err(SoakError::Setting(format!("{what}: {}", differences.join("; ")))) }
}

/// Opens the model with every optimization off, computes the references, and closes it.
fn references(
    subject: &mut dyn Subject,
    clock: &dyn Clock,
    settings: &Settings,
    stop: &dyn Fn() -> bool,
) -> Result<(Questions, crate::subject::Facts), SoakError> {
    subject.open("none", Way::Load).map_err(SoakError::Subject)?;
    while !subject.opened().map_err(SoakError::Subject)? {
        if stop() {
            return Err(SoakError::Stopped);
        }
        clock.moment();
    }
    let facts = subject.facts().map_err(SoakError::Subject)?;
    if facts.context < LONGEST {
        return Err(SoakError::Setting(format!(
            "model {} has a context of {} tokens; the questions of a soak run take up to {LONGEST}",
            facts.model, facts.context
        )));
    }
    let questions = Questions::ask(subject, clock, stop, settings)?;
    subject.unload().map_err(SoakError::Subject)?;
    settle(subject, clock);
    subject.close().map_err(SoakError::Subject)?;
    Ok((questions, facts))
}

/// A run that goes on.
struct Run<'a> {
    subject: &'a mut dyn Subject,
    clock: &'a dyn Clock,
    stop: &'a dyn Fn() -> bool,
    told: &'a mut dyn FnMut(Progress<'_>),
    /// Time of the clock at which there had been no traffic, seconds.
    zero: f64,
    record: Record,
    questions: Questions,
    clients: Clients,
    /// The window that goes on.
    window: Window,
    /// Counters of the open engine that are in a window already.
    counters: BTreeMap<&'static str, u64>,
    /// Live allocations of the pool and their bytes when the model was opened.
    base: Option<(u64, u64)>,
    /// Openings so far.
    ways: usize,
    /// Salt of the last probe: its prompts share nothing with others.
    salt: u64,
    looked_s: f64,
    /// Time of the clock at which this thread ran last, between waits that are short.
    ran: Duration,
    /// Time of the next probe.
    probe_s: f64,
    probe_every_s: f64,
}

impl Run<'_> {
    fn now(&self) -> f64 {
        self.clock.now().as_secs_f64() - self.zero
    }

    fn all_phases(&mut self) -> Result<(), Halt> {
        let sets = self.record.settings.sets();
        let (duration, phase) = (self.record.settings.duration_s, self.record.settings.phase_s);
        // However short the run is, every set comes once.
        let mut lengthened = false;
        while self.now() < duration || self.record.phases < sets.len() {
            if self.record.phases < sets.len() && self.now() + phase > duration && !lengthened {
                lengthened = true;
                self.note(
                    "lengthened",
                    format!("{duration:.0} s are too short for a turn of each set of optimizations"),
                );
                (self.told)(Progress::Lengthened);
            }
            let duration = if self.record.phases < sets.len() { f64::INFINITY } else { duration };
            let set = &sets[self.record.phases % sets.len()];
            self.record.phases += 1;
            self.begin_window(set);
            self.open(set)?;
            // Somewhere in its middle the model is unloaded and opened again, which takes none of its time.
            let share = 0.3 + 0.4 * self.clients.random.below(1000) as f64 / 1000.0;
            self.traffic((self.now() + share * phase).min(duration))?;
            self.unload()?;
            self.open(set)?;
            self.traffic((self.now() + (1.0 - share) * phase).min(duration))?;
            self.unload()?;
            self.end_window();
        }
        Ok(())
    }

    /// Opens the model, by another way each time, and asks it everything once.
    fn open(&mut self, set: &str) -> Result<(), Halt> {
        let way = [Way::Load, Way::Revive, Way::Forget][self.ways % 3];
        self.ways += 1;
        let begun = self.clock.now();
        let mut outcome = Outcome::default();
        if let Err(reason) = self.subject.open(set, way) {
            return self.broken("failed", format!("the model cannot be opened: {reason}"));
        }
        for moment in 0..OPEN {
            match self.subject.opened() {
                Ok(true) => break,
                Ok(false) if moment + 1 == OPEN => {
                    return self.broken("stuck", "the model was not opened in half an hour".into());
                }
                Ok(false) => {}
                Err(reason) => return self.broken("failed", format!("the model could not be opened: {reason}")),
            }
            if moment % VAIN == 0 && self.subject.gauges().is_none() {
                Clients::send_in_vain(self.subject, &self.questions, &mut outcome);
            }
            if (self.stop)() {
                return Err(Halt::Stopped);
            }
            self.clock.moment();
        }
        self.absorb(outcome);
        self.counters.clear();
        for request in self.questions.warm_up() {
            self.answer(request)?;
        }
        let gauges = settle(self.subject, self.clock);
        self.base = gauges.and_then(|gauges| {
            let pool = gauges.stats.memory_pool.counters()?;
            Some((pool.total_acquired.saturating_sub(pool.total_released), pool.bytes_in_use))
        });
        let took = self.clock.now().saturating_sub(begun).as_secs_f64();
        self.note("opened", format!("with {set}, by {way:?}, in {took:.1} s"));
        self.look();
        self.ran = self.clock.now();
        self.probe_s = self.now() + self.probe_every_s / 2.0;
        Ok(())
    }

    /// Traffic until then.
    fn traffic(&mut self, until: f64) -> Result<(), Halt> {
        while self.now() < until {
            let mut outcome = Outcome::default();
            self.clients.send(self.subject, &self.questions, self.clock.now(), &mut outcome);
            self.read(false, outcome)?;
            if self.now() >= self.probe_s {
                let begun = self.now();
                self.drain()?;
                self.balance();
                self.probe()?;
                let took = self.now() - begun;
                self.probe_s = self.now() + self.probe_every_s.max(PROBE_SHARE * took);
            }
            let window = self.record.settings.window_s;
            if self.now() - self.window.begins_s >= window && until - self.now() > window / 2.0 {
                let set = self.window.optimizations.clone();
                self.end_window();
                self.begin_window(&set);
            }
        }
        Ok(())
    }

    /// Reads what has come, or waits for it.
    fn read(&mut self, hurry: bool, mut outcome: Outcome) -> Result<(), Halt> {
        self.pause();
        let came = self.clients.read(self.clock, &self.questions, hurry, &mut outcome);
        self.absorb(outcome);
        if came {
            self.ran = self.clock.now();
        } else {
            self.pause();
        }
        if self.now() - self.looked_s >= LOOK_S {
            self.look();
            self.record.elapsed_s = self.now();
            (self.told)(Progress::Running(&self.record));
            if let Some(reason) = self.subject.gauges().and_then(|gauges| gauges.dead) {
                return self.broken("failed", format!("the engine has ended: {reason}"));
            }
        }
        if (self.stop)() {
            return Err(Halt::Stopped);
        }
        if came {
            return Ok(());
        }
        let now = self.clock.now();
        if self.clients.silence(now).as_secs_f64() > self.record.references.stuck_after_s {
            return self.stuck(self.clients.state(&self.questions));
        }
        match self.clients.pause(now).filter(|_| !hurry) {
            Some(pause) => self.clock.sleep(pause.min(NAP)),
            None if self.clients.live() > 0 => self.clock.wait(NAP),
            None => {}
        }
        Ok(())
    }

    /// Time since this thread ran, if the process was paused since: it is noted, and does not count as silence of the engine. Else zero.
    fn pause(&mut self) -> Duration {
        let now = self.clock.now();
        let pause = now.saturating_sub(std::mem::replace(&mut self.ran, now));
        if pause <= LATE {
            return Duration::ZERO;
        }
        self.clients.pass(pause);
        self.note("paused", format!("this process did not run for {:.0} s", pause.as_secs_f64()));
        pause
    }

    /// Reads everything to its end, and asks nothing.
    fn drain(&mut self) -> Result<(), Halt> {
        while self.clients.live() > 0 {
            self.read(true, Outcome::default())?;
        }
        Ok(())
    }

    /// Takes the model out of the registry while answers go on, then releases it.
    fn unload(&mut self) -> Result<(), Halt> {
        // Every client has a request in flight.
        let mut outcome = Outcome::default();
        self.clients.send(self.subject, &self.questions, self.clock.now(), &mut outcome);
        self.absorb(outcome);
        if let Err(reason) = self.subject.unload() {
            return self.broken("failed", format!("the model cannot be unloaded: {reason}"));
        }
        self.note("unloaded", format!("with {} requests in flight", self.clients.live()));
        let mut outcome = Outcome::default();
        Clients::send_in_vain(self.subject, &self.questions, &mut outcome);
        self.absorb(outcome);
        self.drain()?;
        self.close()
    }

    /// Releases the unloaded model, and looks at what is left of it.
    fn close(&mut self) -> Result<(), Halt> {
        self.balance();
        self.count_engine();
        match self.subject.close() {
            Ok(0) => {}
            Ok(bytes) => self.unbalanced(Unbalanced {
                check: "device memory".into(),
                detail: format!("{bytes} bytes are still allocated on the device after the model was closed"),
            }),
            Err(reason) => return self.broken("failed", format!("the model cannot be closed: {reason}")),
        }
        self.clock.moment();
        let closed = self.subject.footprint();
        self.window.closed = Some(self.window.closed.map_or(closed, |least| least.least(closed)));
        Ok(())
    }

    /// Sends one request and reads its answer, which is not checked.
    fn answer(&mut self, request: Request) -> Result<(), Halt> {
        let reply = match self.subject.ask(request) {
            Ok(answer) => read(answer, self.clock, &mut |_| {}),
            Err(Refusal::Other(reason)) => Err(reason),
            Err(refusal) => Err(format!("it was refused: {refusal:?}")),
        };
        reply.map(drop).or_else(|reason| self.broken("failed", format!("a request to a new model failed: {reason}")))
    }

    /// Ends the part, and the run with it.
    fn end(mut self, ended: Result<(), Halt>) -> Record {
        let how = match ended {
            Ok(()) => "complete",
            Err(Halt::Broken) => "broken off",
            Err(Halt::Stopped) => {
                // All answers dropped at once have to leave nothing behind either.
                self.clients.drop_all();
                if self.subject.unload().is_ok() {
                    // What it finds is in the window.
                    let _ = self.close();
                }
                "stopped"
            }
        };
        if !self.window.optimizations.is_empty() {
            self.end_window();
        }
        if let Some(part) = self.record.parts.last_mut() {
            part.ended = Some(how.to_owned());
        }
        self.record.judge();
        self.record
    }
}
