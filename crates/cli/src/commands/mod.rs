//! One module a command.

mod chat;
mod compare;
mod config;
mod convert;
mod doctor;
mod eval;
mod generate;
mod health;
mod kernels;
mod models;
mod pages;
mod serve;
mod soak;
mod synth;
mod throughput;

use crate::args::{Bench, Cli, Command, Eval};
use crate::context::Context;
use crate::failure::Failure;
use crate::origins::Loaded;

/// Runs the command.
pub(crate) fn run(cli: &Cli, loaded: Loaded) -> Result<(), Failure> {
    let context = Context::new(loaded.config.clone());
    match &cli.command {
        Command::Serve(args) => serve::run(&context, &args.served_model_name),
        Command::Chat(args) => chat::run(&context, args),
        Command::Generate(args) => generate::run(&context, args),
        Command::Pull(args) => models::pull(&context, args),
        Command::List(args) => models::list(&context, args),
        Command::Rm(args) => models::remove(&context, args),
        Command::Convert(args) => convert::run(args),
        Command::Bench(Bench::Throughput(args)) => throughput::run(&context, args),
        Command::Bench(Bench::Compare(args)) => compare::run(&context, args),
        Command::Bench(Bench::Kernels(args)) => kernels::run(&context, args),
        Command::Bench(Bench::Synth(args)) => synth::run(args),
        Command::Soak(args) => soak::run(&context, args, &cli.given),
        Command::Eval(Eval::Logits(args)) => eval::logits(&context, args),
        Command::Eval(Eval::Perplexity(args)) => eval::perplexity(&context, args),
        Command::Config(args) => config::run(&context, &loaded, args),
        Command::Doctor(args) => doctor::run(&context, &loaded, args),
        Command::Health(args) => health::run(&context, args),
        Command::Completions(args) => pages::completions(args),
        Command::Man(args) => pages::man(args),
    }
}
