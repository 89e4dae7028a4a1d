//! Questions with their references, and the rates at which they are asked.

use crate::clock::{Clock, LATE};
use crate::error::SoakError;
use crate::settings::Settings;
use crate::subject::{Answer, Subject};
use mlx_serving_engine::{Event, FinishReason, Request, Sampling};
use std::time::Duration;

/// Of a hundred requests, those that are dropped before their end: as many as users of a chat stop, and enough that every few seconds
/// blocks are released in the middle of an answer.
const DROPPED: u64 = 10;
/// Of a hundred, those that are read slowly: each holds its place for long, so that few are many.
const SLOW: u64 = 4;
/// Of a hundred, those that are longer than the context and have to be refused: they cost nothing, and must leave nothing behind.
const TOO_LONG: u64 = 2;
/// Shares of the kinds of questions. Short greedy ones, whose references say most, are the most; the others are as many as it takes for
/// each to come several times a window.
const SHARES: [(Kind, u64); 8] = [
    (Kind::Short, 30),
    (Kind::Long, 10),
    (Kind::Shared, 12),
    (Kind::Sampled, 14),
    (Kind::Penalized, 6),
    (Kind::Logprobs, 6),
    (Kind::Stop, 6),
    (Kind::Conversation, 16),
];
/// Questions of a kind: enough that neither one answer nor one cached prompt is all there is.
const EACH: usize = 4;
/// Tokens of prompts.
const SHORT: usize = 24;
const LONG: usize = 256;
const PREFIX: usize = 128;
/// Messages of a conversation, the tokens of each, and those of each answer.
const TURNS: usize = 4;
const MESSAGE: usize = 40;
const REPLY: usize = 32;
/// Conversations beside one for each three requests at a time: with the other prompts they are several times the KV cache.
const CONVERSATIONS: usize = 6;
/// Tokens of the longest question and its answer, which every context has to hold.
pub(crate) const LONGEST: usize = TURNS * (MESSAGE + REPLY) + LONG;
/// Longest wait for a first token counts so many times, before a step counts as stuck; at least [`STUCK`].
const PATIENCE: u32 = 10;
const STUCK: Duration = Duration::from_secs(30);

const SENTENCES: [&str; 12] = [
    "Ownership is a set of rules that govern how a program manages memory. ",
    "The stack stores values in the order it gets them and removes the values in the opposite order. ",
    "A string that can grow is kept on the heap, and its length is known only when the program runs. ",
    "fn main() {\n    let mut total = 0;\n    for value in [1, 2, 3] {\n        total += value;\n    }\n}\n",
    "A reference is like an address that we can follow to get at the data, which somebody else owns. ",
    "What happens if two threads write the same value at the same time? ",
    "Each value has an owner, and when the owner goes out of scope, the value is dropped. ",
    "An enum says that a value is one of several variants; a match has an arm for each of them. ",
    "Errors that a caller can handle are returned, and those that nobody can handle end the program. ",
    "Traits are similar to a feature that other languages call interfaces, with some differences. ",
    "Tests are functions that check that the code does what it should; they are run by one command. ",
    "use std::collections::HashMap;\n\nlet mut scores = HashMap::new();\nscores.insert(\"blue\", 10);\n",
];

/// Numbers that look random and follow from a seed.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is at least 1.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

/// Kind of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Short,
    Long,
    Shared,
    Sampled,
    Penalized,
    Logprobs,
    Stop,
    Conversation,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Kind::Short => "short",
            Kind::Long => "long",
            Kind::Shared => "shared prefix",
            Kind::Sampled => "sampled",
            Kind::Penalized => "penalized",
            Kind::Logprobs => "log-probabilities",
            Kind::Stop => "stop string",
            Kind::Conversation => "conversation",
        }
    }
}

/// Way in which a client treats an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Reads it as it comes.
    Whole,
    /// Drops it after so many tokens.
    Dropped(usize),
    /// Reads a few tokens, and pauses.
    Slow,
}

/// A question and its reference.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub kind: Kind,
    pub request: Request,
    /// The next message of the same conversation.
    pub next: Option<usize>,
    pub reference: Reply,
}

/// Answer to a request. All of it is the same every time, bit for bit.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Reply {
    pub tokens: Vec<u32>,
    pub text: String,
    /// Bits of the log-probabilities of the chosen tokens and of their alternatives.
    pub logprobs: Vec<u32>,
    pub reason: Option<FinishReason>,
}

