//! Origins of the configuration's values: a file, a flag, the environment.

use crate::args::{Arithmetic, Common, LogFormat};
use crate::failure::Failure;
use mlx_serving_runtime::config::{ArithmeticMode, Config, ConfigError, File, LogLevel, LogLines, leaves};
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
    /// Dotted key → origin, for keys that are not at their default.
    origins: BTreeMap<String, String>,
}

/// Reads the file, then lets flags and environment override it.
pub(crate) fn load(common: &Common) -> Result<Loaded, Failure> {
    let path = match &common.config {
        Some(path) => Some(path.clone()),
        None => Some(PathBuf::from(DEFAULT_PATH)).filter(|p| p.exists()),
    };
    let mut loaded = match path {
        Some(path) => Loaded::from_file(File::read(&path).map_err(unread)?, &path),
        None => Loaded::default(),
    };
    loaded.override_with(common)?;
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
        Self { config: file.config, path: Some(path.to_owned()), origins }
    }

    fn set(&mut self, key: &str, flag: &str) {
        self.origins
            .insert(key.to_owned(), format!("--{flag} or MLX_SERVING_{}", flag.replace('-', "_").to_uppercase()));
    }

    fn override_with(&mut self, common: &Common) -> Result<(), Failure> {
        if let Some(device) = &common.device {
            self.config.engine.device = device.clone();
            self.set("engine.device", "device");
        }
        if let Some(arithmetic) = common.arithmetic {
            self.config.engine.arithmetic = match arithmetic {
                Arithmetic::Fast => ArithmeticMode::Fast,
                Arithmetic::Exact => ArithmeticMode::Exact,
            };
            self.set("engine.arithmetic", "arithmetic");
        }
        if let Some(threads) = common.threads {
            self.config.engine.threads = threads;
            self.set("engine.threads", "threads");
        }
        if let Some(format) = common.log_format {
            self.config.telemetry.log_format = match format {
                LogFormat::Text => LogLines::Text,
                LogFormat::Json => LogLines::Json,
            };
            self.set("telemetry.log_format", "log-format");
        }
        if common.verbose > 0 {
            let level = if common.verbose == 1 { LogLevel::Debug } else { LogLevel::Trace };
            // A file may ask for more.
            if level > self.config.telemetry.log_level {
                self.config.telemetry.log_level = level;
                self.set("telemetry.log_level", "verbose");
            }
        }
        if let Some(list) = &common.metal_opts {
            let selected = self.config.metal_optimizations.select(list);
            selected.map_err(|message| Failure::usage(format!("--metal-opts: {message}")))?;
            for key in ["enabled", "memory_pool.enabled", "blit_queue.enabled", "command_buffer_ring.enabled"] {
                self.set(&format!("metal_optimizations.{key}"), "metal-opts");
            }
        }
        self.config.check().map_err(|message| Failure::usage(format!("flags and environment: {message}")))
    }

    /// Every value in force with its origin, one a line, `key: value  # origin`.
    pub(crate) fn show(&self) -> Result<String, serde_json::Error> {
        let mut lines = String::new();
        leaves(&serde_json::to_value(&self.config)?, &mut |key, value| {
            let origin = self.origins.get(key).map_or("default", String::as_str);
            lines += &format!("{key}: {value}  # {origin}\n");
        });
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn flags(args: &[&str]) -> Common {
        let all = ["mlx-serving", "doctor"].into_iter().chain(args.iter().copied());
        crate::args::Cli::try_parse_from(all).expect("flags").common
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
        let show = loaded.show().unwrap();
        for line in [
            "engine.device: \"cpu\"  # r.yaml",
            "engine.threads: 1  # --threads or MLX_SERVING_THREADS",
            "server.port: 8080  # default",
            "metal_optimizations.memory_pool.enabled: true  # --metal-opts or MLX_SERVING_METAL_OPTS",
        ] {
            assert!(show.lines().any(|l| l == line), "{line} is not in\n{show}");
        }
    }

    #[test]
    fn the_level_of_the_log_is_shown_as_it_is_in_force() {
        let shown = |file: &str, args: &[&str]| {
            let mut loaded = Loaded::from_file(File::parse(file, Path::new("r.yaml")).unwrap(), Path::new("r.yaml"));
            loaded.override_with(&flags(args)).unwrap();
            let show = loaded.show().unwrap();
            show.lines().find(|line| line.starts_with("telemetry.log_level")).unwrap().to_owned()
        };
        let flag = "--verbose or MLX_SERVING_VERBOSE";
        assert_eq!(shown("", &[]), "telemetry.log_level: \"info\"  # default");
        assert_eq!(shown("", &["-v"]), format!("telemetry.log_level: \"debug\"  # {flag}"));
        assert_eq!(shown("", &["-vv"]), format!("telemetry.log_level: \"trace\"  # {flag}"));
        let trace = "telemetry: { log_level: trace }";
        assert_eq!(shown(trace, &["-v"]), "telemetry.log_level: \"trace\"  # r.yaml");
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
