//! The requests in flight, and what came of them.

use crate::clock::Clock;
use crate::subject::{Answer, Refusal, Subject};
use crate::traffic::{Manner, Questions, Random, Reply};
use mlx_serving_engine::{FinishReason, Request};
use std::collections::BTreeMap;
use std::time::Duration;

/// Tokens that a slow reader lets lie unread, and that it reads at a time.
const SIP: usize = 4;
/// Pauses of a slow reader, ms: as long as hundreds of steps of a small model, and as several of a large one.
const PAUSE_MS: [u64; 2] = [100, 500];

/// Requests at a time, each in a slot that asks the next when it has ended.
pub(crate) struct Clients {
    slots: Vec<Slot>,
    pub random: Random,
    /// When something of an answer came last, or the first request after a time without any was sent.
    moved: Duration,
}

#[derive(Default)]
struct Slot {
    live: Option<Live>,
    /// The next message of a conversation.
    next: Option<usize>,
}

struct Live {
    question: usize,
    manner: Manner,
    answer: Box<dyn Answer>,
    got: Reply,
    /// Time before which a slow reader reads nothing.
    reads: Duration,
}

/// Things that came of a turn.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub tokens: u64,
    pub counts: BTreeMap<String, u64>,
    /// Faults: name of the kind, and a sentence.
    pub faults: Vec<(&'static str, String)>,
}

impl Outcome {
    pub(crate) fn count(&mut self, name: &str) {
        *self.counts.entry(name.to_owned()).or_default() += 1;
    }

    fn fault(&mut self, name: &'static str, detail: String) {
        self.count(name);
        self.faults.push((name, detail));
    }
}

impl Clients {
    /// As many clients, none of which has asked.
    pub(crate) fn new(concurrency: usize, random: Random) -> Self {
        Self { slots: (0..concurrency).map(|_| Slot::default()).collect(), random, moved: Duration::ZERO }
    }

    /// Requests in flight.
    pub(crate) fn live(&self) -> usize {
        self.slots.iter().filter(|slot| slot.live.is_some()).count()
    }

    /// Time since anything came of the requests in flight; zero while nothing is expected.
    pub(crate) fn silence(&self, now: Duration) -> Duration {
        let expects = |slot: &Slot| slot.live.as_ref().is_some_and(|live| live.reads <= now);
        if self.slots.iter().any(expects) { now.saturating_sub(self.moved) } else { Duration::ZERO }
    }

    /// The requests in flight, in words.
    pub(crate) fn state(&self, questions: &Questions) -> String {
        let live = self.slots.iter().filter_map(|slot| slot.live.as_ref());
        let words: Vec<String> = live
            .map(|live| {
                let question = &questions.all[live.question];
                let of = question.request.max_tokens.unwrap_or(0);
                format!(
                    "question {} ({}, {:?}): {} of {of} tokens",
                    live.question,
                    question.kind.as_str(),
                    live.manner,
                    live.got.tokens.len()
                )
            })
            .collect();
        words.join("; ")
    }

    /// Leaves a pause of this process out of the silence.
    pub(crate) fn pass(&mut self, pause: Duration) {
        self.moved += pause;
    }

    /// Drops all requests in flight.
    pub(crate) fn drop_all(&mut self) {
        self.slots.iter_mut().for_each(|slot| *slot = Slot::default());
    }

    /// Sends a request from every free slot.
    pub(crate) fn send(
        &mut self,
        subject: &mut dyn Subject,
        questions: &Questions,
        now: Duration,
        outcome: &mut Outcome,
    ) {
        if self.live() == 0 {
            self.moved = now;
        }
        for slot in self.slots.iter_mut().filter(|slot| slot.live.is_none()) {
            let index = slot.next.take().unwrap_or_else(|| questions.pick(&mut self.random));
            let question = &questions.all[index];
            let Some(manner) = Manner::pick(&mut self.random, question.reference.tokens.len()) else {
                too_long(subject, question.request.clone(), outcome);
                continue;
            };
            let mut request = question.request.clone();
            if manner == Manner::Slow {
                request.read_ahead = Some(SIP);
            }
            match subject.ask(request) {
                Ok(answer) => {
                    outcome.count(question.kind.as_str());
                    slot.live = Some(Live { question: index, manner, answer, got: Reply::default(), reads: now });
                }
                Err(refusal) => outcome.fault("failed", format!("question {index} was refused: {refusal:?}")),
            }
        }
    }

