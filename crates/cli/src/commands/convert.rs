//! `convert`: a quantized copy of a checkpoint.

use crate::args::Convert as Args;
use crate::failure::Failure;
use crate::load;
use crate::progress::Bar;
use indicatif::BinaryBytes;
use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_convert::{Conversion, ConvertError, Converted, Format, Pattern, Plan};
use mlx_serving_model::{Blueprint, modules, refuse_contradictions};
use std::collections::BTreeSet;
use std::io::Write;

/// Names of tensors or modules that are shown.
const SHOWN: usize = 5;

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let format = args.format().map_err(Failure::usage)?;
    let (folder, _) = load::resolve(Some(&args.hf_path))?;
    let source = Checkpoint::open(&folder).map_err(Failure::failed)?;
    source.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    let model = Blueprint::of(&source).map_err(Failure::failed)?;
    refuse_contradictions(&source, &model).map_err(Failure::failed)?;
    let modules = modules(&model);
    let plan = Plan { format, rules: routers(&model).chain(args.q_module.iter().cloned()).collect() };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let bar = Bar::bytes("converting");
    let conversion = Conversion {
        source: &source,
        modules: &modules,
        plan: &plan,
        out: &args.mlx_path,
        threads,
        file_bytes: Conversion::FILE_BYTES,
    };
    let converted = conversion.run(&mut |done, total| bar.set(done, total));
    bar.finish();
    let converted = converted.map_err(|error| match error {
        ConvertError::Plan(_) => Failure::usage(error),
        _ => Failure::failed(error),
    })?;
    say(&converted);
    let mut out = anstream::stdout();
    match args.json {
        true => writeln!(out, "{}", serde_json::to_string_pretty(&converted).map_err(Failure::failed)?),
        false => writeln!(
            out,
            "{}: {} where the source has {}, {:.2} bits a weight",
            args.mlx_path.display(),
            BinaryBytes(converted.bytes),
            BinaryBytes(converted.source_bytes),
            converted.bits_per_weight
        ),
    }
    .map_err(Failure::output)
}

/// Rules by which routers stay as they are: they are small, and choose the experts.
fn routers(model: &Blueprint) -> impl Iterator<Item = (Pattern, Format)> {
    let routers: BTreeSet<&str> =
        model.layers.iter().filter_map(|layer| layer.experts.as_ref()).map(|experts| experts.router).collect();
    routers.into_iter().map(|router| (Pattern(format!("*.{router}")), Format::Dense))
}

/// Names what was not quantized, and what was not taken along.
fn say(converted: &Converted) {
    let listed = |names: &[String]| match names.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!("{} and {more} more", names[..SHOWN].join(", ")),
        _ => names.join(", "),
    };
    let Converted { left_dense, left_out, .. } = converted;
    if !left_dense.is_empty() {
        tracing::warn!("rows are no whole groups, so these stay as they are: {}", listed(left_dense));
    }
    if !left_out.is_empty() {
        tracing::warn!("{} tensors are not the model's, and are left out: {}", left_out.len(), listed(left_out));
    }
}
