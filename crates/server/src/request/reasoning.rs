//! Reasoning that a client asks for, in no dialect.

use super::object::word;
use crate::error::shorten;
use serde::de::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// Effort of reasoning, in the words that chat templates know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Effort(pub &'static str);

/// All of them, the least first.
const EFFORTS: [&str; 7] = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];

impl<'de> Deserialize<'de> for Effort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer, "a string", |word| {
            let known = EFFORTS.into_iter().find(|effort| *effort == word);
            known.map(Self).ok_or_else(|| format!("is {:?}, which is none of {}", shorten(word), EFFORTS.join(", ")))
        })
    }
}

impl Effort {
    /// Whether it asks for any reasoning.
    pub(crate) fn thinks(self) -> bool {
        self.0 != "none"
    }
}

/// Variables of a chat template that ask for reasoning or for none: `enable_thinking` and `reasoning_effort`, as the templates of popular
/// models call them. Effort switches thinking on or off where the client does not say which. `None` where it says nothing: the template
/// decides.
pub(crate) fn variables(on: Option<bool>, effort: Option<Effort>) -> Option<Map<String, Value>> {
    let mut variables = Map::new();
    if let Some(Effort(effort)) = effort {
        variables.insert("reasoning_effort".into(), effort.into());
    }
    if let Some(on) = on.or_else(|| effort.map(Effort::thinks)) {
        variables.insert("enable_thinking".into(), on.into());
    }
    (!variables.is_empty()).then_some(variables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn effort_and_switch_become_variables_that_agree() {
        let of = |on, effort: Option<&'static str>| variables(on, effort.map(Effort)).map(Value::Object);
        assert_eq!(of(None, None), None);
        assert_eq!(of(None, Some("none")), Some(json!({ "reasoning_effort": "none", "enable_thinking": false })));
        assert_eq!(of(None, Some("low")), Some(json!({ "reasoning_effort": "low", "enable_thinking": true })));
        let off = json!({ "reasoning_effort": "high", "enable_thinking": false });
        assert_eq!(of(Some(false), Some("high")), Some(off));
        assert_eq!(of(Some(true), None), Some(json!({ "enable_thinking": true })));
        assert!(serde_json::from_str::<Effort>("\"most\"").is_err());
    }
}