    /// Sends one request to a model that does not answer now: it has to be refused as such.
    pub(crate) fn send_in_vain(subject: &mut dyn Subject, questions: &Questions, outcome: &mut Outcome) {
        let Some(question) = questions.all.first() else { return };
        match subject.ask(question.request.clone()) {
            Err(Refusal::Closed) => outcome.count("refused while not loaded"),
            Err(refusal) => outcome.fault("refused wrongly", format!("while not loaded: {refusal:?}")),
            Ok(_) => outcome.fault("refused wrongly", "a request was taken while the model was unloaded".into()),
        }
    }

    /// Reads what has come. With `hurry`, slow readers read at once. True if anything came.
    pub(crate) fn read(
        &mut self,
        clock: &dyn Clock,
        questions: &Questions,
        hurry: bool,
        outcome: &mut Outcome,
    ) -> bool {
        let mut came = false;
        for slot in &mut self.slots {
            let Some(live) = &mut slot.live else { continue };
            if live.reads > clock.now() && !hurry {
                continue;
            }
            let before = live.got.tokens.len();
            let ended = live.read(clock, &mut self.random, questions, outcome);
            came |= ended || live.got.tokens.len() > before;
            if ended {
                let Some(live) = slot.live.take() else { continue };
                // A conversation whose answer was cut is not gone on with.
                slot.next = live.got.reason.and(questions.all[live.question].next);
            }
        }
        if came {
            self.moved = clock.now();
        }
        came
    }

    /// Time until a slow reader reads, if nobody else waits for anything.
    pub(crate) fn pause(&self, now: Duration) -> Option<Duration> {
        let live: Vec<_> = self.slots.iter().filter_map(|slot| slot.live.as_ref()).collect();
        if live.iter().any(|live| live.reads <= now) {
            return None;
        }
        live.iter().map(|live| live.reads.saturating_sub(now)).min()
    }
}

impl Live {
    /// Reads what has come; true if the request is over.
    fn read(&mut self, clock: &dyn Clock, random: &mut Random, questions: &Questions, outcome: &mut Outcome) -> bool {
        let question = &questions.all[self.question];
        let begun = self.got.tokens.len();
        loop {
            if let Manner::Dropped(after) = self.manner
                && self.got.tokens.len() >= after
            {
                outcome.count("dropped");
                self.check(questions, outcome);
                return true;
            }
            if self.manner == Manner::Slow && self.got.tokens.len() - begun >= SIP {
                let ms = PAUSE_MS[0] + random.below(PAUSE_MS[1] - PAUSE_MS[0]);
                self.reads = clock.now() + Duration::from_millis(ms);
                return false;
            }
            let Some(event) = self.answer.poll() else { return false };
            let tokens = self.got.tokens.len();
            match self.got.take(event) {
                Ok(over) => {
                    outcome.tokens += (self.got.tokens.len() - tokens) as u64;
                    if over {
                        outcome.count(match self.got.reason {
                            Some(FinishReason::Stop) => "ended by stop",
                            _ => "ended by length",
                        });
                        if self.manner == Manner::Slow {
                            outcome.count("read slowly");
                        }
                        self.check(questions, outcome);
                        return true;
                    }
                }
                Err(error) => {
                    let kind = question.kind.as_str();
                    outcome.fault("failed", format!("question {} ({kind}) failed: {error}", self.question));
                    self.got.reason = None;
                    return true;
                }
            }
        }
    }

    /// Compares the answer with its reference.
    fn check(&self, questions: &Questions, outcome: &mut Outcome) {
        let question = &questions.all[self.question];
        let greedy = question.request.sampling.temperature == 0.0;
        outcome.count(if greedy { "checked greedy" } else { "checked sampled" });
        if let Some(difference) = question.reference.difference(&self.got) {
            let detail = format!("question {} ({}): {difference}", self.question, question.kind.as_str());
            outcome.fault(if greedy { "wrong greedy" } else { "wrong sampled" }, detail);
        }
    }
}

/// Sends a request that is longer than the context: it has to be refused as such.
fn too_long(subject: &mut dyn Subject, request: Request, outcome: &mut Outcome) {
    let request = Request { max_tokens: Some(usize::MAX / 2), ..request };
    match subject.ask(request) {
        Err(Refusal::TooLong) => outcome.count("refused as too long"),
        Err(refusal) => outcome.fault("refused wrongly", format!("a request that is too long: {refusal:?}")),
        Ok(_) => outcome.fault("refused wrongly", "a request that is too long was taken".into()),
    }
}
