//! `POST /v1/completions`: from its body to what it asks.

use super::events::Completion;
use super::fields::SharedFields;
use super::prompts::{Echo, Prompt, Prompts};
use super::structure::StructureFields;
use super::text_choices::TextChoices;
use crate::error::ApiError;
use crate::generation::{self, Ask, Names};
use crate::request::Body;
use crate::request::object::object;
use crate::request::sampling::SamplingFields;
use crate::request::whole::{Whole, whole};
use crate::state::AppState;
use axum::extract::State;
use axum::response::Response;
use mlx_serving_engine::{MAX_ALTERNATIVES, Sampling};
use mlx_serving_runtime::Prepared;
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use std::fmt;
use std::sync::Arc;

object! {
    /// The body.
    pub(crate) struct CompletionRequest {
        prompt: Prompts = required,
        logprobs: Alternatives,
        /// Answers of which `n` are returned: all of them, as none is chosen among more.
        best_of: Whole,
        /// The prompt comes before the answer.
        echo: bool,
    }
    with shared: SharedFields, sampling: SamplingFields, structure: StructureFields
}

/// `logprobs`: a number of alternatives; false asks for none, as chat completions' does.
#[derive(Debug)]
pub(crate) struct Alternatives(Option<usize>);

impl<'de> Deserialize<'de> for Alternatives {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrFalse;
        impl Visitor<'_> for NumberOrFalse {
            type Value = Alternatives;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number of at least 0, or false")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Alternatives, E> {
                Ok(Alternatives(Some(usize::try_from(number).unwrap_or(usize::MAX))))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Alternatives, E> {
                match usize::try_from(whole(number)?) {
                    Ok(number) => Ok(Alternatives(Some(number))),
                    Err(_) => Err(E::invalid_value(Unexpected::Float(number), &self)),
                }
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Alternatives, E> {
                if value {
                    return Err(E::invalid_type(Unexpected::Bool(true), &self));
                }
                Ok(Alternatives(None))
            }
        }
        deserializer.deserialize_any(NumberOrFalse)
    }
}

const NAMES: Names = Names(&[("top_logprobs", "logprobs"), ("prompt_logprobs", "logprobs")]);
/// OpenAI's default of this route.
const DEFAULT_MAX_TOKENS: usize = 16;

impl CompletionRequest {
    /// The answers that are asked for; `defaults` are the model's sampling parameters.
    ///
    /// With them comes the client's name of the field that says which form they have.
    pub(crate) fn ask(self, defaults: &Sampling) -> Result<(Ask, &'static str), ApiError> {
        let asked = self.alternatives();
        if asked.is_some_and(|n| n > MAX_ALTERNATIVES) {
            return Err(ApiError::invalid("logprobs", format!("logprobs is at most {MAX_ALTERNATIVES}")));
        }
        let choices = self.shared.choices();
        if let Some(best_of) = self.best_of.map(|n| n.0).filter(|&best_of| best_of != 1 && best_of != choices as i64) {
            let message = format!(
                "best_of is {best_of}; it must be 1 or equal to n ({choices}): this server does not choose among answers"
            );
            return Err(ApiError::invalid("best_of", message));
        }
        let max_tokens = self.shared.max_tokens.map(|limit| limit.0);
        let echo = self.echo.unwrap_or(false);
        // Where the prompt is all that is computed, asking for this says so.
        let echoed = asked.filter(|_| echo).or((max_tokens == Some(0)).then_some(0));
        let special = self.shared.add_special_tokens.unwrap_or(true);
        let (structure, field) = self.structure.structure()?.unzip();
        let ask = Ask {
            inputs: self.prompt.0.into_iter().map(|prompt| prompt.into_input(special)).collect(),
            choices,
            sampling: self.sampling.over(defaults)?,
            max_tokens,
            usual_tokens: Some(DEFAULT_MAX_TOKENS),
            logprobs: asked,
            prompt_logprobs: echoed.max(self.shared.prompt_alternatives()),
            structure,
            reasoning_budget: None,
            begins_text: false,
            stream: self.shared.streams(),
            ignore_eos: self.shared.ignore_eos.unwrap_or(false),
            stop: self.shared.stop.unwrap_or_default().0,
            names: NAMES,
        };
        Ok((ask, field.unwrap_or("response_format")))
    }

    /// Alternatives to report beside each token, if log-probabilities are asked for.
    fn alternatives(&self) -> Option<usize> {
        self.logprobs.as_ref().and_then(|logprobs| logprobs.0)
    }

    /// The texts to echo: one for each prompt, nothing for those that come as ids. `None` without an echo.
    fn echoed(&self) -> Option<Vec<Option<String>>> {
        let text = |prompt: &Prompt| prompt.as_text().map(str::to_owned);
        self.echo.unwrap_or(false).then(|| self.prompt.0.iter().map(text).collect())
    }

    /// Checks all that can be without a model; for fuzzing.
    pub(crate) fn check(self) {
        // Refusals are as good as requests here: neither may panic.
        let _ = self.ask(&Sampling::default()).map(|(ask, _)| ask.requests(vec![1].into(), 2));
    }
}

/// Completes texts.
pub(crate) async fn completions(
    State(state): State<Arc<AppState>>,
    Body(request, permit, account): Body<CompletionRequest>,
) -> Result<Response, ApiError> {
    let model = state.model(request.shared.model.as_deref())?;
    request.shared.log(&model.card().id, "completion");
    let usages = request.shared.usages()?;
    let as_ids = request.shared.return_tokens_as_token_ids.unwrap_or(false);
    let (logprobs, echoed) = (request.alternatives(), request.echoed());
    let (tells_ids, prompt) = (request.shared.tells_ids(), request.shared.prompt_alternatives());
    let (ask, structure) = request.ask(&model.card().defaults)?;
    let n = ask.choices;
    let answer = generation::answer(&state, &model, (permit, account), ask, move |model, prompts| {
        let tokenizer = model.tokenizer().clone();
        let echo =
            |(ready, text): (&Prepared, Option<String>)| Echo::new(&tokenizer, &ready.ids, text, logprobs.is_some());
        let echoes = prompts.iter().zip(echoed.into_iter().flatten()).map(echo).collect::<Result<_, _>>()?;
        let ids = tells_ids.then(|| prompts.iter().map(|ready| ready.ids.clone()).collect());
        let choices =
            TextChoices::new(tokenizer, prompts.len(), n).naming(as_ids).echoing(echoes, logprobs).telling(ids, prompt);
        Ok(Completion::new(&model.card().id, usages, choices))
    });
    answer.await.map_err(|error| error.renamed("structure", structure))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_of_is_taken_where_it_chooses_nothing() {
        let ask = |pairs: &str| {
            let body = format!(r#"{{"prompt": "x", {pairs}}}"#);
            let request: CompletionRequest = serde_json::from_str(&body).unwrap();
            request.ask(&Sampling::default())
        };
        for pairs in [r#""best_of": 1"#, r#""n": 3, "best_of": 3"#, r#""n": 3, "best_of": 1"#, r#""best_of": null"#] {
            assert!(ask(pairs).is_ok(), "{pairs}");
        }
        for pairs in [r#""best_of": 2"#, r#""best_of": -1"#, r#""n": 2, "best_of": 3"#] {
            assert_eq!(ask(pairs).unwrap_err().to_json()["error"]["param"], "best_of", "{pairs}");
        }
        assert_eq!(ask(r#""logprobs": false"#).unwrap().0.logprobs, None);
    }
}
