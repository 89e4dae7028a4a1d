//! One module a command.

mod chat;
mod compare;
mod config;
mod doctor;
mod eval;
mod generate;
mod kernels;
pub(crate) mod models;
mod serve;
mod synth;
mod throughput;
mod workload;

use crate::args::{Bench, Cli, Command, Eval};
use crate::config::{Config, Loaded};
use crate::failure::Failure;
use crate::fit::Ledger;
use crate::load;
use mlx_serving_runtime::Model;
use std::path::Path;

/// Configuration and state that every command has at hand.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub config: Config,
    /// Memory that the models which were loaded take.
    pub memory: Ledger,
}

impl Context {
    pub(crate) fn new(config: Config) -> Self {
        Self { config, memory: Ledger::default() }
    }

    /// Loads a model and starts its engine; the bundled one if none is named.
    pub(crate) fn load(&self, model: Option<&str>) -> Result<Model, Failure> {
        load::serve(self, model)
    }
}

/// Runs the command.
pub(crate) fn run(cli: &Cli, loaded: Loaded) -> Result<(), Failure> {
    let context = Context::new(loaded.config.clone());
    match &cli.command {
        Command::Serve(args) => serve::run(&context, args),
        Command::Chat(args) => chat::run(&context, args),
        Command::Generate(args) => generate::run(&context, args),
        Command::Pull(args) => models::pull(&context, args),
        Command::List(args) => models::list(&context, args),
        Command::Rm(args) => models::remove(&context, args),
        Command::Bench(Bench::Throughput(args)) => throughput::run(&context, args),
        Command::Bench(Bench::Compare(args)) => compare::run(&context, args),
        Command::Bench(Bench::Kernels(args)) => kernels::run(&context, args),
        Command::Bench(Bench::Synth(args)) => synth::run(args),
        Command::Eval(Eval::Logits(args)) => eval::logits(&context, args),
        Command::Eval(Eval::Perplexity(args)) => eval::perplexity(&context, args),
        Command::Config(args) => config::run(&context, &loaded, args),
        Command::Doctor(args) => doctor::run(&context, &loaded, args),
    }
}

/// Writes a result file, its folders too.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    folder
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::write(path, bytes))
        .map_err(|e| Failure::failed(format!("{}: {e}", path.display())))
}
