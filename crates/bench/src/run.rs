//! A planned load asked of a target.
//!
//! As many threads as there may be requests at a time take one conversation after the other, in the order of the plan. In an open loop each
//! waits for the arrival of the one it took. A thread that takes one after its arrival therefore shows that all places were taken then: the
//! limit held the request back. Times count from the arrival, so that such a request's waiting is in its latency.

use crate::error::BenchError;
use crate::load::{Conversation, Plan};
use crate::target::{Answer, Failure, Fault, Target};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

/// The longest that a thread sleeps before it looks whether the run has ended.
const NAP: Duration = Duration::from_millis(100);

/// Time before the beginning of an open loop in which all threads come to wait for their first arrivals.
const LEAD: Duration = Duration::from_millis(10);

/// Result of a load.
#[derive(Debug)]
pub(crate) struct Ran {
    /// In the order of the plan.
    pub outcomes: Vec<Outcome>,
    pub wall: Duration,
}

/// Result of a request.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Its conversation and turn.
    order: (usize, usize),
    /// Tokens that were asked for.
    pub max_tokens: usize,
    /// Arrival after the beginning of the run.
    pub at: Duration,
    /// The arrival.
    pub since: Instant,
    /// It was sent later than it arrived, because as many as may be were in flight.
    pub is_held_back: bool,
    pub answer: Result<Answer, Failure>,
}

/// State that the threads of a run share.
struct Shared<'a, T> {
    target: &'a T,
    plan: &'a Plan,
    next: AtomicUsize,
    has_ended: AtomicBool,
    /// Beginning of the run; closed until all threads are there, `None` if some could not be started.
    gate: Mutex<Option<Instant>>,
}

