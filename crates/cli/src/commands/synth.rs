//! `bench synth`: a random checkpoint, or a scripted one.

use crate::args::Synth as Args;
use crate::failure::Failure;
use mlx_serving_checkpoint::script::Script;
use mlx_serving_model::synth::Synth;
use std::path::Path;

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match (&args.script, &args.shape) {
        (Some(file), _) => scripted(file, &args.out),
        (None, Some(shape)) => random(args, shape),
        (None, None) => Err(Failure::usage("name a --shape or a --script")),
    }
}

fn random(args: &Args, shape: &str) -> Result<(), Failure> {
    let synth = Synth { shape: shape.to_owned(), bits: args.bits, group_size: args.group_size, seed: args.seed };
    synth.shape().map_err(Failure::usage)?;
    synth.write(&args.out).map_err(Failure::failed)?;
    tracing::info!("wrote a random {shape} checkpoint to {}", args.out.display());
    Ok(())
}

fn scripted(file: &Path, out: &Path) -> Result<(), Failure> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let json = std::fs::read(file).map_err(|e| Failure::failed(named(&e)))?;
    let script = Script::parse(&json).map_err(|e| Failure::failed(named(&e)))?;
    script.write(out).map_err(|e| Failure::failed(named(&e)))?;
    tracing::info!("wrote a checkpoint with {} answers to {}", script.answers.len(), out.display());
    Ok(())
}
