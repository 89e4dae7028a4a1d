//! The loads that each engine is put under, and the settings that make them.

use super::Compare;
use crate::error::{BenchError, check_range};
use crate::load::Load;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The most that `engine.kv_cache_tokens` may be.
const MAX_KV_TOKENS: usize = 16_777_216;
/// The most tokens of all conversations together: they are kept, 4 bytes a token.
const MAX_TALK_TOKENS: usize = 1 << 28;
/// Tokens of a block of the KV cache: what is shorter is not found again.
const BLOCK_TOKENS: usize = 16;

/// A load by its name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadKind {
    /// Prompts that have nothing in common, then one whose blocks were evicted.
    #[default]
    Questions,
    /// Conversations of several turns, more of them than the KV cache holds.
    Conversations,
}

impl LoadKind {
    /// Its name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            LoadKind::Questions => "questions",
            LoadKind::Conversations => "conversations",
        }
    }
}

/// Load that each engine is put under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Questions(Questions),
    Conversations(Conversations),
}

/// Prompts that have nothing in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Questions {
    pub questions: usize,
    pub prompt_tokens: usize,
    pub max_tokens: usize,
    pub concurrency: usize,
    /// Tokens of the prompt whose cached blocks are evicted and then wanted again.
    pub prefix_tokens: usize,
}

/// Conversations, of which each has its next turn once all others have had theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Conversations {
    pub conversations: usize,
    pub turns: usize,
    /// Tokens that a turn adds to what was said.
    pub prompt_tokens: usize,
    pub max_tokens: usize,
    pub concurrency: usize,
}

impl Compare {
    /// The load, checked as far as it can be without a model.
    pub(super) fn asked(&self) -> Result<Asked, BenchError> {
        self.refuse_settings_of_another_load()?;
        let &Self { prompt_tokens, max_tokens, concurrency, .. } = self;
        check_range("prompt_tokens", prompt_tokens, Load::MAX_TOKENS)?;
        check_range("max_tokens", max_tokens, Load::MAX_TOKENS)?;
        check_range("concurrency", concurrency, Load::MAX_CONCURRENCY)?;
        let asked = match self.load {
            LoadKind::Questions => {
                let questions = self.questions.unwrap_or(Self::QUESTIONS);
                let prefix_tokens = self.prefix_tokens.unwrap_or(Self::PREFIX_TOKENS);
                check_range("questions", questions, Load::MAX_QUESTIONS)?;
                check_range("prefix_tokens", prefix_tokens, Load::MAX_TOKENS)?;
                Asked::Questions(Questions { questions, prompt_tokens, max_tokens, concurrency, prefix_tokens })
            }
            LoadKind::Conversations => Asked::Conversations(self.conversations()?),
        };
        if asked.kv_tokens() > MAX_KV_TOKENS {
            let reason = format!(
                "{concurrency} times {} tokens asks for a KV cache of {} tokens, and the most is {MAX_KV_TOKENS}",
                asked.longest(),
                asked.kv_tokens()
            );
            return Err(BenchError::setting("concurrency", reason));
        }
        Ok(asked)
    }

    fn refuse_settings_of_another_load(&self) -> Result<(), BenchError> {
        let (other, settings) = match self.load {
            LoadKind::Questions => {
                (LoadKind::Conversations, [("conversations", self.conversations), ("turns", self.turns)])
            }
            LoadKind::Conversations => {
                (LoadKind::Questions, [("questions", self.questions), ("prefix_tokens", self.prefix_tokens)])
            }
        };
        match settings.iter().find(|(_, value)| value.is_some()) {
            None => Ok(()),
            Some((name, _)) => {
                let (other, own) = (other.name(), self.load.name());
                Err(BenchError::setting(name, format!("it belongs to the load {other}, and this one is {own}")))
            }
        }
    }

