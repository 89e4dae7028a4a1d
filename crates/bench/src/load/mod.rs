//! Loads: what is asked, when, and how much at a time.

mod length;
mod plan;
mod random;

pub use length::Length;
pub(crate) use plan::{Conversation, Plan};
pub(crate) use random::Random;

use crate::error::{BenchError, check_range};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(into = "LoadFields", try_from = "LoadFields")]
pub struct Load {
    /// Requests.
    pub questions: usize,
    /// New tokens of each prompt: a common first part and earlier turns come on top.
    pub prompt_tokens: Length,
    /// Tokens of each answer.
    pub max_tokens: Length,
    /// Requests at a time; in an open loop, the most of them.
    pub concurrency: usize,
    /// Requests a second, which arrive at random whether earlier ones are answered or not: an open loop. `None` asks the next one when one
    /// is answered: a closed loop.
    pub rate: Option<f64>,
    /// Relation of the prompts to each other.
    pub shape: Shape,
    /// Seed of prompts, lengths and arrivals.
    pub seed: u64,
}

/// Relation of the prompts of a load to each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Shape {
    /// Independent.
    #[default]
    Questions,
    /// All begin with the same tokens.
    SharedPrefix {
        /// The number of them.
        prefix_tokens: usize,
    },
    /// Conversations. Each turn's prompt is all that was said before, the answers that were really given among it, and new tokens.
    Chat {
        /// Requests of a conversation.
        turns: usize,
    },
}

/// A load as command lines and JSON have it. What is left out has its default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoadFields {
    /// See [`Load::questions`].
    pub questions: Option<usize>,
    /// See [`Load::prompt_tokens`].
    pub prompt_tokens: Option<Length>,
    /// See [`Load::max_tokens`].
    pub max_tokens: Option<Length>,
    /// See [`Load::concurrency`].
    pub concurrency: Option<usize>,
    /// See [`Load::rate`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// `questions`, `shared-prefix` or `chat`.
    pub load: Option<String>,
    /// See [`Shape::SharedPrefix`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix_tokens: Option<usize>,
    /// See [`Shape::Chat`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turns: Option<usize>,
    /// See [`Load::seed`].
    pub seed: Option<u64>,
}

impl Default for Load {
    fn default() -> Self {
        Self::fixed(16, 128, 64, 1)
    }
}

impl Load {
    /// The most requests.
    pub const MAX_QUESTIONS: usize = 1_000_000;
    /// The most tokens of a prompt, of an answer, and of a common first part.
    pub const MAX_TOKENS: usize = Length::MAX;
    /// The most requests at a time.
    pub const MAX_CONCURRENCY: usize = 4096;
    /// The most requests a second.
    pub const MAX_RATE: f64 = 100_000.0;
    /// The fewest requests a second.
    pub const MIN_RATE: f64 = 0.001;
    /// The most turns of a conversation.
    pub const MAX_TURNS: usize = 1000;
    /// Requests in flight at most where a rate is given and nothing else.
    pub const OPEN_CONCURRENCY: usize = 256;

    /// A closed loop of independent prompts, all prompts and all answers of one length.
    pub fn fixed(questions: usize, prompt_tokens: usize, max_tokens: usize, concurrency: usize) -> Self {
        Self {
            questions,
            prompt_tokens: prompt_tokens.into(),
            max_tokens: max_tokens.into(),
            concurrency,
            rate: None,
            shape: Shape::Questions,
            seed: 0,
        }
    }

    /// Refuses a load that is empty or larger than any can be.
    pub(crate) fn check_range(&self) -> Result<(), BenchError> {
        check_range("questions", self.questions, Self::MAX_QUESTIONS)?;
        self.prompt_tokens.check("prompt_tokens")?;
        self.max_tokens.check("max_tokens")?;
        check_range("concurrency", self.concurrency, Self::MAX_CONCURRENCY)?;
        let (least, most) = (Self::MIN_RATE, Self::MAX_RATE);
        if let Some(rate) = self.rate.filter(|rate| !(least..=most).contains(rate)) {
            return Err(BenchError::setting("rate", format!("{rate} is out of range; it takes {least} to {most}")));
        }
        match self.shape {
            Shape::Questions => Ok(()),
            Shape::SharedPrefix { prefix_tokens } => check_range("prefix_tokens", prefix_tokens, Self::MAX_TOKENS),
            Shape::Chat { turns } => check_range("turns", turns, Self::MAX_TURNS),
        }
    }

    /// Tokens that all prompts begin with.
    pub(crate) fn prefix_tokens(&self) -> usize {
        match self.shape {
            Shape::SharedPrefix { prefix_tokens } => prefix_tokens,
            Shape::Questions | Shape::Chat { .. } => 0,
        }
    }

