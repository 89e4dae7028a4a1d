//! A load's requests, one by one, before any of them is asked.

use super::{Load, Random};
use crate::error::BenchError;
use std::time::Duration;

/// Streams of random numbers: a change of one setting leaves what the others decide as it is.
const LENGTHS: u64 = 1;
const ARRIVALS: u64 = 2;

/// Requests of a load, which follow from its settings alone.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub load: Load,
    pub conversations: Vec<Conversation>,
    /// Requests whose prompt or answer was drawn longer than the context has room for, and cut.
    pub cut: usize,
}

/// Requests that follow each other: one, or the turns of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Conversation {
    /// Arrival of the first one after the beginning of the run; `None` in a closed loop. The others arrive when the one before is answered.
    pub at: Option<Duration>,
    pub turns: Vec<Turn>,
}

/// Size of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    /// New tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the answer.
    pub max_tokens: usize,
}

impl Plan {
    /// Plans a load for a context of `room` tokens, where it is known.
    ///
    /// # Errors
    /// The load is out of range, or does not fit the context. Lengths of a distribution with a tail are cut instead.
    pub(crate) fn of(load: &Load, room: Option<usize>) -> Result<Self, BenchError> {
        load.check_range()?;
        let share = room.map(|room| share(load, room)).transpose()?;
        let (mut lengths, mut arrivals) = (Random::new(load.seed, LENGTHS), Random::new(load.seed, ARRIVALS));
        let (mut at, mut cut, mut left) = (0.0, 0, load.questions);
        let mut conversations = Vec::with_capacity(left.div_ceil(load.turns()));
        while left > 0 {
            let mut turns = Vec::with_capacity(load.turns().min(left));
            for _ in 0..load.turns().min(left) {
                let drawn = Turn {
                    prompt_tokens: load.prompt_tokens.draw(&mut lengths),
                    max_tokens: load.max_tokens.draw(&mut lengths),
                };
                let turn = share.map_or(drawn, |share| drawn.within(share, load));
                cut += usize::from(turn != drawn);
                turns.push(turn);
            }
            left -= turns.len();
            let gap = load.rate.map(|rate| arrivals.exponential() * load.turns() as f64 / rate);
            at += gap.unwrap_or_default();
            conversations.push(Conversation { at: gap.map(|_| Duration::from_secs_f64(at)), turns });
        }
        Ok(Self { load: *load, conversations, cut })
    }
}

impl Turn {
    /// The same if prompt and answer fit into `share` tokens; the longest that do otherwise.
    fn within(self, share: usize, load: &Load) -> Self {
        let answer = load.max_tokens.longest().unwrap_or(1);
        let prompt_tokens = self.prompt_tokens.min(share - answer);
        Self { prompt_tokens, max_tokens: self.max_tokens.min(share - prompt_tokens) }
    }
}

/// Tokens that a turn has of a context of `room`.
fn share(load: &Load, room: usize) -> Result<usize, BenchError> {
    let (turns, prefix) = (load.turns(), load.prefix_tokens());
    let share = room.saturating_sub(prefix) / turns;
    let least = load.prompt_tokens.longest().unwrap_or(1) + load.max_tokens.longest().unwrap_or(1);
    if least <= share {
        return Ok(share);
    }
    let (prompt, answer) = (load.prompt_tokens, load.max_tokens);
    let what = match (prefix, turns) {
        (0, 1) => format!("a prompt of {prompt} and an answer of {answer} tokens do"),
        (0, turns) => format!("{turns} turns with a prompt of {prompt} and an answer of {answer} tokens each do"),
        (prefix, _) => format!("a first part of {prefix}, a prompt of {prompt} and an answer of {answer} tokens do"),
    };
    Err(BenchError::setting("prompt_tokens", format!("{what} not fit this model's context of {room}")))
}

#[cfg(test)]
mod tests {
    use super::super::{Length, Shape};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn arrivals_have_the_mean_gap_of_their_rate_and_vary_as_much() {
        let plan = Plan::of(&Load { rate: Some(50.0), questions: 20_000, ..Load::default() }, None).unwrap();
        let at: Vec<f64> = plan.conversations.iter().map(|c| c.at.unwrap().as_secs_f64()).collect();
        let gaps: Vec<f64> = at.windows(2).map(|w| w[1] - w[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean * 50.0 - 1.0).abs() < 0.02, "{mean}");
        // As much as its mean: that is what exponential is.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.03, "{}", variance.sqrt() / mean);
    }

