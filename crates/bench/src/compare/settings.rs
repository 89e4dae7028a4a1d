//! Settings of a comparison.

use super::LoadKind;
use crate::error::BenchError;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Settings of [`super::compare`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Compare {
    /// Optimizations: `all`, or names separated by commas.
    pub optimizations: String,
    /// Repetitions of every arm; at least 5 for intervals that mean something, and from 8 on outliers do not widen them.
    pub repetitions: usize,
    /// The load.
    pub load: LoadKind,
    /// Requests of a run; of [`LoadKind::Questions`], and [`Self::QUESTIONS`] if it is not given.
    pub questions: Option<usize>,
    /// Tokens of each prompt; of a conversation, those that a turn adds.
    pub prompt_tokens: usize,
    /// Tokens of each answer.
    pub max_tokens: usize,
    /// Requests at a time.
    pub concurrency: usize,
    /// Tokens of the prompt whose cached prefix is evicted and asked for again; of [`LoadKind::Questions`], and
    /// [`Self::PREFIX_TOKENS`] if it is not given.
    pub prefix_tokens: Option<usize>,
    /// Conversations of a run; of [`LoadKind::Conversations`], and [`Self::CONVERSATIONS`], or more if those fit into the KV cache, if it is
    /// not given.
    pub conversations: Option<usize>,
    /// Turns of a conversation; of [`LoadKind::Conversations`], and [`Self::TURNS`] if it is not given.
    pub turns: Option<usize>,
    /// File of an earlier result, with which the plain arm is compared.
    pub baseline: Option<PathBuf>,
    /// Percent of throughput that may be lost, of plain's against the baseline's and of an optimization's against plain's.
    pub max_regression: Option<f64>,
    /// The command line, word by word, for the record.
    pub command: Vec<String>,
}

impl Default for Compare {
    fn default() -> Self {
        Self {
            optimizations: "all".into(),
            repetitions: 11,
            load: LoadKind::Questions,
            questions: None,
            prompt_tokens: 128,
            max_tokens: 64,
            concurrency: 1,
            prefix_tokens: None,
            conversations: None,
            turns: None,
            baseline: None,
            max_regression: None,
            command: Vec::new(),
        }
    }
}

impl Compare {
    /// The most repetitions.
    pub const MAX_REPETITIONS: usize = 1000;
    /// The most turns of a conversation.
    pub const MAX_TURNS: usize = 1000;
    /// Requests of a run that are asked if nothing is said.
    pub const QUESTIONS: usize = 32;
    /// Tokens of the evicted prompt if nothing is said.
    pub const PREFIX_TOKENS: usize = 512;
    /// Conversations of a run if nothing is said.
    pub const CONVERSATIONS: usize = 16;
    /// Turns of a conversation if nothing is said.
    pub const TURNS: usize = 4;

    pub(super) fn check_max_regression(&self) -> Result<(), BenchError> {
        match self.max_regression {
            Some(percent) if !(0.0..=100.0).contains(&percent) => Err(BenchError::setting(
                "max_regression",
                format!("{percent} is out of range; it takes 0 to 100, percent"),
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_are_read_from_json_and_a_key_that_is_not_there_has_its_default() {
        let settings: Compare = serde_json::from_value(json!({ "questions": 3, "load": "questions" })).unwrap();
        assert_eq!(settings, Compare { questions: Some(3), ..Compare::default() });
        assert!(serde_json::from_value::<Compare>(json!({ "question": 3 })).is_err());
        assert!(serde_json::from_value::<Compare>(json!({ "questions": -1 })).is_err());
        assert!(serde_json::from_value::<Compare>(json!({ "load": "poem" })).is_err());
    }

    #[test]
    fn a_limit_is_a_percentage() {
        let check = |percent| Compare { max_regression: Some(percent), ..Compare::default() }.check_max_regression();
        for good in [0.0, 5.0, 100.0] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [-1.0, 100.5, f64::NAN, f64::INFINITY] {
            assert!(matches!(check(bad), Err(BenchError::Setting { name: "max_regression", .. })), "{bad}");
        }
    }
}
