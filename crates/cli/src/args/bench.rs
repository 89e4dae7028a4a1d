//! `bench …`

use super::{ModelArg, at_most, seed};
use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand, ValueEnum};
use mlx_serving_bench::{self as bench, Api, ApiKey, Length, Limits, Load, Settings, Shape};
use std::convert::Infallible;
use std::path::PathBuf;

/// `bench …`
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Speed under a load, of a model in this process or of a server
    Throughput(Throughput),
    /// A/B/A of each optimization and of all together, on this machine
    Compare(Compare),
    /// Speed of every kernel of a known shape, against the device's own copy bandwidth
    Kernels(Kernels),
    /// Write a random or scripted checkpoint
    Synth(Synth),
}

/// Sizes of requests, and how many at a time.
#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    /// Tokens of each prompt
    #[arg(long, env = "MLX_SERVING_PROMPT_TOKENS", default_value_t = bench::Compare::default().prompt_tokens, value_parser = at_most(Load::MAX_TOKENS), value_name = "P", help_heading = "Load")]
    pub prompt_tokens: usize,
    /// Tokens of each answer
    #[arg(long, env = "MLX_SERVING_MAX_TOKENS", default_value_t = bench::Compare::default().max_tokens, value_parser = at_most(Load::MAX_TOKENS), value_name = "G", help_heading = "Load")]
    pub max_tokens: usize,
    /// Requests at a time
    #[arg(long, env = "MLX_SERVING_CONCURRENCY", default_value_t = bench::Compare::default().concurrency, value_parser = at_most(Load::MAX_CONCURRENCY), value_name = "C", help_heading = "Load")]
    pub concurrency: usize,
}

/// `bench throughput`
#[derive(Debug, Clone, Args)]
pub struct Throughput {
    /// The model; with --url the server's name of it, by default the first that it lists.
    #[command(flatten)]
    pub model: ModelArg,
    /// Requests
    #[arg(
        short = 'q',
        long,
        env = "MLX_SERVING_QUESTIONS",
        default_value_t = Load::default().questions, value_parser = at_most(Load::MAX_QUESTIONS),
        value_name = "N",
        help_heading = "Load"
    )]
    pub questions: usize,
    /// New tokens of each prompt: 128, 64..256, normal:MEAN,SD or lognormal:MEDIAN,SIGMA
    #[arg(long, env = "MLX_SERVING_PROMPT_TOKENS", default_value_t = Load::default().prompt_tokens, value_name = "P", help_heading = "Load")]
    pub prompt_tokens: Length,
    /// Tokens of each answer, in the same forms
    #[arg(long, env = "MLX_SERVING_MAX_TOKENS", default_value_t = Load::default().max_tokens, value_name = "G", help_heading = "Load")]
    pub max_tokens: Length,
    /// Requests at a time; with --rate, the most in flight [default: 1; 256 with --rate]
    #[arg(long, env = "MLX_SERVING_CONCURRENCY", value_parser = at_most(Load::MAX_CONCURRENCY), value_name = "C", help_heading = "Load")]
    pub concurrency: Option<usize>,
    /// Requests a second, arriving at random (Poisson); without it the next is asked when one is answered
    #[arg(long, env = "MLX_SERVING_RATE", value_name = "R", help_heading = "Load")]
    pub rate: Option<f64>,
    /// questions: prompts of their own; shared-prefix: one beginning for all; chat: conversations [default: questions]
    #[arg(long, env = "MLX_SERVING_LOAD", value_parser = Shape::NAMES, hide_possible_values = true, value_name = "KIND", help_heading = "Load")]
    pub load: Option<String>,
    /// Tokens that all prompts of shared-prefix begin with [default: 512]
    #[arg(long, env = "MLX_SERVING_PREFIX_TOKENS", value_parser = at_most(Load::MAX_TOKENS), value_name = "P", help_heading = "Load")]
    pub prefix_tokens: Option<usize>,
    /// Requests of a conversation of chat [default: 4]
    #[arg(long, env = "MLX_SERVING_TURNS", value_parser = at_most(Load::MAX_TURNS), value_name = "N", help_heading = "Load")]
    pub turns: Option<usize>,
    /// Requests before the others that do not count
    #[arg(long, env = "MLX_SERVING_WARM_UP", default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(0..=Settings::MAX_WARM_UP as u64), value_name = "N", help_heading = "Load")]
    pub warm_up: usize,
    /// Seed of prompts, lengths and arrivals [default: 0; with --url one is drawn]
    #[arg(long, env = "MLX_SERVING_SEED", value_parser = seed, allow_negative_numbers = true, value_name = "N", help_heading = "Load")]
    pub seed: Option<u64>,
    /// Measure an OpenAI-compatible server instead: http://HOST:PORT. --model is then the server's name of a model [default: the first that it
    /// lists]
    #[arg(long, env = "MLX_SERVING_URL", value_name = "URL", help_heading = "Server")]
    pub url: Option<String>,
    /// Route to ask: completions or chat [default: completions; chat for --load chat]
    #[arg(long, env = "MLX_SERVING_API", value_name = "API", help_heading = "Server")]
    pub api: Option<Api>,
    /// Key for the server; better set in the environment, where others do not see it
    #[arg(long, env = "MLX_SERVING_API_KEY", value_parser = key, hide_env_values = true, value_name = "KEY", help_heading = "Server")]
    pub api_key: Option<ApiKey>,
    /// Count the requests within these limits, in ms: ttft=200,itl=50,e2e=2000, or some of them
    #[arg(long, env = "MLX_SERVING_GOODPUT", value_name = "LIMITS", help_heading = "Output")]
    pub goodput: Option<Limits>,
    /// Write the results here as JSON
    #[arg(short, long, env = "MLX_SERVING_OUTPUT", value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// Print the results as JSON
    #[arg(long, env = "MLX_SERVING_JSON", help_heading = "Output")]
    pub json: bool,
}

