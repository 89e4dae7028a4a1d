//! `POST /v1/completions`

use crate::admission::Work;
use crate::answer::{self, Answer, Prepared, Writer};
use crate::body::Body;
use crate::envelope::Streaming;
use crate::error::ApiError;
use crate::logprobs::{Columns, Names};
use crate::object::object;
use crate::params::{Params, Plan, ResponseFormat, limit};
use crate::prompts::{Echo, Prompts};
use crate::state::AppState;
use axum::extract::State;
use axum::response::Response;
use mlx_serving_engine::{Event, FinishReason, PromptToken, Request, Sampling};
use mlx_serving_runtime::Generate;
use mlx_serving_text::Tokenizer;
use serde_json::{Value, json};
use std::sync::Arc;

object! {
    /// The body.
    pub(crate) struct CompletionRequest {
        prompt: Prompts = required,
        logprobs: usize,
        /// The prompt comes before the answer.
        echo: bool,
        /// Anything but text is refused when the body is parsed.
        _format as "response_format": ResponseFormat,
    }
    with params: Params
}

/// OpenAI's limit of this route.
const MAX_LOGPROBS: usize = 5;
/// OpenAI's default of this route.
const DEFAULT_MAX_TOKENS: usize = 16;

impl CompletionRequest {
    /// Everything but the prompts, checked.
    fn plan(&self, defaults: &Sampling) -> Result<Plan, ApiError> {
        if self.logprobs.is_some_and(|n| n > MAX_LOGPROBS) {
            return Err(ApiError::invalid("logprobs", format!("logprobs is at most {MAX_LOGPROBS}")));
        }
        let max_tokens = self.params.max_tokens.map(|value| limit("max_tokens", value)).transpose()?;
        let echo = self.echo.unwrap_or(false);
        let prompt_logprobs = match max_tokens {
            // The prompt is all that is computed: asking for this says so.
            Some(0) => Some(self.logprobs.filter(|_| echo).unwrap_or(0)),
            _ => self.logprobs.filter(|_| echo),
        };
        let plan = self.params.plan(defaults)?;
        Ok(plan.with(|request| {
            request.max_tokens = max_tokens;
            request.logprobs = self.logprobs;
            request.prompt_logprobs = prompt_logprobs;
        }))
    }

    /// Checks all that can be without a model; for fuzzing.
    pub(crate) fn check(self) {
        // Refusals are as good as requests here: neither may panic.
        let _ = self.plan(&Sampling::default()).map(|plan| plan.requests(vec![1]));
    }

    /// The engine's requests, prompt by prompt, and the echo of each prompt.
    fn requests(
        self,
        model: &dyn Generate,
        plan: &Plan,
        work: &Work,
    ) -> Result<(Vec<Request>, Vec<Option<Echo>>), ApiError> {
        let (echo, located) = (self.echo.unwrap_or(false), self.logprobs.is_some());
        let special = self.params.add_special_tokens.unwrap_or(true);
        let (mut requests, mut echoes) = (Vec::new(), Vec::new());
        for prompt in self.prompt.0 {
            let (ids, text) = prompt.encode(model, special, echo, work)?;
            echoes.push(text.map(|text| Echo::new(model.tokenizer(), &ids, text, located)).transpose()?);
            let room = model.card().info.max_context.saturating_sub(ids.len());
            let made = plan.requests(ids).into_iter().map(|request| {
                // A limit that the client did not choose is no reason to refuse its prompt.
                let limit = request.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS.min(room));
                Request { max_tokens: Some(limit), ..request }
            });
            requests.extend(made);
        }
        Ok((requests, echoes))
    }
}

/// Completes texts.
pub(crate) async fn completions(
    State(state): State<Arc<AppState>>,
    Body(request, permit): Body<CompletionRequest>,
) -> Result<Response, ApiError> {
    let model = state.model(request.params.model.as_deref())?;
    request.params.log(&model.card().id, "completion");
    let streaming = Streaming::of(&request.params)?;
    let as_ids = request.params.return_tokens_as_token_ids.unwrap_or(false);
    // The engine has another name for it than this route.
    let named = |e: ApiError| e.renamed("top_logprobs", "logprobs").renamed("prompt_logprobs", "logprobs");
    let plan = request.plan(&model.card().defaults)?;
    plan.check_count(request.prompt.0.len(), model.card().info.max_live)?;
    let (n, logprobs) = (plan.n, request.logprobs.is_some());
    let work = move |m: &dyn Generate, work: &Work| request.requests(m, &plan, work);
    let (requests, echoes) = answer::off_thread(permit, &model, work).await?;
    let prompts = requests.iter().map(|_| Some(Vec::new())).collect();
    let writer = CompletionWriter { tokenizer: model.tokenizer().clone(), as_ids, logprobs, echoes, n, prompts };
    answer::respond(&state, &*model, Prepared { requests, n, streaming, writer }).await.map_err(named)
}

/// Writes text completions.
struct CompletionWriter {
    tokenizer: Tokenizer,
    as_ids: bool,
    logprobs: bool,
    /// By prompt.
    echoes: Vec<Option<Echo>>,
    /// Choices for each prompt.
    n: usize,
    /// By choice of a stream: the prompt's tokens so far, until the echo is out.
    prompts: Vec<Option<Vec<PromptToken>>>,
}