impl Reply {
    /// Takes an event. True for the last.
    ///
    /// # Errors
    /// The request failed; a clause.
    pub(crate) fn take(&mut self, event: Event) -> Result<bool, String> {
        match event {
            Event::Prompt(_) | Event::Embedding(_) => Ok(false),
            Event::Token(token) => {
                self.tokens.push(token.id);
                self.text += &token.text();
                if let Some(logprobs) = token.logprobs {
                    self.logprobs.push(logprobs.chosen.to_bits());
                    self.logprobs.extend(logprobs.top.iter().flat_map(|(id, value)| [*id, value.to_bits()]));
                }
                Ok(false)
            }
            Event::Finished(finish) => {
                self.text += &finish.text();
                self.reason = Some(finish.reason);
                Ok(true)
            }
            Event::Failed(error) => Err(error.to_string()),
        }
    }

    /// The first thing in which an answer differs from this reference: a clause. One that was dropped is its beginning.
    pub(crate) fn difference(&self, got: &Reply) -> Option<String> {
        let whole = got.reason.is_some();
        let pairs = self.tokens.iter().zip(&got.tokens).enumerate();
        if let Some((i, (want, have))) = pairs.clone().find(|(_, (want, have))| want != have) {
            return Some(format!("token {i} is {have} in the place of {want}"));
        }
        let (wanted, had) = (self.tokens.len(), got.tokens.len());
        if had > wanted || (whole && had < wanted) {
            return Some(format!("it has {had} tokens in the place of {wanted}"));
        }
        if !self.logprobs.starts_with(&got.logprobs) || (whole && self.logprobs.len() != got.logprobs.len()) {
            return Some("its tokens are the same, and their log-probabilities are not".into());
        }
        if !self.text.starts_with(&got.text) || (whole && self.text != got.text) {
            return Some(format!("its text is {:?} in the place of {:?}", got.text, self.text));
        }
        (whole && got.reason != self.reason)
            .then(|| format!("it ended by {:?} in the place of {:?}", got.reason, self.reason))
    }
}

/// All questions, in the order in which their references were made.
#[derive(Debug)]
pub(crate) struct Questions {
    pub all: Vec<Question>,
    /// The longest time from a question to its first token, alone.
    longest_wait: Duration,
}

impl Questions {
    /// Makes the questions and computes their references: one by one, on the model that is open.
    pub(crate) fn ask(
        subject: &mut dyn Subject,
        clock: &dyn Clock,
        stop: &dyn Fn() -> bool,
        settings: &Settings,
    ) -> Result<Self, SoakError> {
        let (concurrency, seed) = (settings.concurrency, settings.seed);
        let mut maker = Maker {
            subject,
            clock,
            stop,
            random: Random::new(seed),
            made: Self { all: Vec::new(), longest_wait: Duration::ZERO },
        };
        for i in 0..EACH {
            let greedy = |prompt, tokens| Request { prompt, max_tokens: Some(tokens), ..Request::default() };
            let prompt = maker.text(SHORT)?;
            let short = maker.add(Kind::Short, Request { ignore_eos: true, ..greedy(prompt.clone(), 24 + 8 * i) })?;
            if let Some(stop) = middle(&maker.made.all[short].reference.text) {
                let request = Request { stop: vec![stop], ignore_eos: true, ..greedy(prompt.clone(), 24 + 8 * i) };
                maker.add(Kind::Stop, request)?;
            }
            let logprobs = Some(5 * i.min(2));
            maker.add(Kind::Logprobs, Request { logprobs, ..greedy(prompt.clone(), 16) })?;
            let sampling = Sampling {
                temperature: 0.9,
                top_p: 0.95,
                top_k: 40,
                seed: Some(seed ^ i as u64),
                ..Sampling::default()
            };
            maker.add(Kind::Sampled, Request { sampling, ..greedy(prompt.clone(), 48) })?;
            let sampling = Sampling { repetition_penalty: 1.3, frequency_penalty: 0.4, ..Sampling::default() };
            maker.add(Kind::Penalized, Request { sampling, ..greedy(prompt, 32) })?;
            let prompt = maker.text(LONG)?;
            maker.add(Kind::Long, greedy(prompt, 16))?;
        }
        let prefix = maker.text(PREFIX)?;
        for _ in 0..EACH {
            let prompt = [prefix.clone(), maker.text(SHORT)?].concat();
            let request = Request { prompt, max_tokens: Some(24), ..Request::default() };
            maker.add(Kind::Shared, request)?;
        }
        for _ in 0..CONVERSATIONS + concurrency / 3 {
            maker.conversation()?;
        }
        Ok(maker.made)
    }

