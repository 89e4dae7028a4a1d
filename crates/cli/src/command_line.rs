//! The command line as it is parsed: the help pages, and what comes from the environment.

use crate::args::{Cli, idle};
use crate::config::nearest;
use crate::given::{Given, PREFIX};
use clap::builder::BoolishValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command, CommandFactory, Error, FromArgMatches};
use std::collections::BTreeMap;
use std::ffi::OsString;

/// Variables of the tests, which no command reads.
const TESTS: [&str; 2] = ["MLX_SERVING_REQUIRE_VULKAN", "MLX_SERVING_REQUIRE_MATRIX_UNITS"];

/// Parses this process's command line.
///
/// # Errors
/// The fault, or the help that was asked for: [`Error::exit`] prints either and ends the process.
pub fn parse() -> Result<Cli, Error> {
    parse_from(std::env::args_os())
}

/// Parses a command line.
pub(crate) fn parse_from<T: Into<OsString> + Clone>(args: impl IntoIterator<Item = T>) -> Result<Cli, Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(args).map_err(explained)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    Ok(Cli { given: Given::of(&matches), ..cli })
}

/// A warning of flags that were given and do nothing in this command.
pub(crate) fn useless(given: &Given) -> Option<String> {
    let words = given.words();
    // The file is read all the same, for its logs.
    let flags = idle(&words).iter().chain(idle_beside_url(given)).filter(|flag| **flag != "config");
    let flags: Vec<&str> = flags.filter_map(|flag| given.origin(flag)).collect();
    (!flags.is_empty()).then(|| format!("{} has no use for {}", words.join(" "), flags.join(" and ")))
}

/// Flags of a benchmark that do nothing because it measures a server, or because it does not.
fn idle_beside_url(given: &Given) -> &'static [&'static str] {
    match (given.words().as_slice(), given.origin("url")) {
        (["bench", "throughput"], Some(_)) => &["device", "threads", "arithmetic", "metal_opts"],
        (["bench", "throughput"], None) => &["api", "api_key"],
        _ => &[],
    }
}

/// The command with its help pages as they are shown, and without variables that are empty or belong to other commands.
fn command() -> Command {
    let mut command = Cli::command();
    // Flags of every command come to the others.
    command.build();
    tidied(command, &mut Vec::new())
}

/// The commands and flags of the help pages, and nothing that they hide, for manual pages and completions.
pub(crate) fn shown() -> Command {
    fn copied(command: &Command) -> Command {
        let args = command.get_arguments().filter(|arg| !arg.is_hide_set());
        let below = command.get_subcommands().filter(|below| below.get_name() != "help");
        // A name lives as long as the process, which ends when these are printed.
        let name: &'static str = command.get_name().to_owned().leak();
        Command::new(name)
            .about(command.get_about().cloned().unwrap_or_default())
            .version(env!("CARGO_PKG_VERSION"))
            .disable_help_flag(true)
            .disable_version_flag(true)
            .disable_help_subcommand(true)
            .subcommand_help_heading("COMMANDS")
            .subcommand_value_name("command")
            .subcommand_required(command.is_subcommand_required_set())
            .args(args.map(|arg| arg.clone().global(false).env(None::<&str>)))
            .subcommands(below.map(copied))
    }
    copied(&command())
}

fn tidied(command: Command, words: &mut Vec<String>) -> Command {
    let calls: Vec<&str> = words.iter().map(String::as_str).collect();
    let (idle, group) = (idle(&calls), command.has_subcommands());
    let command = command.mut_args(|arg| {
        let hidden = idle.contains(&arg.get_id().as_str()) || (!calls.is_empty() && arg.get_id() == "version");
        let is_empty = variable(&arg).and_then(std::env::var_os).is_none_or(|value| value.is_empty());
        // A variable belongs to the command that is called, not to the words before it.
        let arg = if group || hidden || is_empty { arg.env(None::<&str>) } else { arg };
        let arg = match arg.get_id().as_str() {
            "help" => arg.help("Print this").help_heading("Everywhere"),
            "version" => arg.help_heading("Everywhere"),
            _ => arg,
        };
        let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
        let arg = if is_switch { arg.value_parser(BoolishValueParser::new()) } else { arg };
        arg.hide_env(true).hide(hidden)
    });
    let after = match group {
        true => "`mlx-serving help COMMAND` lists a command's flags.",
        false => "Each flag can be set in the environment too: --log-format by MLX_SERVING_LOG_FORMAT.",
    };
    let after = command.get_after_help().map_or(after.to_owned(), |own| format!("{own}\n\n{after}"));
    command.after_help(after).mut_subcommands(|below| {
        // Its pages are those of the commands.
        if below.get_name() == "help" {
            return below;
        }
        words.push(below.get_name().to_owned());
        let below = tidied(below, words);
        words.pop();
        below
    })
}

