//! Choices of chat completions, whole and in chunks.

use super::events::{Choices, Chunk, ended};
use super::logprobs::{TokenNames, prompt_logprobs};
use crate::generation::{Answer, Call, Delta, Token, Told};
use crate::ids::unique;
use mlx_serving_engine::PromptToken;
use mlx_serving_text::{Segment, Tokenizer};
use serde_json::{Map, Value, json};

/// Choices of one answer.
pub(super) struct ChatChoices {
    tokenizer: Tokenizer,
    /// Log-probabilities name tokens `token_id:N`.
    as_ids: bool,
    /// Reasoning is told.
    reasons: bool,
    /// The prompt's ids, if ids are told.
    ids: Option<Vec<u32>>,
    /// Alternatives beside each token of the prompt, if its log-probabilities are told.
    prompt: Option<usize>,
    /// By choice of a stream.
    streams: Vec<Streamed>,
}

/// What has come of one choice of a stream.
#[derive(Debug, Clone, Default)]
struct Streamed {
    /// Its role is out.
    begun: bool,
    told: Told,
    /// Tokens of the prompt until the first chunk is out.
    prompt: Vec<PromptToken>,
}

impl ChatChoices {
    /// So many choices.
    pub(super) fn new(tokenizer: Tokenizer, n: usize) -> Self {
        let streams = vec![Streamed::default(); n];
        Self { tokenizer, as_ids: false, reasons: true, ids: None, prompt: None, streams }
    }

    /// Log-probabilities name tokens by their ids.
    pub(super) fn naming(self, as_ids: bool) -> Self {
        Self { as_ids, ..self }
    }

    /// Reasoning is told or left out.
    pub(super) fn reasoning(self, reasons: bool) -> Self {
        Self { reasons, ..self }
    }

    /// The ids of the prompt's tokens and of the answers', and alternatives to the prompt's.
    pub(super) fn telling(self, ids: Option<Vec<u32>>, prompt: Option<usize>) -> Self {
        Self { ids, prompt, ..self }
    }

    fn names(&self) -> TokenNames<'_> {
        TokenNames { tokenizer: &self.tokenizer, as_ids: self.as_ids }
    }

    /// What is told of the prompt, beside the choices.
    fn about(&self, prompt: &[PromptToken]) -> Map<String, Value> {
        let mut about = Map::new();
        if let Some(top) = self.prompt {
            about.insert("prompt_logprobs".into(), prompt_logprobs(&self.tokenizer, prompt, top));
        }
        if let Some(ids) = &self.ids {
            about.insert("prompt_token_ids".into(), json!(ids));
        }
        about
    }

    fn message(&self, answer: &mut Answer) -> Value {
        let reasoning = std::mem::take(&mut answer.reasoning);
        let calls = std::mem::take(&mut answer.calls);
        // An answer that says nothing else has an empty text, for clients that expect one.
        let silent = answer.text.is_empty() && !(reasoning.is_empty() && calls.is_empty());
        let content = if silent { Value::Null } else { std::mem::take(&mut answer.text).into() };
        let mut message = json!({ "role": "assistant", "content": content, "refusal": null });
        if self.reasons && !reasoning.is_empty() {
            message["reasoning_content"] = reasoning.clone().into();
            message["reasoning"] = reasoning.into();
        }
        if !calls.is_empty() {
            message["tool_calls"] = calls.into_iter().map(call).collect();
        }
        message
    }
}

fn call(call: Call) -> Value {
    let function = json!({ "name": call.name, "arguments": call.arguments });
    json!({ "id": unique("call_"), "type": "function", "function": function })
}

impl Choices for ChatChoices {
    const ID: &'static str = "chatcmpl-";
    const OBJECT: &'static str = "chat.completion";
    const CHUNK: &'static str = "chat.completion.chunk";

    fn choice(&self, index: usize, mut answer: Answer) -> Value {
        let content: Vec<Value> = answer.tokens.iter().filter_map(|token| self.names().chat(token)).collect();
        let (reason, stop_reason) = ended(answer.ending(), answer.stop.take());
        let mut choice = json!({
            "index": index,
            "message": self.message(&mut answer),
            "logprobs": if content.is_empty() { Value::Null } else { json!({ "content": content, "refusal": null }) },
            "finish_reason": reason,
            "stop_reason": stop_reason,
        });
        if self.ids.is_some() {
            choice["token_ids"] = answer.tokens.iter().map(|token| token.id).collect();
        }
        choice
    }

    fn beside(&self, answers: &[Answer]) -> Map<String, Value> {
        self.about(answers.first().map_or(&[], |answer| &answer.prompt))
    }

