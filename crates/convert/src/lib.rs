//! Checkpoints of dense weights into quantized ones, in formats that MLX and this server read.
//!
//! A source is read in pieces of some MiB, so that no tensor is ever in memory as a whole. Each file is written under another name, read
//! back, and renamed; a conversion that was broken off goes on with the next file. Knows nothing of devices, nor of architectures: the
//! modules of a model are given to it.
#![forbid(unsafe_code)]

mod error;
mod float;
mod folder;
mod format;
mod layout;
mod plan;
mod quantize;
mod write;

pub use error::ConvertError;
pub use format::Format;
pub use plan::{Pattern, Plan};

use folder::Folder;
use layout::Items;
use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_checkpoint::synth::Module;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;

/// Parameters of a conversion.
#[derive(Debug)]
pub struct Conversion<'a> {
    /// The checkpoint.
    pub source: &'a Checkpoint,
    /// Modules of its model.
    pub modules: &'a [Module],
    /// The plan.
    pub plan: &'a Plan,
    /// Folder to write, which is new, empty or holds what an earlier run has left.
    pub out: &'a Path,
    /// Threads that quantize, at least one.
    pub threads: usize,
    /// Bytes of one file of weights, at most but for one that a single matrix fills.
    pub file_bytes: u64,
}

/// Outcome of a conversion.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Converted {
    /// Bytes of the source's tensors.
    pub source_bytes: u64,
    /// Bytes of the tensors written.
    pub bytes: u64,
    /// Bits of a quantized or plain weight of a matrix, scales and biases included.
    pub bits_per_weight: f64,
    /// Matrices that no plan but their own shape has left as they are.
    pub left_dense: Vec<String>,
    /// Tensors of the source that the model does not use, and that are not written.
    pub left_out: Vec<String>,
}

impl Conversion<'_> {
    /// Bytes of one file of weights where nothing else is asked for.
    pub const FILE_BYTES: u64 = 2 << 30;

    /// Converts; `progress` is told the bytes of the source that are done, and how many there are.
    ///
    /// # Errors
    /// Nothing is lost of what was written before: the same call goes on with it.
    pub fn run(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Converted, ConvertError> {
        let Self { source, plan, out, .. } = *self;
        let Items { items, formats } = Items::new(source, self.modules, plan)?;
        let (total, converted) = (items.iter().map(|item| item.bytes).sum(), self.outcome(&items, &formats));
        let files = layout::files(items, self.file_bytes);
        let names = layout::names(files.len());
        let folder = Folder::begin(out, source, &files)?;
        let mut done = 0;
        progress(done, total);
        for (items, name) in files.iter().zip(&names) {
            let path = folder.path.join(name);
            let after = done + items.iter().map(|item| item.bytes).sum::<u64>();
            if !path.is_file() {
                write::write(source, items, &path, self.threads.max(1), &mut |read| {
                    done += read;
                    progress(done, total);
                })?;
            }
            done = after;
            progress(done, total);
        }
        let modules = formats.iter().map(|(module, format)| (module.as_str(), *format));
        folder.finish(source.dir(), &files, &names, plan.entry(modules))?;
        Ok(converted)
    }

    fn outcome(&self, items: &[layout::Item], formats: &[(String, Format)]) -> Converted {
        let bytes = |items: &mut dyn Iterator<Item = &layout::Item>| -> u64 {
            items.flat_map(|item| &item.outputs).map(|output| output.bytes).sum()
        };
        let linears: BTreeSet<String> = formats.iter().map(|(module, _)| format!("{module}.weight")).collect();
        let of_matrices = bytes(&mut items.iter().filter(|item| linears.contains(&item.source)));
        let weights: usize = self
            .modules
            .iter()
            .map(|module| match module {
                Module::Linear { rows, cols, .. } => rows * cols,
                Module::Stack { count, rows, cols, .. } => count * rows * cols,
                Module::Norm { .. } | Module::Vector { .. } => 0,
            })
            .sum();
        let used: BTreeSet<String> = items.iter().map(|item| item.source.clone()).collect();
        let by_shape = |format: &Format| *format == Format::Dense && self.plan.format != Format::Dense;
        let named = |module: &str| self.plan.rules.iter().any(|(pattern, _)| pattern.matches(module));
        Converted {
            source_bytes: self.source.total_bytes(),
            bytes: bytes(&mut items.iter()),
            bits_per_weight: 8.0 * of_matrices as f64 / weights.max(1) as f64,
            left_dense: formats
                .iter()
                .filter(|(module, format)| by_shape(format) && !named(module))
                .map(|(module, _)| module.clone())
                .collect(),
            left_out: self.source.unused(&used),
        }
    }
}