/// The same error in words for whoever wrote the value, and if that was the environment, with the variable.
fn explained(error: Error) -> Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let (Some(flag), Some(value), ErrorKind::ValueValidation | ErrorKind::InvalidValue) =
        (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue), error.kind())
    else {
        return error;
    };
    let name = flag.split_whitespace().next().unwrap_or_default().trim_start_matches("--");
    let variable = format!("{PREFIX}{}", name.replace('-', "_").to_uppercase());
    let given = std::env::args().any(|arg| arg.split('=').next() == Some(&format!("--{name}")));
    let tip = match std::env::var(&variable) {
        Ok(set) if !given && set.contains(&value) => match value.starts_with("tcp://") {
            true => format!(
                "\n\n  tip: {variable} is Kubernetes' for a service called mlx-serving: set\n  enableServiceLinks: false in the pod, or call the service otherwise"
            ),
            false => format!("\n\n  tip: the value is that of the environment variable {variable}"),
        },
        _ => String::new(),
    };
    let words = in_words(&error);
    Error::raw(error.kind(), format!("{words}{tip}\n\nFor more information, try '--help'.\n"))
}

/// The first line of an error, without what Rust's parsers of numbers say.
fn in_words(error: &Error) -> String {
    let text = error.to_string();
    let mut line = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    for (theirs, ours) in [
        ("invalid digit found in string", "it takes a whole number"),
        ("cannot parse integer from empty string", "it takes a whole number"),
        ("number too large to fit in target type", "the number is too large"),
        ("number too small to fit in target type", "the number is too small"),
        ("invalid float literal", "it takes a number"),
        ("cannot parse float from empty string", "it takes a number"),
        ("value was not a boolean", "it takes true or false"),
    ] {
        line = line.replace(theirs, ours);
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) if !values.is_empty() => {
            format!("{line}: it takes {}", values.join(" or "))
        }
        _ => line,
    }
}

/// The variable that gives a flag its value.
fn variable(arg: &Arg) -> Option<&str> {
    arg.get_env().and_then(std::ffi::OsStr::to_str)
}

/// A variable that some command reads.
pub(crate) struct Variable {
    pub name: String,
    /// The commands.
    pub readers: Vec<String>,
    /// The reason for which one of them would refuse its value.
    pub fault: Option<String>,
}

