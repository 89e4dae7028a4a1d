//! `chat`: a conversation in the terminal.

use super::generate;
use crate::args::Chat;
use crate::context::Context;
use crate::failure::Failure;
use anstyle::{AnsiColor, Style};
use mlx_serving_runtime::{Conversation, Generate as _, Input, Message, Model, Next, Role};
use rustyline::error::ReadlineError;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const HELP: &str = "/help this, /clear forgets the conversation, /exit leaves. Ctrl-C stops an answer, twice leaves.";

pub(crate) fn run(context: &Context, args: &Chat) -> Result<(), Failure> {
    let model = context.load_with(args.model.model.as_deref(), &args.template)?;
    model.check_chat().map_err(|error| generate::refused(error.into()))?;
    let mut out = anstream::stdout();
    let dim = Style::new().dimmed();
    writeln!(out, "{dim}{} · {HELP}{dim:#}", model.card().id).map_err(Failure::output)?;
    let opening: Vec<Message> = args.system.iter().map(|text| Message::new(Role::System, text)).collect();
    let mut messages = opening.clone();
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::SeqCst) {
            // The second one in a row: nothing is left to save.
            std::process::exit(0);
        }
    })
    .map_err(|e| Failure::failed(format!("Ctrl-C cannot be caught: {e}")))?;
    let mut editor = rustyline::DefaultEditor::new().map_err(|e| Failure::failed(format!("the terminal: {e}")))?;
    let prompt_style = Style::new().bold().fg_color(Some(AnsiColor::Cyan.into()));
    let mut left = false;
    loop {
        let line = match editor.readline(&format!("{prompt_style}› {prompt_style:#}")) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) if !left => {
                left = true;
                writeln!(out, "{dim}Ctrl-C again leaves{dim:#}").map_err(Failure::output)?;
                continue;
            }
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(Failure::failed(format!("the terminal: {error}"))),
        };
        left = false;
        match line.trim() {
            "" => continue,
            "/exit" | "/quit" => return Ok(()),
            "/help" => {
                writeln!(out, "{dim}{HELP}{dim:#}").map_err(Failure::output)?;
                continue;
            }
            "/clear" => {
                messages.clone_from(&opening);
                continue;
            }
            text => {
                // A history that cannot be kept is no reason to stop.
                let _ = editor.add_history_entry(text);
                messages.push(Message::new(Role::User, text));
            }
        }
        interrupted.store(false, Ordering::SeqCst);
        match answer(&model, &messages, args, &interrupted, &mut out) {
            Ok(text) => messages.push(Message::new(Role::Assistant, text)),
            Err(Failure::Silent) => return Err(Failure::Silent),
            Err(error) => {
                messages.pop();
                let red = Style::new().fg_color(Some(AnsiColor::Red.into()));
                writeln!(out, "{red}{error}{red:#}").map_err(Failure::output)?;
            }
        }
        interrupted.store(false, Ordering::SeqCst);
    }
}

/// Streams one answer; what there was of it if it is interrupted.
fn answer(
    model: &Model,
    messages: &[Message],
    args: &Chat,
    interrupted: &AtomicBool,
    out: &mut impl Write,
) -> Result<String, Failure> {
    let conversation = Conversation::new(messages.to_vec());
    let input = Input::Conversation { conversation, special: false };
    let mut answer = generate::begin(model, input, &args.sampling)?;
    let mut text = String::new();
    loop {
        if interrupted.load(Ordering::SeqCst) {
            writeln!(out, " ⏹").map_err(Failure::output)?;
            return Ok(text);
        }
        match answer.next_within(Duration::from_millis(50))? {
            Next::Late => {}
            Next::Piece(piece) => {
                text += &piece.text;
                write!(out, "{}", piece.text).and_then(|()| out.flush()).map_err(Failure::output)?;
            }
            Next::End => break,
        }
    }
    let Some(finish) = answer.finish() else {
        return Err(Failure::failed("the engine ended without finishing the answer"));
    };
    let u = finish.usage;
    let dim = Style::new().dimmed();
    let rate = if u.decode_s > 0.0 { (u.completion_tokens.max(1) - 1) as f64 / u.decode_s } else { 0.0 };
    writeln!(out, "\n{dim}{} tokens, {rate:.0} tok/s{dim:#}", u.completion_tokens).map_err(Failure::output)?;
    Ok(text)
}