/// Asks everything that is planned. `progress` gets the requests that are over and those of them that failed.
///
/// # Errors
/// A fault that ends the run; threads cannot be started.
pub(crate) fn run<T: Target>(
    target: &T,
    plan: &Plan,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Ran, BenchError> {
    let gate = Mutex::new(None);
    let shared = Shared { target, plan, next: AtomicUsize::new(0), has_ended: AtomicBool::new(false), gate };
    let (told, hears) = channel();
    std::thread::scope(|scope| {
        let mut gate = shared.gate.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..plan.load.concurrency.min(plan.conversations.len()) {
            let (shared, told) = (&shared, told.clone());
            let work = move || shared.work(&told);
            Builder::new().name("bench".into()).spawn_scoped(scope, work).map_err(BenchError::Thread)?;
        }
        let start = Instant::now() + plan.load.rate.map_or(Duration::ZERO, |_| LEAD);
        *gate = Some(start);
        drop(gate);
        drop(told);
        let (mut outcomes, mut failed) = (Vec::with_capacity(plan.load.questions), 0);
        for outcome in hears {
            let outcome: Outcome = outcome?;
            failed += usize::from(outcome.answer.is_err());
            outcomes.push(outcome);
            progress(outcomes.len(), failed);
        }
        let wall = start.elapsed();
        outcomes.sort_by_key(|outcome| outcome.order);
        Ok(Ran { outcomes, wall })
    })
}

impl<T: Target> Shared<'_, T> {
    fn work(&self, told: &Sender<Result<Outcome, BenchError>>) {
        let start = *self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(start) = start else { return };
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(conversation) = self.plan.conversations.get(i) else { return };
            if self.hold(i, conversation, start, told).is_none() {
                self.has_ended.store(true, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Holds a conversation; `None` if the run has ended.
    fn hold(
        &self,
        index: usize,
        conversation: &Conversation,
        start: Instant,
        told: &Sender<Result<Outcome, BenchError>>,
    ) -> Option<()> {
        let due = conversation.at.map(|at| start + at);
        let mut is_held_back = due.is_some_and(|due| Instant::now() > due);
        let mut talk = self.target.begin(index);
        let mut fallen = false;
        for (turn, &size) in conversation.turns.iter().enumerate() {
            self.target.say(&mut talk, turn, size.prompt_tokens);
            let since = match due.filter(|_| turn == 0) {
                Some(due) => self.sleep_until(due)?,
                None => Instant::now(),
            };
            if self.has_ended.load(Ordering::Relaxed) {
                return None;
            }
            let answer = match fallen {
                true => Err(Fault::Counts(Failure::new("earlier turn failed", "it was not asked"))),
                false => self.target.ask(&mut talk, size.max_tokens),
            };
            let answer = match answer {
                Ok(answer) => Ok(answer),
                Err(Fault::Counts(failure)) => Err(failure),
                Err(Fault::Ends(error)) => {
                    told.send(Err(error)).ok();
                    return None;
                }
            };
            fallen = answer.is_err();
            let (order, at, max_tokens) = ((index, turn), since - start, size.max_tokens);
            let is_held_back = std::mem::take(&mut is_held_back);
            told.send(Ok(Outcome { order, max_tokens, at, since, is_held_back, answer })).ok()?;
        }
        Some(())
    }

    /// Sleeps until an arrival and gives it; `None` if the run has ended before.
    fn sleep_until(&self, due: Instant) -> Option<Instant> {
        loop {
            if self.has_ended.load(Ordering::Relaxed) {
                return None;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(due);
            }
            std::thread::sleep(left.min(NAP));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goodput::Limits;
    use crate::load::{Load, Shape};
    use crate::measured::Measured;

    /// Answers everything with one token after a while, or what `fails` says of the conversation and the turn.
    struct Fake {
        asked: Mutex<Vec<(usize, usize)>>,
        in_flight: AtomicUsize,
        most: AtomicUsize,
        work: Duration,
        fails: fn(usize, usize) -> Option<Fault>,
    }

    impl Fake {
        fn new(work: Duration, fails: fn(usize, usize) -> Option<Fault>) -> Self {
            let (asked, in_flight, most) = (Mutex::default(), AtomicUsize::new(0), AtomicUsize::new(0));
            Self { asked, in_flight, most, work, fails }
        }
    }

    impl Target for Fake {
        type Talk = (usize, usize);

        fn begin(&self, conversation: usize) -> (usize, usize) {
            (conversation, 0)
        }

        fn say(&self, talk: &mut (usize, usize), turn: usize, _: usize) {
            talk.1 = turn;
        }

        fn ask(&self, talk: &mut (usize, usize), tokens: usize) -> Result<Answer, Fault> {
            self.most.fetch_max(self.in_flight.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            self.asked.lock().unwrap().push(*talk);
            std::thread::sleep(self.work);
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
            let answer = Answer {
                prompt_tokens: Some(5),
                tokens,
                is_told: true,
                ended_by_length: None,
                times: vec![Instant::now()],
                computed: None,
                content: Vec::new(),
            };
            (self.fails)(talk.0, talk.1).map_or(Ok(answer), Err)
        }
    }

    fn plan(load: &Load) -> Plan {
        Plan::of(load, None).unwrap()
    }

    #[test]
    fn a_closed_loop_asks_everything_once_and_no_more_at_a_time_than_it_may() {
        let fake = Fake::new(Duration::from_millis(1), |_, _| None);
        let load = Load { shape: Shape::Chat { turns: 3 }, ..Load::fixed(29, 1, 4, 3) };
        let mut told = 0;
        let ran = run(&fake, &plan(&load), &mut |done, failed| {
            told += 1;
            assert_eq!((done, failed), (told, 0));
        });
        let ran = ran.unwrap();
        let order: Vec<_> = ran.outcomes.iter().map(|outcome| outcome.order).collect();
        assert_eq!(order, (0..29).map(|i| (i / 3, i % 3)).collect::<Vec<_>>());
        let mut asked = fake.asked.into_inner().unwrap();
        let turns: Vec<_> =
            asked.iter().filter(|(conversation, _)| *conversation == 4).map(|(_, turn)| *turn).collect();
        assert_eq!(turns, [0, 1, 2], "one after the other");
        asked.sort_unstable();
        assert_eq!((asked, told), (order, 29));
        assert!((1..=3).contains(&fake.most.into_inner()));
        let measured = Measured::of(&plan(&load), &ran, None);
        assert_eq!((measured.answered, measured.held_back, measured.total_tokens), (29, 0, 29 * 4));
        assert_eq!((measured.total_prompt_tokens, measured.goodput), (Some(29 * 5), None));
    }

    #[test]
    fn the_wait_for_a_place_is_in_the_latency_of_an_open_loop() {
        let work = Duration::from_millis(4);
        let fake = Fake::new(work, |_, _| None);
        // All arrive within a millisecond or so, and there is one place.
        let load = Load { rate: Some(Load::MAX_RATE), ..Load::fixed(10, 1, 1, 1) };
        let planned = plan(&load);
        let ran = run(&fake, &planned, &mut |_, _| {}).unwrap();
        let arrived = planned.conversations[9].at.unwrap();
        let waited = ran.outcomes[9].answer.as_ref().unwrap().times[0] - ran.outcomes[9].since;
        assert_eq!(ran.outcomes[9].at, arrived);
        assert!(waited + arrived >= 10 * work, "the last of ten: {waited:?}");
        let limits = Limits { ttft: Some(1e-3), ..Limits::default() };
        let measured = Measured::of(&planned, &ran, Some(&limits));
        assert!(measured.held_back >= 8, "{}", measured.held_back);
        assert_eq!(measured.goodput.unwrap().share, 0.0, "none in a microsecond");
        let wide = Measured::of(&planned, &ran, Some(&Limits { e2e: Some(1e9), ..Limits::default() }));
        assert_eq!(wide.goodput.unwrap().share, 1.0);
    }

    /// Has one place, in which an answer of three tokens takes at least 4 ms from the first to the last.
    struct Slot(Mutex<()>);

    impl Target for Slot {
        type Talk = ();

        fn begin(&self, _: usize) {}

        fn say(&self, (): &mut (), _: usize, _: usize) {}

        fn ask(&self, (): &mut (), tokens: usize) -> Result<Answer, Fault> {
            let _place = self.0.lock().unwrap();
            let mut times = vec![Instant::now()];
            for _ in 1..tokens {
                std::thread::sleep(Duration::from_millis(2));
                times.push(Instant::now());
            }
            let took = times[tokens - 1] - times[0];
            let computed = Some((5, took));
            Ok(Answer {
                prompt_tokens: Some(9),
                tokens,
                is_told: true,
                ended_by_length: None,
                times,
                computed,
                content: Vec::new(),
            })
        }
    }

    #[test]
    fn answers_that_wait_for_each_other_are_not_decoded_together() {
        let load = Load::fixed(8, 1, 3, 8);
        let ran = run(&Slot(Mutex::new(())), &plan(&load), &mut |_, _| {}).unwrap();
        let measured = Measured::of(&plan(&load), &ran, None);
        let decode = measured.decode_tok_s.unwrap();
        assert!(decode > 0.0 && decode <= 2.0 / 0.004, "one place has no more: {decode}");
        assert!(measured.prefill_tok_s.unwrap() <= 5.0 / 0.004, "the tokens that were computed, and not all 9");
        assert!(measured.itl_ms.unwrap().p50 >= 2.0);
    }

    #[test]
    fn the_time_between_tokens_of_an_answer_in_one_piece_is_not_known_and_keeps_no_limit() {
        let fake = Fake::new(Duration::ZERO, |_, _| None);
        let (of_many, of_one) = (Load::fixed(3, 1, 64, 1), Load::fixed(3, 1, 1, 1));
        let limits: Limits = "itl=1000".parse().unwrap();
        for (load, share) in [(of_many, 0.0), (of_one, 1.0)] {
            let ran = run(&fake, &plan(&load), &mut |_, _| {}).unwrap();
            let measured = Measured::of(&plan(&load), &ran, Some(&limits));
            assert_eq!((measured.decode_tok_s, measured.itl_ms), (None, None));
            assert_eq!(measured.goodput.unwrap().share, share, "{load:?}");
        }
    }

    #[test]
    fn a_failed_turn_is_counted_and_ends_its_conversation() {
        let fake = Fake::new(Duration::ZERO, |conversation, turn| {
            ((conversation, turn) == (1, 1)).then(|| Fault::Counts(Failure::new("HTTP 500", "no")))
        });
        let load = Load { shape: Shape::Chat { turns: 3 }, ..Load::fixed(9, 1, 2, 2) };
        let ran = run(&fake, &plan(&load), &mut |_, _| {}).unwrap();
        let measured = Measured::of(&plan(&load), &ran, Some(&Limits { e2e: Some(1e9), ..Limits::default() }));
        assert_eq!((measured.answered, measured.failed), (7, 2));
        let causes: Vec<_> = measured.failures.iter().map(|f| (f.cause.as_str(), f.count)).collect();
        assert_eq!(causes, [("HTTP 500", 1), ("earlier turn failed", 1)]);
        assert_eq!(measured.goodput.unwrap().share, 7.0 / 9.0, "a failure keeps no limit");
        assert_eq!(fake.asked.into_inner().unwrap().len(), 8);
    }

    #[test]
    fn a_fault_of_this_process_ends_the_run_at_once() {
        let fake = Fake::new(Duration::ZERO, |conversation, _| {
            (conversation == 3).then_some(Fault::Ends(BenchError::Unfinished))
        });
        // The next arrivals are hours away.
        let load = Load { rate: Some(Load::MIN_RATE), ..Load::fixed(1000, 1, 1, 4) };
        let mut planned = plan(&load);
        planned.conversations[..4].iter_mut().for_each(|conversation| conversation.at = Some(Duration::ZERO));
        assert!(matches!(run(&fake, &planned, &mut |_, _| {}), Err(BenchError::Unfinished)));
    }
}
