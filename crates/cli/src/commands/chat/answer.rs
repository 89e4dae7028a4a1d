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
                screen.write(&piece.text)?;
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

/// Standard output: wrapped on a terminal, as it comes elsewhere.
struct Screen {
    out: Stdout,
    wrap: Option<Wrap>,
    /// The cursor is not at the beginning of a line.
    within: bool,
}

impl Screen {
    fn new() -> Self {
        let out = std::io::stdout();
        let wrap = out.is_terminal().then(Wrap::new);
        Self { out, wrap, within: false }
    }

    fn write(&mut self, text: &str) -> Result<(), Failure> {
        // Asked each time: the window may have been resized.
        let shown = match &mut self.wrap {
            Some(wrap) => wrap.push(text, terminal::columns(&self.out).unwrap_or(usize::MAX)),
            None => text.to_owned(),
        };
        self.put(&shown)
    }

    /// Shows what was held back, and ends the line.
    fn end(&mut self) -> Result<(), Failure> {
        if let Some(wrap) = &mut self.wrap {
            let rest = wrap.finish(terminal::columns(&self.out).unwrap_or(usize::MAX));
            self.put(&rest)?;
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
