//! `completions` and `man`: what shells and readers of manuals want of the command line, from its one description.

use crate::args::{Completions, Man};
use crate::command_line::shown;
use crate::failure::Failure;
use clap::Command;
use clap_complete::Shell;
use clap_mangen::roff::{Roff, roman};
use std::fs;
use std::io::{self, Write};

const NAME: &str = "mlx-serving";
const EXIT_STATUS: &str = "0 when the command is done, 1 when it failed, 2 for wrong usage or a wrong configuration, 3 \
    when bench compare lost more throughput than --max-regression allows. serve ends with 0 when it was asked to stop, \
    chat that was left with Ctrl-C and soak that was stopped by a signal with 130.";
const ENVIRONMENT: &str = "Each option can be set by a variable: --log-format by MLX_SERVING_LOG_FORMAT. The option \
    comes before the variable, the variable before the configuration file.";

/// Prints a script that completes command lines in a shell.
pub(crate) fn completions(args: &Completions) -> Result<(), Failure> {
    anstream::stdout().write_all(script(args.shell).as_bytes()).map_err(Failure::output)
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown(), NAME, &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        // The library spells a name that has a hyphen in two ways, so that the script would never find the flags of a command.
        Shell::Bash => script.replace("mlx__subcmd__serving", "mlx__serving"),
        _ => script,
    }
}

/// Prints the manual page of the program, or writes the pages of all commands into a folder.
pub(crate) fn man(args: &Man) -> Result<(), Failure> {
    let pages = pages(shown()).map_err(Failure::failed)?;
    let Some(folder) = &args.out else {
        return anstream::stdout().write_all(&pages[0].1).map_err(Failure::output);
    };
    let failed = |error: io::Error| Failure::failed(format!("{}: {error}", folder.display()));
    fs::create_dir_all(folder).map_err(failed)?;
    for (name, page) in &pages {
        fs::write(folder.join(name), page).map_err(failed)?;
    }
    tracing::info!("wrote {} pages to {}", pages.len(), folder.display());
    Ok(())
}

/// Names of files and pages: the program's, then those of its commands.
fn pages(mut root: Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    fn add(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
        pages.push(page(command)?);
        command.get_subcommands().try_for_each(|below| add(below, pages))
    }
    root.build();
    let mut pages = Vec::new();
    add(&root, &mut pages)?;
    Ok(pages)
}

fn page(command: &Command) -> io::Result<(String, Vec<u8>)> {
    let man = clap_mangen::Man::new(command.clone())
        .manual("mlx-serving")
        // None; if it were empty, what follows would take its place.
        .date(" ")
        .source(concat!("mlx-serving ", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut end = Roff::new();
    end.control("SH", ["EXIT STATUS"]).text([roman(EXIT_STATUS)]);
    end.control("SH", ["ENVIRONMENT"]).text([roman(ENVIRONMENT)]);
    end.to_writer(&mut text)?;
    Ok((man.get_filename(), text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;
    use std::collections::BTreeSet;

    /// Every command's words and its flags, as the help pages have them.
    fn commands() -> Vec<(String, Vec<String>)> {
        fn walk(words: &str, command: &Command, found: &mut Vec<(String, Vec<String>)>) {
            let flags = command.get_arguments().filter_map(|arg| arg.get_long()).map(str::to_owned).collect();
            found.push((words.to_owned(), flags));
            for below in command.get_subcommands() {
                walk(&format!("{words}-{}", below.get_name()), below, found);
            }
        }
        let mut found = Vec::new();
        walk(NAME, &shown(), &mut found);
        found
    }

    #[test]
    fn every_command_has_a_page_with_its_flags() {
        let pages = pages(shown()).unwrap();
        let names: BTreeSet<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.len(), pages.len(), "two pages have one name");
        assert!(names.contains("mlx-serving-bench-throughput.1"), "{names:?}");
        let commands = commands();
        assert_eq!(commands.len(), pages.len());
        for ((words, flags), (name, page)) in commands.iter().zip(&pages) {
            assert_eq!(name, &format!("{words}.1"));
            let page = String::from_utf8_lossy(page).replace("\\-", "-");
            for flag in flags {
                assert!(page.contains(&format!("--{flag}")), "{name} lacks --{flag}");
            }
        }
    }

    #[test]
    fn completions_know_every_command_and_flag_and_offer_none_that_does_nothing() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for (words, flags) in commands() {
                let word = words.rsplit('-').next().unwrap();
                assert!(script.contains(word), "{shell} lacks {words}");
                for flag in flags {
                    let spelt = if *shell == Shell::Fish { format!("-l {flag}") } else { format!("--{flag}") };
                    assert!(script.contains(&spelt), "{shell} lacks {words} --{flag}");
                }
            }
        }
        let of_list = commands().into_iter().find(|(words, _)| words == "mlx-serving-list").unwrap().1;
        assert_eq!(of_list, ["json", "verbose", "log-format", "help"]);
    }
}
