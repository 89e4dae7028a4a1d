//! Choices of text completions, whole and in chunks.

use super::events::{Choices, Chunk, ended};
use super::logprobs::{Columns, TokenNames, prompt_logprobs};
use super::prompts::Echo;
use crate::generation::{Answer, Delta, Token, Told};
use mlx_serving_engine::PromptToken;
use mlx_serving_text::{Tokenizer, content};
use serde_json::{Map, Value, json};

/// Choices of one answer.
pub(super) struct TextChoices {
    tokenizer: Tokenizer,
    /// Log-probabilities name tokens `token_id:N`.
    as_ids: bool,
    /// Alternatives beside each token, if log-probabilities are told.
    logprobs: Option<usize>,
    /// Echoes by prompt; none at all without an echo.
    echoes: Vec<Echo>,
    /// The prompts' ids, if ids are told.
    ids: Option<Vec<Vec<u32>>>,
    /// Alternatives beside each token of the prompts, if those are told of apart from the echo.
    prompt: Option<usize>,
    /// Choices for each prompt.
    n: usize,
    /// The prompt's tokens so far, by choice of a stream, until its first chunk is out.
    waiting: Vec<Option<Vec<PromptToken>>>,
}

impl TextChoices {
    /// So many choices for each of the prompts.
    pub(super) fn new(tokenizer: Tokenizer, prompts: usize, n: usize) -> Self {
        let waiting = vec![Some(vec![]); prompts * n];
        Self { tokenizer, as_ids: false, logprobs: None, echoes: vec![], ids: None, prompt: None, n, waiting }
    }

    /// Log-probabilities name tokens by their ids.
    pub(super) fn naming(self, as_ids: bool) -> Self {
        Self { as_ids, ..self }
    }

    /// Echoes of the prompts, and alternatives to each token.
    pub(super) fn echoing(self, echoes: Vec<Echo>, logprobs: Option<usize>) -> Self {
        Self { echoes, logprobs, ..self }
    }

    /// The ids of the prompts' tokens and of the answers', and alternatives to the prompts'.
    pub(super) fn telling(self, ids: Option<Vec<Vec<u32>>>, prompt: Option<usize>) -> Self {
        Self { ids, prompt, ..self }
    }

    fn columns(&self) -> Columns<'_> {
        let names = TokenNames { tokenizer: &self.tokenizer, as_ids: self.as_ids };
        Columns::new(names, self.logprobs.unwrap_or(0))
    }

    /// What is told of a choice's prompt, beside the choice's own fields.
    fn about(&self, index: usize, prompt: &[PromptToken]) -> Map<String, Value> {
        let mut about = Map::new();
        if let Some(top) = self.prompt {
            about.insert("prompt_logprobs".into(), prompt_logprobs(&self.tokenizer, prompt, top));
        }
        if let Some(ids) = self.ids.as_ref().and_then(|ids| ids.get(index / self.n)) {
            about.insert("prompt_token_ids".into(), json!(ids));
        }
        about
    }

    /// The prompt's tokens, once all are there that the first chunk tells of, or the answer begins.
    fn begins(&mut self, index: usize, delta: &Delta) -> Option<Vec<PromptToken>> {
        let echo = self.echoes.get(index / self.n);
        let tokens = self.waiting.get_mut(index)?.as_mut()?;
        if let Delta::Prompt(run) = delta {
            let offsets = echo.and_then(|echo| echo.offsets.as_ref());
            if self.prompt.is_some() || offsets.is_some() {
                tokens.extend_from_slice(run);
            }
            // The echo is out before the answer's first token is computed.
            if offsets.is_none_or(|offsets| tokens.len() < offsets.len()) {
                return None;
            }
        }
        self.waiting[index].take()
    }

    /// What is told of a token beside its text, if anything is.
    fn of_token(&self, token: Token, start: usize) -> Option<Map<String, Value>> {
        let mut beside = Map::new();
        if self.ids.is_some() {
            beside.insert("token_ids".into(), json!([token.id]));
        }
        if token.logprobs.is_some() {
            beside.insert("logprobs".into(), self.columns().answer(&[token], start).into_json());
        }
        (!beside.is_empty()).then_some(beside)
    }
}

fn put(choice: &mut Value, fields: Map<String, Value>) {
    fields.into_iter().for_each(|(name, value)| choice[name] = value);
}

impl Choices for TextChoices {
    const ID: &'static str = "cmpl-";
    const OBJECT: &'static str = "text_completion";
    const CHUNK: &'static str = "text_completion";

