//! Rules for tests: which tokens may come depends on the last one and on their number, and can be worked out again by whoever checks an answer.

use crate::masks::rules::{Cancel, Matching, Rules};
use mlx_serving_grammar::GrammarError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Rules with settable faults.
#[derive(Debug, Clone)]
pub(crate) struct Toy {
    pub vocab: usize,
    pub ends: Vec<u32>,
    /// Tokens of an answer, after which it must end.
    pub length: usize,
    pub faults: Faults,
}

/// Faults while the mask of a token is made, by its place in the answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// Time that every mask takes.
    pub takes: Duration,
    pub panics_at: Option<usize>,
    pub stuck_at: Option<usize>,
    /// The mask of this token waits until the work is canceled.
    pub held_at: Option<(usize, Arc<Gate>)>,
}

/// A gate that never opens.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Somebody waits at it.
    pub reached: AtomicBool,
}

impl Gate {
    fn stop_at(&self, canceled: &AtomicBool) {
        self.reached.store(true, SeqCst);
        while !canceled.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Tokens that may come next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Next {
    /// One only.
    One(u32),
    /// Those whose number leaves this remainder, and perhaps the ends.
    Some {
        of: u32,
        remainder: u32,
        may_end: bool,
    },
    End,
}

impl Toy {
    pub(crate) fn new(vocab: usize, ends: &[u32], length: usize) -> Self {
        Self { vocab, ends: ends.to_vec(), length, faults: Faults::default() }
    }

    /// Tokens that may follow these of an answer: often a run of tokens without a choice.
    pub(crate) fn next(&self, taken: &[u32]) -> Next {
        let (last, place) = (taken.last().copied().unwrap_or(7), taken.len() as u32);
        if taken.len() >= self.length {
            return Next::End;
        }
        let mixed = (last.wrapping_mul(31) ^ place.wrapping_mul(97)).wrapping_mul(0x9e37_79b9) >> 8;
        // Runs begin after every eighth token or so, and last for five.
        match place % 8 < 5 && place > 2 {
            true => Next::One(3 + mixed % (self.vocab as u32 - 3)),
            false => Next::Some { of: 3 + mixed % 5, remainder: mixed % 3, may_end: place > 12 },
        }
    }

    pub(crate) fn allows(&self, next: &Next, token: u32) -> bool {
        match next {
            Next::One(one) => *one == token,
            Next::Some { of, remainder, may_end } => match self.ends.contains(&token) {
                true => *may_end,
                false => token % of == *remainder,
            },
            Next::End => self.ends.contains(&token),
        }
    }

    /// The mask of what may follow.
    pub(crate) fn mask_after(&self, taken: &[u32]) -> Vec<u32> {
        let (next, mut words) = (self.next(taken), vec![0u32; self.vocab.div_ceil(32)]);
        let allowed = (0..self.vocab as u32).filter(|token| self.allows(&next, *token));
        allowed.for_each(|token| words[token as usize / 32] |= 1 << (token % 32));
        words
    }
}

impl Rules for Toy {
    fn begin(&self) -> Box<dyn Matching> {
        Box::new(State { toy: self.clone(), taken: Vec::new(), canceled: Arc::default() })
    }
}

struct State {
    toy: Toy,
    taken: Vec<u32>,
    canceled: Arc<AtomicBool>,
}

impl Matching for State {
    fn take(&mut self, token: u32) -> Result<(), GrammarError> {
        let next = self.toy.next(&self.taken);
        if !self.toy.allows(&next, token) {
            let message = format!("token {token} after {:?}, where {next:?} may come", self.taken);
            return Err(GrammarError::Step { message });
        }
        self.taken.push(token);
        Ok(())
    }

    fn mask(&mut self, words: &mut [u32]) -> Result<(), GrammarError> {
        let (began, place, faults) = (Instant::now(), self.taken.len(), &self.toy.faults);
        while began.elapsed() < faults.takes && !self.canceled.load(SeqCst) {
            std::thread::sleep(Duration::from_micros(100));
        }
        if let Some((at, gate)) = &faults.held_at
            && *at == place
        {
            gate.stop_at(&self.canceled);
        }
        assert!(faults.panics_at != Some(place), "a planted panic");
        if faults.stuck_at == Some(place) || self.canceled.load(SeqCst) {
            return Err(stuck());
        }
        words.copy_from_slice(&self.toy.mask_after(&self.taken));
        Ok(())
    }

    fn forced(&mut self) -> Result<Vec<u32>, GrammarError> {
        let mut run = self.taken.clone();
        while let Next::One(token) = self.toy.next(&run) {
            run.push(token);
        }
        Ok(run.split_off(self.taken.len()))
    }

    fn canceler(&self) -> Cancel {
        let canceled = self.canceled.clone();
        Box::new(move || canceled.store(true, SeqCst))
    }
}

fn stuck() -> GrammarError {
    GrammarError::Step { message: "a planted fault".into() }
}
