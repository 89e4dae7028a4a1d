//! Origins of the configuration's values: a file, a flag, the environment.

use crate::args::{Arithmetic, Cli, CpuInstructions, LogFormat};
use crate::command_line::variables;
use crate::failure::Failure;
use anstyle::Style;
use mlx_serving_runtime::config::{
    ArithmeticMode, Config, ConfigError, File, InstructionSet, LogLevel, LogLines, leaves,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Read when no other is named, if it is there.
pub(crate) const DEFAULT_PATH: &str = "config/runtime.yaml";

/// A configuration and where it came from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Loaded {
    /// The configuration in force.
    pub config: Config,
    /// The file that was read.
    pub path: Option<PathBuf>,
    /// The reason for which it was not read, where the command does without.
    pub broken: Option<String>,
    /// Dotted key → origin, for keys that were given.
    origins: BTreeMap<String, String>,
}

/// Reads the file, then lets flags and environment override it.
pub(crate) fn load(cli: &Cli) -> Result<Loaded, Failure> {
    let path = match &cli.common.config {
        Some(path) => Some(path.clone()),
        None => Some(PathBuf::from(DEFAULT_PATH)).filter(|p| p.exists()),
    };
    let mut loaded = match path.map(|path| (File::read(&path).map_err(unread), path)) {
        Some((Ok(file), path)) => Loaded::from_file(file, &path),
        Some((Err(error), path)) if cli.command.is_unconfigured() => {
            Loaded { path: Some(path), broken: Some(error.to_string()), ..Loaded::default() }
        }
        Some((Err(error), _)) => return Err(error),
        None => Loaded::default(),
    };
    loaded.override_with(cli)?;
    Ok(loaded)
}

fn unread(error: ConfigError) -> Failure {
    match error {
        ConfigError::Read { .. } => Failure::usage(format!("{error}; name another with --config")),
        error => Failure::usage(error),
    }
}

impl Loaded {
    fn from_file(file: File, path: &Path) -> Self {
        let origin = path.display().to_string();
        let origins = file.keys.into_iter().map(|key| (key, origin.clone())).collect();
        Self { config: file.config, path: Some(path.to_owned()), origins, ..Self::default() }
    }

    fn override_with(&mut self, cli: &Cli) -> Result<(), Failure> {
        let Self { config, origins, .. } = self;
        let mut set = |key: &str, flag: &str| {
            let origin = cli.given.origin(flag).unwrap_or(flag);
            origins.insert(key.to_owned(), origin.to_owned());
        };
        let common = &cli.common;
        if let Some(device) = &common.device {
            config.engine.device.clone_from(device);
            set("engine.device", "device");
        }
        if let Some(arithmetic) = common.arithmetic {
            config.engine.arithmetic = match arithmetic {
                Arithmetic::Fast => ArithmeticMode::Fast,
                Arithmetic::Exact => ArithmeticMode::Exact,
            };
            set("engine.arithmetic", "arithmetic");
        }
        if let Some(instructions) = common.cpu_instructions {
            config.engine.cpu_instructions = match instructions {
                CpuInstructions::Auto => InstructionSet::Auto,
                CpuInstructions::Avx512 => InstructionSet::Avx512,
                CpuInstructions::Avx2 => InstructionSet::Avx2,
                CpuInstructions::Neon => InstructionSet::Neon,
                CpuInstructions::Portable => InstructionSet::Portable,
            };
            set("engine.cpu_instructions", "cpu_instructions");
        }
        if let Some(threads) = common.threads {
            config.engine.threads = threads;
            set("engine.threads", "threads");
        }
        if let Some(format) = common.log_format {
            config.telemetry.log_format = match format {
                LogFormat::Text => LogLines::Text,
                LogFormat::Json => LogLines::Json,
            };
            set("telemetry.log_format", "log_format");
        }
        if common.verbose > 0 {
            let level = if common.verbose == 1 { LogLevel::Debug } else { LogLevel::Trace };
            // A file may ask for more.
            if level > config.telemetry.log_level {
                config.telemetry.log_level = level;
                set("telemetry.log_level", "verbose");
            }
        }
        if let Some(list) = &common.metal_opts {
            let selected = config.metal_optimizations.select(list);
            let origin = cli.given.origin("metal_opts").unwrap_or("--metal-opts");
            selected.map_err(|message| Failure::usage(format!("{origin}: {message}")))?;
            for key in ["enabled", "memory_pool.enabled", "blit_queue.enabled", "command_buffer_ring.enabled"] {
                set(&format!("metal_optimizations.{key}"), "metal_opts");
            }
        }
        if let Some(serve) = cli.command.serve() {
            if let Some(host) = &serve.host {
                config.server.host.clone_from(host);
                set("server.host", "host");
            }
            if let Some(port) = serve.port {
                config.server.port = port;
                set("server.port", "port");
            }
            if !serve.model.is_empty() {
                config.models.serve.clone_from(&serve.model);
                set("models.serve", "model");
            }
            if let Some(template) = &serve.template.chat_template {
                config.models.chat_template = Some(template.clone());
                set("models.chat_template", "chat_template");
            }
            if !serve.cors_origin.is_empty() {
                config.server.cors_origins.extend(serve.cors_origin.iter().cloned());
                set("server.cors_origins", "cors_origin");
            }
        }
        config.check().map_err(|message| Failure::usage(format!("flags and environment: {message}")))
    }

