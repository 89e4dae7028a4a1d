//! One answer, shown while it comes.

use super::keyboard::Keyboard;
use super::wrap::Wrap;
use crate::failure::Failure;
use crate::terminal;
use mlx_serving_runtime::{Answer, Finish, Next};
use std::io::{IsTerminal as _, Stdout, Write as _};
use std::time::Duration;

/// An answer that was shown.
pub(super) struct Shown {
    /// Its text, as the model gave it.
    pub text: String,
    /// Its end; `None` where it was interrupted.
    pub finish: Option<Finish>,
}

/// Shows an answer on standard output until it ends or is interrupted.
pub(super) fn show(mut answer: Answer, keyboard: &Keyboard) -> Result<Shown, Failure> {
    let (mut screen, mut text) = (Screen::new(), String::new());
    let interrupted = loop {
        if keyboard.interrupted() {
            break true;
        }
        match answer.next_within(Duration::from_millis(50)) {
            Ok(Next::Late) => {}
            Ok(Next::Piece(piece)) => {
                text += &piece.text;
                screen.write(&piece.reasoning, true)?;
                screen.write(&piece.text, false)?;
            }
            Ok(Next::End) => break false,
            Err(error) => {
                screen.end()?;
                return Err(error.into());
            }
        }
    };
    screen.end()?;
    match (interrupted, answer.finish()) {
        (true, _) => Ok(Shown { text, finish: None }),
        (false, Some(finish)) => Ok(Shown { text, finish: Some(finish.clone()) }),
        (false, None) => Err(Failure::failed("the engine ended without finishing the answer")),
    }
}

/// Dims what follows on a terminal, and ends that.
const DIM: [&str; 2] = ["\x1b[2m", "\x1b[0m"];

/// Standard output: wrapped on a terminal, where reasoning is dimmed; elsewhere the text as it comes, and no reasoning.
struct Screen {
    out: Stdout,
    wrap: Option<Wrap>,
    /// Reasoning is shown.
    dimmed: bool,
    /// The cursor is not at the beginning of a line.
    within: bool,
}

impl Screen {
    fn new() -> Self {
        let out = std::io::stdout();
        let wrap = out.is_terminal().then(Wrap::new);
        Self { out, wrap, dimmed: false, within: false }
    }

    fn write(&mut self, text: &str, reasoning: bool) -> Result<(), Failure> {
        if text.is_empty() || (reasoning && self.wrap.is_none()) {
            return Ok(());
        }
        self.dim(reasoning)?;
        // Asked each time: the window may have been resized.
        let shown = match &mut self.wrap {
            Some(wrap) => wrap.push(text, terminal::columns(&self.out).unwrap_or(usize::MAX)),
            None => text.to_owned(),
        };
        self.put(&shown)
    }

    /// Begins reasoning, or ends it with an empty line.
    fn dim(&mut self, dimmed: bool) -> Result<(), Failure> {
        if dimmed == self.dimmed {
            return Ok(());
        }
        self.finish_wrap()?;
        let before = if self.within { "\n\n" } else { "" };
        self.dimmed = dimmed;
        self.wrap = Some(Wrap::new());
        self.put(&format!("{}{before}", DIM[usize::from(!dimmed)]))?;
        self.within = false;
        Ok(())
    }

    fn finish_wrap(&mut self) -> Result<(), Failure> {
        let Some(wrap) = &mut self.wrap else { return Ok(()) };
        let rest = wrap.finish(terminal::columns(&self.out).unwrap_or(usize::MAX));
        self.put(&rest)
    }

    /// Shows what was held back, and ends the line.
    fn end(&mut self) -> Result<(), Failure> {
        self.finish_wrap()?;
        if self.dimmed {
            self.out.write_all(DIM[1].as_bytes()).map_err(Failure::output)?;
        }
        if self.within { self.put("\n") } else { Ok(()) }
    }

    fn put(&mut self, text: &str) -> Result<(), Failure> {
        if let Some(last) = text.chars().last() {
            self.within = last != '\n';
            self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).map_err(Failure::output)?;
        }
        Ok(())
    }
}
