//! `runtime.yaml`: what can be set, and within which ranges.

use crate::choice::Choice;
use garde::Validate;
use mlx_serving_device::DeviceInfo;
use mlx_serving_metal_layer::config::MetalOptimizations;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The HTTP server.
    #[garde(dive)]
    pub server: Server,
    /// The engine and its device.
    #[garde(dive)]
    pub engine: Engine,
    /// The models.
    #[garde(dive)]
    pub models: Models,
    /// The three Metal-layer optimizations; their names are Metal's and mean the same on every device.
    #[garde(dive)]
    pub metal_optimizations: MetalOptimizations,
    /// Logs.
    #[garde(dive)]
    pub telemetry: Telemetry,
}

/// `server`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address to listen on.
    #[garde(length(min = 1))]
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    #[garde(skip)]
    pub port: u16,
    /// Longest body taken, MiB.
    #[garde(range(min = 1, max = 1024))]
    pub body_limit_mb: usize,
    /// Seconds that accepted requests get to end when the server shuts down.
    #[garde(range(min = 0, max = 3600))]
    pub shutdown_grace_s: u64,
    /// Seconds after which a step that goes on calls the server wedged.
    #[garde(range(min = 1, max = 3600))]
    pub wedged_after_s: u64,
    /// Names that a request's `Host` may have while the server listens on a loopback address, beside loopback's own: with a port, or
    /// without for every port; * turns the check off.
    #[garde(skip)]
    pub allowed_hosts: Vec<String>,
    /// Origins of web pages that may use the server, such as `https://app.example`; * for all.
    #[garde(inner(custom(origin)))]
    pub cors_origins: Vec<String>,
    /// Bounds of connections, of what they send, and of what waits for them.
    #[garde(dive)]
    pub limits: Limits,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 8080,
            body_limit_mb: 8,
            shutdown_grace_s: 30,
            wedged_after_s: 60,
            allowed_hosts: Vec::new(),
            cors_origins: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// An origin as browsers send it: scheme and authority.
fn origin(value: &String, _: &()) -> garde::Result {
    let authority = value.split_once("://").map_or("", |(_, authority)| authority);
    if value == "*" || (!authority.is_empty() && !authority.contains('/')) {
        return Ok(());
    }
    Err(garde::Error::new(format!("{value:?} is no origin; write it as http://host:port, or * for all")))
}

/// `server.limits`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at once, as far as the system's limit on open files allows; at the bound the one that is idle longest is closed.
    #[garde(range(min = 1, max = 1_000_000))]
    pub connections: usize,
    /// Seconds for a request's head.
    #[garde(range(min = 1, max = 3600))]
    pub header_s: u64,
    /// Seconds for a request's body.
    #[garde(range(min = 1, max = 86_400))]
    pub body_s: u64,
    /// Seconds between two pieces of a body.
    #[garde(range(min = 1, max = 3600))]
    pub pause_s: u64,
    /// Seconds between two requests of a connection.
    #[garde(range(min = 1, max = 86_400))]
    pub idle_s: u64,
    /// Seconds in which a client has to take 64 KiB of its answer, or what is left of it.
    #[garde(range(min = 1, max = 86_400))]
    pub write_s: u64,
    /// All bodies that are being read or worked on, the first 16 KiB of each not counted, MiB; more are refused with 429.
    #[garde(range(min = 1, max = 1_048_576))]
    pub bodies_mb: usize,
    /// One answer that is not streamed, or the unread part of one that is, MiB; what would be longer is refused or ended.
    #[garde(range(min = 1, max = 1_048_576))]
    pub answer_mb: usize,
    /// All such answers that their clients have not read yet, MiB; from half of it on, new requests are refused with 503. The unread parts
    /// of a model's streams have as much room beside them.
    #[garde(range(min = 1, max = 1_048_576))]
    pub unread_mb: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            header_s: 15,
            body_s: 120,
            pause_s: 15,
            idle_s: 75,
            write_s: 60,
            bodies_mb: 64,
            answer_mb: 16,
            unread_mb: 256,
        }
    }
}

impl Server {
    /// Validates a section that did not come from a file.
    ///
    /// # Errors
    /// The keys at fault, with what they accept.
    pub fn check(&self) -> Result<(), String> {
        self.validate().map_err(|report| plain(report.to_string()))
    }

