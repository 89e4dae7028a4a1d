//! `generate`: one completion.

use super::Context;
use crate::args::{Generate, SamplingArgs};
use crate::failure::Failure;
use mlx_serving_engine::{Event, Finish, Request, Sampling, Stream};
use mlx_serving_runtime::{Conversation, Generate as _, Input, Message, Model, PromptError, Role};
use serde_json::json;
use std::io::{Read as _, Write};

/// Tokens of an answer when nothing else is asked for.
const DEFAULT_MAX_TOKENS: usize = 512;

pub(crate) fn run(context: &Context, args: &Generate) -> Result<(), Failure> {
    let prompt = match args.prompt.as_str() {
        "-" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(|e| Failure::failed(format!("standard input: {e}")))?;
            text
        }
        text => text.to_owned(),
    };
    let model = context.load(args.model.model.as_deref())?;
    let raw = args.raw || !model.chats();
    let input = if raw {
        Input::Text { text: prompt, special: true }
    } else {
        let conversation = Conversation::new(vec![Message::new(Role::User, prompt)]);
        Input::Conversation { conversation, special: false }
    };
    let tokens = ids(&model, input)?;
    let mut out = std::io::stdout().lock();
    let mut answer = String::new();
    let mut token_ids = Vec::new();
    let request = Request { begins_text: !raw, ..request(&model, tokens, &args.sampling) };
    let finish = follow(model.engine().submit(request).map_err(Failure::failed)?, |id, text| {
        token_ids.extend(id);
        answer += text;
        if args.json { Ok(()) } else { out.write_all(text.as_bytes()).and_then(|()| out.flush()) }
    })?;
    let u = finish.usage;
    if args.json {
        let object = json!({
            "text": answer, "token_ids": token_ids, "finish_reason": finish.reason.as_str(), "model": model.card().id,
            "prompt_tokens": u.prompt_tokens, "completion_tokens": u.completion_tokens,
            "timings": { "queue_s": u.queue_s, "prefill_s": u.prefill_s, "decode_s": u.decode_s,
                         "decode_tok_s": rate(u.completion_tokens, u.decode_s) },
        });
        writeln!(out, "{object}").map_err(Failure::output)?;
    } else if !answer.ends_with('\n') {
        writeln!(out).map_err(Failure::output)?;
    }
    tracing::info!(
        prompt_tokens = u.prompt_tokens,
        tokens = u.completion_tokens,
        prefill_ms = (u.prefill_s * 1e3).round(),
        decode_tok_s = rate(u.completion_tokens, u.decode_s).unwrap_or(0.0).round(),
        finish = finish.reason.as_str(),
        "done"
    );
    Ok(())
}

/// Tokens a second after the first one; `None` where there was only one.
fn rate(tokens: usize, decode_s: f64) -> Option<f64> {
    (tokens > 1 && decode_s > 0.0).then(|| (tokens - 1) as f64 / decode_s)
}

/// A prompt's token ids.
pub(crate) fn ids(model: &Model, input: Input) -> Result<Vec<u32>, Failure> {
    model.prompt(input, &mut || true).map_err(|error| match error {
        PromptError::NoTemplate { .. } => Failure::failed(format!("{error}; use generate --raw")),
        error => Failure::failed(error),
    })
}

/// A request from flags, the rest from the model's own defaults.
pub(crate) fn request(model: &Model, prompt: Vec<u32>, args: &SamplingArgs) -> Request {
    let d = &model.card().defaults;
    let room = model.engine().info().max_context.saturating_sub(prompt.len()).max(1);
    Request {
        sampling: Sampling {
            temperature: args.temperature.unwrap_or(d.temperature),
            top_p: args.top_p.unwrap_or(d.top_p),
            top_k: args.top_k.unwrap_or(d.top_k),
            min_p: args.min_p.unwrap_or(d.min_p),
            seed: args.seed,
            ..d.clone()
        },
        // What was asked for is asked of the engine as it is; the default gives way to the context.
        max_tokens: Some(args.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS.min(room))),
        stop: args.stop.clone(),
        prompt,
        ..Request::default()
    }
}

/// Passes each token and its text on, then whatever text was held back.
pub(crate) fn follow(
    mut stream: Stream,
    mut each: impl FnMut(Option<u32>, &str) -> std::io::Result<()>,
) -> Result<Finish, Failure> {
    while let Some(event) = stream.next_blocking() {
        match event {
            Event::Prompt(_) => {}
            Event::Token(token) => each(Some(token.id), &token.text).map_err(Failure::output)?,
            Event::Finished(finish) => {
                each(None, &finish.text).map_err(Failure::output)?;
                return Ok(finish);
            }
            Event::Failed(error) => return Err(Failure::failed(error)),
        }
    }
    Err(Failure::failed("the engine ended without finishing the answer"))
}
