//! The command line. Every flag has an environment twin, `MLX_SERVING_<FLAG>`.
//!
//! The headings are those of the help pages, in the order in which their flags are declared.

mod bench;
mod convert;
mod pages;
mod soak;

pub use bench::{Bench, Compare, Kernels, Synth, Throughput};
pub use convert::Convert;
pub use pages::{Completions, Health, Man};
pub use soak::Soak;

use crate::given::Given;
use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Serves language models in MLX format over an OpenAI-compatible API.
#[derive(Debug, Parser)]
#[command(name = "mlx-serving", version, propagate_version = true, max_term_width = 80)]
pub struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
    /// Flags of every command.
    #[command(flatten)]
    pub common: Common,
    /// Flags that were given, and how.
    #[arg(skip)]
    pub given: Given,
}

/// Flags that every command takes, whether they do anything there or not.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// auto, metal, vulkan, vulkan:N or cpu; `doctor` lists them [default: auto]
    #[arg(long, global = true, env = "MLX_SERVING_DEVICE", help_heading = "Device")]
    pub device: Option<String>,
    /// Threads of the CPU device; 0 for all cores [default: 0]
    #[arg(long, global = true, env = "MLX_SERVING_THREADS", value_name = "N", help_heading = "Device")]
    pub threads: Option<usize>,
    /// Instruction set of the CPU device: auto, avx512, avx2, neon or portable [default: auto]
    #[arg(
        long,
        global = true,
        env = "MLX_SERVING_CPU_INSTRUCTIONS",
        value_enum,
        value_name = "SET",
        hide_possible_values = true,
        help_heading = "Device"
    )]
    pub cpu_instructions: Option<CpuInstructions>,
    /// fast: rounds activations where that is faster, 16-bit KV cache; exact: f32 everywhere [default: fast]
    #[arg(
        long,
        global = true,
        env = "MLX_SERVING_ARITHMETIC",
        value_enum,
        value_name = "MODE",
        hide_possible_values = true,
        help_heading = "Device"
    )]
    pub arithmetic: Option<Arithmetic>,
    /// Optimizations: none, all, or some of memory_pool,blit_queue,command_buffer_ring [default: none]
    #[arg(long, global = true, env = "MLX_SERVING_METAL_OPTS", value_name = "LIST", help_heading = "Device")]
    pub metal_opts: Option<String>,
    /// Configuration file [default: config/runtime.yaml if it is there]
    #[arg(long, global = true, env = "MLX_SERVING_CONFIG", value_name = "FILE", help_heading = "Everywhere")]
    pub config: Option<PathBuf>,
    /// More log lines, one for each request among them; -vv for connections and the beginnings of requests too
    #[arg(short, long, global = true, action = clap::ArgAction::Count, env = "MLX_SERVING_VERBOSE", help_heading = "Everywhere")]
    pub verbose: u8,
    /// Form of the log on standard error: text or json [default: text]
    #[arg(
        long,
        global = true,
        env = "MLX_SERVING_LOG_FORMAT",
        value_enum,
        value_name = "FORM",
        hide_possible_values = true,
        help_heading = "Everywhere"
    )]
    pub log_format: Option<LogFormat>,
}

/// Flags of [`Common`] that do nothing in a command, named by the words that call it: they are taken, and not on its help page.
pub(crate) fn idle(words: &[&str]) -> &'static [&'static str] {
    match words {
        ["pull" | "list" | "rm" | "convert" | "completions" | "man"] | ["bench", "synth"] | ["config", "schema"] => {
            &["device", "threads", "cpu_instructions", "arithmetic", "metal_opts", "config"]
        }
        ["bench", "compare" | "kernels"] => &["metal_opts"],
        ["health"] => &["device", "threads", "cpu_instructions", "arithmetic", "metal_opts"],
        // No commands, but names of several: each has its own page.
        [] | ["bench" | "eval" | "config"] => &["device", "threads", "cpu_instructions", "arithmetic", "metal_opts"],
        _ => &[],
    }
}

/// See [`mlx_serving_device::Arithmetic`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Arithmetic {
    /// Fastest on the device: activations of 8 bits on a CPU, 12 where a GPU has matrix units, f32 on others.
    Fast,
    /// f32 activations.
    Exact,
}

/// See [`crate::config::InstructionSet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CpuInstructions {
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

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The model.
#[derive(Debug, Clone, Args)]
pub struct ModelArg {
    /// A folder, or a model on the hub: ID or ID@REVISION [default: the bundled model]
    #[arg(short, long, env = "MLX_SERVING_MODEL", value_name = "MODEL", help_heading = "Model")]
    pub model: Option<String>,
}

/// The chat template.
#[derive(Debug, Clone, Args)]
pub struct TemplateArg {
    /// Jinja file in the place of the model's own chat template
    #[arg(long, env = "MLX_SERVING_CHAT_TEMPLATE", value_name = "FILE", help_heading = "Model")]
    pub chat_template: Option<PathBuf>,
}