    fn conversations(&self) -> Result<Conversations, BenchError> {
        let &Self { prompt_tokens, max_tokens, concurrency, .. } = self;
        let turns = self.turns.unwrap_or(Self::TURNS);
        if !(2..=Self::MAX_TURNS).contains(&turns) {
            let reason =
                format!("{turns} is out of range; it takes 2 to {}: the first turn has no prefix", Self::MAX_TURNS);
            return Err(BenchError::setting("turns", reason));
        }
        if prompt_tokens + max_tokens <= BLOCK_TOKENS {
            let reason = format!(
                "with answers of {max_tokens} tokens a turn must have more than {BLOCK_TOKENS}, or nothing is cached of it"
            );
            return Err(BenchError::setting("prompt_tokens", reason));
        }
        let shape = Conversations { conversations: 1, turns, prompt_tokens, max_tokens, concurrency };
        let least = shape.least();
        let conversations = self.conversations.unwrap_or(least.max(Self::CONVERSATIONS));
        check_range("conversations", conversations, Load::MAX_QUESTIONS)?;
        if conversations < least {
            let reason = format!(
                "{conversations} of {turns} turns fit into the KV cache that {concurrency} at a time need, so that nothing would be evicted; \
                 give at least {least}"
            );
            return Err(BenchError::setting("conversations", reason));
        }
        if conversations.saturating_mul(shape.longest()) > MAX_TALK_TOKENS {
            let reason =
                format!("{conversations} of up to {} tokens are more than {MAX_TALK_TOKENS} tokens", shape.longest());
            return Err(BenchError::setting("conversations", reason));
        }
        Ok(Conversations { conversations, ..shape })
    }
}

impl Asked {
    pub(crate) fn kind(&self) -> LoadKind {
        match self {
            Asked::Questions(_) => LoadKind::Questions,
            Asked::Conversations(_) => LoadKind::Conversations,
        }
    }

    /// Tokens that the KV cache holds: little enough that what is asked evicts what was asked before.
    pub(crate) fn kv_tokens(&self) -> usize {
        match self {
            Asked::Questions(q) => {
                (q.concurrency * (q.prompt_tokens + q.max_tokens) + 64).max(q.prefix_tokens + 64).max(256)
            }
            Asked::Conversations(c) => c.kv_tokens(),
        }
    }

    /// Tokens of the longest prompt with its answer.
    pub(crate) fn longest(&self) -> usize {
        match self {
            Asked::Questions(q) => (q.prompt_tokens + q.max_tokens).max(q.prefix_tokens + 2),
            Asked::Conversations(c) => c.longest(),
        }
    }

    /// Tokens of a prompt of the load, and requests at a time.
    pub(crate) fn size(&self) -> (usize, usize) {
        match self {
            Asked::Questions(q) => (q.prompt_tokens, q.concurrency),
            Asked::Conversations(c) => (c.prompt_tokens, c.concurrency),
        }
    }

    /// Requests of a run that are measured.
    pub(crate) fn requests(&self) -> usize {
        match self {
            Asked::Questions(q) => q.questions,
            Asked::Conversations(c) => c.conversations * (c.turns - 1),
        }
    }

    /// Refuses a load that a model's context has no room for.
    pub(crate) fn check_room(&self, room: usize) -> Result<(), BenchError> {
        if self.longest() <= room {
            return Ok(());
        }
        let does_not_fit = |name, what: String| {
            Err(BenchError::setting(name, format!("{what}, and this model's context holds {room} tokens")))
        };
        match self {
            Asked::Questions(q) if q.prefix_tokens + 2 > room => does_not_fit(
                "prefix_tokens",
                format!("a prompt of {} tokens and its answer are asked for", q.prefix_tokens),
            ),
            Asked::Questions(q) => does_not_fit(
                "prompt_tokens",
                format!("a prompt of {} and an answer of {} tokens are asked for", q.prompt_tokens, q.max_tokens),
            ),
            Asked::Conversations(c) => does_not_fit(
                "turns",
                format!("{} turns of {} and {} tokens are asked for", c.turns, c.prompt_tokens, c.max_tokens),
            ),
        }
    }

    /// The load in words.
    pub(crate) fn words(&self) -> String {
        match self {
            Asked::Questions(q) => format!(
                "{} {} of {} prompt and {} answer tokens, {} at a time; then a prompt of {} tokens whose blocks were evicted",
                q.questions,
                if q.questions == 1 { "request" } else { "requests" },
                q.prompt_tokens,
                q.max_tokens,
                q.concurrency,
                q.prefix_tokens
            ),
            Asked::Conversations(c) => format!(
                "{} conversations of {} turns, {} at a time, of which each has its next turn once all others have had theirs; a turn adds {} \
                 tokens and has an answer of {}. The figures are of the turns from the second on, whose prefixes were evicted",
                c.conversations, c.turns, c.concurrency, c.prompt_tokens, c.max_tokens
            ),
        }
    }