/// A key as it is: whether one can be sent is said later, by an error that does not repeat it.
fn key(text: &str) -> Result<ApiKey, Infallible> {
    Ok(text.to_owned().into())
}

/// `bench compare`
#[derive(Debug, Clone, Args)]
#[command(after_help = COMPARE_EXIT_CODES)]
pub struct Compare {
    /// The model.
    #[command(flatten)]
    pub model: ModelArg,
    /// Optimizations: all, or some of memory_pool,blit_queue,command_buffer_ring
    #[arg(
        long,
        env = "MLX_SERVING_OPTIMIZATIONS",
        default_value = "all",
        value_name = "LIST",
        help_heading = "Comparison"
    )]
    pub optimizations: String,
    /// Repetitions of every arm; at least 5 for intervals, and from 8 on outliers do not widen them
    #[arg(long, env = "MLX_SERVING_REPETITIONS", default_value_t = bench::Compare::default().repetitions, value_parser = at_most(bench::Compare::MAX_REPETITIONS), value_name = "N", help_heading = "Comparison")]
    pub repetitions: usize,
    /// questions: prompts that have nothing in common, then one that was evicted; conversations: more of them than the KV cache holds, in
    /// turn, so that every turn's prefix was evicted
    #[arg(
        long,
        env = "MLX_SERVING_LOAD",
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "LOAD",
        help_heading = "Load"
    )]
    pub load: CompareLoad,
    /// Requests of a run; of questions [default: 32]
    #[arg(short = 'q', long, env = "MLX_SERVING_QUESTIONS", value_parser = at_most(Load::MAX_QUESTIONS), value_name = "N", help_heading = "Load")]
    pub questions: Option<usize>,
    /// Sizes, and how many at a time.
    #[command(flatten)]
    pub size: LoadArgs,
    /// Tokens of the prompt whose cached prefix is evicted and asked for again; of questions [default: 512]
    #[arg(long, env = "MLX_SERVING_PREFIX_TOKENS", value_parser = at_most(Load::MAX_TOKENS), value_name = "P", help_heading = "Load")]
    pub prefix_tokens: Option<usize>,
    /// Conversations of a run; of conversations [default: 16, or more if those fit into the KV cache]
    #[arg(long, env = "MLX_SERVING_CONVERSATIONS", value_parser = at_most(Load::MAX_QUESTIONS), value_name = "N", help_heading = "Load")]
    pub conversations: Option<usize>,
    /// Turns of a conversation, each with P new tokens and an answer of G; of conversations [default: 4]
    #[arg(long, env = "MLX_SERVING_TURNS", value_parser = at_most(bench::Compare::MAX_TURNS), value_name = "N", help_heading = "Load")]
    pub turns: Option<usize>,
    /// An earlier result of `bench throughput` or `bench compare` to compare the plain arm with: of this machine, model and load, or it is
    /// refused
    #[arg(long, env = "MLX_SERVING_BASELINE", value_name = "FILE", help_heading = "Comparison")]
    pub baseline: Option<PathBuf>,
    /// Exit with 3 if throughput is shown to be more than this lower: plain's than the baseline's, or an optimization's than plain's
    #[arg(long, env = "MLX_SERVING_MAX_REGRESSION", value_name = "PERCENT", help_heading = "Comparison")]
    pub max_regression: Option<f64>,
    /// Write the results here as JSON, and a report beside it as HTML
    #[arg(short, long, env = "MLX_SERVING_OUTPUT", value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// Print the results as JSON
    #[arg(long, env = "MLX_SERVING_JSON", help_heading = "Output")]
    pub json: bool,
}

