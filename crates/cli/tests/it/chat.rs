//! `chat` in a terminal, as the one who sits there sees it.

use crate::common;
use crate::common::terminal::Terminal;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

const SEED: [&str; 4] = ["chat", "--seed", "1", "--max-tokens"];
/// With this seed the model answers [`QUESTION`] at greater length than it takes to press a key, the same on every machine.
const LONG: [&str; 7] = ["chat", "--arithmetic", "exact", "--seed", "4", "--max-tokens", "1500"];
const QUESTION: &str = "What is ownership?";

fn chat(args: &[&str], columns: u16) -> (Terminal, tempfile::TempDir) {
    let state = tempfile::tempdir().unwrap();
    let terminal = Terminal::run(args, columns, state.path());
    terminal.ready();
    (terminal, state)
}

fn history(state: &Path) -> PathBuf {
    state.join("mlx-serving/chat_history")
}

/// Asks, and waits for the answer's first words.
fn begin(terminal: &Terminal, question: &str) {
    let prompts = terminal.prompts();
    terminal.press(format!("{question}\r"));
    let begun = |t: &Terminal| !t.last().starts_with('›') && t.last().len() > 20;
    terminal.until("the answer", |t| begun(t) || t.prompts() > prompts);
}

#[test]
fn twenty_turns_go_past_the_end_of_the_context_and_no_word_is_broken() {
    for columns in [80, 40] {
        let (mut terminal, _state) = chat(&[&SEED[..], &["120"]].concat(), columns);
        assert_eq!(
            terminal.text().lines().next().unwrap(),
            match columns {
                80 => "rustbook-5m-4bit · /help lists the commands, Ctrl-D leaves",
                _ => "rustbook-5m-4bit · /help lists the",
            }
        );
        for i in 0..20 {
            terminal.line(&format!("Tell me about topic {i}"));
        }
        let text = terminal.text();
        assert!(text.matches(" tok/s").count() >= 18, "{text}");
        assert!(text.contains("the context of 2048 tokens runs out"), "{text}");
        for part in ["maximum context length", "max_tokens is", "INFO", "loading"] {
            assert!(!text.contains(part), "{part}: {text}");
        }
        // Code between fences is left as it is.
        let prose = text.lines().position(|line| line.contains("```")).unwrap_or(usize::MAX);
        assert!(terminal.broken().iter().all(|(row, _)| *row > prose), "{:?}", terminal.broken());
        terminal.press("\x04");
        assert_eq!(terminal.wait().code(), Some(0));
    }
}

#[test]
fn what_is_typed_during_an_answer_begins_the_next_line() {
    let (terminal, _state) = chat(&LONG, 80);
    begin(&terminal, QUESTION);
    terminal.press("second question");
    terminal.until("the line", |t| t.last() == "› second question");
    assert_eq!(terminal.text().matches("second question").count(), 1, "{}", terminal.text());
    // Whole lines too, one after the other.
    begin(&terminal, "");
    terminal.press("/system\rthird");
    terminal.until("the line", |t| t.last() == "› third");
    assert!(terminal.text().contains("› /system\nthere is no system prompt"), "{}", terminal.text());
}

#[test]
fn ctrl_c_stops_an_answer_and_the_conversation_goes_on() {
    let (mut terminal, state) = chat(&LONG, 80);
    begin(&terminal, QUESTION);
    terminal.press("\x03");
    terminal.until("the end of the answer", |t| t.text().contains("\nstopped\n") && t.last() == "›");
    let file = state.path().join("talk.json");
    terminal.line(&format!("/save {}", file.display()));
    let saved: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(saved["messages"][0]["content"], QUESTION);
    assert!(saved["messages"][1]["content"].as_str().unwrap().len() > 20, "{saved}");
    terminal.press("\x04");
    assert_eq!(terminal.wait().code(), Some(0));
}

#[test]
fn ctrl_c_clears_the_line_and_twice_at_an_empty_line_leaves() {
    let (mut terminal, _state) = chat(&["chat"], 80);
    for line in ["abc", "def"] {
        terminal.press(line);
        terminal.until("the line", |t| t.last() == format!("› {line}"));
        terminal.press("\x03");
        terminal.ready();
    }
    assert!(!terminal.text().contains("leaves, as"), "{}", terminal.text());
    terminal.press("\x03");
    terminal.until("a word", |t| t.text().contains("Ctrl-C again leaves") && t.last() == "›");
    terminal.press("\x03");
    assert_eq!(terminal.wait().code(), Some(130));
}