    /// The load's name and numbers, as the settings of a result have them.
    pub(crate) fn json(&self) -> Value {
        match self {
            Asked::Questions(q) => json!({ "load": self.kind(), "questions": q }),
            Asked::Conversations(c) => json!({ "load": self.kind(), "conversations": c }),
        }
    }
}

impl Conversations {
    /// Room for the conversations that run at a time, at their longest.
    fn kv_tokens(&self) -> usize {
        self.concurrency.saturating_mul(self.longest()).saturating_add(64).max(256)
    }

    fn longest(&self) -> usize {
        self.turns.saturating_mul(self.prompt_tokens + self.max_tokens)
    }

    /// The fewest conversations with which a prefix is evicted before it is wanted again: the others' first turns alone fill the cache.
    fn least(&self) -> usize {
        let blocks = (self.prompt_tokens + self.max_tokens) / BLOCK_TOKENS;
        self.concurrency + self.kv_tokens().div_ceil(BLOCK_TOKENS).div_ceil(blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(settings: &Compare, key: &str) -> bool {
        matches!(settings.asked(), Err(BenchError::Setting { name, .. }) if name == key)
    }

    #[test]
    fn conversations_are_more_than_the_cache_holds() {
        let settings = Compare { load: LoadKind::Conversations, ..Compare::default() };
        let Asked::Conversations(c) = settings.asked().unwrap() else { panic!("{settings:?}") };
        // The blocks of the first turns of all conversations but one are more than those of the cache.
        let blocks = c.kv_tokens().div_ceil(BLOCK_TOKENS);
        assert!((c.conversations - 1) * ((c.prompt_tokens + c.max_tokens) / BLOCK_TOKENS) >= blocks, "{c:?}");
        assert_eq!(c.conversations, Compare::CONVERSATIONS);
        let least = c.least();
        let with = |conversations| Compare { conversations: Some(conversations), ..settings.clone() };
        assert!(with(least).asked().is_ok() && refused(&with(least - 1), "conversations"), "{least}");
        let many = Compare { concurrency: 16, ..settings };
        let Asked::Conversations(c) = many.asked().unwrap() else { panic!("{many:?}") };
        assert!(c.conversations > Compare::CONVERSATIONS && c.conversations == c.least());
    }

    #[test]
    fn a_setting_of_the_other_load_is_refused_by_name() {
        let questions = Compare::default();
        assert!(refused(&Compare { turns: Some(3), ..questions.clone() }, "turns"));
        assert!(refused(&Compare { conversations: Some(9), ..questions.clone() }, "conversations"));
        let talk = Compare { load: LoadKind::Conversations, ..questions };
        assert!(refused(&Compare { questions: Some(3), ..talk.clone() }, "questions"));
        assert!(refused(&Compare { prefix_tokens: Some(3), ..talk }, "prefix_tokens"));
    }

    #[test]
    fn a_load_that_cannot_be_is_refused_by_name() {
        let talk = Compare { load: LoadKind::Conversations, ..Compare::default() };
        for turns in [0, 1, usize::MAX] {
            assert!(refused(&Compare { turns: Some(turns), ..talk.clone() }, "turns"), "{turns}");
        }
        assert!(refused(&Compare { prompt_tokens: 8, max_tokens: 8, ..talk.clone() }, "prompt_tokens"));
        assert!(refused(&Compare { conversations: Some(usize::MAX), ..talk.clone() }, "conversations"));
        assert!(refused(
            &Compare { conversations: Some(1_000_000), turns: Some(1000), ..talk.clone() },
            "conversations"
        ));
        assert!(refused(&Compare { concurrency: 4096, prompt_tokens: 1 << 20, ..talk }, "conversations"));
        assert!(refused(&Compare { concurrency: 4096, prompt_tokens: 1 << 20, ..Compare::default() }, "concurrency"));
    }

    #[test]
    fn what_does_not_fit_the_model_names_its_setting() {
        let key = |settings: &Compare, room| match settings.asked().unwrap().check_room(room) {
            Err(BenchError::Setting { name, .. }) => name,
            other => panic!("{other:?}"),
        };
        let questions = Compare::default();
        assert_eq!(key(&questions, 513), "prefix_tokens");
        assert_eq!(key(&Compare { prompt_tokens: 600, ..questions.clone() }, 663), "prompt_tokens");
        assert_eq!(key(&Compare { load: LoadKind::Conversations, ..questions.clone() }, 767), "turns");
        assert!(questions.asked().unwrap().check_room(514).is_ok());
    }
}
