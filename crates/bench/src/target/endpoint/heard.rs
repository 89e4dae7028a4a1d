//! An answer as the events of a stream tell it.

use super::MAX_DETAIL;
use crate::load::Length;
use crate::target::{Answer, Failure};
use serde_json::Value;
use std::time::Instant;

/// Pieces of an answer, a token that was asked for, from which on it is not the answer to what was asked.
const MAX_PIECES_A_TOKEN: usize = 16;
/// Bytes of the events of an answer, at most.
const MAX_STREAM: usize = 64 << 20;

/// Part of an answer that has come.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Tokens that were asked for.
    asked: usize,
    /// Bytes of all events.
    bytes: usize,
    text: String,
    times: Vec<Instant>,
    /// The server said why the answer ended.
    finished: Option<Instant>,
    /// That it has the tokens that were asked for, if it said why at all.
    ended_by_length: Option<bool>,
    /// The server said that nothing more comes.
    pub(super) is_done: bool,
    prompt_tokens: Option<usize>,
    tokens: Option<usize>,
}

impl Heard {
    /// Nothing yet of an answer for which so many tokens were asked.
    pub(super) fn of(asked: usize) -> Self {
        Self { asked, ..Self::default() }
    }

    /// Takes an event, which came at this time.
    pub(super) fn take(&mut self, kind: &str, data: &str, now: Instant) -> Result<(), Failure> {
        self.bytes += data.len();
        if self.bytes > MAX_STREAM || self.times.len() > self.asked.saturating_mul(MAX_PIECES_A_TOKEN) {
            let (pieces, asked) = (self.times.len(), self.asked);
            return Err(Failure::new(
                "longer than asked",
                format!("{asked} tokens were asked for, and {pieces} pieces came"),
            ));
        }
        if data.trim() == "[DONE]" {
            self.is_done = true;
            return Ok(());
        }
        let cut: String = data.chars().take(MAX_DETAIL as usize).collect();
        let chunk: Value = match serde_json::from_str(data) {
            Ok(chunk) => chunk,
            Err(_) if kind == "error" => return Err(Failure::new("error in the stream", cut)),
            Err(_) => return Err(Failure::new("unreadable stream", format!("not JSON: {cut}"))),
        };
        if kind == "error" || chunk.get("error").is_some_and(|error| !error.is_null()) {
            return Err(Failure::new("error in the stream", cut));
        }
        // What no request can have is refused: sums of it would have no meaning, or none that a number holds.
        let count = |name: &str| match chunk.pointer(&format!("/usage/{name}")).and_then(Value::as_u64) {
            Some(n) if n > Length::MAX as u64 => {
                let detail = format!("usage out of range: {name} is {n}, and no more than {} can be", Length::MAX);
                Err(Failure::new("unreadable stream", detail))
            }
            told => Ok(told.map(|n| n as usize)),
        };
        self.prompt_tokens = count("prompt_tokens")?.or(self.prompt_tokens);
        self.tokens = count("completion_tokens")?.or(self.tokens);
        let Some(choice) = chunk.pointer("/choices/0") else { return Ok(()) };
        let spoken = ["/text", "/delta/content"].iter().find_map(|at| choice.pointer(at)?.as_str());
        // Thoughts are tokens of the answer, and no part of the conversation.
        let thought =
            ["/delta/reasoning_content", "/delta/reasoning"].iter().find_map(|at| choice.pointer(at)?.as_str());
        if [spoken, thought].into_iter().flatten().any(|text| !text.is_empty()) {
            self.times.push(now);
        }
        self.text.push_str(spoken.unwrap_or_default());
        if let Some(reason) = choice.get("finish_reason").filter(|reason| !reason.is_null()) {
            self.finished = Some(now);
            self.ended_by_length = Some(reason == "length");
        }
        Ok(())
    }