#[test]
fn lines_are_offered_in_the_next_conversation_unless_they_shall_not_be() {
    let (mut terminal, state) = chat(&["chat"], 80);
    let file = history(state.path());
    terminal.line("/system Be terse.");
    terminal.line(" /system a secret");
    terminal.press("\x04");
    assert_eq!(terminal.wait().code(), Some(0));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(kept.contains("/system Be terse.") && !kept.contains("secret"), "{kept}");

    let forgetful = Terminal::run(&["chat", "--no-history"], 80, state.path());
    forgetful.ready();
    forgetful.line("/system Be verbose.");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), kept);

    // Of a long file the oldest lines go, and whoever could read it before cannot any more.
    let lines: String = (0..1500).map(|i| format!("/line {i}\n")).collect();
    std::fs::write(&file, format!("#V2\n{lines}{}", kept.trim_start_matches("#V2\n"))).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let terminal = Terminal::run(&["chat"], 80, state.path());
    terminal.ready();
    terminal.press("\x1b[A");
    terminal.until("the line before", |t| t.last() == "› /system Be terse.");
    terminal.press("\x03");
    terminal.ready();
    terminal.line("/help");
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(kept.lines().count() <= 1001 && kept.ends_with("/help\n"), "{} lines", kept.lines().count());
    assert_eq!(mode(&file), 0o600);
}

#[test]
fn commands_do_what_help_says() {
    let (mut terminal, state) = chat(&[&SEED[..], &["30"]].concat(), 80);
    terminal.line("/help");
    for name in ["/help", "/system TEXT", "/regenerate", "/save FILE", "/clear", "/exit"] {
        assert!(terminal.text().contains(&format!("\n{name} ")), "{name}: {}", terminal.text());
    }
    for (line, says) in [
        ("/bogus", "/bogus is not a command: /help lists them"),
        ("/regenerate", "nothing was answered yet"),
        ("/save x", "nothing was said yet"),
        ("/system Be terse.", "the system prompt is set"),
        ("/system", "\nBe terse.\n"),
        ("/clear", "the conversation is forgotten"),
    ] {
        terminal.line(line);
        assert!(terminal.text().contains(says), "{line}: {}", terminal.text());
    }
    assert!(!terminal.text().contains("tok/s"), "nothing was sent to the model: {}", terminal.text());
    let save_as = |name: &str| {
        let file = state.path().join(name);
        terminal.line(&format!("/save {}", file.display()));
        let saved: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        saved["messages"].as_array().unwrap().clone()
    };
    let save = || save_as("talk.json");
    terminal.line("//bogus words");
    let first = save();
    assert_eq!(first.len(), 3);
    assert_eq!(first[0]["content"], "Be terse.");
    assert_eq!(first[1]["content"], "/bogus words");
    terminal.line("/regenerate");
    let second = save();
    assert_eq!(second[..2], first[..2]);
    assert_ne!(second[2], first[2], "another seed, another answer");
    terminal.line("/clear");
    terminal.line("/system \"\"");
    terminal.line("What is a trait?");
    assert_eq!(save_as("other.json").len(), 2);
    assert_eq!(save().len(), 3, "the file of the conversation that was forgotten is left alone");
    assert!(terminal.text().contains("is there already"), "{}", terminal.text());
    terminal.press("/ex\t\r");
    assert_eq!(terminal.wait().code(), Some(0));
}

#[test]
fn a_byte_that_is_not_utf8_is_left_out_of_the_line() {
    let (mut terminal, _state) = chat(&["chat"], 80);
    terminal.press("/sys");
    terminal.until("the line", |t| t.last() == "› /sys");
    terminal.press(b"\xff");
    terminal.until("a word", |t| t.text().contains("not UTF-8") && t.last() == "› /sys");
    terminal.line("tem");
    assert!(terminal.text().contains("there is no system prompt"), "{}", terminal.text());
    terminal.press("\x04");
    assert_eq!(terminal.wait().code(), Some(0));
}

#[test]
fn the_terminal_is_left_as_it_was() {
    let state = tempfile::tempdir().unwrap();
    for keys in ["\x04", "\x03", "/exit\r"] {
        let script = "before=$(stty -a); \"$0\" chat; test \"$before\" = \"$(stty -a)\"";
        let mut terminal = Terminal::shell(script, 80, state.path());
        terminal.ready();
        terminal.press(keys);
        if keys == "\x03" {
            terminal.until("a word", |t| t.text().contains("Ctrl-C again leaves") && t.last() == "›");
            terminal.press(keys);
        }
        assert_eq!(terminal.wait().code(), Some(0), "{keys:?}: {}", terminal.text());
    }
}

#[test]
fn an_answer_of_generate_stands_alone_on_the_screen() {
    let state = tempfile::tempdir().unwrap();
    let args = ["generate", "-p", "What is ownership?", "--temperature", "0", "--max-tokens", "8"];
    let mut terminal = Terminal::run(&args, 80, state.path());
    assert_eq!(terminal.wait().code(), Some(0));
    let answer = common::stdout(&args);
    terminal.until("the answer", |t| t.text() == answer.trim_end());
}