    /// Every value in force.
    fn values(&self) -> Result<Vec<Shown<'_>>, serde_json::Error> {
        let mut defaults = BTreeMap::new();
        leaves(&serde_json::to_value(Config::default())?, &mut |key, value| {
            defaults.insert(key.to_owned(), value.clone());
        });
        let mut values = Vec::new();
        leaves(&serde_json::to_value(&self.config)?, &mut |key, value| {
            let origin = self.origins.get(key).map_or("default", String::as_str);
            let default = defaults.get(key).cloned().unwrap_or_default();
            values.push(Shown { key: key.to_owned(), value: value.clone(), default, origin });
        });
        Ok(values)
    }

    /// Every value in force, `key: value`, those first that are not at their default, with their origin; then the variables of single
    /// commands.
    pub(crate) fn show(&self) -> Result<String, serde_json::Error> {
        let dim = Style::new().dimmed();
        let file = self.path.as_ref().map(|path| path.display().to_string());
        let (apart, alike): (Vec<_>, Vec<_>) = self.values()?.into_iter().partition(|v| v.value != v.default);
        let (given, default): (Vec<_>, Vec<_>) = alike.into_iter().partition(|v| v.origin != "default");
        let given_as =
            file.as_ref().map_or("given, as the default".to_owned(), |file| format!("set in {file}, as the default"));
        let mut blocks = Vec::new();
        let mut block = |title: &str, lines: Vec<String>| {
            if !lines.is_empty() {
                blocks.push(format!("{dim}# {title}{dim:#}\n{}\n", lines.join("\n")));
            }
        };
        let line = |v: &Shown<'_>, silent: Option<&str>| match v.origin {
            origin if Some(origin) == silent => format!("{}: {}", v.key, v.value),
            origin => format!("{}: {}  {dim}# {origin}{dim:#}", v.key, v.value),
        };
        block("differs from the default", apart.iter().map(|v| line(v, None)).collect());
        block(&given_as, given.iter().map(|v| line(v, file.as_deref())).collect());
        block("default", default.iter().map(|v| line(v, Some("default"))).collect());
        let of_commands = self.of_commands().into_iter();
        let of_commands = of_commands.map(|(name, value, readers)| format!("{name}={value}  {dim}# {readers}{dim:#}"));
        block("in the environment, for single commands", of_commands.collect());
        Ok(blocks.join("\n"))
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> Result<Value, serde_json::Error> {
        let values = self.values()?.into_iter();
        let values = values.map(|v| (v.key, json!({ "value": v.value, "default": v.default, "origin": v.origin })));
        let variables = self.of_commands().into_iter().map(|(name, value, _)| (name, Value::from(value)));
        Ok(json!({
            "file": self.path,
            "values": values.collect::<serde_json::Map<_, _>>(),
            "variables": variables.collect::<serde_json::Map<_, _>>(),
        }))
    }

    /// Variables that are set and are no key's, with their values and the commands that read them.
    fn of_commands(&self) -> Vec<(String, String, String)> {
        let of_keys = |name: &str| self.origins.values().any(|origin| origin == name) || name == "MLX_SERVING_CONFIG";
        let variables =
            variables().into_iter().filter(|v| !of_keys(&v.name) && !v.readers.iter().any(String::is_empty));
        let value = |name: &str| std::env::var_os(name).unwrap_or_default().to_string_lossy().into_owned();
        variables.map(|v| (v.name.clone(), value(&v.name), v.readers.join(", "))).collect()
    }
}