    /// Hash over all references.
    pub(crate) fn hash(&self) -> String {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut add = |bytes: &[u8]| {
            // FNV-1a.
            bytes.iter().for_each(|b| hash = (hash ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3));
        };
        for Question { reference, .. } in &self.all {
            reference.tokens.iter().chain(&reference.logprobs).for_each(|n| add(&n.to_le_bytes()));
            add(reference.text.as_bytes());
            add(&[0xff]);
        }
        format!("{hash:016x}")
    }

    /// Time without a token after which a step counts as stuck.
    pub(crate) fn stuck_after(&self) -> Duration {
        STUCK.max(self.longest_wait * PATIENCE)
    }

    /// A question by the shares of the kinds; of a conversation, its first message.
    pub(crate) fn pick(&self, random: &mut Random) -> usize {
        let mut share = random.below(SHARES.iter().map(|(_, share)| share).sum());
        let kind = SHARES.iter().find(|(_, own)| {
            let found = share < *own;
            share = share.saturating_sub(*own);
            found
        });
        let kind = kind.map_or(Kind::Short, |(kind, _)| *kind);
        let follows = |i: usize| self.all.iter().any(|question| question.next == Some(i));
        let fit: Vec<usize> = (0..self.all.len()).filter(|&i| self.all[i].kind == kind && !follows(i)).collect();
        // A kind without questions (no answer had a stop string) leaves its share to the first.
        fit.get(random.below(fit.len() as u64) as usize).copied().unwrap_or(0)
    }

    /// One question of each kind, which between them touch all memory that an engine takes with its first requests.
    pub(crate) fn warm_up(&self) -> Vec<Request> {
        let first = |(kind, _): &(Kind, u64)| self.all.iter().find(|question| question.kind == *kind);
        SHARES.iter().filter_map(first).map(|question| question.request.clone()).collect()
    }
}

impl Manner {
    /// A manner by the shares of the manners; `None` for a request that is too long.
    pub(crate) fn pick(random: &mut Random, tokens: usize) -> Option<Self> {
        match random.below(100) {
            n if n < DROPPED => Some(Manner::Dropped(random.below(tokens as u64) as usize)),
            n if n < DROPPED + SLOW => Some(Manner::Slow),
            n if n < DROPPED + SLOW + TOO_LONG => None,
            _ => Some(Manner::Whole),
        }
    }
}

/// Makes questions on an open model.
struct Maker<'a> {
    subject: &'a mut dyn Subject,
    clock: &'a dyn Clock,
    stop: &'a dyn Fn() -> bool,
    random: Random,
    made: Questions,
}

impl Maker<'_> {
    /// Sentences of exactly so many tokens.
    fn text(&mut self, tokens: usize) -> Result<Vec<u32>, SoakError> {
        let mut text = String::new();
        loop {
            // One by one: a text that is longer than the context is refused.
            text += SENTENCES[self.random.below(SENTENCES.len() as u64) as usize];
            let mut ids = self.subject.encode(&text).map_err(SoakError::Subject)?;
            if ids.len() >= tokens {
                ids.truncate(tokens);
                return Ok(ids);
            }
        }
    }

    /// Adds a question with its reference; its index.
    fn add(&mut self, kind: Kind, request: Request) -> Result<usize, SoakError> {
        let failed = |reason: String| SoakError::Subject(format!("a reference could not be computed: {reason}"));
        if (self.stop)() {
            return Err(SoakError::Stopped);
        }
        let begun = self.clock.now();
        let mut first = None;
        let answer = self.subject.ask(request.clone()).map_err(|refusal| failed(format!("{refusal:?}")))?;
        let reply = read(answer, self.clock, &mut |reply| {
            if !reply.tokens.is_empty() {
                first.get_or_insert(self.clock.now());
            }
        });
        let reference = reply.map_err(failed)?;
        let waited = first.unwrap_or(begun).saturating_sub(begun);
        self.made.longest_wait = self.made.longest_wait.max(waited);
        self.made.all.push(Question { kind, request, next: None, reference });
        Ok(self.made.all.len() - 1)
    }

    /// A conversation: each prompt is all that was said before and a new message.
    fn conversation(&mut self) -> Result<(), SoakError> {
        let (mut prompt, mut last) = (Vec::new(), None::<usize>);
        for _ in 0..TURNS {
            prompt.extend(self.text(MESSAGE)?);
            let request =
                Request { prompt: prompt.clone(), max_tokens: Some(REPLY), ignore_eos: true, ..Request::default() };
            let turn = self.add(Kind::Conversation, request)?;
            if let Some(last) = last {
                self.made.all[last].next = Some(turn);
            }
            last = Some(turn);
            prompt.extend(&self.made.all[turn].reference.tokens);
        }
        Ok(())
    }
}