impl CompletionWriter {
    fn names(&self) -> Names<'_> {
        Names { tokenizer: &self.tokenizer, as_ids: self.as_ids }
    }

    fn choice(&self, index: usize, answer: &Answer) -> Value {
        let echo = self.echoes[index / self.n].as_ref();
        let text = match echo {
            Some(echo) => format!("{}{}", echo.text, answer.text),
            None => answer.text.clone(),
        };
        let logprobs = self.logprobs.then(|| {
            let columns = match echo.and_then(|echo| echo.offsets.as_deref()) {
                Some(offsets) => Columns::new(self.names()).prompt(&answer.prompt, offsets),
                None => Columns::new(self.names()),
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
}

impl Writer for CompletionWriter {
    const ID: &'static str = "cmpl";
    const OBJECT: &'static str = "text_completion";
    const CHUNK: &'static str = "text_completion";

    fn whole(self, answers: Vec<Answer>) -> Vec<Value> {
        answers.iter().enumerate().map(|(index, answer)| self.choice(index, answer)).collect()
    }

    /// The echo comes with the first chunk, or as soon as its log-probabilities are there; the reason without text.
    fn chunks(&mut self, index: usize, event: Event) -> Vec<Value> {
        let echo = self.echoes[index / self.n].as_ref();
        let names = Names { tokenizer: &self.tokenizer, as_ids: self.as_ids };
        let mut choices = Vec::new();
        let mut push = |text: &str, logprobs: Option<Columns>, finish: Option<&str>| {
            let logprobs = logprobs.map(Columns::into_json);
            choices.push(json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": finish }));
        };
        let complete = match (&event, &mut self.prompts[index]) {
            (Event::Prompt(run), Some(tokens)) => match echo.and_then(|echo| echo.offsets.as_ref()) {
                Some(offsets) => {
                    tokens.extend_from_slice(run);
                    tokens.len() >= offsets.len()
                }
                None => false,
            },
            (Event::Token(_) | Event::Finished(_), Some(_)) => true,
            _ => false,
        };
        if complete && let (Some(tokens), Some(echo)) = (self.prompts[index].take(), echo) {
            let logprobs = echo.offsets.as_ref().map(|offsets| Columns::new(names).prompt(&tokens, offsets));
            push(&echo.text, logprobs, None);
        }
        match event {
            Event::Token(token) => {
                let start = echo.map_or(0, |echo| echo.chars);
                let logprobs =
                    token.logprobs.is_some().then(|| Columns::new(names).answer(std::slice::from_ref(&token), start));
                if !token.text.is_empty() || logprobs.is_some() {
                    push(&token.text, logprobs, None);
                }
            }
            Event::Finished(finish) => {
                if !finish.text.is_empty() {
                    push(&finish.text, None, None);
                }
                push("", None, Some(finish.reason.as_str()));
            }
            Event::Prompt(_) | Event::Failed(_) => {}
        }
        choices
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logprobs::tests::{logprobs, tokenizer};
    use mlx_serving_engine::{Finish, TokenEvent, Usage};

    /// A prompt whose tokens are `ids`, and one token of an answer.
    fn scored(tokenizer: &Tokenizer, ids: &[u32]) -> (Echo, Vec<PromptToken>, TokenEvent) {
        let text = tokenizer.decode(ids, false).unwrap();
        let tokens = ids
            .iter()
            .enumerate()
            .map(|(i, &id)| PromptToken { id, logprobs: (i > 0).then(|| logprobs(-(i as f32), &[(id, -(i as f32))])) });
        let answer = TokenEvent { id: 70, text: "x".into(), offset: 0, logprobs: Some(logprobs(-50.0, &[(71, -0.5)])) };
        (Echo::new(tokenizer, ids, text, true).unwrap(), tokens.collect(), answer)
    }

    fn writer(echoes: Vec<Option<Echo>>, n: usize) -> CompletionWriter {
        let prompts = vec![Some(vec![]); n];
        CompletionWriter { tokenizer: tokenizer(), as_ids: false, logprobs: true, echoes, n, prompts }
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
    fn lm_eval_finds_the_scores_of_a_continuation() {
        let tokenizer = tokenizer();
        let ids = tokenizer.encode("Ownership is a set", false).unwrap();
        let (echo, prompt, token) = scored(&tokenizer, &ids);
        let answer = Answer { text: "x".into(), prompt, tokens: vec![token], ..Answer::default() };
        let choice = writer(vec![Some(echo)], 1).choice(0, &answer);
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
        let mut writer = writer(vec![Some(echo)], 1);
        assert!(writer.chunks(0, Event::Prompt(prompt)).is_empty());
        let whole = writer.chunks(0, Event::Prompt(rest));
        assert_eq!(whole[0]["text"], "Ownership is a set");
        assert_eq!(whole[0]["logprobs"]["tokens"].as_array().unwrap().len(), ids.len());
        let next = writer.chunks(0, Event::Token(token));
        assert_eq!((next.len(), &next[0]["text"]), (1, &json!("x")));
        let finish = Finish { reason: FinishReason::Length, text: "y".into(), usage: Usage::default() };
        let end = writer.chunks(0, Event::Finished(finish));
        assert_eq!((&end[0]["text"], &end[0]["finish_reason"]), (&json!("y"), &Value::Null));
        assert_eq!((&end[1]["text"], &end[1]["finish_reason"]), (&json!(""), &json!("length")));
    }

    #[test]
    fn an_echo_without_scores_comes_with_the_first_token() {
        let echo = Echo { text: "before".into(), chars: 6, offsets: None };
        let mut writer = writer(vec![Some(echo)], 2);
        let token = || Event::Token(TokenEvent { id: 70, text: "x".into(), offset: 0, logprobs: None });
        for index in 0..2 {
            let texts: Vec<Value> = writer.chunks(index, token()).into_iter().map(|c| c["text"].clone()).collect();
            assert_eq!(texts, ["before", "x"]);
            assert_eq!(writer.chunks(index, token()).len(), 1);
        }
    }
}
