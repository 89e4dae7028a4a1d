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
use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

/// Terminals on which a line cannot be edited, as the editor knows them.
const PLAIN_TERMINALS: [&str; 3] = ["dumb", "cons25", "emacs"];

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
        editor.set_helper(Some(Typing { typed: Cell::new(false) }));
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
                let mut line = String::new();
                match std::io::stdin().read_line(&mut line) {
                    Ok(0) => Ok(Read::End),
                    Ok(_) => Ok(Read::Line(line)),
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
        self.editor.helper().iter().for_each(|typing| typing.typed.set(false));
        match self.editor.readline(&("› ", format!("{style}› {style:#}"))) {
            Ok(line) => {
                self.remember(line.trim_end());
                Ok(Read::Line(line))
            }
            Err(ReadlineError::Interrupted) => {
                Ok(Read::Interrupted { empty: !self.editor.helper().is_some_and(|typing| typing.typed.get()) })
            }
            Err(ReadlineError::Eof) => Ok(Read::End),
            Err(error) => Err(terminal(error)),
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

fn terminal(error: ReadlineError) -> Failure {
    Failure::failed(format!("the terminal: {error}"))
}

/// Help while a line is typed.
struct Typing {
    /// Something is on the line, which Ctrl-C takes away with it.
    typed: Cell<bool>,
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
    fn highlight_char(&self, line: &str, _: usize, _: CmdKind) -> bool {
        self.typed.set(!line.is_empty());
        false
    }
}

impl Hinter for Typing {
    type Hint = String;
}

impl Validator for Typing {}
