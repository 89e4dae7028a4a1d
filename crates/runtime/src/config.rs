//! `runtime.yaml`: what can be set, and within which ranges.

mod file;
mod models;
mod schema;
mod value;

pub use file::{ConfigError, File};
pub use models::{ModelSettings, Models, SamplingDefaults};
pub use schema::{leaves, nearest};
pub use value::ValueError;

use crate::choice::Choice;
use garde::Validate;
use mlx_serving_device::DeviceInfo;
use mlx_serving_metal_layer::config::{MetalOptimizations, section};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The HTTP server.
    #[garde(dive)]
    #[serde(deserialize_with = "section")]
    pub server: Server,
    /// The engine and its device.
    #[garde(dive)]
    #[serde(deserialize_with = "section")]
    pub engine: Engine,
    /// The models.
    #[garde(dive)]
    #[serde(deserialize_with = "section")]
    pub models: Models,
    /// The three Metal-layer optimizations; their names are Metal's and mean the same on every device.
    #[garde(dive)]
    #[serde(deserialize_with = "section")]
    pub metal_optimizations: MetalOptimizations,
    /// Logs.
    #[garde(dive)]
    #[serde(deserialize_with = "section")]
    pub telemetry: Telemetry,
}

/// `server`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Validate, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address to listen on.
    #[garde(custom(names_a_host))]
    #[schemars(length(min = 1))]
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
    /// Leave out of prompts the line that one popular agent puts before its instructions and changes in every request: with it no two
    /// of its prompts begin alike.
    #[garde(skip)]
    pub strip_billing_header: bool,
    /// Bounds of connections, of what they send, and of what waits for them.
    #[garde(dive)]
    #[serde(deserialize_with = "section")]
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
            strip_billing_header: true,
            limits: Limits::default(),
        }
    }
}

/// An address, or a name as names of hosts are written: labels of letters, digits and hyphens, of which the last is no number.
fn names_a_host(host: &String, _: &()) -> garde::Result {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    // An IPv6 address may name its interface.
    let address = bare.split_once('%').map_or(bare, |(address, _)| address);
    let label = |label: &str| {
        !label.is_empty()
            && label.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
            && !label.starts_with('-')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_name =
        name.split('.').all(label) && name.rsplit('.').next().is_some_and(|last| last.parse::<u64>().is_err());
    if address.parse::<std::net::IpAddr>().is_ok() || is_name {
        return Ok(());
    }
    Err(garde::Error::new(format!(
        "{host:?} is not an address; give one such as 127.0.0.1, ::1 or localhost, the port apart"
    )))
}

/// An origin as browsers send it: scheme and authority.
fn origin(value: &String, _: &()) -> garde::Result {
    let authority = value.split_once("://").map_or("", |(_, authority)| authority);
    if value == "*" || (!authority.is_empty() && !authority.contains('/')) {
        return Ok(());
    }
    let end = match value.strip_suffix('/') {
        Some(bare) if origin(&bare.to_owned(), &()).is_ok() => format!("it ends with a slash; write {bare}"),
        _ => "write it as http://host:port, or * for all".to_owned(),
    };
    Err(garde::Error::new(format!("{value:?} is not an origin: {end}")))
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
    /// Answers of /v1/responses that are kept for `previous_response_id`, at most; beyond them the oldest is forgotten. 0 keeps none.
    #[garde(range(min = 0, max = 1_000_000))]
    pub stored_responses: usize,
    /// All these answers with their conversations, MiB; beyond it the oldest is forgotten.
    #[garde(range(min = 1, max = 1_048_576))]
    pub stored_responses_mb: usize,
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
            stored_responses: 1024,
            stored_responses_mb: 64,
        }
    }
}

impl Server {
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
    /// Instruction set of the CPU device's kernels: auto takes the best that the processor has, avx512, avx2, neon and portable that one.
    #[garde(skip)]
    pub cpu_instructions: InstructionSet,
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
        None => {
            Err(garde::Error::new(format!("{name:?} is not a device; it takes auto, metal, vulkan, vulkan:N or cpu")))
        }
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
            cpu_instructions: InstructionSet::Auto,
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

/// `engine.cpu_instructions`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InstructionSet {
    /// The best that the processor has.
    Auto,
    /// AVX-512 with VNNI.
    Avx512,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// NEON.
    Neon,
    /// Plain Rust.
    Portable,
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

impl Config {
    /// Validates what did not come from a file.
    ///
    /// # Errors
    /// The keys at fault, with what they accept.
    pub fn check(&self) -> Result<(), String> {
        self.validate().map_err(|report| file::plain(&report.to_string()))?;
        self.check_across()
    }

    /// Finds what is allowed and hardly meant, on a machine of so many bytes of memory, where that is known.
    pub fn warnings(&self, memory: Option<u64>) -> Vec<String> {
        let m = &self.metal_optimizations;
        let closed = m.closed().into_iter().map(|name| {
            format!(
                "metal_optimizations.{name}.enabled is true, but metal_optimizations.enabled above it is false, so it is off: set both, \
                 or give --metal-opts {name}"
            )
        });
        let Limits { bodies_mb, unread_mb, .. } = self.server.limits;
        let total = memory.map(|bytes| bytes >> 20);
        let beyond = [("bodies_mb", bodies_mb), ("unread_mb", unread_mb)].into_iter().filter_map(|(key, mb)| {
            let total = total.filter(|total| mb as u64 > *total)?;
            Some(format!("server.limits.{key} is {mb}, more than this machine's memory of {total} MiB: it bounds nothing; lower it"))
        });
        closed.chain(beyond).collect()
    }

    /// Checks what a range of one value cannot say.
    fn check_across(&self) -> Result<(), String> {
        self.server.check_across()?;
        self.metal_optimizations.check_across()
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
