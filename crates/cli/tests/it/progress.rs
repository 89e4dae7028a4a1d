//! Progress on a terminal: what a person sees of a benchmark that opens a model for each run.

use crate::common::{binary, run};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::Read;
use std::num::NonZeroU16;
use std::process::Stdio;

const SHORT: [&str; 15] = [
    "bench",
    "compare",
    "--device",
    "cpu",
    "--threads",
    "1",
    "--optimizations",
    "command_buffer_ring",
    "--repetitions",
    "1",
    "-q",
    "1",
    "--prompt-tokens=4",
    "--max-tokens=2",
    "--prefix-tokens=8",
];

/// Everything that a command writes to a terminal of 80 columns, chunk by chunk as it came.
fn on_a_terminal(args: &[&str]) -> Vec<Vec<u8>> {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    tcsetwinsize(&terminal, Winsize { ws_row: 50, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let end = File::from(rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap());
    let mut command = binary();
    command.args(args).env("TERM", "xterm-256color").stdout(end.try_clone().unwrap()).stderr(Stdio::from(end));
    let mut child = command.spawn().unwrap();
    // Its own ends of the terminal go with it.
    drop(command);
    let (mut terminal, mut chunks, mut chunk) = (File::from(terminal), Vec::new(), [0; 4096]);
    // The last reader of a terminal that nobody holds gets an error instead of an end.
    while let Ok(read @ 1..) = terminal.read(&mut chunk) {
        chunks.push(chunk[..read].to_vec());
    }
    assert!(child.wait().unwrap().success());
    chunks
}

/// A screen of 80 columns, with rows enough that nothing scrolls away.
fn screen() -> vt100::Parser {
    let size = |n| NonZeroU16::new(n).unwrap();
    vt100::Parser::new(size(500), size(80), 0)
}

fn lines(screen: &vt100::Screen) -> Vec<String> {
    screen.rows(0, screen.size().1.get()).map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn lines_of_the_log_leave_one_intact_bar() {
    let chunks = on_a_terminal(&[&SHORT[..], &["-v"]].concat());
    let mut terminal = screen();
    let drawn = String::from_utf8_lossy(&chunks.concat()).matches("run ").count();
    assert!(drawn >= 2, "the bar was drawn {drawn} times");
    let mut most = 0;
    for chunk in chunks {
        terminal.process(&chunk);
        let lines = lines(terminal.screen());
        most = most.max(lines.iter().filter(|line| line.starts_with("run ")).count());
        assert!(!lines.iter().any(|line| line.contains("INFO") && line.contains("run ")), "{lines:#?}");
    }
    // A slow reader may get a bar and its end at once, and see none.
    assert!(most <= 1, "{most} bars at a time");
    let lines = lines(terminal.screen());
    assert!(!lines.iter().any(|line| line.starts_with("run ")), "a bar was left behind: {lines:#?}");
    assert_eq!(lines.iter().filter(|line| line.contains("loaded")).count(), 4, "{lines:#?}");
}

#[test]
fn a_comparison_says_first_how_many_runs_and_how_long_and_nothing_of_each_load() {
    let mut terminal = screen();
    on_a_terminal(&SHORT).iter().for_each(|chunk| terminal.process(chunk));
    let lines = lines(terminal.screen());
    let at = |text: &str| {
        lines.iter().position(|line| line.contains(text)).unwrap_or_else(|| panic!("no {text}: {lines:#?}"))
    };
    assert!(at("3 runs of rustbook-5m-4bit") < at("about ") && at("about ") < at("command_buffer_ring"), "{lines:#?}");
    assert!(lines[at("about ")].contains("warm-up"), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("INFO")), "{lines:#?}");
}

#[test]
fn a_pipe_gets_plain_lines_of_80_columns() {
    let output = run(&SHORT);
    let (text, log) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{log}");
    assert!(!text.contains('\u{1b}') && text.contains("command_buffer_ring"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(!log.contains('\u{1b}') && !log.contains('\r') && log.contains("about "), "{log}");
}
