//! Probes of the speed, each between two calibrations.

use super::{Halt, NAP, Run};
use crate::record::Probe;
use crate::subject::Answer;
use crate::traffic::Kind;
use mlx_serving_engine::{Event, Request};
use std::time::Duration;

/// Requests of a probe, and tokens of each answer: a few hundred steps of a batch as small models have it.
const PROBE_REQUESTS: usize = 4;
const PROBE_TOKENS: usize = 96;

impl Run<'_> {
    /// Measures the speed of the idle engine between two calibrations.
    pub(super) fn probe(&mut self) -> Result<(), Halt> {
        let threads = self.record.facts.threads();
        let at_s = self.now();
        let before = self.clock.calibrate(threads);
        let mut paused = !self.pause().is_zero();
        self.salt += 1;
        let short = self.questions.all.iter().filter(|question| question.kind == Kind::Short);
        let requests: Vec<Request> = short
            .take(PROBE_REQUESTS.min(self.record.settings.concurrency))
            .map(|question| Request { max_tokens: Some(PROBE_TOKENS), salt: self.salt, ..question.request.clone() })
            .collect();
        let begun = self.clock.now();
        let mut answers = Vec::new();
        for request in requests {
            match self.subject.ask(request) {
                Ok(answer) => answers.push(answer),
                Err(refusal) => self.fault("failed", format!("a probe was refused: {refusal:?}")),
            }
        }
        let (mut tokens, mut moved) = (0_u64, self.clock.now());
        while !answers.is_empty() {
            let pause = self.pause();
            paused |= !pause.is_zero();
            moved += pause;
            let before = tokens;
            let mut failed = None;
            answers.retain_mut(|answer| goes_on(answer, &mut tokens, &mut failed));
            if let Some(error) = failed {
                self.fault("failed", format!("a probe failed: {error}"));
            }
            if tokens > before {
                moved = self.clock.now();
                self.ran = moved;
            } else if !answers.is_empty() {
                let silence = self.clock.now().saturating_sub(moved).as_secs_f64();
                if silence > self.record.references.stuck_after_s {
                    return self.stuck(format!("a probe of the speed, after {tokens} tokens"));
                }
                self.clock.wait(NAP);
            }
            if (self.stop)() {
                return Err(Halt::Stopped);
            }
        }
        let took = self.clock.now().saturating_sub(begun);
        paused |= !self.pause().is_zero();
        let after = self.clock.calibrate(threads);
        paused |= !self.pause().is_zero();
        self.window.tokens += tokens;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        // What was measured over a pause says nothing of the speed.
        if !took.is_zero() && !paused {
            let tok_s = tokens as f64 / took.as_secs_f64();
            self.window.probes.push(Probe { at_s, tok_s, before_ms: ms(before), after_ms: ms(after) });
        }
        Ok(())
    }
}

/// Reads what has come of an answer; false once it is over.
fn goes_on(answer: &mut Box<dyn Answer>, tokens: &mut u64, failed: &mut Option<String>) -> bool {
    while let Some(event) = answer.poll() {
        match event {
            Event::Token(_) => *tokens += 1,
            Event::Prompt(_) | Event::Embedding(_) => {}
            Event::Finished(_) => return false,
            Event::Failed(error) => {
                *failed = Some(error.to_string());
                return false;
            }
        }
    }
    true
}
