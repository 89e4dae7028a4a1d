//! Tensors of the checkpoint that is written, and their places in its files.

use crate::error::ConvertError;
use crate::float::Float;
use crate::format::Format;
use crate::plan::Plan;
use mlx_serving_checkpoint::synth::Module;
use mlx_serving_checkpoint::{Checkpoint, Dtype, TensorInfo, head_of};

/// A tensor of the source with what is made of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Item {
    /// The tensor in the source.
    pub source: String,
    /// Bytes in the source.
    pub bytes: u64,
    /// The matrix that is quantized; `None` is copied.
    pub matrix: Option<Matrix>,
    /// Values first, then scales and biases, if there are any.
    pub outputs: Vec<Output>,
}

/// A matrix that is quantized.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Matrix {
    pub module: String,
    pub rows: usize,
    pub cols: usize,
    pub float: Float,
    pub format: Format,
}

/// A tensor that is written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Output {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: u64,
}

/// All that is to be made of a model's tensors, by name, and the format of each module.
pub(crate) struct Items {
    pub items: Vec<Item>,
    pub formats: Vec<(String, Format)>,
}

impl Items {
    /// Follows the plan for a model's modules.
    pub(crate) fn new(source: &Checkpoint, modules: &[Module], plan: &Plan) -> Result<Self, ConvertError> {
        let linears = modules.iter().filter_map(|module| match module {
            Module::Linear { name, .. } | Module::Stack { name, .. } => Some(name.as_str()),
            Module::Norm { .. } | Module::Vector { .. } => None,
        });
        plan.check(linears)?;
        let (mut items, mut formats) = (Vec::new(), Vec::new());
        let mut matrices = |name: &str, outer: &[usize], cols: usize| -> Result<Item, ConvertError> {
            if source.get(&format!("{name}.scales")).is_some() {
                return Err(ConvertError::Quantized { module: name.to_owned() });
            }
            let format = plan.of(name, cols)?;
            formats.push((name.to_owned(), format));
            matrix(source, name, outer, cols, format)
        };
        for module in modules {
            match module {
                Module::Norm { name, len } => items.push(copied(source, &format!("{name}.weight"), &[*len])?),
                Module::Vector { name, len } => items.push(copied(source, name, &[*len])?),
                Module::Stack { name, count, rows, cols } => items.push(matrices(name, &[*count, *rows], *cols)?),
                Module::Linear { name, rows, cols, bias } => {
                    items.push(matrices(name, &[*rows], *cols)?);
                    if *bias {
                        items.push(copied(source, &format!("{name}.bias"), &[*rows])?);
                    }
                }
            }
        }
        items.sort_by(|a, b| a.source.cmp(&b.source));
        Ok(Self { items, formats })
    }
}

const FLOATS: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

fn copied(source: &Checkpoint, name: &str, shape: &[usize]) -> Result<Item, ConvertError> {
    let info = source.tensor(name, shape, &FLOATS)?;
    let output = Output { name: name.to_owned(), dtype: info.dtype, shape: shape.to_vec(), bytes: info.bytes };
    Ok(Item { source: name.to_owned(), bytes: info.bytes, matrix: None, outputs: vec![output] })
}

/// A matrix with a row of `cols` values for each of `outer`.
fn matrix(
    source: &Checkpoint,
    module: &str,
    outer: &[usize],
    cols: usize,
    format: Format,
) -> Result<Item, ConvertError> {
    let name = format!("{module}.weight");
    let (shape, rows) = (|width: usize| [outer, &[width]].concat(), outer.iter().product::<usize>());
    let item = copied(source, &name, &shape(cols))?;
    let (Some((bits, group)), Some(float)) = (format.codes(), Float::of(item.outputs[0].dtype)) else {
        return Ok(item);
    };
    let output = |tensor: &str, dtype: Dtype, width: usize, size: usize| Output {
        name: format!("{module}.{tensor}"),
        dtype,
        shape: shape(width),
        bytes: (rows * width * size) as u64,
    };
    let groups = cols / group;
    let mut outputs = vec![output("weight", Dtype::U32, cols * bits / 32, 4)];
    match format {
        Format::Affine { .. } => {
            outputs.extend(["scales", "biases"].map(|tensor| output(tensor, float.dtype(), groups, float.size())));
        }
        _ => outputs.push(output("scales", Dtype::U8, groups, 1)),
    }
    let matrix = Some(Matrix { module: module.to_owned(), rows, cols, float, format });
    Ok(Item { source: name, bytes: item.bytes, matrix, outputs })
}

/// Files of at most about `limit` bytes, each with what is in it.
pub(crate) fn files(items: Vec<Item>, limit: u64) -> Vec<Vec<Item>> {
    let mut files: Vec<Vec<Item>> = Vec::new();
    let mut size = u64::MAX;
    for item in items {
        let bytes: u64 = item.outputs.iter().map(|output| output.bytes).sum();
        if size.saturating_add(bytes) > limit {
            files.push(Vec::new());
            size = 0;
        }
        size += bytes;
        files.last_mut().into_iter().for_each(|file| file.push(item.clone()));
    }
    files
}

/// Names of so many files.
pub(crate) fn names(files: usize) -> Vec<String> {
    match files {
        1 => vec!["model.safetensors".to_owned()],
        _ => (1..=files).map(|number| format!("model-{number:05}-of-{files:05}.safetensors")).collect(),
    }
}

/// The head of a safetensors file with these tensors, which follow it in order.
pub(crate) fn head<'a>(outputs: impl Iterator<Item = &'a Output>) -> Vec<u8> {
    let info = |output: &'a Output| TensorInfo { dtype: output.dtype, shape: &output.shape, bytes: output.bytes };
    head_of(outputs.map(|output| (output.name.as_str(), info(output))))
}