/// The variables that are set and read by some command.
pub(crate) fn variables() -> Vec<Variable> {
    let mut found: BTreeMap<String, Variable> = BTreeMap::new();
    each(&Cli::command(), &mut |words, command| {
        for arg in command.get_arguments() {
            let Some(name) = variable(arg).filter(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
            else {
                continue;
            };
            let entry = found.entry(name.to_owned()).or_insert_with(|| Variable {
                name: name.to_owned(),
                readers: Vec::new(),
                fault: None,
            });
            entry.readers.push(words.to_owned());
            if entry.fault.is_none() {
                entry.fault = fault(command, arg);
            }
        }
    });
    found.into_values().collect()
}

/// Sentences about variables whose value some command would refuse.
pub(crate) fn faults() -> Vec<String> {
    let variables = variables().into_iter();
    variables.filter_map(|v| v.fault.map(|fault| format!("the environment variable {}: {fault}", v.name))).collect()
}

/// Warnings about variables that no command reads, each with the name that may be meant.
pub(crate) fn unknown() -> Vec<String> {
    let mut known = Vec::new();
    each(&Cli::command(), &mut |_, command| {
        known.extend(command.get_arguments().filter_map(variable).map(str::to_owned))
    });
    let set = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    unknown_of(set, &known)
}

fn unknown_of(set: impl Iterator<Item = String>, known: &[String]) -> Vec<String> {
    let mut unknown: Vec<String> = set
        .filter(|name| name.starts_with(PREFIX) && !known.contains(name) && !TESTS.contains(&name.as_str()))
        // Kubernetes sets these beside a service called mlx-serving.
        .filter(|name| !["SERVICE_", "PORT_"].iter().any(|prefix| name[PREFIX.len()..].starts_with(prefix)))
        .collect();
    unknown.sort();
    let told = unknown.into_iter().map(|name| {
        let known = known.iter().map(|name| &name[PREFIX.len()..]);
        match nearest(&name[PREFIX.len()..], known) {
            Some(meant) => {
                format!("the environment variable {name} is unknown and ignored; did you mean {PREFIX}{meant}?")
            }
            None => format!("the environment variable {name} is unknown and ignored"),
        }
    });
    told.collect()
}

/// Calls `f` with every command that can be run, and the words that call it; with the flags of all as those of the empty one.
fn each(root: &Command, f: &mut impl FnMut(&str, &Command)) {
    fn walk(words: &str, command: &Command, f: &mut impl FnMut(&str, &Command)) {
        f(words, command);
        for below in command.get_subcommands() {
            walk(format!("{words} {}", below.get_name()).trim_start(), below, f);
        }
    }
    walk("", root, f);
}

/// The reason for which a command would refuse the value of a flag's variable, if it would.
fn fault(command: &Command, arg: &Arg) -> Option<String> {
    let alone = Command::new("mlx-serving").args(command.get_arguments().cloned()).mut_args(|other| {
        let is_switch = matches!(other.get_action(), ArgAction::SetTrue);
        let other = if is_switch { other.value_parser(BoolishValueParser::new()) } else { other };
        let other = other.required(false);
        if other.get_id() == arg.get_id() { other } else { other.env(None::<&str>) }
    });
    alone.try_get_matches_from(["mlx-serving"]).err().map(|error| in_words(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_no_command_reads_are_named_with_the_nearest_one() {
        let known = ["MLX_SERVING_THREADS", "MLX_SERVING_PORT"].map(str::to_owned);
        let told = |names: &[&str]| unknown_of(names.iter().map(|name| (*name).to_owned()), &known);
        assert_eq!(
            told(&["MLX_SERVING_THREAD", "PATH", "MLX_SERVING_PORT"]),
            ["the environment variable MLX_SERVING_THREAD is unknown and ignored; did you mean MLX_SERVING_THREADS?"]
        );
        assert_eq!(told(&["MLX_SERVING_ZZZ"]), ["the environment variable MLX_SERVING_ZZZ is unknown and ignored"]);
        let of_others = ["MLX_SERVING_REQUIRE_VULKAN", "MLX_SERVING_SERVICE_HOST", "MLX_SERVING_PORT_8080_TCP_ADDR"];
        assert_eq!(told(&of_others), [""; 0]);
    }

    #[test]
    fn every_flag_has_its_variable_and_a_heading() {
        let mut flags = 0;
        each(&Cli::command(), &mut |words, command| {
            for arg in command.get_arguments().filter(|arg| arg.get_long().is_some()) {
                let (id, flag) = (arg.get_id(), arg.get_long().unwrap());
                let twin = format!("{PREFIX}{}", flag.replace('-', "_").to_uppercase());
                assert_eq!(variable(arg), Some(twin.as_str()), "{words} {id}");
                assert!(arg.get_help_heading().is_some(), "{words} {id} has no heading");
                flags += 1;
            }
        });
        assert!(flags > 40, "{flags}");
    }

    #[test]
    fn flags_are_taken_before_and_after_the_command() {
        for args in [["mlx-serving", "--threads", "3", "doctor"], ["mlx-serving", "doctor", "--threads", "3"]] {
            let cli = parse_from(args).unwrap();
            assert_eq!((cli.common.threads, cli.given.origin("threads")), (Some(3), Some("--threads")));
        }
    }

    #[test]
    fn flags_that_do_nothing_are_taken_hidden_and_told_of() {
        let cli = parse_from(["mlx-serving", "list", "--device", "cpu", "--threads", "2"]).unwrap();
        assert_eq!(useless(&cli.given).as_deref(), Some("list has no use for --device and --threads"));
        assert_eq!(useless(&parse_from(["mlx-serving", "doctor", "--device", "cpu"]).unwrap().given), None);
        let help = |args: &[&str]| parse_from([&["mlx-serving"], args, &["--help"]].concat()).unwrap_err().to_string();
        for words in [&["list"][..], &["rm"], &["pull"], &["config", "schema"], &["bench", "synth"]] {
            let page = help(words);
            for flag in ["--device", "--threads", "--arithmetic", "--metal-opts", "--config"] {
                assert!(!page.contains(&format!("{flag} <")), "{flag} is on\n{page}");
            }
        }
        assert!(help(&["serve"]).contains("--metal-opts") && !help(&["bench", "compare"]).contains("--metal-opts"));
    }

    #[test]
    fn no_help_page_is_wider_than_80_columns() {
        let mut pages = Vec::new();
        each(&Cli::command(), &mut |words, _| pages.push(words.to_owned()));
        for words in pages {
            let args: Vec<&str> =
                std::iter::once("mlx-serving").chain(words.split_whitespace()).chain(["--help"]).collect();
            let page = parse_from(args).unwrap_err().to_string();
            for line in page.lines() {
                assert!(line.chars().count() <= 80, "{words}: {line}");
            }
        }
    }

    #[test]
    fn a_seed_is_any_number_of_64_bits() {
        for (text, seed) in
            [("-1", u64::MAX), ("7", 7), ("18446744073709551615", u64::MAX), ("-9223372036854775808", 1 << 63)]
        {
            let cli = parse_from(["mlx-serving", "generate", "-p", "x", "--seed", text]).expect(text);
            let crate::args::Command::Generate(generate) = cli.command else { panic!("another command") };
            assert_eq!(generate.sampling.seed, Some(seed));
        }
        assert!(parse_from(["mlx-serving", "chat", "--seed", "1.5"]).is_err());
    }
}
