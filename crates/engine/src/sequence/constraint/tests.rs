use super::*;
use crate::sequence::tests::makers;
use proptest::prelude::*;

const PROMPT: usize = 5;
const START: u32 = 1;
const SPACE: u32 = 2;
const END: u32 = 50;
const ENDED: u32 = 51;
const THOUGHT: u32 = 10;
const WORD: u32 = 20;

/// A model that reasons, from the beginning or by a token of its own, and ends after so many tokens if nobody ends it before.
#[derive(Debug, Clone)]
struct Thinker {
    opened: bool,
    opens: bool,
    /// It writes white space before it begins.
    spaces: bool,
    thoughts: usize,
}

impl Thinker {
    fn reasons(&self, answer: &[u32]) -> bool {
        let opens = self.opened || answer.iter().find(|token| **token != SPACE) == Some(&START);
        opens && !answer.contains(&ENDED)
    }

    fn next(&self, answer: &[u32]) -> u32 {
        let thoughts = answer.iter().filter(|token| **token == THOUGHT).count();
        match (answer.last(), self.reasons(answer)) {
            (None, false) if self.spaces => SPACE,
            (None | Some(&SPACE), false) if self.opens => START,
            (Some(&END), true) => ENDED,
            (_, true) if thoughts == self.thoughts => END,
            (_, true) => THOUGHT,
            (_, false) => WORD,
        }
    }
}

fn opening(start: &[u32]) -> Opening {
    let text = |token| match token {
        START => b"<think>".to_vec(),
        SPACE => b"\n".to_vec(),
        _ => b"w".to_vec(),
    };
    let marker = b"<think>".to_vec();
    Opening { marker, anywhere: false, start: start.to_vec(), spaces: vec![SPACE], text: Rc::new(text) }
}

fn constraint(thinker: &Thinker, budget: usize, appends: bool) -> Constraint {
    let mut constraint = Constraint {
        rules: None,
        makers: makers(),
        prompt: PROMPT,
        avoid: None,
        ends: None,
        opening: opening(if thinker.opened { &[] } else { &[START] }),
        fresh: true,
        fresh_from: PROMPT,
        budget: Some(budget),
        ending: false,
        end_of_reasoning: vec![END, ENDED],
        begins: (!thinker.opened).then_some(PROMPT),
        matcher: None,
        taken: 0,
        orders: VecDeque::new(),
        forced: VecDeque::new(),
        appends,
    };
    constraint.spend(0, &[]);
    constraint
}

/// The answer's first tokens with so many steps in flight.
fn answer(thinker: &Thinker, budget: usize, appends: bool, depth: usize) -> Vec<u32> {
    let (mut constraint, mut tokens, mut pending) = (constraint(thinker, budget, appends), vec![0; PROMPT], 0);
    while tokens.len() < PROMPT + 24 {
        while pending < depth && !constraint.holds(pending) {
            pending += 1;
        }
        pending = usize::checked_sub(pending, 1).expect("a sequence joins a step or waits for one");
        let forced = constraint.forced.front().filter(|_| constraint.begins.is_none()).copied();
        let token = forced.unwrap_or_else(|| thinker.next(&tokens[PROMPT..]));
        constraint.receive(Made::default(), tokens.len(), token);
        tokens.push(token);
        constraint.note(&tokens, thinker.reasons(&tokens[PROMPT..]));
        while pending == 0
            && let Some(token) = constraint.forced()
        {
            tokens.push(token);
            constraint.note(&tokens, thinker.reasons(&tokens[PROMPT..]));
        }
    }
    tokens[PROMPT..PROMPT + 24].to_vec()
}

proptest! {
    /// Compares with reasoning that is ended by hand: how far steps run ahead, and whether tokens are appended or sampled, changes nothing.
    #[test]
    fn reasoning_ends_at_its_budget_or_before(
        opened: bool, opens: bool, spaces: bool, thoughts in 0usize..12, budget in 0usize..12, appends: bool, depth in 1usize..5,
    ) {
        let thinker = Thinker { opened, opens, spaces, thoughts };
        let ended = answer(&Thinker { thoughts: thoughts.min(budget), ..thinker.clone() }, 1000, true, 1);
        prop_assert_eq!(answer(&thinker, budget, appends, depth), ended);
    }
}

#[test]
fn a_sequence_waits_for_its_steps_where_two_tokens_or_more_must_come_behind_them() {
    let mut constraint = constraint(&Thinker { opened: false, opens: false, spaces: false, thoughts: 0 }, 9, true);
    constraint.forced = VecDeque::from([3, 4, 5]);
    let holds = |c: &Constraint| [0, 1, 2, 3].map(|pending| c.holds(pending));
    assert_eq!(holds(&constraint), [false, true, false, false]);
    constraint.appends = false;
    assert_eq!((holds(&constraint), constraint.forced()), ([false; 4], None));
}

#[test]
fn masks_of_reasoning_allow_everything_or_one_token() {
    assert_eq!(mask_of(None, &[], 2), [u32::MAX; 2]);
    assert_eq!(mask_of(None, &[0, 33, 64], 2), [u32::MAX - 1, u32::MAX - 2], "an answer does not end before its rules");
    assert_eq!(mask_of(Some(33), &[33], 2), [0, 2]);
    assert_eq!(mask_of(Some(64), &[], 2), [0, 0], "outside of the vocabulary");
}