    fn choice(&self, index: usize, mut answer: Answer) -> Value {
        let (reason, stop_reason) = ended(answer.ending(), answer.stop.take());
        let echo = self.echoes.get(index / self.n);
        let text = match echo {
            Some(echo) => format!("{}{}", echo.text, answer.text),
            None => answer.text,
        };
        let logprobs = self.logprobs.map(|_| {
            let columns = match echo.and_then(|echo| echo.offsets.as_deref()) {
                Some(offsets) => self.columns().prompt(&answer.prompt, offsets),
                None => self.columns(),
            };
            columns.answer(&answer.tokens, echo.map_or(0, |echo| echo.chars)).into_json()
        });
        let mut choice = json!({
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": reason,
            "stop_reason": stop_reason,
        });
        if self.ids.is_some() {
            choice["token_ids"] = answer.tokens.iter().map(|token| token.id).collect();
        }
        put(&mut choice, self.about(index, &answer.prompt));
        choice
    }

    /// The echo comes with the first chunk, or as soon as its log-probabilities are there; the reason without text.
    fn chunks(&mut self, index: usize, delta: Delta) -> Vec<Chunk> {
        let begins = self.begins(index, &delta);
        let echo = self.echoes.get(index / self.n);
        let mut choices: Vec<Value> = Vec::new();
        let chunk = |text: &str| json!({ "index": index, "text": text, "logprobs": null, "finish_reason": null });
        if let (Some(tokens), Some(echo)) = (&begins, echo) {
            let mut first = chunk(&echo.text);
            if let Some(offsets) = &echo.offsets {
                first["logprobs"] = self.columns().prompt(tokens, offsets).into_json();
            }
            choices.push(first);
        }
        match delta {
            Delta::Text { segments, token } => {
                let (text, start) = (content(&segments), echo.map_or(0, |echo| echo.chars));
                let beside = token.and_then(|token| self.of_token(token, start));
                if !text.is_empty() || beside.is_some() {
                    let mut next = chunk(&text);
                    put(&mut next, beside.unwrap_or_default());
                    choices.push(next);
                }
            }
            Delta::Done { reason, stop } => {
                let (reason, stop_reason) = ended(Some(Told::default().ending(reason)), stop);
                let mut last = chunk("");
                (last["finish_reason"], last["stop_reason"]) = (json!(reason), stop_reason);
                choices.push(last);
            }
            Delta::Prompt(_) => {}
        }
        if let (Some(tokens), Some(first)) = (begins, choices.first_mut()) {
            put(first, self.about(index, &tokens));
        }
        choices.into_iter().map(Chunk::from).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::logprobs::tests::{logprobs, tokenizer};
    use super::*;
    use mlx_serving_engine::FinishReason;
    use mlx_serving_text::Segment;

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
        TextChoices::new(tokenizer(), 1, n).echoing(vec![echo], Some(1))
    }

    /// The choices of the chunks.
    fn chunks(choices: &mut TextChoices, index: usize, delta: Delta) -> Vec<Value> {
        choices.chunks(index, delta).into_iter().map(|chunk| chunk.choice).collect()
    }

    fn text(text: &str, token: Option<Token>) -> Delta {
        Delta::Text { segments: vec![Segment::Content(text.into())], token }
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
        assert!(chunks(&mut choices, 0, Delta::Prompt(prompt)).is_empty());
        let whole = chunks(&mut choices, 0, Delta::Prompt(rest));
        assert_eq!(whole[0]["text"], "Ownership is a set");
        assert_eq!(whole[0]["logprobs"]["tokens"].as_array().unwrap().len(), ids.len());
        let next = chunks(&mut choices, 0, text("x", Some(token)));
        assert_eq!((next.len(), &next[0]["text"]), (1, &json!("x")));
        let rest = chunks(&mut choices, 0, text("y", None));
        assert_eq!((&rest[0]["text"], &rest[0]["finish_reason"]), (&json!("y"), &Value::Null));
        let end = chunks(&mut choices, 0, Delta::Done { reason: FinishReason::Length, stop: None });
        assert_eq!((&end[0]["text"], &end[0]["finish_reason"]), (&json!(""), &json!("length")));
    }

    #[test]
    fn an_echo_without_scores_comes_with_the_first_token() {
        let echo = Echo { text: "before".into(), chars: 6, offsets: None };
        let mut choices = choices(echo, 2);
        let token = || text("x", Some(Token { id: 70, offset: 0, logprobs: None }));
        for index in 0..2 {
            let texts: Vec<Value> =
                chunks(&mut choices, index, token()).into_iter().map(|c| c["text"].clone()).collect();
            assert_eq!(texts, ["before", "x"]);
            assert_eq!(chunks(&mut choices, index, token()).len(), 1);
        }
    }
}
