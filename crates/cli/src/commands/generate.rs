//! `generate`: one completion.

use crate::args::{Generate, SamplingArgs};
use crate::context::Context;
use crate::failure::Failure;
use mlx_serving_engine::EngineError;
use mlx_serving_runtime::{
    Answer, Conversation, Generate as _, Input, Message, Model, Parameters, PromptError, Role, RuntimeError, Sampling,
};
use serde_json::json;
use std::io::{Read as _, Write};

pub(crate) fn run(context: &Context, args: &Generate) -> Result<(), Failure> {
    check(&args.sampling)?;
    let prompt = match args.prompt.as_str() {
        "-" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(|e| Failure::failed(format!("standard input: {e}")))?;
            text
        }
        text => text.to_owned(),
    };
    let model = context.load_with(args.model.model.as_deref(), &args.template)?;
    let raw = args.raw || !model.chats();
    let input = if raw {
        Input::Text { text: prompt, special: true }
    } else {
        let conversation = Conversation::new(vec![Message::new(Role::User, prompt)]);
        Input::Conversation { conversation, special: false }
    };
    let mut out = std::io::stdout().lock();
    let mut text = String::new();
    let mut token_ids = Vec::new();
    let mut answer = begin(&model, input, &args.sampling)?;
    for piece in &mut answer {
        let piece = piece?;
        token_ids.extend(piece.token);
        text += &piece.text;
        if !args.json {
            out.write_all(piece.text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::output)?;
        }
    }
    let Some(finish) = answer.finish() else {
        return Err(Failure::failed("the engine ended without finishing the answer"));
    };
    let u = finish.usage;
    if args.json {
        let object = json!({
            "text": text, "token_ids": token_ids, "finish_reason": finish.reason.as_str(), "model": model.card().id,
            "prompt_tokens": u.prompt_tokens, "completion_tokens": u.completion_tokens,
            "timings": { "queue_s": u.queue_s, "prefill_s": u.prefill_s, "decode_s": u.decode_s,
                         "decode_tok_s": rate(u.completion_tokens, u.decode_s) },
        });
        writeln!(out, "{object}").map_err(Failure::output)?;
    } else if !text.ends_with('\n') {
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

/// Refuses flags that no model takes, before one is loaded.
pub(crate) fn check(args: &SamplingArgs) -> Result<(), Failure> {
    if args.max_tokens == Some(0) {
        return Err(Failure::usage("--max-tokens is 0; it must be at least 1"));
    }
    sampling(&Sampling::default(), args).validate(0).map_err(refused)
}

/// Begins an answer, with parameters from flags and the rest from the model's own defaults.
pub(crate) fn begin(model: &Model, input: Input, args: &SamplingArgs) -> Result<Answer, Failure> {
    let parameters = Parameters {
        sampling: sampling(&model.card().defaults, args),
        max_tokens: args.max_tokens,
        stop: args.stop.clone(),
    };
    model.complete(input, &parameters).map_err(unanswered)
}

/// Failure to begin an answer, with what to do about it.
pub(crate) fn unanswered(error: RuntimeError) -> Failure {
    match error {
        RuntimeError::Prompt(PromptError::NoTemplate { .. }) => Failure::failed(format!("{error}; use generate --raw")),
        RuntimeError::Prompt(PromptError::Template(ref template)) if !template.is_client_error() => {
            Failure::failed(format!("{error}, or use generate --raw"))
        }
        RuntimeError::Engine(error) => refused(error),
        error => error.into(),
    }
}

/// Parameters of flags over a model's own.
fn sampling(defaults: &Sampling, args: &SamplingArgs) -> Sampling {
    // Named one by one, so that a flag that is not used does not compile.
    let SamplingArgs { max_tokens: _, temperature, top_p, top_k, min_p, seed, stop: _ } = args;
    Sampling {
        temperature: temperature.unwrap_or(defaults.temperature),
        top_p: top_p.unwrap_or(defaults.top_p),
        top_k: top_k.unwrap_or(defaults.top_k),
        min_p: min_p.unwrap_or(defaults.min_p),
        seed: *seed,
        ..defaults.clone()
    }
}

/// A refusal by the engine: of a flag's value, or of the prompt, which is no flag.
fn refused(error: EngineError) -> Failure {
    match error {
        EngineError::Invalid { param, message } | EngineError::ContextLength { param, message }
            if param != "prompt" =>
        {
            Failure::usage(format!("--{}: {message}", param.replace('_', "-")))
        }
        error => Failure::failed(error),
    }
}
