//! The binary in a terminal, and what is on its screen.

use super::binary;
use pty_process::Size;
use pty_process::blocking::{Command, Pty, open};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Rows of a screen on which everything that a test shows has room.
const ROWS: u16 = 800;

/// A command in a terminal; killed when dropped.
pub struct Terminal {
    child: Child,
    pty: Arc<Pty>,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    /// Runs a command line in a terminal of `columns`, with its state in `state`.
    pub fn run(args: &[&str], columns: u16, state: &Path) -> Self {
        let mut command = binary();
        command.args(args);
        Self::start(command, columns, state)
    }

    /// The same with a shell's script, whose `$0` is the binary.
    pub fn shell(script: &str, columns: u16, state: &Path) -> Self {
        let binary = binary();
        let mut command = std::process::Command::new("sh");
        command.arg("-c").arg(script).arg(binary.get_program());
        for (name, _) in binary.get_envs() {
            command.env_remove(name);
        }
        Self::start(command, columns, state)
    }

    fn start(mut command: std::process::Command, columns: u16, state: &Path) -> Self {
        let (pty, pts) = open().expect("a terminal");
        pty.resize(Size::new(ROWS, columns)).expect("resized");
        command.env("TERM", "xterm-256color").env("XDG_STATE_HOME", state).env_remove("NO_COLOR");
        let child = Command::from(command).spawn(pts).expect("the binary starts");
        let pty = Arc::new(pty);
        let size = |n: u16| n.try_into().expect("not 0");
        let screen = Arc::new(Mutex::new(vt100::Parser::new(size(ROWS), size(columns), 0)));
        let (reads, shows) = (pty.clone(), screen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // A terminal without a process behind it is an error on Linux.
            while let Ok(n @ 1..) = reads.as_ref().read(&mut bytes) {
                shows.lock().expect("no panic").process(&bytes[..n]);
            }
        });
        Self { child, pty, screen }
    }

    /// Presses keys.
    pub fn press(&self, keys: impl AsRef<[u8]>) {
        self.pty.as_ref().write_all(keys.as_ref()).expect("written");
    }

    /// Types a line, waits until it is answered, and for the next prompt.
    pub fn line(&self, line: &str) {
        let prompts = self.prompts();
        self.press(format!("{line}\r"));
        self.until(line, |terminal| terminal.prompts() > prompts && terminal.last() == "›");
    }

    /// Waits for an empty prompt.
    pub fn ready(&self) {
        self.until("prompt", |terminal| terminal.last() == "›");
    }

    /// Everything on the screen.
    pub fn text(&self) -> String {
        let screen = self.screen.lock().expect("no panic");
        let lines: Vec<String> = screen.screen().rows(0, u16::MAX).map(|row| row.trim_end().to_owned()).collect();
        lines.join("\n").trim_end().to_owned()
    }

    /// The last line that is not empty.
    pub fn last(&self) -> String {
        self.text().lines().last().unwrap_or_default().to_owned()
    }

    /// Rows that the terminal had to break because they were too long.
    pub fn broken(&self) -> Vec<(usize, String)> {
        let screen = self.screen.lock().expect("no panic");
        let rows = (0..ROWS).zip(screen.screen().rows(0, u16::MAX));
        rows.filter(|(i, _)| screen.screen().row_wrapped(*i)).map(|(i, row)| (i.into(), row)).collect()
    }

    /// Waits until the screen is as it should be; fails after a generous while.
    pub fn until(&self, what: &str, shows: impl Fn(&Terminal) -> bool) {
        let start = Instant::now();
        while !shows(self) {
            assert!(start.elapsed() < Duration::from_secs(120), "{what} did not come:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the command's end.
    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(start.elapsed() < Duration::from_secs(120), "it does not end:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Prompts on the screen.
    pub fn prompts(&self) -> usize {
        self.text().lines().filter(|line| line.starts_with('›')).count()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
