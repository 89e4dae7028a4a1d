//! `POST /v1/completions`

use super::events::{Choices, Completion};
use super::fields::{ResponseFormat, SharedFields};
use super::logprobs::{Columns, TokenNames};
use super::prompts::{Echo, Prompt, Prompts};
use crate::error::ApiError;
use crate::generation::{self, Answer, Ask, Delta, Names};
use crate::request::Body;
use crate::request::object::object;
use crate::request::sampling::SamplingFields;
use crate::request::whole::{Whole, whole};
use crate::state::AppState;
use axum::extract::State;
use axum::response::Response;
use mlx_serving_engine::{FinishReason, MAX_ALTERNATIVES, PromptToken, Sampling};
use mlx_serving_text::Tokenizer;
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use serde_json::{Value, json};
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
        /// Anything but text is refused when the body is parsed.
        _format as "response_format": ResponseFormat,
    }
    with shared: SharedFields, sampling: SamplingFields
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
    fn ask(self, defaults: &Sampling) -> Result<Ask, ApiError> {
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
        let prompt_logprobs = match max_tokens {
            // The prompt is all that is computed: asking for this says so.
            Some(0) => Some(asked.filter(|_| echo).unwrap_or(0)),
            _ => asked.filter(|_| echo),
        };
        let special = self.shared.add_special_tokens.unwrap_or(true);
        Ok(Ask {
            inputs: self.prompt.0.into_iter().map(|prompt| prompt.into_input(special)).collect(),
            choices,
            sampling: self.sampling.over(defaults)?,
            max_tokens,
            usual_tokens: Some(DEFAULT_MAX_TOKENS),
            logprobs: asked,
            prompt_logprobs,
            begins_text: false,
            stream: self.shared.streams(),
            ignore_eos: self.shared.ignore_eos.unwrap_or(false),
            stop: self.shared.stop.unwrap_or_default().0,
            names: NAMES,
        })
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
        let _ = self.ask(&Sampling::default()).map(|ask| ask.requests(vec![1], 2));
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
    let (logprobs, echoed) = (request.alternatives().is_some(), request.echoed());
    let ask = request.ask(&model.card().defaults)?;
    let n = ask.choices;
    generation::answer(&state, &model, (permit, account), ask, move |model, prompts| {
        let tokenizer = model.tokenizer().clone();
        let echo = |(ids, text): (&Vec<u32>, Option<String>)| Echo::new(&tokenizer, ids, text, logprobs);
        let echoes = prompts.iter().zip(echoed.into_iter().flatten()).map(echo).collect::<Result<_, _>>()?;
        let waiting = vec![Some(vec![]); prompts.len() * n];
        let choices = TextChoices { tokenizer, as_ids, logprobs, echoes, n, waiting };
        Ok(Completion::new(&model.card().id, usages, choices))
    })
    .await
}

/// Choices of text completions.
struct TextChoices {
    tokenizer: Tokenizer,
    as_ids: bool,
    logprobs: bool,
    /// Echoes by prompt; none at all without an echo.
    echoes: Vec<Echo>,
    /// Choices for each prompt.
    n: usize,
    /// The prompt's tokens so far, by choice of a stream, until the echo is out.
    waiting: Vec<Option<Vec<PromptToken>>>,
}

impl Choices for TextChoices {
    const ID: &'static str = "cmpl";
    const OBJECT: &'static str = "text_completion";
    const CHUNK: &'static str = "text_completion";

    fn choice(&self, index: usize, answer: Answer) -> Value {
        let names = TokenNames { tokenizer: &self.tokenizer, as_ids: self.as_ids };
        let echo = self.echoes.get(index / self.n);
        let text = match echo {
            Some(echo) => format!("{}{}", echo.text, answer.text),
            None => answer.text,
        };
        let logprobs = self.logprobs.then(|| {
            let columns = match echo.and_then(|echo| echo.offsets.as_deref()) {
                Some(offsets) => Columns::new(names).prompt(&answer.prompt, offsets),
                None => Columns::new(names),
            };
            columns.answer(&answer.tokens, echo.map_or(0, |echo| echo.chars)).into_json()
        });
        json!({
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": answer.finish.map(FinishReason::as_str),
        })
    }

    /// The echo comes with the first chunk, or as soon as its log-probabilities are there; the reason without text.
    fn chunks(&mut self, index: usize, delta: Delta) -> Vec<Value> {
        let echo = self.echoes.get(index / self.n);
        let names = TokenNames { tokenizer: &self.tokenizer, as_ids: self.as_ids };
        let mut choices = Vec::new();
        let mut push = |text: &str, logprobs: Option<Columns>, finish: Option<&str>| {
            let logprobs = logprobs.map(Columns::into_json);
            choices.push(json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": finish }));
        };
        let complete = match (&delta, &mut self.waiting[index]) {
            (Delta::Prompt(run), Some(tokens)) => match echo.and_then(|echo| echo.offsets.as_ref()) {
                Some(offsets) => {
                    tokens.extend_from_slice(run);
                    tokens.len() >= offsets.len()
                }
                None => false,
            },
            (Delta::Text { .. } | Delta::Done { .. }, Some(_)) => true,
            _ => false,
        };
        if complete && let (Some(tokens), Some(echo)) = (self.waiting[index].take(), echo) {
            let logprobs = echo.offsets.as_ref().map(|offsets| Columns::new(names).prompt(&tokens, offsets));
            push(&echo.text, logprobs, None);
        }
        match delta {
            Delta::Text { text, token } => {
                let start = echo.map_or(0, |echo| echo.chars);
                let token = token.filter(|token| token.logprobs.is_some());
                let logprobs = token.map(|token| Columns::new(names).answer(&[token], start));
                if !text.is_empty() || logprobs.is_some() {
                    push(&text, logprobs, None);
                }
            }
            Delta::Done { reason } => push("", None, Some(reason.as_str())),
            Delta::Prompt(_) => {}
        }
        choices
    }
}

#[cfg(test)]
mod tests {
    use super::super::logprobs::tests::{logprobs, tokenizer};
    use super::*;
    use crate::generation::Token;

