//! `eval logits|perplexity`: what a model computes, for conformance.

use crate::args::{EvalLogits, EvalPerplexity};
use crate::config::ArithmeticMode;
use crate::context::{Context, write_file};
use crate::failure::Failure;
use crate::{device, load};
use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_device::Device;
use mlx_serving_metal_layer::MetalLayer;
use mlx_serving_model::eval::{Evaluator, divergence, perplexity as measure};
use mlx_serving_model::{Blueprint, Model};
use mlx_serving_text::Tokenizer;
use serde_json::json;
use std::io::Write;
use std::sync::Arc;

/// Tokens of one step.
const CHUNK: usize = 64;
/// Tokens of one window of text.
const WINDOW: usize = 512;

/// A model without an engine.
struct Bench {
    device: Arc<dyn Device>,
    model: Model,
    /// Its layer, dropped after the model, whose memory its allocator has.
    layer: MetalLayer,
}

impl Bench {
    fn load(context: &Context, model: Option<&str>, arithmetic: Option<ArithmeticMode>) -> Result<Self, Failure> {
        let (dir, name) = load::resolve(model)?;
        let mut engine = context.config.engine.clone();
        engine.arithmetic = arithmetic.unwrap_or(engine.arithmetic);
        let device = device::open(&engine)?;
        let layer = MetalLayer::new(device.clone(), &context.config.metal_optimizations).map_err(Failure::failed)?;
        let checkpoint = Arc::new(Checkpoint::open(&dir).map_err(Failure::failed)?);
        let model = load::load_weights(checkpoint, &device, &layer, &name)?;
        Ok(Self { device, layer, model })
    }

    fn evaluator(&mut self, context: usize) -> Result<Evaluator<'_>, Failure> {
        Evaluator::new(&self.model, &self.device, &mut self.layer, context, CHUNK).map_err(Failure::failed)
    }
}

/// Writes logits as .npy.
pub(crate) fn logits(context: &Context, args: &EvalLogits) -> Result<(), Failure> {
    let mut bench = Bench::load(context, args.model.model.as_deref(), None)?;
    let vocab = bench.model.vocab();
    if let Some(token) = args.tokens.iter().find(|&&t| t as usize >= vocab) {
        return Err(Failure::usage(format!("--tokens has {token}, but the vocabulary ends at {}", vocab - 1)));
    }
    let mut values = Vec::with_capacity(4 * args.tokens.len() * vocab);
    let mut evaluator = bench.evaluator(args.tokens.len())?;
    evaluator
        .logits(&args.tokens, |_, row| values.extend(row.iter().flat_map(|v| v.to_le_bytes())))
        .map_err(Failure::failed)?;
    let mut file = npy_header(args.tokens.len(), vocab);
    file.extend(values);
    write_file(&args.output, &file)
}

/// A NumPy file's header, version 1.0, for little-endian float32 of two dimensions; its length is a multiple of 64.
fn npy_header(rows: usize, columns: usize) -> Vec<u8> {
    let mut dict = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let length = (10 + dict.len() + 1).next_multiple_of(64);
    dict += &" ".repeat(length - 10 - dict.len() - 1);
    dict.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((dict.len() as u16).to_le_bytes());
    header.extend(dict.as_bytes());
    header
}

/// Measures perplexity, and if asked how far `fast` is from `exact`.
pub(crate) fn perplexity(context: &Context, args: &EvalPerplexity) -> Result<(), Failure> {
    let text = std::fs::read_to_string(&args.text)
        .map_err(|e| Failure::failed(format!("{}: {e}; it must be a UTF-8 text", args.text.display())))?;
    let (dir, _) = load::resolve(args.model.model.as_deref())?;
    // Refuses files that are none, and unknown architectures, before anything is read.
    Checkpoint::open(&dir).and_then(|checkpoint| Blueprint::of(&checkpoint)).map_err(Failure::failed)?;
    let tokenizer = Tokenizer::from_dir(&dir).map_err(Failure::failed)?;
    let tokens = tokenizer.encode(&text, false).map_err(Failure::failed)?;
    if tokens.len() < 2 {
        return Err(Failure::failed(format!("{}: too short to predict anything", args.text.display())));
    }
    let mut bench = Bench::load(context, args.model.model.as_deref(), None)?;
    let result = measure(&mut bench.evaluator(WINDOW)?, &tokens, WINDOW).map_err(Failure::failed)?;
    let mut report = json!({ "perplexity": result.perplexity, "nats_per_token": result.nats, "tokens": result.tokens });
    if args.compare_exact {
        let mut exact = Bench::load(context, args.model.model.as_deref(), Some(ArithmeticMode::Exact))?;
        let reference = measure(&mut exact.evaluator(WINDOW)?, &tokens, WINDOW).map_err(Failure::failed)?;
        let apart = divergence(&mut exact.evaluator(WINDOW)?, &mut bench.evaluator(WINDOW)?, &tokens, WINDOW)
            .map_err(Failure::failed)?;
        report["exact_perplexity"] = json!(reference.perplexity);
        report["perplexity_change"] = json!(result.perplexity / reference.perplexity - 1.0);
        report["mean_kl_nats"] = json!(apart.mean_kl);
        report["top1_agreement"] = json!(apart.top1_agreement);
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        return writeln!(out, "{report}").map_err(Failure::output);
    }
    for (key, value) in report.as_object().into_iter().flatten() {
        let value = match value.as_f64().filter(|_| !value.is_u64()) {
            Some(number) => rounded(number),
            None => value.to_string(),
        };
        writeln!(out, "{key:18} {value}").map_err(Failure::output)?;
    }
    Ok(())
}

/// A number in five digits; `--json` has all.
fn rounded(number: f64) -> String {
    match number.abs() {
        0.0 => "0".to_owned(),
        size if size < 1e-3 => format!("{number:.4e}"),
        size => {
            let digits = (4 - size.log10().floor() as i32).clamp(0, 8) as usize;
            format!("{number:.digits$}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_five_digits() {
        for (number, text) in [
            (4.123456789012345, "4.1235"),
            (4123.456789, "4123.5"),
            (412345678.9, "412345679"),
            (0.0123456, "0.012346"),
            (-0.00001234567, "-1.2346e-5"),
            (0.0, "0"),
            (1.0, "1.0000"),
        ] {
            assert_eq!(rounded(number), text);
        }
    }
}
