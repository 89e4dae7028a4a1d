//! A line as it was typed: a command, or words for the model.

/// Commands: name, what follows it, what it does.
const COMMANDS: [(&str, &str, &str); 7] = [
    ("/help", "", "this list"),
    ("/system", "TEXT", "sets the system prompt; /system shows it, /system \"\" removes it"),
    ("/regenerate", "", "asks for the last answer again"),
    ("/save", "FILE", "writes the conversation: Markdown, or JSON for FILE.json"),
    ("/clear", "", "forgets the conversation, not the system prompt"),
    ("/exit", "", "leaves, as do /quit and Ctrl-D"),
    ("/quit", "", ""),
];

/// A line that was typed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// Nothing to do.
    Empty,
    /// Words for the model.
    Say(&'a str),
    /// List the commands.
    Help,
    /// Set the system prompt; `None` shows it.
    System(Option<&'a str>),
    /// Ask for the last answer again.
    Regenerate,
    /// Write the conversation to this file.
    Save(&'a str),
    /// Forget the conversation.
    Clear,
    /// Leave.
    Exit,
    /// It looks like a command and is none; the text says what is wrong.
    Wrong(String),
}

impl<'a> Line<'a> {
    /// Parses a line. A slash and letters make a command; with another slash before it, it is words for the model.
    pub(super) fn parse(line: &'a str) -> Self {
        let line = line.trim();
        if line.is_empty() {
            return Line::Empty;
        }
        if !is_command(line) {
            let escaped = line.strip_prefix('/').filter(|rest| is_command(rest));
            return Line::Say(escaped.unwrap_or(line));
        }
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match (name, rest) {
            ("/system", "") => Line::System(None),
            ("/system", "\"\"") => Line::System(Some("")),
            ("/system", text) => Line::System(Some(text)),
            ("/save", "") => Line::Wrong("/save needs the name of a file".to_owned()),
            ("/save", file) if file.chars().any(char::is_control) => {
                Line::Wrong("/save takes no file name with control characters".to_owned())
            }
            ("/save", file) => Line::Save(file),
            ("/help", "") => Line::Help,
            ("/regenerate", "") => Line::Regenerate,
            ("/clear", "") => Line::Clear,
            ("/exit" | "/quit", "") => Line::Exit,
            (name, _) if names().any(|known| known == name) => {
                Line::Wrong(format!("nothing follows {name}; //{} … is sent to the model", &name[1..]))
            }
            (name, _) => {
                Line::Wrong(format!("{name} is not a command: /help lists them; /{name} … is sent to the model"))
            }
        }
    }
}

/// The names of all commands.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().map(|(name, ..)| *name)
}

/// Commands and keys, a line each.
pub(super) fn help() -> String {
    let mut text = String::new();
    for (name, follows, does) in COMMANDS.iter().filter(|(.., does)| !does.is_empty()) {
        text += &format!("{:<13} {does}\n", format!("{name} {follows}"));
    }
    text + "Ctrl-C stops an answer or clears the line; twice at an empty line leaves.\nTo send a line that begins like a command, put another slash before it."
}

fn is_command(line: &str) -> bool {
    let first = line.split_whitespace().next().unwrap_or_default();
    first.strip_prefix('/').is_some_and(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphabetic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_words() {
        for (line, parsed) in [
            ("  ", Line::Empty),
            ("hello", Line::Say("hello")),
            (" /help ", Line::Help),
            ("/system You are terse.", Line::System(Some("You are terse."))),
            ("/system", Line::System(None)),
            ("/system \"\"", Line::System(Some(""))),
            ("/save a file.md", Line::Save("a file.md")),
            ("/regenerate", Line::Regenerate),
            ("/clear", Line::Clear),
            ("/quit", Line::Exit),
            ("//help", Line::Say("/help")),
            ("//bogus now", Line::Say("/bogus now")),
            ("// a comment", Line::Say("// a comment")),
            ("/usr/bin/env is what?", Line::Say("/usr/bin/env is what?")),
            ("/* c */", Line::Say("/* c */")),
            ("/", Line::Say("/")),
            ("/2 is a half", Line::Say("/2 is a half")),
        ] {
            assert_eq!(Line::parse(line), parsed, "{line}");
        }
    }

    #[test]
    fn what_looks_like_a_command_and_is_none_is_not_sent() {
        for (line, part) in [
            ("/bogus", "/bogus is not a command"),
            ("/Help", "/help lists them"),
            ("/clear everything", "nothing follows /clear"),
            ("/save", "needs the name of a file"),
            ("/save a\u{1b}[2Jb.md", "no file name with control characters"),
        ] {
            assert!(matches!(Line::parse(line), Line::Wrong(text) if text.contains(part)), "{line}");
        }
    }

    #[test]
    fn help_lists_every_command() {
        assert!(names().all(|name| help().contains(name)));
    }
}