    /// A prompt whose tokens are `ids`, and one token of an answer.
    fn scored(tokenizer: &Tokenizer, ids: &[u32]) -> (Echo, Vec<PromptToken>, Token) {
        let text = tokenizer.decode(ids, false).unwrap();
        let tokens = ids
            .iter()
            .enumerate()
            .map(|(i, &id)| PromptToken { id, logprobs: (i > 0).then(|| logprobs(-(i as f32), &[(id, -(i as f32))])) });
        let answer = Token { id: 70, offset: 0, logprobs: Some(logprobs(-50.0, &[(71, -0.5)])) };
        (Echo::new(tokenizer, ids, Some(text), true).unwrap(), tokens.collect(), answer)
    }

    fn choices(echo: Echo, n: usize) -> TextChoices {
        let (echoes, waiting) = (vec![echo], vec![Some(vec![]); n]);
        TextChoices { tokenizer: tokenizer(), as_ids: false, logprobs: true, echoes, n, waiting }
    }

    fn text(text: &str, token: Option<Token>) -> Delta {
        Delta::Text { text: text.into(), token }
    }

    /// Values that lm-eval's `local-completions` takes from a choice: the scores of a continuation, and true if it is the greedy one.
    fn lm_eval(choice: &Value, context: usize) -> (f64, bool) {
        let column = |name: &str| choice["logprobs"][name].as_array().unwrap().clone();
        let end = column("token_logprobs").len() - 1;
        let tokens = column("token_logprobs")[context..end].to_vec();
        let top = column("top_logprobs")[context..end].to_vec();
        let best =
            |map: &Value| map.as_object().unwrap().values().map(|v| v.as_f64().unwrap()).fold(f64::MIN, f64::max);
        let greedy = tokens.iter().zip(&top).all(|(token, top)| token.as_f64().unwrap() == best(top));
        (tokens.iter().map(|v| v.as_f64().unwrap()).sum(), greedy)
    }

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
        assert_eq!(ask(r#""logprobs": false"#).unwrap().logprobs, None);
    }

    #[test]
    fn lm_eval_finds_the_scores_of_a_continuation() {
        let tokenizer = tokenizer();
        let ids = tokenizer.encode("Ownership is a set", false).unwrap();
        let (echo, prompt, token) = scored(&tokenizer, &ids);
        let answer = Answer { text: "x".into(), prompt, tokens: vec![token], ..Answer::default() };
        let choice = choices(echo, 1).choice(0, answer);
        let context = 2;
        let sum: usize = (context..ids.len()).sum();
        assert_eq!(lm_eval(&choice, context), (-(sum as f64), true));
        assert_eq!(choice["logprobs"]["token_logprobs"][0], Value::Null);
        assert_eq!(choice["logprobs"]["top_logprobs"][0], Value::Null);
        assert_eq!(choice["text"], "Ownership is a setx");
        assert_eq!(choice["logprobs"]["text_offset"][ids.len()], "Ownership is a set".len());
    }

    #[test]
    fn a_streamed_echo_carries_its_scores_once_and_first() {
        let tokenizer = tokenizer();
        let ids = tokenizer.encode("Ownership is a set", false).unwrap();
        let (echo, mut prompt, token) = scored(&tokenizer, &ids);
        let rest = prompt.split_off(1);
        let mut choices = choices(echo, 1);
        assert!(choices.chunks(0, Delta::Prompt(prompt)).is_empty());
        let whole = choices.chunks(0, Delta::Prompt(rest));
        assert_eq!(whole[0]["text"], "Ownership is a set");
        assert_eq!(whole[0]["logprobs"]["tokens"].as_array().unwrap().len(), ids.len());
        let next = choices.chunks(0, text("x", Some(token)));
        assert_eq!((next.len(), &next[0]["text"]), (1, &json!("x")));
        let rest = choices.chunks(0, text("y", None));
        assert_eq!((&rest[0]["text"], &rest[0]["finish_reason"]), (&json!("y"), &Value::Null));
        let end = choices.chunks(0, Delta::Done { reason: FinishReason::Length });
        assert_eq!((&end[0]["text"], &end[0]["finish_reason"]), (&json!(""), &json!("length")));
    }

    #[test]
    fn an_echo_without_scores_comes_with_the_first_token() {
        let echo = Echo { text: "before".into(), chars: 6, offsets: None };
        let mut choices = choices(echo, 2);
        let token = || text("x", Some(Token { id: 70, offset: 0, logprobs: None }));
        for index in 0..2 {
            let texts: Vec<Value> = choices.chunks(index, token()).into_iter().map(|c| c["text"].clone()).collect();
            assert_eq!(texts, ["before", "x"]);
            assert_eq!(choices.chunks(index, token()).len(), 1);
        }
    }
}