    #[test]
    fn a_rate_counts_requests_of_conversations_too() {
        let chat = Shape::Chat { turns: 4 };
        let plan = Plan::of(&Load { rate: Some(8.0), questions: 8000, shape: chat, ..Load::default() }, None).unwrap();
        let end = plan.conversations.last().unwrap().at.unwrap().as_secs_f64();
        assert!((end / 1000.0 - 1.0).abs() < 0.1, "8000 requests, 8 a second, took {end} s to arrive");
    }

    #[test]
    fn the_last_conversation_is_as_long_as_there_are_requests_left() {
        let load = Load { questions: 7, shape: Shape::Chat { turns: 3 }, ..Load::default() };
        let turns: Vec<usize> = Plan::of(&load, None).unwrap().conversations.iter().map(|c| c.turns.len()).collect();
        assert_eq!(turns, [3, 3, 1]);
    }

    #[test]
    fn a_rate_leaves_lengths_as_they_are() {
        let closed = Load { prompt_tokens: Length::Uniform(1, 99), ..Load::default() };
        let open = Load { rate: Some(9.0), ..closed };
        let turns =
            |load: &Load| Plan::of(load, None).unwrap().conversations.into_iter().map(|c| c.turns).collect::<Vec<_>>();
        assert_eq!(turns(&closed), turns(&open));
    }

    #[test]
    fn lengths_that_never_fit_are_refused_and_a_tail_is_cut_and_counted() {
        let room = Some(100);
        for (load, says) in [
            (
                Load::fixed(1, 90, 11, 1),
                "a prompt of 90 and an answer of 11 tokens do not fit this model's context of 100",
            ),
            (Load { shape: Shape::Chat { turns: 2 }, ..Load::fixed(4, 40, 11, 1) }, "2 turns"),
            (
                Load { shape: Shape::SharedPrefix { prefix_tokens: 60 }, ..Load::fixed(4, 40, 11, 1) },
                "first part of 60",
            ),
            (Load { max_tokens: Length::Uniform(1, 100), ..Load::default() }, "1..100"),
            (
                Load {
                    shape: Shape::Chat { turns: 90 },
                    prompt_tokens: Length::Normal(1.0, 0.0),
                    ..Load::fixed(4, 1, 1, 1)
                },
                "90 turns",
            ),
        ] {
            let error = Plan::of(&load, room).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert_eq!(Plan::of(&Load::fixed(5, 89, 11, 1), room).unwrap().cut, 0);
        let tailed = Load { prompt_tokens: Length::Normal(80.0, 20.0), ..Load::fixed(100, 1, 16, 1) };
        let cut = Plan::of(&tailed, room).unwrap().cut;
        assert!((20..60).contains(&cut), "{cut} of 100 lengths with a median of 80 and room for 84");
    }

    proptest! {
        #[test]
        fn plans_follow_from_the_settings_and_fit_the_room(
            questions in 1usize..200, seed: u64, turns in 1usize..5, prompt in 1usize..40, rate in 0.5f64..1e4, is_open: bool,
        ) {
            let load = Load {
                questions,
                prompt_tokens: Length::LogNormal(prompt as f64, 1.0),
                max_tokens: Length::Normal(8.0, 30.0),
                concurrency: 3,
                rate: is_open.then_some(rate),
                shape: Shape::Chat { turns },
                seed,
            };
            let plan = Plan::of(&load, Some(256)).unwrap();
            prop_assert_eq!(&plan, &Plan::of(&load, Some(256)).unwrap());
            prop_assert_eq!(plan.conversations.iter().map(|c| c.turns.len()).sum::<usize>(), questions);
            for conversation in &plan.conversations {
                let tokens: usize = conversation.turns.iter().map(|t| t.prompt_tokens + t.max_tokens).sum();
                prop_assert!(tokens <= 256 && conversation.turns.iter().all(|t| t.prompt_tokens > 0 && t.max_tokens > 0));
                prop_assert_eq!(conversation.at.is_some(), is_open);
            }
            prop_assert!(plan.conversations.windows(2).all(|w| w[0].at <= w[1].at));
        }
    }
}