    /// The whole answer and its text.
    pub(super) fn answer(mut self) -> Result<(Answer, String), Failure> {
        let Some(end) = self.finished.or_else(|| self.is_done.then(|| self.times.last().copied()).flatten()) else {
            return Err(match self.is_done {
                true => Failure::new("empty answer", "no token came"),
                false => Failure::new("cut stream", "it ended before the answer did"),
            });
        };
        if self.times.is_empty() {
            // Tokens without a text, such as the end of a sequence that was not to be one.
            if self.tokens.unwrap_or_default() == 0 {
                return Err(Failure::new("empty answer", "no token came"));
            }
            self.times.push(end);
        }
        let answer = Answer {
            prompt_tokens: self.prompt_tokens,
            tokens: self.tokens.unwrap_or(self.times.len()),
            is_told: self.tokens.is_some(),
            ended_by_length: self.ended_by_length,
            times: self.times,
            computed: None,
            content: self.text.clone().into_bytes(),
        };
        Ok((answer, self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hear(chunks: &[Value], done: bool) -> Result<(Answer, String), Failure> {
        let mut heard = Heard::of(3);
        for chunk in chunks {
            heard.take("", &chunk.to_string(), Instant::now())?;
        }
        if done {
            heard.take("", " [DONE]", Instant::now())?;
        }
        heard.answer()
    }

    #[test]
    fn chunks_of_many_servers_are_understood() {
        // Text completions, with usage in a chunk of its own: this server, vLLM.
        let vllm = [
            json!({ "choices": [{ "index": 0, "text": "a", "finish_reason": null }], "usage": null }),
            json!({ "choices": [{ "index": 0, "text": " b", "finish_reason": "length" }], "usage": null }),
            json!({ "choices": [], "usage": { "prompt_tokens": 7, "completion_tokens": 3 } }),
        ];
        // Messages that begin with a role and no content, and timings beside the usage: llama.cpp.
        let llama = [
            json!({ "choices": [{ "delta": { "role": "assistant", "content": null }, "finish_reason": null }] }),
            json!({ "choices": [{ "delta": { "content": "a" }, "finish_reason": null }] }),
            json!({ "choices": [{ "delta": { "content": " b" }, "finish_reason": null }] }),
            json!({ "choices": [{ "delta": {}, "finish_reason": "length" }] }),
            json!({ "choices": [], "usage": { "prompt_tokens": 7, "completion_tokens": 3 }, "timings": { "predicted_n": 3 } }),
        ];
        // A role in every chunk, empty content at the end: Ollama.
        let ollama = [
            json!({ "choices": [{ "delta": { "role": "assistant", "content": "a" }, "finish_reason": null }] }),
            json!({ "choices": [{ "delta": { "role": "assistant", "content": " b" }, "finish_reason": null }] }),
            json!({ "choices": [{ "delta": { "role": "assistant", "content": "" }, "finish_reason": "stop" }] }),
            json!({ "choices": [], "usage": { "prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10 } }),
        ];
        for (chunks, pieces) in [(&vllm[..], 2), (&llama, 2), (&ollama, 2)] {
            let (answer, text) = hear(chunks, true).unwrap();
            assert_eq!((text.as_str(), answer.times.len(), answer.tokens), ("a b", pieces, 3), "{chunks:?}");
            assert_eq!((answer.prompt_tokens, answer.is_told), (Some(7), true));
        }
        let (answer, _) = hear(&vllm[..2], false).unwrap();
        assert_eq!((answer.tokens, answer.is_told, answer.prompt_tokens), (2, false, None), "no usage, and no [DONE]");
        assert!(!answer.ended_before(3), "its finish_reason is length");
        let (answer, _) = hear(&ollama[..3], false).unwrap();
        assert!(answer.ended_before(2), "its finish_reason is stop");
        let thinks = json!({ "choices": [{ "delta": { "reasoning_content": "hm" }, "finish_reason": null }] });
        let (answer, text) = hear(&[&[thinks], &llama[..]].concat(), true).unwrap();
        assert_eq!((answer.times.len(), text.as_str()), (3, "a b"));
        let silent =
            json!({ "choices": [{ "text": "", "finish_reason": "length" }], "usage": { "completion_tokens": 1 } });
        assert_eq!(hear(&[silent], true).unwrap().0.times.len(), 1);
    }

    #[test]
    fn answers_that_are_none_are_named() {
        let piece = json!({ "choices": [{ "text": "a", "finish_reason": null }] });
        let end = json!({ "choices": [{ "text": "", "finish_reason": "stop" }] });
        for (chunks, done, cause) in [
            (vec![piece.clone()], false, "cut stream"),
            (vec![], false, "cut stream"),
            (vec![], true, "empty answer"),
            (vec![end], true, "empty answer"),
            (vec![piece.clone(), json!({ "error": { "message": "no memory" } })], false, "error in the stream"),
            (vec![json!({ "error": "no memory" })], false, "error in the stream"),
        ] {
            assert_eq!(hear(&chunks, done).unwrap_err().cause, cause, "{chunks:?}");
        }
        let mut heard = Heard::of(3);
        assert_eq!(heard.take("", "<html>", Instant::now()).unwrap_err().cause, "unreadable stream");
        assert_eq!(heard.take("error", "gone", Instant::now()).unwrap_err().cause, "error in the stream");
        for name in ["prompt_tokens", "completion_tokens"] {
            for (tokens, fits) in [(u64::MAX, false), (Length::MAX as u64 + 1, false), (Length::MAX as u64, true)] {
                let usage = json!({ "choices": [], "usage": { name: tokens } }).to_string();
                let taken = heard.take("", &usage, Instant::now());
                let refused = taken.as_ref().is_err_and(|failure| {
                    failure.cause == "unreadable stream" && failure.detail.contains("usage out of range")
                });
                assert_eq!((taken.is_ok(), refused), (fits, !fits), "{usage}: {taken:?}");
            }
        }
        for odd in ["3", "[]", "{\"choices\":{}}", "{\"choices\":[3],\"usage\":[]}", "{\"choices\":[{\"text\":5}]}"] {
            heard.take("", odd, Instant::now()).unwrap();
        }
    }

    #[test]
    fn an_answer_that_goes_on_far_beyond_what_was_asked_is_a_failure() {
        let piece = json!({ "choices": [{ "text": "a" }] }).to_string();
        let mut heard = Heard::of(2);
        let mut take = |data: &str| heard.take("", data, Instant::now());
        for _ in 0..=2 * MAX_PIECES_A_TOKEN {
            take(&piece).unwrap();
        }
        assert_eq!(take(&piece).unwrap_err().cause, "longer than asked");
        let long = json!({ "choices": [], "padding": "x".repeat(MAX_STREAM / 16) }).to_string();
        let mut heard = Heard::of(Length::MAX);
        let taken = (0..17).map(|_| heard.take("", &long, Instant::now())).find_map(Result::err);
        assert_eq!(taken.unwrap().cause, "longer than asked");
    }
}