/// Longest time for one answer that is computed alone.
const ALONE: Duration = Duration::from_secs(1800);

/// Reads an answer to its end, and tells of what there is of it after each event.
pub(crate) fn read(
    mut answer: Box<dyn Answer>,
    clock: &dyn Clock,
    seen: &mut dyn FnMut(&Reply),
) -> Result<Reply, String> {
    let (mut reply, mut begun) = (Reply::default(), clock.now());
    loop {
        match answer.poll() {
            Some(event) => {
                let over = reply.take(event)?;
                seen(&reply);
                if over {
                    return Ok(reply);
                }
            }
            None if clock.now().saturating_sub(begun) > ALONE => {
                return Err(format!("no end came in {} s", ALONE.as_secs()));
            }
            None => {
                let before = clock.now();
                clock.wait(Duration::from_millis(100));
                let waited = clock.now().saturating_sub(before);
                if waited > LATE {
                    begun += waited;
                }
            }
        }
    }
}

/// A few characters in the middle of a text, which end it there.
fn middle(text: &str) -> Option<String> {
    let characters: Vec<char> = text.chars().collect();
    let at = characters.len() / 2;
    let stop: String = characters.get(at..at + 3)?.iter().collect();
    (!stop.contains(char::REPLACEMENT_CHARACTER)).then_some(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(tokens: &[u32], reason: Option<FinishReason>) -> Reply {
        let text = tokens.iter().map(|token| format!("{token} ")).collect();
        Reply { tokens: tokens.to_vec(), text, logprobs: Vec::new(), reason }
    }

    #[test]
    fn an_answer_is_its_reference_and_one_that_was_dropped_is_its_beginning() {
        let end = Some(FinishReason::Length);
        let reference = reply(&[1, 2, 3], end);
        assert_eq!(reference.difference(&reply(&[1, 2, 3], end)), None);
        for beginning in [&[][..], &[1], &[1, 2, 3]] {
            assert_eq!(reference.difference(&reply(beginning, None)), None);
        }
        for (tokens, reason, expected) in [
            (&[1, 9, 3][..], end, "token 1 is 9 in the place of 2"),
            (&[1, 9], None, "token 1 is 9 in the place of 2"),
            (&[1, 2], end, "it has 2 tokens in the place of 3"),
            (&[1, 2, 3, 4], None, "it has 4 tokens in the place of 3"),
            (&[1, 2, 3], Some(FinishReason::Stop), "it ended by Some(Stop) in the place of Some(Length)"),
        ] {
            assert_eq!(reference.difference(&reply(tokens, reason)).as_deref(), Some(expected));
        }
        let other = Reply { text: "1 2 4 ".into(), ..reference.clone() };
        assert!(reference.difference(&other).is_some_and(|d| d.contains("text")));
        let other = Reply { logprobs: vec![1], ..reference.clone() };
        assert!(reference.difference(&other).is_some_and(|d| d.contains("log-probabilities")));
    }

    #[test]
    fn choices_follow_from_the_seed_and_reach_everything() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            (0..50).map(|_| random.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let mut random = Random::new(1);
        let manners: Vec<_> = (0..1000).map(|_| Manner::pick(&mut random, 8)).collect();
        assert!(
            manners.contains(&None) && manners.contains(&Some(Manner::Slow)) && manners.contains(&Some(Manner::Whole))
        );
        assert!((0..8).all(|after| manners.contains(&Some(Manner::Dropped(after)))));
    }
}
