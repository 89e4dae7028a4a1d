//! `soak`

use super::{ModelArg, at_most};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// `soak`
#[derive(Debug, Clone, Args)]
pub struct Soak {
    /// The model.
    #[command(flatten)]
    pub model: ModelArg,
    /// Time of traffic, such as 90s, 60m, 24h or 1d [default: 24h]
    #[arg(long, env = "MLX_SERVING_DURATION", value_parser = mlx_serving_soak::duration, value_name = "TIME", help_heading = "Load")]
    pub duration: Option<Duration>,
    /// Requests at a time [default: 10]
    #[arg(long, env = "MLX_SERVING_CONCURRENCY", value_parser = at_most(256), value_name = "C", help_heading = "Load")]
    pub concurrency: Option<usize>,
    /// Seed of every choice that is made at random; any whole number of 64 bits [default: one is drawn]
    #[arg(long, env = "MLX_SERVING_SEED", value_name = "N", help_heading = "Load")]
    pub seed: Option<u64>,
    /// Write the record here as JSON, every minute, and a page beside it as HTML at the end
    #[arg(
        short,
        long,
        env = "MLX_SERVING_OUTPUT",
        value_name = "FILE",
        required_unless_present = "resume",
        help_heading = "Output"
    )]
    pub output: Option<PathBuf>,
    /// Go on with the run of this record, whose process has ended, with its settings; those that are given have to be the same
    #[arg(long, env = "MLX_SERVING_RESUME", value_name = "FILE", help_heading = "Output")]
    pub resume: Option<PathBuf>,
}