    /// Requests of a conversation.
    pub(crate) fn turns(&self) -> usize {
        match self.shape {
            Shape::Chat { turns } => turns,
            Shape::Questions | Shape::SharedPrefix { .. } => 1,
        }
    }
}

impl Shape {
    /// Names of all.
    pub const NAMES: [&'static str; 3] = ["questions", "shared-prefix", "chat"];
    /// Tokens of a common first part where none are given.
    pub const PREFIX_TOKENS: usize = 512;
    /// Requests of a conversation where none are given.
    pub const TURNS: usize = 4;

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Shape::Questions => Self::NAMES[0],
            Shape::SharedPrefix { .. } => Self::NAMES[1],
            Shape::Chat { .. } => Self::NAMES[2],
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Load> for LoadFields {
    fn from(load: Load) -> Self {
        Self {
            questions: Some(load.questions),
            prompt_tokens: Some(load.prompt_tokens),
            max_tokens: Some(load.max_tokens),
            concurrency: Some(load.concurrency),
            rate: load.rate,
            load: Some(load.shape.name().to_owned()),
            prefix_tokens: matches!(load.shape, Shape::SharedPrefix { .. }).then(|| load.prefix_tokens()),
            turns: matches!(load.shape, Shape::Chat { .. }).then(|| load.turns()),
            seed: Some(load.seed),
        }
    }
}

impl TryFrom<LoadFields> for Load {
    type Error = BenchError;

    fn try_from(fields: LoadFields) -> Result<Self, BenchError> {
        let default = Load::default();
        let [questions, shared, chat] = Shape::NAMES;
        let name = fields.load.as_deref().unwrap_or(questions);
        let shape = match name {
            name if name == questions => Shape::Questions,
            name if name == shared => {
                Shape::SharedPrefix { prefix_tokens: fields.prefix_tokens.unwrap_or(Shape::PREFIX_TOKENS) }
            }
            name if name == chat => Shape::Chat { turns: fields.turns.unwrap_or(Shape::TURNS) },
            other => {
                let takes = format!("{other:?} is none; it takes {}", Shape::NAMES.join(", "));
                return Err(BenchError::setting("load", takes));
            }
        };
        for (key, is_given, only) in
            [("prefix_tokens", fields.prefix_tokens.is_some(), shared), ("turns", fields.turns.is_some(), chat)]
        {
            if is_given && name != only {
                return Err(BenchError::setting(key, format!("it belongs to the load {only}, and this one is {name}")));
            }
        }
        let at_a_time = if fields.rate.is_some() { Self::OPEN_CONCURRENCY } else { default.concurrency };
        let load = Self {
            questions: fields.questions.unwrap_or(default.questions),
            prompt_tokens: fields.prompt_tokens.unwrap_or(default.prompt_tokens),
            max_tokens: fields.max_tokens.unwrap_or(default.max_tokens),
            concurrency: fields.concurrency.unwrap_or(at_a_time),
            rate: fields.rate,
            shape,
            seed: fields.seed.unwrap_or(default.seed),
        };
        load.check_range()?;
        Ok(load)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_load_is_read_from_json_and_what_is_left_out_has_its_default() {
        let load = |value| serde_json::from_value::<Load>(value);
        assert_eq!(load(json!({})).unwrap(), Load::default());
        let open = load(json!({ "rate": 3.5, "prompt_tokens": "4..9", "load": "chat" })).unwrap();
        assert_eq!((open.concurrency, open.shape), (256, Shape::Chat { turns: 4 }));
        assert_eq!(load(serde_json::to_value(open).unwrap()).unwrap(), open);
        let shared = load(json!({ "load": "shared-prefix", "prefix_tokens": 9, "concurrency": 2 })).unwrap();
        assert_eq!((shared.prefix_tokens(), shared.concurrency), (9, 2));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (bad, name) in [
            (json!({ "rate": 0 }), "rate"),
            (json!({ "rate": 1e9 }), "rate"),
            (json!({ "load": "poem" }), "load"),
            (json!({ "turns": 3 }), "turns"),
            (json!({ "load": "chat", "turns": 0 }), "turns"),
            (json!({ "load": "chat", "prefix_tokens": 3 }), "prefix_tokens"),
            (json!({ "prompt_tokens": 0 }), "prompt_tokens"),
            (json!({ "max_tokens": "9..3" }), "max_tokens"),
            (json!({ "concurrency": 4097 }), "concurrency"),
            (json!({ "questions": 0 }), "questions"),
            (json!({ "question": 1 }), "question"),
        ] {
            let error = serde_json::from_value::<Load>(bad.clone()).unwrap_err().to_string();
            assert!(error.contains(name), "{bad}: {error}");
        }
    }
}