/// Exit codes of `bench compare`, for its help.
const COMPARE_EXIT_CODES: &str = "Exit codes: 0 done; 1 a run failed, or an optimization changed an answer; 2 wrong usage, or a baseline that \
was measured otherwise; 3 throughput was lost beyond --max-regression.";

/// A load of `bench compare`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum CompareLoad {
    /// Prompts that have nothing in common.
    #[default]
    Questions,
    /// Conversations, more of them than the KV cache holds.
    Conversations,
}

impl From<CompareLoad> for bench::LoadKind {
    fn from(load: CompareLoad) -> Self {
        match load {
            CompareLoad::Questions => Self::Questions,
            CompareLoad::Conversations => Self::Conversations,
        }
    }
}

/// `bench kernels`
#[derive(Debug, Args)]
pub struct Kernels {
    /// qwen2.5-0.5b, qwen2.5-1.5b, qwen2.5-7b, olmo2-1b, granite-3.3-2b, phi-4-mini, glm-4-9b, gemma-3-4b, ministral-3-8b, qwen3-30b-a3b, mixtral-8x7b, glm-4.5-air or tiny-…
    #[arg(long, env = "MLX_SERVING_SHAPE", default_value = "qwen2.5-0.5b", help_heading = "Model")]
    pub shape: String,
    /// Bits of a weight: 2, 3, 4, 5, 6 or 8
    #[arg(long, env = "MLX_SERVING_BITS", default_value_t = 4, help_heading = "Model")]
    pub bits: u8,
    /// Weights that share a scale: 32, 64 or 128
    #[arg(long, env = "MLX_SERVING_GROUP_SIZE", default_value_t = 64, help_heading = "Model")]
    pub group_size: u16,
    /// Rows of a step: below 128 sequences that decode, from 128 on a chunk of one prompt
    #[arg(long, env = "MLX_SERVING_ROWS", default_value = "1,8,32,512", value_delimiter = ',', value_name = "LIST",
          value_parser = clap::value_parser!(u32).range(1..=16_384), help_heading = "Load")]
    pub rows: Vec<u32>,
    /// Tokens of every sequence at the end of the step, at least a chunk's rows
    #[arg(long, env = "MLX_SERVING_CONTEXT", default_value = "512,4096", value_delimiter = ',', value_name = "LIST",
          value_parser = clap::value_parser!(u32).range(1..=1_048_576), help_heading = "Load")]
    pub context: Vec<u32>,
    /// Write the results here as JSON
    #[arg(short, long, env = "MLX_SERVING_OUTPUT", value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// Print the results as JSON
    #[arg(long, env = "MLX_SERVING_JSON", help_heading = "Output")]
    pub json: bool,
}

/// `bench synth`
#[derive(Debug, Args)]
pub struct Synth {
    /// qwen2.5-0.5b, qwen2.5-1.5b, qwen2.5-7b, olmo2-1b, granite-3.3-2b, phi-4-mini, glm-4-9b, gemma-3-4b, ministral-3-8b, qwen3-30b-a3b, mixtral-8x7b, glm-4.5-air or tiny-…
    #[arg(long, env = "MLX_SERVING_SHAPE", help_heading = "Model")]
    pub shape: Option<String>,
    /// Instead of random weights, a model that gives the answers of this JSON file, for tests of programs that talk to models
    #[arg(long, env = "MLX_SERVING_SCRIPT", value_name = "FILE", conflicts_with = "shape", help_heading = "Model")]
    pub script: Option<PathBuf>,
    /// Bits of a weight: 2, 3, 4, 5, 6 or 8
    #[arg(long, env = "MLX_SERVING_BITS", default_value_t = 4, conflicts_with = "script", help_heading = "Model")]
    pub bits: u8,
    /// Weights that share a scale: 32, 64 or 128
    #[arg(
        long,
        env = "MLX_SERVING_GROUP_SIZE",
        default_value_t = 64,
        conflicts_with = "script",
        help_heading = "Model"
    )]
    pub group_size: u16,
    /// Seed of the random weights
    #[arg(long, env = "MLX_SERVING_SEED", default_value_t = 0, conflicts_with = "script", help_heading = "Model")]
    pub seed: u64,
    /// Folder to write, which must be new or empty
    #[arg(long, env = "MLX_SERVING_OUT", value_name = "DIR", help_heading = "Output")]
    pub out: PathBuf,
}
