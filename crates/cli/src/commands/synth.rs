//! `bench synth`: a random checkpoint.

use crate::args::Synth as Args;
use crate::failure::Failure;
use mlx_serving_model::synth::Synth;

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let synth = Synth { shape: args.shape.clone(), bits: args.bits, group_size: args.group_size, seed: args.seed };
    synth.shape().map_err(Failure::usage)?;
    synth.write(&args.out).map_err(Failure::failed)?;
    tracing::info!("wrote a random {} checkpoint to {}", args.shape, args.out.display());
    Ok(())
}