impl Command {
    /// The flags of `serve`, which look ahead in `config check` and `config show`.
    pub(crate) fn serve(&self) -> Option<&Serve> {
        match self {
            Command::Serve(serve) | Command::Config(Config::Check(serve) | Config::Show(Show { serve, .. })) => {
                Some(serve)
            }
            _ => None,
        }
    }

    /// True for a command that works without its configuration, however broken that is.
    pub(crate) fn is_unconfigured(&self) -> bool {
        use Command::{Bench, Completions, Config, Convert, Doctor, List, Man, Pull, Rm};
        matches!(
            self,
            Pull(_)
                | List(_)
                | Rm(_)
                | Convert(_)
                | Doctor(_)
                | Completions(_)
                | Man(_)
                | Config(self::Config::Schema)
                | Bench(self::Bench::Synth(_))
        )
    }
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve models over HTTP
    Serve(Serve),
    /// Talk with a model in the terminal
    Chat(Chat),
    /// Complete one prompt
    Generate(Generate),
    /// Download a model, or what is missing of its newest commit
    Pull(ModelId),
    /// List the models that were downloaded
    List(List),
    /// Remove a downloaded model, or the one revision of it that is named
    Rm(ModelId),
    /// Write a quantized copy of a checkpoint
    Convert(Convert),
    /// Measure speed
    #[command(subcommand)]
    Bench(Bench),
    /// Check a model under mixed load for hours: answers, memory, balances, speed
    Soak(Soak),
    /// Evaluate a model
    #[command(subcommand)]
    Eval(Eval),
    /// Check, show or describe the configuration
    #[command(subcommand)]
    Config(Config),
    /// List this machine's devices and what is wrong with them
    Doctor(Doctor),
    /// Ask a running server whether it can do its work
    Health(Health),
    /// Print a script that completes command lines in a shell
    Completions(Completions),
    /// Print the manual page, or write those of all commands
    Man(Man),
}

/// `serve`
#[derive(Debug, Args)]
pub struct Serve {
    /// A folder, or a model on the hub: ID or ID@REVISION; may be given several times [default: the bundled model]
    #[arg(short, long, env = "MLX_SERVING_MODEL", value_name = "MODEL", value_delimiter = ',', help_heading = "Model")]
    pub model: Vec<String>,
    /// Name to serve the model under; further ones are answered to as well. With several models, one name for each, in order
    #[arg(
        long,
        env = "MLX_SERVING_SERVED_MODEL_NAME",
        value_name = "NAME",
        value_delimiter = ',',
        help_heading = "Model"
    )]
    pub served_model_name: Vec<String>,
    /// The chat template; with several models it is refused.
    #[command(flatten)]
    pub template: TemplateArg,
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long, env = "MLX_SERVING_HOST", help_heading = "Server")]
    pub host: Option<String>,
    /// Port to listen on; 0 takes a free one [default: 8080]
    #[arg(long, env = "MLX_SERVING_PORT", help_heading = "Server")]
    pub port: Option<u16>,
    /// Origin of web pages that may use the server, such as `https://app.example`, or * for all; may be given several times
    #[arg(
        long,
        env = "MLX_SERVING_CORS_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ',',
        help_heading = "Server"
    )]
    pub cors_origin: Vec<String>,
}

/// `chat`
#[derive(Debug, Args)]
pub struct Chat {
    /// The model.
    #[command(flatten)]
    pub model: ModelArg,
    /// The chat template.
    #[command(flatten)]
    pub template: TemplateArg,
    /// Message that the model gets before all others
    #[arg(long, env = "MLX_SERVING_SYSTEM", value_name = "TEXT", help_heading = "Conversation")]
    pub system: Option<String>,
    /// Neither offer lines of earlier conversations nor keep those of this one
    #[arg(long, env = "MLX_SERVING_NO_HISTORY", help_heading = "Conversation")]
    pub no_history: bool,
    /// Choice of tokens.
    #[command(flatten)]
    pub sampling: SamplingArgs,
}

/// `generate`
#[derive(Debug, Args)]
pub struct Generate {
    /// The model.
    #[command(flatten)]
    pub model: ModelArg,
    /// The chat template.
    #[command(flatten)]
    pub template: TemplateArg,
    /// The prompt; - reads it from standard input
    #[arg(short, long, env = "MLX_SERVING_PROMPT", value_name = "TEXT", help_heading = "Prompt")]
    pub prompt: String,
    /// Give the prompt to the model as it is, without the chat template
    #[arg(long, env = "MLX_SERVING_RAW", help_heading = "Prompt")]
    pub raw: bool,
    /// Choice of tokens.
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// Print one JSON object at the end
    #[arg(long, env = "MLX_SERVING_JSON", help_heading = "Output")]
    pub json: bool,
}

