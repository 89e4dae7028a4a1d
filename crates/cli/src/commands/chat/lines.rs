//! Lines of the one who asks: edited on a terminal, read as they are from a pipe.

use super::{history, line, note};
use crate::failure::Failure;
use anstyle::{AnsiColor, Style};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{Behavior, Config, Context, Editor, Helper};
use std::cell::RefCell;
use std::io::{BufRead as _, ErrorKind, IsTerminal as _, Write as _};
use std::path::PathBuf;

/// Terminals on which a line cannot be edited, as the editor knows them.
const PLAIN_TERMINALS: [&str; 3] = ["dumb", "cons25", "emacs"];

/// Said of a key that is no text.
const NOT_UTF8_KEY: &str = "a byte that is not UTF-8 was typed and is left out";

/// Outcome of reading a line.
pub(super) enum Read {
    /// A line was sent.
    Line(String),
    /// Ctrl-C, on a line that was `empty` or not.
    Interrupted {
        /// Nothing was on the line.
        empty: bool,
    },
    /// There are no more.
    End,
}

/// Source of lines.
pub(super) enum Lines {
    /// Edited on a terminal.
    Edited(Box<Editing>),
    /// Read as they are.
    Plain,
}

/// An editor with its history.
pub(super) struct Editing {
    editor: Editor<Typing, FileHistory>,
    history: Option<PathBuf>,
}

impl Lines {
    /// Lines from standard input; edited, with the lines of earlier conversations unless `forgetful`, if it is a terminal.
    pub(super) fn new(forgetful: bool) -> Result<Self, Failure> {
        let plain = std::env::var("TERM").is_ok_and(|name| PLAIN_TERMINALS.contains(&name.as_str()));
        if plain || !std::io::stdin().is_terminal() {
            return Ok(Lines::Plain);
        }
        let config = Config::builder()
            // Standard output may be a file.
            .behavior(Behavior::PreferTerm)
            .max_history_size(history::LINES)
            .and_then(|config| config.history_ignore_dups(true))
            .map_err(terminal)?
            .history_ignore_space(true)
            .build();
        let mut editor = Editor::with_config(config).map_err(terminal)?;
        editor.set_helper(Some(Typing::default()));
        let mut editing = Editing { editor, history: None };
        if !forgetful {
            editing.open_history();
        }
        Ok(Lines::Edited(Box::new(editing)))
    }

    /// True if somebody sits at a terminal.
    pub(super) fn edited(&self) -> bool {
        matches!(self, Lines::Edited(_))
    }

    /// The next line.
    pub(super) fn read(&mut self) -> Result<Read, Failure> {
        match self {
            Lines::Edited(editing) => editing.read(),
            Lines::Plain => {
                if std::io::stdin().is_terminal() {
                    write!(std::io::stderr(), "> ").map_err(Failure::output)?;
                }
                let mut line = Vec::new();
                match std::io::stdin().lock().read_until(b'\n', &mut line) {
                    Ok(0) => Ok(Read::End),
                    Ok(_) => Ok(Read::Line(text(line))),
                    Err(error) => Err(Failure::failed(format!("standard input: {error}"))),
                }
            }
        }
    }
}

impl Editing {
    fn read(&mut self) -> Result<Read, Failure> {
        let color = anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never;
        let style = if color { Style::new().bold().fg_color(Some(AnsiColor::Cyan.into())) } else { Style::new() };
        let prompt = ("› ", format!("{style}› {style:#}"));
        let mut begun = (String::new(), String::new());
        loop {
            self.editor.helper().iter().for_each(|typing| typing.line.borrow_mut().clone_from(&begun));
            let read = self.editor.readline_with_initial(&prompt, (&begun.0, &begun.1));
            begun = self.editor.helper().map(|typing| typing.line.take()).unwrap_or_default();
            return match read {
                Ok(line) => {
                    self.remember(line.trim_end());
                    Ok(Read::Line(line))
                }
                Err(ReadlineError::Io(error)) if error.kind() == ErrorKind::InvalidData => {
                    note(NOT_UTF8_KEY);
                    continue;
                }
                Err(ReadlineError::Interrupted) => {
                    Ok(Read::Interrupted { empty: begun.0.is_empty() && begun.1.is_empty() })
                }
                Err(ReadlineError::Eof) => Ok(Read::End),
                Err(error) => Err(terminal(error)),
            };
        }
    }

    fn open_history(&mut self) {
        let Some(file) = history::file() else { return };
        let opened = history::make_folder(&file).map_err(ReadlineError::from).and_then(|()| {
            match self.editor.load_history(&file) {
                Err(ReadlineError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                result => result,
            }
        });
        match opened {
            Ok(()) => self.history = Some(file),
            Err(error) => note(&format!("{}: {error}; lines are not kept", file.display())),
        }
    }

    /// Keeps a line at once: the next conversation may begin before this one ends.
    fn remember(&mut self, line: &str) {
        if line.len() > history::LINE_BYTES {
            return;
        }
        let kept = self.editor.add_history_entry(line).and_then(|added| match &self.history {
            Some(file) if added => self.editor.append_history(file),
            _ => Ok(()),
        });
        if let Err(error) = kept
            && let Some(file) = self.history.take()
        {
            note(&format!("{}: {error}; lines are not kept from here on", file.display()));
        }
    }
}

/// A line of bytes, with U+FFFD for those that are not UTF-8.
fn text(line: Vec<u8>) -> String {
    String::from_utf8(line).unwrap_or_else(|error| {
        note("bytes that are not UTF-8 are read as U+FFFD");
        String::from_utf8_lossy(error.as_bytes()).into_owned()
    })
}

fn terminal(error: ReadlineError) -> Failure {
    Failure::failed(format!("the terminal: {error}"))
}

/// Help while a line is typed.
#[derive(Default)]
struct Typing {
    /// Text of the line, before and behind the cursor: Ctrl-C discards it, a byte that is not UTF-8 does not.
    line: RefCell<(String, String)>,
}

impl Helper for Typing {}

impl Completer for Typing {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let begun = &line[..pos];
        let fits = |name: &&str| begun.starts_with('/') && name.starts_with(begun);
        Ok((0, line::names().filter(fits).map(str::to_owned).collect()))
    }
}

impl Highlighter for Typing {
    fn highlight_char(&self, line: &str, pos: usize, _: CmdKind) -> bool {
        let (before, behind) = line.split_at_checked(pos).unwrap_or((line, ""));
        self.line.replace((before.to_owned(), behind.to_owned()));
        false
    }
}

impl Hinter for Typing {
    type Hint = String;
}

impl Validator for Typing {}