    /// Checks what a range of one value cannot say.
    fn check_across(&self) -> Result<(), String> {
        let Limits { bodies_mb, answer_mb, unread_mb, .. } = self.limits;
        if bodies_mb < self.body_limit_mb {
            return Err(format!(
                "server.limits.bodies_mb is {bodies_mb}, less than server.body_limit_mb, {}: raise the first or lower the second",
                self.body_limit_mb
            ));
        }
        if unread_mb < answer_mb {
            return Err(format!(
                "server.limits.unread_mb is {unread_mb}, less than answer_mb, {answer_mb}: raise the first or lower the second"
            ));
        }
        Ok(())
    }
}

/// `engine`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Engine {
    /// auto, metal, vulkan, vulkan:N or cpu.
    #[garde(custom(names_a_device))]
    #[schemars(regex(pattern = r"^(auto|metal|vulkan(:[0-9]+)?|cpu)$"))]
    pub device: String,
    /// fast or exact.
    #[garde(skip)]
    pub arithmetic: ArithmeticMode,
    /// Threads of the CPU device; 0 for all cores.
    #[garde(range(min = 0, max = 1024))]
    pub threads: usize,
    /// Sequences that run at once.
    #[garde(range(min = 1, max = 256))]
    pub max_sequences: usize,
    /// Rows of one step: decoding sequences plus chunks of prompts. Null takes 128 on a CPU and 512 on a GPU.
    #[garde(inner(range(min = 16, max = 8192)))]
    #[schemars(range(min = 16, max = 8192))]
    pub max_batch_rows: Option<usize>,
    /// Tokens that the KV cache holds.
    #[garde(range(min = 256, max = 16_777_216))]
    pub kv_cache_tokens: usize,
    /// Requests that may wait before more are refused with 429.
    #[garde(range(min = 0, max = 65_536))]
    pub max_waiting: usize,
    /// Seconds after which a step counts as failed.
    #[garde(range(min = 1, max = 3600))]
    pub step_limit_s: u64,
    /// Host memory for KV blocks of earlier prompts that the KV cache has no room for, MiB; 0 for none.
    #[garde(range(min = 0, max = 1_048_576))]
    pub kv_spill_mb: u64,
    /// A file for those that host memory has no room for; the model's name is appended. Made at the start, removed at the end.
    #[garde(inner(custom(names_a_file)))]
    #[schemars(length(min = 1))]
    pub kv_spill_file: Option<PathBuf>,
    /// Size of the file, MiB.
    #[garde(range(min = 1, max = 16_777_216))]
    pub kv_spill_file_mb: u64,
}

fn names_a_device(name: &String, _: &()) -> garde::Result {
    match Choice::parse(name) {
        Some(_) => Ok(()),
        None => Err(garde::Error::new(format!("{name:?} is no device; it takes auto, metal, vulkan, vulkan:N or cpu"))),
    }
}

fn names_a_file(path: &Path, _: &()) -> garde::Result {
    let text = path.as_os_str().to_string_lossy();
    if text.is_empty() || text.ends_with(std::path::is_separator) {
        return Err(garde::Error::new(format!("{text:?} names no file; give a file's path, or null for none")));
    }
    Ok(())
}

impl Default for Engine {
    fn default() -> Self {
        let options = mlx_serving_engine::Options::default();
        Self {
            device: "auto".into(),
            arithmetic: ArithmeticMode::Fast,
            threads: 0,
            max_sequences: options.max_sequences,
            max_batch_rows: None,
            kv_cache_tokens: options.kv_tokens,
            max_waiting: options.max_waiting,
            step_limit_s: options.step_limit.as_secs(),
            kv_spill_mb: options.spill.memory_bytes >> 20,
            kv_spill_file: options.spill.file,
            kv_spill_file_mb: 4096,
        }
    }
}

impl Engine {
    /// Rows of one step on a device. More rows make running answers wait longer for each token; on a CPU more than 128 hardly make a prompt
    /// faster (docs/CONFIGURATION.md has the measurement), while a GPU reads all weights once for any number of rows.
    pub fn batch_rows(&self, device: &DeviceInfo) -> usize {
        self.max_batch_rows.unwrap_or(if device.backend == "cpu" { 128 } else { 512 })
    }
}

/// `engine.arithmetic`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ArithmeticMode {
    /// Fastest on the device.
    Fast,
    /// Activations in f32.
    Exact,
}

/// `models`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Models {
    /// Folders or hub ids that `serve` loads when the command line names none; the bundled model if this is empty.
    #[garde(skip)]
    pub serve: Vec<String>,
    /// Jinja file in the place of the chat template of the model that `serve` loads, which must be one model only.
    #[garde(skip)]
    pub chat_template: Option<PathBuf>,
}