/// Choice of tokens; what is not given comes from the model's generation_config.json.
#[derive(Debug, Clone, Args)]
pub struct SamplingArgs {
    /// At most this many tokens [default: 512]
    #[arg(long, env = "MLX_SERVING_MAX_TOKENS", value_name = "N", help_heading = "Answer")]
    pub max_tokens: Option<usize>,
    /// Randomness of the choice, up to 2; 0 takes the most likely token
    #[arg(long, env = "MLX_SERVING_TEMPERATURE", value_name = "T", help_heading = "Answer")]
    pub temperature: Option<f32>,
    /// Keep the smallest set of tokens with this probability
    #[arg(long, env = "MLX_SERVING_TOP_P", value_name = "P", help_heading = "Answer")]
    pub top_p: Option<f32>,
    /// Keep the K most likely tokens
    #[arg(long, env = "MLX_SERVING_TOP_K", value_name = "K", help_heading = "Answer")]
    pub top_k: Option<u32>,
    /// Keep tokens of at least this share of the largest probability
    #[arg(long, env = "MLX_SERVING_MIN_P", value_name = "P", help_heading = "Answer")]
    pub min_p: Option<f32>,
    /// Same seed, same answer; any whole number of 64 bits [default: one is drawn]
    #[arg(long, env = "MLX_SERVING_SEED", value_parser = seed, allow_negative_numbers = true, value_name = "N", help_heading = "Answer")]
    pub seed: Option<u64>,
    /// End at this string; may be given several times
    #[arg(long, env = "MLX_SERVING_STOP", value_name = "TEXT", help_heading = "Answer")]
    pub stop: Vec<String>,
}

/// A number from 1 to `most`.
fn at_most(most: usize) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=most as u64)
}

/// A seed as the API takes it, or without its sign.
fn seed(text: &str) -> Result<u64, String> {
    let signed = text.parse().map(|seed: i64| seed as u64);
    signed.or_else(|_| text.parse()).map_err(|_| "it takes a whole number of 64 bits".to_owned())
}

/// A model's id.
#[derive(Debug, Args)]
pub struct ModelId {
    /// For example mlx-community/Qwen2.5-0.5B-Instruct-4bit, or that with @ and a branch, a tag or a commit behind it
    pub id: String,
}

/// `list`
#[derive(Debug, Args)]
pub struct List {
    /// Print JSON
    #[arg(long, env = "MLX_SERVING_JSON", help_heading = "Output")]
    pub json: bool,
}

/// `eval …`
#[derive(Debug, Subcommand)]
pub enum Eval {
    /// Logits of given tokens, float32 of shape (tokens, vocabulary), as .npy
    Logits(EvalLogits),
    /// Perplexity over a text
    Perplexity(EvalPerplexity),
}

/// `eval logits`
#[derive(Debug, Args)]
pub struct EvalLogits {
    /// The model.
    #[command(flatten)]
    pub model: ModelArg,
    /// Token ids, separated by commas
    #[arg(
        long,
        env = "MLX_SERVING_TOKENS",
        value_delimiter = ',',
        required = true,
        value_name = "LIST",
        help_heading = "Input"
    )]
    pub tokens: Vec<u32>,
    /// The .npy file to write
    #[arg(short, long, env = "MLX_SERVING_OUTPUT", value_name = "FILE", help_heading = "Output")]
    pub output: PathBuf,
}

/// `eval perplexity`
#[derive(Debug, Args)]
pub struct EvalPerplexity {
    /// The model.
    #[command(flatten)]
    pub model: ModelArg,
    /// A UTF-8 text file
    #[arg(long, env = "MLX_SERVING_TEXT", value_name = "FILE", help_heading = "Input")]
    pub text: PathBuf,
    /// Compare with exact arithmetic: KL divergence and agreement of the most likely token
    #[arg(long, env = "MLX_SERVING_COMPARE_EXACT", help_heading = "Output")]
    pub compare_exact: bool,
    /// Print JSON
    #[arg(long, env = "MLX_SERVING_JSON", help_heading = "Output")]
    pub json: bool,
}

/// `config …`
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Validate it, with the flags that serve is to get, and say whether the models fit
    Check(Serve),
    /// Print what is in force and where each value came from, with the flags that serve is to get
    Show(Show),
    /// Print its JSON Schema
    Schema,
}

/// `config show`
#[derive(Debug, Args)]
pub struct Show {
    /// Flags of `serve`.
    #[command(flatten)]
    pub serve: Serve,
    /// Print JSON
    #[arg(long, env = "MLX_SERVING_JSON", help_heading = "Output")]
    pub json: bool,
}

/// `doctor`
#[derive(Debug, Args)]
pub struct Doctor {
    /// Print JSON
    #[arg(long, env = "MLX_SERVING_JSON", help_heading = "Output")]
    pub json: bool,
}