    /// The role comes with the first token, for clients take a stream's first chunk for its first token; the reason without text, for
    /// clients stop reading there.
    fn chunks(&mut self, index: usize, delta: Delta) -> Vec<Chunk> {
        if let Delta::Prompt(run) = delta {
            // The choices share one prompt.
            if index == 0 && self.prompt.is_some() {
                self.streams[0].prompt.extend(run);
            }
            return Vec::new();
        }
        let mut chunks = Vec::new();
        let chunk = |delta: Value| json!({ "index": index, "delta": delta, "logprobs": null, "finish_reason": null });
        if !std::mem::replace(&mut self.streams[index].begun, true) {
            let prompt = std::mem::take(&mut self.streams[index].prompt);
            let beside = if index == 0 { self.about(&prompt) } else { Map::new() };
            chunks.push(Chunk { choice: chunk(json!({ "role": "assistant", "content": "" })), beside });
        }
        match delta {
            Delta::Text { segments, token } => {
                let mut choices: Vec<Value> =
                    segments.into_iter().filter_map(|segment| self.told(index, segment)).map(chunk).collect();
                if let Some(beside) = token.and_then(|token| self.of_token(&token)) {
                    if choices.is_empty() {
                        choices.push(chunk(json!({ "content": "" })));
                    }
                    beside.into_iter().for_each(|(name, value)| choices[0][name] = value);
                }
                chunks.extend(choices.into_iter().map(Chunk::from));
            }
            Delta::Done { reason, stop } => {
                let (reason, stop_reason) = ended(Some(self.streams[index].told.ending(reason)), stop);
                let mut last = chunk(json!({}));
                (last["finish_reason"], last["stop_reason"]) = (json!(reason), stop_reason);
                chunks.push(last.into());
            }
            Delta::Prompt(_) => {}
        }
        chunks
    }
}

impl ChatChoices {
    /// The delta of a segment, if it is told.
    fn told(&mut self, index: usize, segment: Segment) -> Option<Value> {
        let told = &mut self.streams[index].told;
        told.take(&segment);
        let place = told.calls.saturating_sub(1);
        Some(match segment {
            Segment::Content(text) | Segment::Malformed(text) if !text.is_empty() => json!({ "content": text }),
            Segment::Reasoning(text) if self.reasons && !text.is_empty() => {
                json!({ "reasoning_content": text, "reasoning": text })
            }
            Segment::Call { name } => {
                let function = json!({ "name": name, "arguments": "" });
                json!({ "tool_calls": [{ "index": place, "id": unique("call_"), "type": "function", "function": function }] })
            }
            Segment::Arguments(text) if !text.is_empty() => {
                json!({ "tool_calls": [{ "index": place, "function": { "arguments": text } }] })
            }
            _ => return None,
        })
    }

    /// What is told of a token beside its text, if anything is.
    fn of_token(&self, token: &Token) -> Option<Map<String, Value>> {
        let mut beside = Map::new();
        if let Some(entry) = self.names().chat(token) {
            beside.insert("logprobs".into(), json!({ "content": [entry], "refusal": null }));
        }
        if self.ids.is_some() {
            beside.insert("token_ids".into(), json!([token.id]));
        }
        (!beside.is_empty()).then_some(beside)
    }
}

#[cfg(test)]
mod tests {
    use super::super::logprobs::tests::tokenizer;
    use super::*;
    use mlx_serving_engine::FinishReason;

    fn deltas(deltas: Vec<Delta>) -> Vec<(Value, Value)> {
        let mut choices = ChatChoices::new(tokenizer(), 1);
        let chunks = deltas.into_iter().flat_map(|delta| choices.chunks(0, delta)).map(|chunk| chunk.choice);
        chunks.map(|choice| (choice["delta"].clone(), choice["finish_reason"].clone())).collect()
    }

    fn token(text: &str) -> Delta {
        Delta::Text {
            segments: vec![Segment::Content(text.into())],
            token: Some(Token { id: 70, offset: 0, logprobs: None }),
        }
    }

    fn rest(text: &str) -> Delta {
        Delta::Text { segments: vec![Segment::Content(text.into())], token: None }
    }

    #[test]
    fn the_role_comes_with_the_first_token_and_the_reason_without_text() {
        let end = || Delta::Done { reason: FinishReason::Stop, stop: None };
        let role = json!({ "role": "assistant", "content": "" });
        let (hi, bye) = (json!({ "content": "hi" }), json!({ "content": "bye" }));
        let (none, stop, nothing) = (Value::Null, json!("stop"), json!({}));
        assert_eq!(
            deltas(vec![token("hi"), token(""), rest("bye"), end()]),
            [(role.clone(), none.clone()), (hi, none.clone()), (bye, none.clone()), (nothing.clone(), stop.clone())]
        );
        assert_eq!(deltas(vec![token(""), end()]), [(role, none), (nothing, stop)]);
    }
}