/// `telemetry`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// text or json.
    #[garde(skip)]
    pub log_format: LogLines,
    /// error, warn, info, debug or trace.
    #[garde(skip)]
    pub log_level: LogLevel,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { log_format: LogLines::Text, log_level: LogLevel::Info }
    }
}

/// `telemetry.log_format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLines {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `telemetry.log_level`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Failures only.
    Error,
    /// Failures, and what may become one.
    Warn,
    /// Warnings and failures, and what an operator wants to know.
    Info,
    /// All that info has, and what a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

/// A file that is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is not there or cannot be read.
    #[error("configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Syntax, unknown key, wrong type or value out of range, with its place.
    #[error("configuration {path}: {message}")]
    Content {
        /// The file.
        path: PathBuf,
        /// Line, key, value and range.
        message: String,
    },
}

/// Content of a configuration file.
#[derive(Debug, Clone)]
pub struct File {
    /// The values that it sets, the defaults for the rest.
    pub config: Config,
    /// Dotted keys that it sets.
    pub keys: Vec<String>,
}

impl File {
    /// Reads and validates a file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Parses and validates a file's text; errors name `path`.
    ///
    /// # Errors
    /// [`ConfigError::Content`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let content = |message: String| ConfigError::Content { path: path.to_owned(), message: plain(message) };
        // An empty document is an empty mapping.
        let has_content = text.lines().any(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#'));
        if !has_content {
            return Ok(Self { config: Config::default(), keys: Vec::new() });
        }
        let config: Config = serde_saphyr::from_str_valid(text).map_err(|e| content(e.to_string()))?;
        config.check_across().map_err(content)?;
        let set: Value = serde_saphyr::from_str(text).map_err(|e| content(e.to_string()))?;
        let mut keys = Vec::new();
        leaves(&set, &mut |key, _| keys.push(key.to_owned()));
        Ok(Self { config, keys })
    }
}

impl Config {
    /// Validates what did not come from a file.
    ///
    /// # Errors
    /// The keys at fault, with what they accept.
    pub fn check(&self) -> Result<(), String> {
        self.validate().map_err(|report| plain(report.to_string()))?;
        self.check_across()
    }

    /// Checks what a range of one value cannot say.
    fn check_across(&self) -> Result<(), String> {
        self.server.check_across()?;
        self.metal_optimizations.check_across()
    }
}

/// A validation's or a parser's message in this file's words: ranges with both ends, and no advice for programmers.
fn plain(message: String) -> String {
    let mut message = message.replace(".`", "`").replace(".: ", ": ");
    message = message.replace(", set DuplicateKeyPolicy in Options if acceptable", " is given twice");
    message = message.replace("duplicate mapping key: ", "key ").replace("duplicate mapping key", "a key");
    if !message.contains(" than ") {
        return message;
    }
    for (key, min, max) in ranges() {
        let range = format!("must be {min} to {max}");
        for bound in [format!("lower than {min}"), format!("greater than {max}")] {
            message = message.replace(&format!("{bound} for `{key}`"), &format!("`{key}` {range}"));
            // A report without places.
            message = message.replace(&format!("{key}: {bound}"), &format!("{key}: {range}"));
        }
    }
    message
}

/// Dotted keys of numbers with their least and largest values.
fn ranges() -> Vec<(String, i64, i64)> {
    fn walk(root: &Value, prefix: &str, node: &Value, found: &mut Vec<(String, i64, i64)>) {
        let node = match node["$ref"].as_str().and_then(|path| root.pointer(path.trim_start_matches('#'))) {
            Some(referred) => referred,
            None => node,
        };
        if let (Some(min), Some(max)) = (node["minimum"].as_i64(), node["maximum"].as_i64()) {
            found.push((prefix.to_owned(), min, max));
        }
        for (key, node) in node["properties"].as_object().into_iter().flatten() {
            let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            walk(root, &key, node, found);
        }
    }
    let root = schemars::schema_for!(Config).to_value();
    let mut found = Vec::new();
    walk(&root, "", &root, &mut found);
    found
}

/// Calls `f` with every leaf of a JSON tree and its dotted key.
pub fn leaves(tree: &Value, f: &mut impl FnMut(&str, &Value)) {
    fn walk(prefix: &str, value: &Value, f: &mut impl FnMut(&str, &Value)) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                    walk(&key, value, f);
                }
            }
            leaf => f(prefix, leaf),
        }
    }
    walk("", tree, f);
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
