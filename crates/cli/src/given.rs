use clap::ArgMatches;
use clap::parser::ValueSource;
use std::collections::BTreeMap;

/// Prefix of all variables.
pub(crate) const PREFIX: &str = "MLX_SERVING_";

/// Flags that were given to a command, each with its origin: `--port`, or `MLX_SERVING_PORT`.
#[derive(Debug, Clone, Default)]
pub struct Given {
    origins: BTreeMap<String, String>,
    words: Vec<String>,
}

impl Given {
    pub(crate) fn of(matches: &ArgMatches) -> Self {
        let mut given = Self::default();
        let mut matches = matches;
        while let Some((name, below)) = matches.subcommand() {
            given.words.push(name.to_owned());
            matches = below;
        }
        for id in matches.ids() {
            let flag = id.as_str().replace('_', "-");
            let origin = match matches.value_source(id.as_str()) {
                Some(ValueSource::CommandLine) => format!("--{flag}"),
                Some(ValueSource::EnvVariable) => format!("{PREFIX}{}", id.as_str().to_uppercase()),
                _ => continue,
            };
            given.origins.insert(id.to_string(), origin);
        }
        given
    }

    /// The origin of a flag's value, if it has one.
    pub(crate) fn origin(&self, flag: &str) -> Option<&str> {
        self.origins.get(flag).map(String::as_str)
    }

    /// The words that call the command.
    pub(crate) fn words(&self) -> Vec<&str> {
        self.words.iter().map(String::as_str).collect()
    }
}
