//! From structures to grammars, within bounds.

use crate::cache::Cache;
use crate::error::{GrammarError, reason};
use crate::expression;
use crate::lark;
use crate::matcher::{Canceler, Matcher};
use crate::schema;
use crate::structure::Structure;
use crate::vocabulary::Vocabulary;
use llguidance::api::{GrammarWithLexer, ParserLimits, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::panic_utils::catch_unwind;
use llguidance::toktrie::{InferenceCapabilities, TokEnv};
use llguidance::{ParserFactory, regex_to_lark};
use mlx_serving_text::Tokenizer;
use serde_json::json;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Time that a structure may take, in seconds. The worst that the other bounds let through take less.
const LIMIT_S: u64 = 10;
/// Structures that are compiled at once. More wait: what one thread takes of memory and time is bounded, so both are.
const AT_ONCE: usize = 2;
/// Bytes of a regular expression, and of a text to choose. llguidance takes the square of the length of some expressions for time.
const MAX_REGEX: usize = 4 << 10;
/// Bytes of an answer's state at its beginning: each answer has a copy.
const MAX_START: usize = 16 << 20;
/// Tokens that are chosen, twice, to follow a compiled grammar before any answer does.
const WALK: usize = 12;
/// Time between two looks at who waits.
const TICK: Duration = Duration::from_millis(20);
/// Stack of a thread that compiles: llguidance goes a few functions deeper with each rule that a rule names. Only what is used is
/// taken from memory.
const STACK: usize = 256 << 20;

/// Compiles grammars for one model. Clones share it.
#[derive(Clone)]
pub struct Compiler {
    shared: Arc<Shared>,
}

struct Shared {
    factory: ParserFactory,
    vocab: usize,
    running: AtomicUsize,
    cache: Mutex<Cache<Grammar>>,
}

/// A compiled grammar. Clones share it.
#[derive(Clone)]
pub struct Grammar {
    /// State at the beginning of an answer, which is only copied.
    start: Arc<Matcher>,
}

impl Grammar {
    /// The state of an answer that begins. Matchers share nothing that one could spoil for another.
    #[must_use]
    pub fn matcher(&self) -> Matcher {
        self.start.another()
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}

impl Compiler {
    /// A compiler for a model whose output layer has `vocab` tokens and whose answers end with any of `ends`. Takes long: it sorts the
    /// whole vocabulary.
    ///
    /// # Errors
    /// The tokenizer cannot say which bytes its tokens stand for.
    pub fn new(tokenizer: &Tokenizer, vocab: usize, ends: &[u32]) -> Result<Self, GrammarError> {
        let tokens: TokEnv = Arc::new(Vocabulary::new(tokenizer, vocab, ends)?);
        let capabilities = InferenceCapabilities { ff_tokens: true, ..InferenceCapabilities::default() };
        let mut factory = ParserFactory::new(&tokens, capabilities, &SlicedBiasComputer::general_slices())
            .map_err(|e| GrammarError::structure(reason(&e)))?;
        factory.quiet();
        *factory.limits_mut() = limits();
        let shared = Shared { factory, vocab, running: AtomicUsize::new(0), cache: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The grammar of a structure. Blocks the thread for some milliseconds, and at most for as long as `goes_on` returns true.
    ///
    /// # Errors
    /// [`GrammarError::Structure`] names the keyword at fault and its place, or the bound that the structure is beyond.
    pub fn compile(&self, structure: &Structure, goes_on: &mut dyn FnMut() -> bool) -> Result<Grammar, GrammarError> {
        let key = structure.key()?;
        if let Some(grammar) = self.shared.cache().get(&key) {
            return Ok(grammar);
        }
        let deadline = Instant::now() + Duration::from_secs(LIMIT_S);
        let slot = loop {
            match Slot::take(&self.shared) {
                Some(slot) => break slot,
                None if Instant::now() > deadline => return Err(GrammarError::Busy),
                None if !goes_on() => return Err(GrammarError::Canceled),
                None => thread::sleep(TICK),
            }
        };
        let (sender, receiver) = mpsc::channel();
        let (structure, stop) = (structure.clone(), Arc::new(OnceLock::new()));
        let stopped = stop.clone();
        let work = move || {
            // An abandoned compilation keeps its place until it ends.
            let slot = slot;
            let _ = sender.send(slot.0.build(&structure, &stopped));
        };
        let deadline = Instant::now() + Duration::from_secs(LIMIT_S);
        let thread = thread::Builder::new().name("grammar".into()).stack_size(STACK);
        thread.spawn(work).map_err(|e| GrammarError::structure(format!("no thread to compile the grammar: {e}")))?;
        let late = || {
            GrammarError::structure(format!("the grammar takes longer than {LIMIT_S} s to compile; make it simpler"))
        };
        let built = loop {
            match receiver.recv_timeout(TICK) {
                Ok(grammar) => break grammar,
                Err(RecvTimeoutError::Disconnected) => {
                    break Err(GrammarError::structure("compiling the grammar failed"));
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() > deadline => break Err(late()),
                Err(RecvTimeoutError::Timeout) if !goes_on() => break Err(GrammarError::Canceled),
                Err(RecvTimeoutError::Timeout) => {}
            }
        };
        if let (Err(_), Some(handle)) = (&built, stop.get()) {
            handle.cancel();
        }
        let grammar = built?;
        let bytes = grammar.start.bytes();
        self.shared.cache().insert(key, grammar.clone(), bytes);
        Ok(grammar)
    }
}

impl fmt::Debug for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiler").field("vocab", &self.shared.vocab).finish_non_exhaustive()
    }
}

/// Bounds of work and memory that are counted, so that what is refused does not depend on how busy the machine is. A row of the parser takes
/// the square of its items for time, and an object of `n` properties has rows of up to `3 n` items and masks of `11 n`.
fn limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 3_000,
        step_max_items: 12_000,
        max_lexer_states: 50_000,
        max_grammar_size: 200_000,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// Looks for what would fail soon: walks through the grammar for some tokens, as answers may.
fn walk(start: &Matcher, seed: u64, canceler: &OnceLock<Canceler>) -> Result<(), GrammarError> {
    let (mut matcher, mut random) = (start.another(), seed);
    let (mut mask, first) = (vec![0u32; start.words()], canceler.get());
    let mut choices = 0;
    for _ in 0..4 * WALK {
        if first.is_some_and(Canceler::is_canceled) {
            return Err(GrammarError::Canceled);
        }
        matcher.mask(&mut mask)?;
        let allowed = (0..32 * mask.len() as u32).filter(|token| mask[*token as usize / 32] >> (token % 32) & 1 == 1);
        let allowed: Vec<u32> = allowed.collect();
        // Steps of a linear congruential generator: any will do that goes elsewhere with each token.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        choices += usize::from(allowed.len() > 1);
        let Some(token) = allowed.get((random >> 33) as usize % allowed.len().max(1)) else { break };
        matcher.take(*token)?;
        if matcher.ended() || choices == WALK {
            break;
        }
    }
    Ok(())
}

impl Shared {
    fn cache(&self) -> std::sync::MutexGuard<'_, Cache<Grammar>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Panics of llguidance come as errors. What `stop` is set to ends the work on the first mask.
    fn build(&self, structure: &Structure, stop: &OnceLock<Canceler>) -> Result<Grammar, GrammarError> {
        let json = GrammarWithLexer::from_json_schema;
        let grammar = match structure {
            Structure::Object => json(schema::supported(&json!({ "type": "object" }))?),
            Structure::Schema(schema) => json(schema::supported(schema)?),
            Structure::Regex(regex) if regex.is_empty() => return Err(structure.fault("it is empty")),
            Structure::Regex(regex) if regex.len() > MAX_REGEX => {
                return Err(structure.fault(&format!("it has more than {} KiB", MAX_REGEX >> 10)));
            }
            Structure::Regex(regex) => {
                expression::check(regex, false).map_err(|reason| structure.fault(&reason))?;
                GrammarWithLexer::from_lark(format!("start: /{}/\n", regex_to_lark(regex, "")))
            }
            Structure::Choice(texts) if texts.is_empty() => return Err(structure.fault("there is no text to choose")),
            Structure::Choice(texts) if texts.iter().any(String::is_empty) => {
                return Err(structure.fault("a text is empty"));
            }
            Structure::Choice(texts) if texts.iter().any(|text| text.len() > MAX_REGEX) => {
                return Err(structure.fault(&format!("a text has more than {} KiB", MAX_REGEX >> 10)));
            }
            Structure::Choice(texts) => GrammarWithLexer::from_lark(lark::choice(texts)),
            Structure::Lark(text) => GrammarWithLexer::from_lark(lark::supported(text)?),
        };
        let parser = self.factory.create_parser(TopLevelGrammar::from_grammar(grammar));
        let mut parser = parser.map_err(|error| structure.fault(&reason(&error)))?;
        parser.start_without_prompt();
        // llguidance bounds the number of states with the first mask, and forces a text without bounds before it.
        let computer = parser.bias_computer.clone();
        let first = catch_unwind(AssertUnwindSafe(|| Ok(parser.parser.compute_bias(&*computer, &[]))));
        first.map_err(|error| structure.fault(&reason(&error)))?;
        let mut start = Matcher::new(parser, self.vocab);
        let _ = stop.set(start.canceler());
        // Answers begin with what the first mask takes: a grammar that allows nothing, or takes too much, is found out here.
        let probe = start.mask(&mut vec![0; start.words()]).and_then(|()| match start.bytes() {
            bytes if bytes > MAX_START => Err(GrammarError::Step {
                message: format!("it takes {} MiB, of {} that it may", bytes >> 20, MAX_START >> 20),
            }),
            _ => (1..3).try_for_each(|seed| walk(&start, seed, stop)),
        });
        match probe {
            Ok(()) => Ok(Grammar { start: Arc::new(start) }),
            Err(GrammarError::Step { message }) => Err(structure.fault(&message)),
            Err(error) => Err(error),
        }
    }
}

/// A place among the compilations that run.
struct Slot(Arc<Shared>);

impl Slot {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        let more = |running| (running < AT_ONCE).then_some(running + 1);
        shared.running.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(shared.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_structure_that_came_before_is_not_compiled_again() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/rustbook-5m-4bit");
        let tokenizer = Tokenizer::from_dir(&dir).unwrap();
        let compiler = Compiler::new(&tokenizer, tokenizer.vocab_size(), &[]).unwrap();
        let compile = |structure: &Structure| compiler.compile(structure, &mut || true).unwrap();
        let (first, again) = (compile(&Structure::Object), compile(&Structure::Schema(json!({ "type": "object" }))));
        assert!(!Arc::ptr_eq(&first.start, &again.start), "another structure");
        assert!(Arc::ptr_eq(&first.start, &compile(&Structure::Object).start));
    }
}
