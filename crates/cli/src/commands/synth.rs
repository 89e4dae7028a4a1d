//! `bench synth`: a random checkpoint.

use crate::args::Synth as Args;
use crate::failure::Failure;
use mlx_serving_checkpoint::synth::{Shape, Synth, write};

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    Shape::find(&args.shape, args.bits, args.group_size).map_err(Failure::usage)?;
    let synth = Synth { shape: args.shape.clone(), bits: args.bits, group_size: args.group_size, seed: args.seed };
    write(&synth, &args.out).map_err(Failure::failed)?;
    tracing::info!("wrote a random {} checkpoint to {}", args.shape, args.out.display());
    Ok(())
}
