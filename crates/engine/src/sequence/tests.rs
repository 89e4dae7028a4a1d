use super::*;
use crate::events::{Backlog, Receiver, UnreadLimits};
use crate::metrics::{GrammarMetrics, Metrics};
use crate::request::{Event, Logprobs};
use crate::schedule::plan::Results;
use mlx_serving_text::StopMatcher;
use std::path::Path;
use std::sync::LazyLock;
use std::task::{Poll, Waker};

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/rustbook-5m-4bit");
    Tokenizer::from_dir(&folder).unwrap()
});

/// A sequence that only its length ends, and who reads its answer.
pub(crate) fn sequence(id: u64, prompt: Vec<u32>, answer: usize) -> (Sequence, Receiver) {
    from_request(id, Request { prompt, max_tokens: Some(answer), ignore_eos: true, ..Request::default() })
}

/// A sequence of this request.
pub(crate) fn from_request(id: u64, request: Request) -> (Sequence, Receiver) {
    let backlog = Backlog::new(UnreadLimits { stream: usize::MAX, all: usize::MAX }, Waker::noop().clone());
    let (events, receiver) = backlog.open();
    let stops = StopMatcher::new(&request.stop).unwrap();
    let arrival = Arrival { rules: None, request, stops, events, live: Live::uncounted(), at: Instant::now() };
    let terms =
        Terms { tokenizer: TOKENIZER.clone(), eos: Arc::new([]), max_context: 4096, width: 2, makers: makers() };
    (Sequence::new(id, arrival, &terms), receiver)
}

/// Threads that make masks, none of which runs yet.
pub(crate) fn makers() -> Rc<Makers> {
    Rc::new(Makers::new(1, GrammarMetrics::default()))
}

impl Sequence {
    /// Tokens of prompt and answer that are known.
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }
}

/// Events that have been sent and not read yet.
pub(crate) fn unread(receiver: &mut Receiver) -> Vec<Event> {
    std::iter::from_fn(|| match receiver.next_until(Some(Instant::now())) {
        Poll::Ready(event) => event,
        Poll::Pending => None,
    })
    .collect()
}

/// The log-probability of a token that a test does not look at.
pub(crate) fn some_logprobs() -> Logprobs {
    Logprobs { chosen: -1.0, top: Vec::new() }
}

#[test]
fn steps_may_run_ahead_as_far_as_nothing_depends_on_them() {
    let request = || Request { prompt: vec![1, 2], ignore_eos: true, ..Request::default() };
    for (request, expected) in [
        (request(), usize::MAX),
        (Request { ignore_eos: false, ..request() }, 1),
        (Request { stop: vec!["x".into()], ..request() }, 1),
        (Request { logprobs: Some(0), ..request() }, 0),
        (Request { prompt_logprobs: Some(0), stop: vec!["x".into()], ..request() }, 0),
    ] {
        assert_eq!(from_request(1, request).0.lookahead(), expected);
    }
}

#[test]
fn a_prompt_that_was_told_lets_steps_run_ahead_again() {
    let request = Request { prompt: vec![1, 2, 3], prompt_logprobs: Some(0), ignore_eos: true, ..Request::default() };
    let (mut sequence, mut receiver) = from_request(1, request);
    let results = Results { scores: vec![some_logprobs(), some_logprobs()], ..Results::default() };
    assert_eq!(sequence.receive(Ok(results), false, 3, true, &Metrics::new(64)).unwrap(), None);
    assert_eq!(sequence.lookahead(), usize::MAX);
    match &unread(&mut receiver)[..] {
        [Event::Prompt(told)] => {
            assert_eq!(
                told.iter().map(|t| (t.id, t.logprobs.is_some())).collect::<Vec<_>>(),
                [(1, false), (2, true), (3, true)]
            );
        }
        other => panic!("{other:?}"),
    }
}