/// A value in force.
struct Shown<'a> {
    key: String,
    value: Value,
    default: Value,
    origin: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(args: &[&str]) -> Cli {
        let all = ["mlx-serving", "config", "show"].into_iter().chain(args.iter().copied());
        crate::command_line::parse_from(all).expect("flags")
    }

    #[test]
    fn flags_override_the_file_and_show_says_so() {
        let path = Path::new("r.yaml");
        let file = File::parse("engine:\n  device: cpu\n  threads: 3\n", path).unwrap();
        let mut loaded = Loaded::from_file(file, path);
        loaded.override_with(&flags(&["--threads", "1", "--metal-opts", "memory_pool"])).unwrap();
        assert_eq!(loaded.config.engine.threads, 1);
        let m = &loaded.config.metal_optimizations;
        assert!(m.enabled && m.memory_pool.enabled && !m.blit_queue.enabled);
        let show = plain(&loaded);
        for line in [
            "engine.device: \"cpu\"  # r.yaml",
            "engine.threads: 1  # --threads",
            "server.port: 8080",
            "metal_optimizations.memory_pool.enabled: true  # --metal-opts",
        ] {
            assert!(show.lines().any(|l| l == line), "{line} is not in\n{show}");
        }
    }

    #[test]
    fn what_differs_from_the_defaults_is_shown_first() {
        let path = Path::new("r.yaml");
        let file = File::parse("engine: { threads: 0, max_waiting: 7 }\nserver: { cors_origins: ['http://a'] }", path)
            .unwrap();
        let mut loaded = Loaded::from_file(file, path);
        let serve = ["-m", "a", "-m", "b", "--host", "::1", "--port", "8080", "--cors-origin", "http://b"];
        loaded.override_with(&flags(&serve)).unwrap();
        let show = plain(&loaded);
        let lines: Vec<&str> = show.lines().collect();
        assert_eq!(
            lines[..9],
            [
                "# differs from the default",
                "server.host: \"::1\"  # --host",
                "server.cors_origins: [\"http://a\",\"http://b\"]  # --cors-origin",
                "engine.max_waiting: 7  # r.yaml",
                "models.serve: [\"a\",\"b\"]  # --model",
                "",
                "# set in r.yaml, as the default",
                "server.port: 8080  # --port",
                "engine.threads: 0",
            ]
        );
        assert_eq!(lines[10], "# default");
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{show}");
        let json = loaded.json().unwrap();
        assert_eq!(json["file"], "r.yaml");
        assert_eq!(json["values"]["engine.max_waiting"], json!({ "value": 7, "default": 256, "origin": "r.yaml" }));
    }

    /// The page without its colors.
    fn plain(loaded: &Loaded) -> String {
        anstream::adapter::strip_str(&loaded.show().unwrap()).to_string()
    }

    #[test]
    fn the_level_of_the_log_is_shown_as_it_is_in_force() {
        let shown = |file: &str, args: &[&str]| {
            let mut loaded = Loaded::from_file(File::parse(file, Path::new("r.yaml")).unwrap(), Path::new("r.yaml"));
            loaded.override_with(&flags(args)).unwrap();
            let show = plain(&loaded);
            show.lines().find(|line| line.starts_with("telemetry.log_level")).unwrap().to_owned()
        };
        assert_eq!(shown("", &[]), "telemetry.log_level: \"info\"");
        assert_eq!(shown("", &["-v"]), "telemetry.log_level: \"debug\"  # --verbose");
        assert_eq!(shown("", &["-vv"]), "telemetry.log_level: \"trace\"  # --verbose");
        let trace = "telemetry: { log_level: trace }";
        assert_eq!(shown(trace, &["-v"]), "telemetry.log_level: \"trace\"  # r.yaml");
    }

    #[test]
    fn a_models_sampling_defaults_are_shown_with_their_file() {
        let text = "models: { Qwen2.5-0.5B: { sampling_defaults: { temperature: 0.7 } } }";
        let mut loaded = Loaded::from_file(File::parse(text, Path::new("r.yaml")).unwrap(), Path::new("r.yaml"));
        loaded.override_with(&flags(&[])).unwrap();
        let line = "models.\"Qwen2.5-0.5B\".sampling_defaults.temperature: 0.7  # r.yaml";
        let show = plain(&loaded);
        assert_eq!(show.lines().nth(1), Some(line), "{show}");
    }

    #[test]
    fn an_unknown_optimization_is_refused_with_the_known_ones() {
        let error = Loaded::default().override_with(&flags(&["--metal-opts", "turbo"])).unwrap_err().to_string();
        assert!(error.contains("turbo") && error.contains("command_buffer_ring"), "{error}");
    }

    #[test]
    fn values_out_of_range_are_refused_wherever_they_come_from() {
        let error = Loaded::default().override_with(&flags(&["--threads", "5000"])).unwrap_err();
        assert!(matches!(&error, Failure::Usage(message) if message.contains("threads")), "{error}");
    }
}
