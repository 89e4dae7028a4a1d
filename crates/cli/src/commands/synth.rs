//! `bench synth`: a random checkpoint, or a scripted one.

use crate::args::Synth as Args;
use crate::failure::Failure;
use mlx_serving_checkpoint::script::Script;
use mlx_serving_model::synth::Synth;
use mlx_serving_text::ChatTemplate;
use std::path::Path;

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    // Files of another model would stay, and be taken for this one's.
    if std::fs::read_dir(&args.out).is_ok_and(|mut entries| entries.next().is_some()) {
        let out = args.out.display();
        return Err(Failure::failed(format!("{out} is not empty; remove it, or name another folder with --out")));
    }
    match (&args.script, &args.shape) {
        (Some(file), _) => scripted(file, &args.out),
        (None, Some(shape)) => random(args, shape),
        (None, None) => Err(Failure::usage("name a shape with --shape, or a script with --script")),
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
    if let Some(source) = &script.chat_template {
        ChatTemplate::new(source, &[]).map_err(|e| Failure::failed(named(&format!("chat_template: {e}"))))?;
    }
    script.write(out).map_err(|e| Failure::failed(named(&e)))?;
    let answers = match script.answers.len() {
        1 => "1 answer".to_owned(),
        count => format!("{count} answers"),
    };
    tracing::info!("wrote a checkpoint with {answers} to {}", out.display());
    Ok(())
}
