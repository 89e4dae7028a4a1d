//! Fields about the reasoning of a model, and the variables of its chat template.

use crate::error::ApiError;
use crate::request::fault;
use crate::request::object::fields;
use crate::request::reasoning::Effort;
use crate::request::unique::UniqueObject;
use crate::request::whole::Whole;
use serde::de::{Deserialize, Deserializer, Error};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Bytes of `chat_template_kwargs` at most: as values they take many times that.
const MAX_KWARGS: usize = 64 << 10;

fields! {
    /// What a chat says of reasoning, with OpenAI's names and, beyond them, vLLM's.
    pub(crate) struct ReasoningFields {
        /// Variables for the model's chat template.
        chat_template_kwargs: TemplateKwargs,
        reasoning_effort: Effort,
        enable_thinking: bool,
        /// Tokens of reasoning at most.
        thinking_token_budget: Budget,
        /// Reasoning is part of the answer.
        include_reasoning: bool,
    }
}

/// Variables of the chat template, and the client's name for them.
pub(crate) type Variables = (Option<Map<String, Value>>, &'static str);

impl ReasoningFields {
    /// Tokens of reasoning at most.
    pub(crate) fn budget(&self) -> Option<usize> {
        self.thinking_token_budget.as_ref().and_then(|budget| budget.0)
    }

    /// Reasoning is part of the answer.
    pub(crate) fn included(&self) -> bool {
        self.include_reasoning.unwrap_or(true)
    }

    /// Variables of the chat template. Effort switches thinking on or off, as vLLM has it, where the client does not say which.
    ///
    /// # Errors
    /// 400 for two fields that contradict each other.
    pub(crate) fn variables(self) -> Result<Variables, ApiError> {
        let kwargs = self.chat_template_kwargs.map(|kwargs| kwargs.0);
        let field = match (&kwargs, &self.reasoning_effort) {
            (Some(_), _) => "chat_template_kwargs",
            (None, Some(_)) => "reasoning_effort",
            (None, None) => "enable_thinking",
        };
        let mut variables = kwargs.unwrap_or_default();
        let mut set = |name: &'static str, value: Value| match variables.get(name) {
            Some(other) if !other.is_null() && *other != value => Err(ApiError::invalid(
                name,
                format!("{name} differs from chat_template_kwargs.{name}; send one of them"),
            )),
            _ => {
                variables.insert(name.into(), value);
                Ok(())
            }
        };
        let thinks = self.reasoning_effort.map(Effort::thinks);
        if let Some(Effort(effort)) = self.reasoning_effort {
            set("reasoning_effort", effort.into())?;
        }
        if let Some(thinking) = self.enable_thinking {
            set("enable_thinking", thinking.into())?;
        }
        match (variables.get("enable_thinking").and_then(Value::as_bool), thinks) {
            (Some(true), Some(false)) => {
                let message = "reasoning_effort is \"none\", but enable_thinking is true; send one of them";
                return Err(ApiError::invalid("reasoning_effort", message));
            }
            (None, Some(thinks)) if !variables.contains_key("enable_thinking") => {
                variables.insert("enable_thinking".into(), thinks.into());
            }
            _ => {}
        }
        Ok(((!variables.is_empty()).then_some(variables), field))
    }
}

/// `thinking_token_budget`; -1, vLLM's number for none, is one of them.
#[derive(Debug)]
pub(crate) struct Budget(Option<usize>);

impl<'de> Deserialize<'de> for Budget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Whole(budget) = Whole::deserialize(deserializer)?;
        if budget == -1 {
            return Ok(Self(None));
        }
        let budget = usize::try_from(budget);
        budget
            .map(|budget| Self(Some(budget)))
            .map_err(|_| D::Error::custom("is negative; -1 alone stands for no bound"))
    }
}

/// `chat_template_kwargs`: any values, but few.
#[derive(Debug)]
pub(crate) struct TemplateKwargs(pub Map<String, Value>);

impl<'de> Deserialize<'de> for TemplateKwargs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'de RawValue>::deserialize(deserializer)?.get();
        if raw.len() > MAX_KWARGS {
            return Err(D::Error::custom(format!("has {} bytes; at most {MAX_KWARGS} are taken", raw.len())));
        }
        serde_json::from_str(raw)
            .map(|UniqueObject(object)| Self(object))
            .map_err(|e| D::Error::custom(fault(&e).unwrap_or_else(|| "has to be an object".into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn variables(kwargs: Value, effort: Option<&'static str>, thinking: Option<bool>) -> Result<Value, Value> {
        let fields = ReasoningFields {
            chat_template_kwargs: kwargs.as_object().cloned().map(TemplateKwargs),
            reasoning_effort: effort.map(Effort),
            enable_thinking: thinking,
            ..ReasoningFields::default()
        };
        let variables = fields.variables().map(|(variables, _)| variables.map_or(Value::Null, Value::Object));
        variables.map_err(|error| error.to_json()["error"]["param"].clone())
    }

    #[test]
    fn effort_switches_thinking_where_the_client_does_not() {
        let none = || Value::Null;
        assert_eq!(variables(none(), None, None), Ok(Value::Null));
        assert_eq!(
            variables(none(), Some("low"), None),
            Ok(json!({ "reasoning_effort": "low", "enable_thinking": true }))
        );
        assert_eq!(
            variables(none(), Some("none"), None),
            Ok(json!({ "reasoning_effort": "none", "enable_thinking": false }))
        );
        assert_eq!(variables(none(), None, Some(false)), Ok(json!({ "enable_thinking": false })));
        let both = json!({ "reasoning_effort": "low", "enable_thinking": false });
        assert_eq!(variables(none(), Some("low"), Some(false)), Ok(both.clone()));
        assert_eq!(variables(both.clone(), Some("low"), Some(false)), Ok(both));
        assert_eq!(
            variables(json!({ "enable_thinking": "soon" }), None, None),
            Ok(json!({ "enable_thinking": "soon" }))
        );
    }

    #[test]
    fn fields_that_contradict_each_other_are_refused() {
        let thinking = json!({ "enable_thinking": true });
        assert_eq!(variables(thinking.clone(), None, Some(false)), Err(json!("enable_thinking")));
        assert_eq!(variables(thinking, Some("none"), None), Err(json!("reasoning_effort")));
        assert_eq!(variables(Value::Null, Some("none"), Some(true)), Err(json!("reasoning_effort")));
        let high = json!({ "reasoning_effort": "high" });
        assert_eq!(variables(high, Some("low"), None), Err(json!("reasoning_effort")));
    }
}
