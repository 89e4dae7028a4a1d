//! The terminal while no line is edited: keys are not shown and wait for the next line, and Ctrl-C stops an answer.

use crate::failure::Failure;
use crate::signals;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Ends the process as a shell says it of one that a signal ended.
const SIGNALS: [(&str, i32); 3] = [("SIGHUP", 1), ("SIGINT", 2), ("SIGTERM", 15)];

/// The keyboard of a conversation. Dropped, the terminal is as it was.
#[derive(Debug)]
pub(super) struct Keyboard {
    modes: Option<Modes>,
    /// Ctrl-C came; another one leaves.
    interrupted: Arc<AtomicBool>,
}

impl Keyboard {
    /// Listens to signals; if lines are `edited` on a terminal, keeps keys from being shown. Until [`Keyboard::listen`], Ctrl-C leaves.
    pub(super) fn new(edited: bool) -> Result<Self, Failure> {
        let modes = edited.then(Modes::read).flatten();
        let interrupted = Arc::new(AtomicBool::new(true));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Failure::failed(format!("signals cannot be caught: {e}")))?;
        let (flag, before) = (interrupted.clone(), modes.clone());
        std::thread::spawn(move || {
            runtime.block_on(async move {
                let mut stops = signals::stops(Duration::ZERO);
                while let Some(name) = stops.recv().await {
                    let leaves = name == "SIGTERM" || name == "SIGHUP" || flag.swap(true, Ordering::SeqCst);
                    if leaves {
                        leave(name, before.as_ref());
                    }
                }
            });
        });
        let keyboard = Self { modes, interrupted };
        keyboard.hide_keys();
        Ok(keyboard)
    }

    /// An answer begins: the next Ctrl-C is about it. Where no terminal asks, Ctrl-C still leaves.
    pub(super) fn listen(&self) {
        if self.modes.is_some() {
            // The process may have been stopped meanwhile, and the shell have set the terminal its own way.
            self.hide_keys();
            self.interrupted.store(false, Ordering::SeqCst);
        }
    }

    /// Ctrl-C came since [`Keyboard::listen`].
    pub(super) fn interrupted(&self) -> bool {
        self.modes.is_some() && self.interrupted.load(Ordering::SeqCst)
    }

    /// True if somebody sits at a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        self.modes.is_some()
    }

    fn hide_keys(&self) {
        self.modes.iter().for_each(Modes::hide_keys);
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        self.modes.iter().for_each(Modes::restore);
    }
}

fn leave(signal: &str, before: Option<&Modes>) -> ! {
    if let Some(modes) = before {
        modes.restore();
        // Behind whatever stands in the line; the editor may have had bracketed paste switched on.
        let _ = std::io::stderr().write_all(b"\x1b[?2004l\r\n");
    }
    let number = SIGNALS.iter().find(|(name, _)| *name == signal).map_or(2, |(_, number)| *number);
    std::process::exit(128 + number)
}

/// Modes of the terminal at standard input.
#[cfg(unix)]
#[derive(Debug, Clone)]
struct Modes(rustix::termios::Termios);

#[cfg(unix)]
impl Modes {
    /// The modes now; `None` where it is no terminal.
    fn read() -> Option<Self> {
        rustix::termios::tcgetattr(std::io::stdin()).ok().map(Self)
    }

    /// Keys go unseen into the terminal's queue, where the line editor finds them; Ctrl-C is a signal and leaves the queue alone.
    fn hide_keys(&self) {
        use rustix::termios::{InputModes, LocalModes};
        let mut hidden = self.0.clone();
        hidden.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::IEXTEN);
        hidden.local_modes.insert(LocalModes::ISIG | LocalModes::NOFLSH);
        hidden.input_modes.remove(InputModes::ICRNL);
        self.set(&hidden);
    }

    fn restore(&self) {
        self.set(&self.0);
    }

    fn set(&self, modes: &rustix::termios::Termios) {
        // A terminal that has gone needs no modes.
        let _ = rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, modes);
    }
}

/// Modes of a terminal that is left as it is.
#[cfg(not(unix))]
#[derive(Debug, Clone)]
struct Modes;

#[cfg(not(unix))]
impl Modes {
    fn read() -> Option<Self> {
        Some(Self)
    }

    fn hide_keys(&self) {}

    fn restore(&self) {}
}
