//! `completions`, `man` and `health`

use clap::Args;
use clap_complete::Shell;
use std::path::PathBuf;

/// `completions`
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    pub shell: Shell,
}

/// `man`
#[derive(Debug, Args)]
pub struct Man {
    /// Write a page for each command into this folder, instead of the first to standard output
    #[arg(long, env = "MLX_SERVING_OUT", value_name = "DIR", help_heading = "Output")]
    pub out: Option<PathBuf>,
}

/// `health`
#[derive(Debug, Args)]
pub struct Health {
    /// Address that the server listens on [default: 127.0.0.1]
    #[arg(long, env = "MLX_SERVING_HOST", help_heading = "Server")]
    pub host: Option<String>,
    /// Port that the server listens on [default: 8080]
    #[arg(long, env = "MLX_SERVING_PORT", help_heading = "Server")]
    pub port: Option<u16>,
}
