//! `chat`: a conversation in the terminal. Answers go to standard output, everything else to standard error.

mod answer;
mod dialogue;
mod history;
mod keyboard;
mod line;
mod lines;
mod wrap;

use super::generate;
use crate::args::{Chat, SamplingArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::terminal;
use anstyle::{AnsiColor, Style};
use answer::Shown;
use dialogue::{Dialogue, Turn};
use keyboard::Keyboard;
use line::Line;
use lines::{Lines, Read};
use mlx_serving_runtime::{Conversation, FinishReason, Generate as _, Input, Message, Model, PromptError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use wrap::Wrap;

/// Tokens of an answer if no number is given.
const MAX_TOKENS: usize = 512;
/// Said where a system prompt is asked for or removed, and there is none.
const NO_SYSTEM: &str = "there is no system prompt; /system TEXT sets one";
/// Answers of fewer tokens are too short to tell a speed.
const TELLING: usize = 10;

pub(crate) fn run(context: &Context, args: &Chat) -> Result<(), Failure> {
    generate::check(&args.sampling)?;
    let mut lines = Lines::new(args.no_history)?;
    let keyboard = Keyboard::new(lines.edited())?;
    let model = context.load_with(args.model.model.as_deref(), &args.template)?;
    model.check_chat().map_err(|error| generate::unanswered(error.into()))?;
    if lines.edited() {
        note(&format!("{} · /help lists the commands, Ctrl-D leaves", model.card().id));
    }
    let dialogue = Dialogue::new(args.system.clone().filter(|text| !text.is_empty()));
    let mut chat = Chatting { model, args, keyboard, dialogue, again: 0, last: None, saved: Vec::new() };
    let mut leaving = false;
    let mut failed = false;
    loop {
        let line = match lines.read()? {
            Read::Line(line) => line,
            Read::Interrupted { empty: true } if leaving => return Err(Failure::Interrupted),
            Read::Interrupted { empty } => {
                leaving = empty;
                if empty {
                    note("Ctrl-C again leaves, as does Ctrl-D");
                }
                continue;
            }
            Read::End => break,
        };
        leaving = false;
        match chat.follow(&Line::parse(&line)) {
            Ok(true) => {}
            Ok(false) => break,
            Err(Failure::Silent) => return Err(Failure::Silent),
            Err(error) => {
                complain(&error.to_string());
                failed = true;
                let health = chat.model.health();
                if !health.alive {
                    return Err(Failure::failed("the model cannot answer any more: start again"));
                }
            }
        }
    }
    // Whoever sits at a terminal has read it.
    match failed && !lines.edited() {
        true => Err(Failure::failed("not every line was answered")),
        false => Ok(()),
    }
}

/// A conversation that goes on.
struct Chatting<'a> {
    model: Model,
    args: &'a Chat,
    keyboard: Keyboard,
    dialogue: Dialogue,
    /// Answers that were asked for again.
    again: u64,
    /// Conditions under which the last answer was made.
    last: Option<Origin>,
    /// The files that this conversation was written to.
    saved: Vec<PathBuf>,
}

/// Conditions that an answer depends on besides the conversation and the seed.
struct Origin {
    system: Option<String>,
    /// It was not stopped.
    whole: bool,
}

impl Chatting<'_> {
    /// Does what a line asks for. False to leave.
    fn follow(&mut self, line: &Line<'_>) -> Result<bool, Failure> {
        match line {
            Line::Empty => {}
            Line::Say(text) => self.ask(text)?,
            Line::Help => note(&line::help()),
            Line::System(None) => note(self.dialogue.system.as_deref().unwrap_or(NO_SYSTEM)),
            Line::System(Some("")) if self.dialogue.system.is_none() => note(NO_SYSTEM),
            Line::System(Some("")) => {
                self.dialogue.system = None;
                note("the system prompt is gone");
            }
            Line::System(Some(text)) => {
                self.dialogue.system = Some((*text).to_owned());
                note("the system prompt is set; it holds from the next question on");
            }
            Line::Regenerate => self.regenerate()?,
            Line::Save(file) => self.save(file)?,
            Line::Clear => {
                self.dialogue.clear();
                // Their files are no longer this conversation's.
                self.saved.clear();
                note("the conversation is forgotten");
            }
            Line::Exit => return Ok(false),
            Line::Wrong(what) => return Err(Failure::failed(what)),
        }
        Ok(true)
    }

    /// Answers a question, and keeps both.
    fn ask(&mut self, question: &str) -> Result<(), Failure> {
        self.keyboard.listen();
        let (input, max_tokens) = self.prompt(question)?;
        let seed = self.args.sampling.seed.map(|seed| seed.wrapping_add(self.again));
        let sampling = SamplingArgs { max_tokens: Some(max_tokens), seed, ..self.args.sampling.clone() };
        let shown = answer::show(generate::begin(&self.model, input, &sampling)?, &self.keyboard)?;
        self.tell_end(&shown);
        // A question that was taken back before anything came was not asked.
        if shown.finish.is_some() || !shown.text.is_empty() {
            self.last = Some(Origin { system: self.dialogue.system.clone(), whole: shown.finish.is_some() });
            self.dialogue.add(Turn { question: question.to_owned(), answer: shown.text });
        }
        Ok(())
    }

    /// The prompt with this question, and the tokens that its answer may have. Old turns are left out if need be.
    fn prompt(&mut self, question: &str) -> Result<(Input, usize), Failure> {
        let context = self.model.card().info.max_context;
        let wanted = self.args.sampling.max_tokens.unwrap_or(MAX_TOKENS);
        // Not measured. More would forget too soon, less would cut answers.
        let room = wanted.min(context / 4).max(1);
        let model = &self.model;
        let count = |messages| match model.prompt(input(messages), &mut || true) {
            Ok(ids) => Ok(Some(ids.len())),
            Err(PromptError::TooLong { .. }) => Ok(None),
            Err(error) => Err(generate::unanswered(error.into())),
        };
        let left_out = self.dialogue.make_room(question, context, room, count)?;
        let messages = self.dialogue.messages(question);
        let tokens = match model.prompt(input(messages.clone()), &mut || true) {
            Ok(ids) if ids.len() < context => ids.len(),
            refused => {
                self.dialogue.give_back(left_out);
                let (tokens, bound) = (refused.as_ref().map_or(0, Vec::len), self.model.card().info.context());
                let error = refused.err().unwrap_or(PromptError::TooLong { tokens, exact: true, bound });
                return Err(Failure::failed(format!("this is too long even without earlier turns: {error}")));
            }
        };
        if left_out > 0 {
            let turns = match self.dialogue.left_out() {
                1 => "the oldest turn".to_owned(),
                all if all == left_out => format!("the oldest {all} turns"),
                all => format!("the oldest {all} turns ({left_out} more)"),
            };
            note(&format!("the context of {context} tokens runs out: the model no longer sees {turns}"));
        }
        Ok((input(messages), wanted.min(context - tokens)))
    }

    /// Says how long an answer was, and why it ended if it was not the model that ended it.
    fn tell_end(&self, shown: &Shown) {
        let Some(finish) = &shown.finish else { return note("stopped") };
        let u = finish.usage;
        let mut end = format!("{} tokens", u.completion_tokens);
        if u.completion_tokens >= TELLING && u.decode_s > 0.0 {
            end += &format!(", {:.0} tok/s", (u.completion_tokens - 1) as f64 / u.decode_s);
        }
        let context = self.model.card().info.max_context;
        let cut = finish.reason == FinishReason::Length;
        if cut && u.prompt_tokens + u.completion_tokens >= context {
            end += &format!(" · cut off: the context of {context} tokens is full");
        } else if cut {
            end += " · cut off: --max-tokens allows no more";
        }
        if cut || self.keyboard.is_terminal() {
            note(&end);
        }
    }

    fn regenerate(&mut self) -> Result<(), Failure> {
        let Some(last) = self.dialogue.take_last() else {
            return Err(Failure::failed("nothing was answered yet that could be asked for again"));
        };
        let defaults = &self.model.card().defaults;
        let same = self.last.as_ref().is_some_and(|last| last.whole && last.system == self.dialogue.system);
        if same && self.args.sampling.temperature.unwrap_or(defaults.temperature) == 0.0 {
            note("at temperature 0 it comes out the same");
        }
        self.again += 1;
        let turns = self.dialogue.turns();
        let asked = self.ask(&last.question);
        // What did not come does not replace what there was.
        if self.dialogue.turns() == turns {
            self.dialogue.add(last);
        }
        asked
    }

    fn save(&mut self, file: &str) -> Result<(), Failure> {
        if self.dialogue.turns() == 0 {
            return Err(Failure::failed("nothing was said yet that could be saved"));
        }
        let path = match (file.strip_prefix("~/"), std::env::home_dir()) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => PathBuf::from(file),
        };
        let document = self.dialogue.document(&self.model.card().id, &path);
        let again = self.saved.contains(&path);
        write(&path, &document, again).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Failure::failed(format!("{file} is there already: name another file")),
            _ => Failure::failed(format!("{file}: {error}")),
        })?;
        note(&format!("saved as {}", path.display()));
        if !again {
            self.saved.push(path);
        }
        Ok(())
    }
}

fn input(messages: Vec<Message>) -> Input {
    Input::Conversation { conversation: Conversation::new(messages), special: false }
}

/// Writes a file; over another one only if it is `ours`.
fn write(path: &Path, text: &str, ours: bool) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(!ours).create(true).truncate(ours);
    options.open(path)?.write_all(text.as_bytes())
}

/// A dim line on standard error.
fn note(text: &str) {
    tell(text, Style::new().dimmed());
}

/// A red line on standard error.
fn complain(text: &str) {
    tell(text, Style::new().fg_color(Some(AnsiColor::Red.into())));
}

fn tell(text: &str, style: Style) {
    let width = terminal::columns(&std::io::stderr());
    let text = match width {
        Some(width) => {
            let mut wrap = Wrap::new();
            wrap.push(text, width) + &wrap.finish(width)
        }
        None => text.to_owned(),
    };
    // If standard error is closed, nobody wants to know.
    let _ = writeln!(anstream::stderr(), "{style}{text}{style:#}");
}
