use crate::ModelError;
use mlx_serving_checkpoint::{Checkpoint, Dtype, LinearTensors};
use mlx_serving_device::ops::{Norm, Projection};
use mlx_serving_device::{Buffer, Device, Encoder, Float, Storage, Weight, WeightFormat, WeightSource, WeightSpec};
use mlx_serving_metal_layer::{Allocate, Allocation, Fill, Ticket, Transfer, WEIGHTS};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How far loading has come, in bytes of the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadProgress {
    /// Handed to the device.
    pub done: u64,
    /// In all.
    pub total: u64,
}

/// What loading needs.
pub struct Source<'a> {
    /// The files.
    pub checkpoint: Arc<Checkpoint>,
    /// Where the weights go.
    pub device: &'a Arc<dyn Device>,
    /// Their memory.
    pub allocate: &'a dyn Allocate,
    /// Their way.
    pub transfer: &'a dyn Transfer,
    /// Told after every module.
    pub progress: &'a mut dyn FnMut(LoadProgress),
}

/// Tensors of a linear module; an unquantised one has only the first.
const TENSORS: [&str; 3] = ["weight", "scales", "biases"];

/// A linear or embedding module: one weight, or several where the device's buffers are shorter, row after row.
pub(crate) type Module = Vec<Projection>;

/// Moves one model's tensors to the device, in the order in which a forward pass uses them.
pub(crate) struct Loader<'a> {
    source: Source<'a>,
    done: u64,
    total: u64,
    used: BTreeSet<String>,
    held: Vec<Allocation>,
    pending: Vec<Upload>,
    /// Where weights lie: memory that the host reaches too, if that is the same memory, so that nothing is staged and copied.
    storage: Storage,
    /// Where small tensors go, and how much of it is taken.
    open: Option<(Buffer, u64)>,
}

/// What a loaded model holds on to.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The weights' memory.
    pub held: Vec<Allocation>,
    /// Tensors of the checkpoint that the model does not use.
    pub unused: Vec<String>,
}

/// Transfers that a part of the model waits for.
#[derive(Debug, Default)]
pub(crate) struct Residency {
    uploads: Vec<Upload>,
    /// All have succeeded: nothing is to be looked at any more.
    arrived: AtomicBool,
}

/// A transfer of weights.
#[derive(Debug)]
struct Upload {
    module: String,
    path: PathBuf,
    ticket: Ticket,
}

impl Residency {
    /// Makes the ops that follow wait for what is not there yet.
    pub(crate) fn order(&self, encoder: &mut dyn Encoder) -> mlx_serving_device::Result<()> {
        if self.arrived.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.uploads.iter().try_for_each(|upload| upload.ticket.order(encoder))
    }

    /// Blocks until all have ended, at most `limit` for each; the first that failed.
    pub(crate) fn wait(&self, limit: Duration) -> Result<(), ModelError> {
        if self.arrived.load(Ordering::Relaxed) {
            return Ok(());
        }
        for Upload { module, path, ticket } in &self.uploads {
            let ended = ticket.point.as_ref().map_or(Ok(()), |point| point.wait(limit));
            ended.and_then(|()| ticket.wait(limit)).map_err(|source| ModelError::Upload {
                module: module.clone(),
                path: path.clone(),
                source,
            })?;
        }
        self.arrived.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// Rows of each part of a weight, so that no part exceeds the device's buffers.
///
/// # Errors
/// A format that the device does not have.
pub fn row_parts(device: &dyn Device, whole: &WeightSpec) -> mlx_serving_device::Result<Vec<Range<usize>>> {
    let layout = device.weight_layout(whole)?;
    let limit = device.info().max_buffer_len;
    let blocks = (limit / layout.bytes_per_block as u64).max(1).min(layout.blocks as u64) as usize;
    let rows = blocks * layout.rows_per_block;
    Ok((0..whole.rows).step_by(rows).map(|start| start..(start + rows).min(whole.rows)).collect())
}

fn float(dtype: Dtype) -> Float {
    match dtype {
        Dtype::F16 => Float::F16,
        Dtype::BF16 => Float::Bf16,
        // The checkpoint admits no other.
        _ => Float::F32,
    }
}

fn spec_and_source<'t>(tensors: &LinearTensors<'t>, rows: usize, cols: usize) -> (WeightSpec, WeightSource<'t>) {
    match *tensors {
        LinearTensors::Quantized { quantization, scale_dtype, values, scales, biases } => {
            let format = WeightFormat::Affine {
                bits: quantization.bits,
                group: quantization.group_size,
                scale: float(scale_dtype),
            };
            (WeightSpec { rows, cols, format }, WeightSource { values, scales, biases })
        }
        LinearTensors::Dense { dtype, values } => (
            WeightSpec { rows, cols, format: WeightFormat::Dense(float(dtype)) },
            WeightSource { values, scales: &[], biases: &[] },
        ),
    }
}

impl<'a> Loader<'a> {
    pub(crate) fn new(source: Source<'a>) -> Result<Self, ModelError> {
        let total = source.checkpoint.total_bytes();
        let info = source.device.info();
        let (budget, storage) =
            (info.memory_budget, if info.unified_memory { Storage::Shared } else { Storage::Private });
        if total > budget {
            return Err(ModelError::TooLarge { needed: total, budget });
        }
        source.allocate.expect_weights(total);
        Ok(Self {
            source,
            done: 0,
            total,
            used: BTreeSet::new(),
            held: Vec::new(),
            pending: Vec::new(),
            storage,
            open: None,
        })
    }

    /// Loads `{module}.weight` of shape (`rows`, `cols`), and `{module}.bias` if there is to be one.
    pub(crate) fn linear(&mut self, module: &str, rows: usize, cols: usize, bias: bool) -> Result<Module, ModelError> {
        let checkpoint = self.source.checkpoint.clone();
        let name = format!("{module}.bias");
        if !bias && checkpoint.get(&name).is_some() {
            return Err(self.contradiction(name, "by which this module has no bias".into()));
        }
        let bias = if bias { Some(self.vector(&name, rows)?) } else { None };
        let (whole, _) = spec_and_source(&checkpoint.linear(module, rows, cols)?, rows, cols);
        let mut parts = Module::new();
        for range in row_parts(self.source.device.as_ref(), &whole)? {
            let spec = WeightSpec { rows: range.len(), ..whole };
            let buffer = self.upload_weight(module, &whole, range.clone())?;
            let bias = match &bias {
                Some(bias) => Some(bias.slice(4 * range.start as u64..4 * range.end as u64)?),
                None => None,
            };
            parts.push(Projection { weight: Weight { spec, buffer }, bias });
        }
        TENSORS.iter().for_each(|tensor| self.note(&format!("{module}.{tensor}")));
        Ok(parts)
    }

    /// Loads a module that a gated op takes whole.
    pub(crate) fn undivided(
        &mut self,
        module: &str,
        rows: usize,
        cols: usize,
        bias: bool,
    ) -> Result<Module, ModelError> {
        let (spec, _) = spec_and_source(&self.source.checkpoint.linear(module, rows, cols)?, rows, cols);
        let bytes = self.source.device.weight_layout(&spec)?.bytes() as u64;
        let limit = self.source.device.info().max_buffer_len;
        if bytes > limit {
            return Err(ModelError::TooLong { module: module.to_owned(), bytes, limit });
        }
        self.linear(module, rows, cols, bias)
    }

    fn upload_weight(&mut self, module: &str, whole: &WeightSpec, range: Range<usize>) -> Result<Buffer, ModelError> {
        let spec = WeightSpec { rows: range.len(), ..*whole };
        let layout = self.source.device.weight_layout(&spec)?;
        let buffer = self.room(layout.bytes() as u64)?;
        let chunk = (self.source.transfer.max_chunk() / layout.bytes_per_block as u64).max(1) as usize;
        for first in (0..layout.blocks).step_by(chunk) {
            let blocks = first..(first + chunk).min(layout.blocks);
            let bytes = (blocks.start * layout.bytes_per_block) as u64..(blocks.end * layout.bytes_per_block) as u64;
            let (checkpoint, device) = (self.source.checkpoint.clone(), self.source.device.clone());
            let (name, whole, range) = (module.to_owned(), *whole, range.clone());
            let first = blocks.start == 0 && range.start == 0;
            let last = blocks.end == layout.blocks && range.end == whole.rows;
            let fill = move |out: &mut [u8]| {
                if first {
                    // The file is read ahead in one go rather than page by page.
                    TENSORS.iter().for_each(|tensor| checkpoint.prefetch(&format!("{name}.{tensor}")));
                }
                let tensors = checkpoint.linear(&name, whole.rows, whole.cols).map_err(|e| e.to_string())?;
                let (_, source) = spec_and_source(&tensors, whole.rows, whole.cols);
                device.pack_weight(&spec, &source.rows(&whole, range), blocks, out).map_err(|e| e.to_string())?;
                if last {
                    TENSORS.iter().for_each(|tensor| checkpoint.release(&format!("{name}.{tensor}")));
                }
                Ok(())
            };
            self.stream(module, &buffer.slice(bytes)?, Box::new(fill))?;
        }
        Ok(buffer)
    }

    /// Loads an RMS norm's weight.
    pub(crate) fn norm(&mut self, module: &str, len: usize) -> Result<Norm, ModelError> {
        let weight = self.vector(&format!("{module}.weight"), len)?;
        Ok(Norm { weight, eps: self.source.checkpoint.config.rms_norm_eps })
    }

    /// Loads a vector, widened to f32.
    fn vector(&mut self, name: &str, len: usize) -> Result<Buffer, ModelError> {
        let checkpoint = self.source.checkpoint.clone();
        checkpoint.vector(name, len)?;
        let buffer = self.room(4 * len as u64)?;
        let tensor = name.to_owned();
        let fill = move |out: &mut [u8]| {
            let view = checkpoint.vector(&tensor, len).map_err(|e| e.to_string())?;
            out.copy_from_slice(bytemuck::cast_slice(&float(view.dtype).widen(view.bytes)));
            Ok(())
        };
        self.stream(name, &buffer, Box::new(fill))?;
        self.note(name);
        Ok(buffer)
    }

    /// Hands over one transfer of `module`, which a step will wait for.
    fn stream(&mut self, module: &str, to: &Buffer, fill: Fill) -> Result<(), ModelError> {
        let ticket = self.source.transfer.stream(to, fill)?;
        let path = self.source.checkpoint.path_of(&format!("{module}.weight")).to_owned();
        self.pending.push(Upload { module: module.to_owned(), path, ticket });
        Ok(())
    }

    /// Memory for one tensor; small ones share an allocation.
    fn room(&mut self, bytes: u64) -> Result<Buffer, ModelError> {
        const BLOCK: u64 = 256 << 10;
        let need = bytes.next_multiple_of(256);
        let (buffer, used) = match self.open.take() {
            Some((buffer, used)) if used + need <= buffer.len() => (buffer, used),
            open => {
                let small = need <= BLOCK / 4;
                let memory = self.source.allocate.allocate(if small { BLOCK } else { need }, self.storage, WEIGHTS)?;
                let buffer = (*memory).clone();
                self.held.push(memory);
                if !small {
                    self.open = open;
                    return Ok(buffer.slice(0..bytes)?);
                }
                (buffer, 0)
            }
        };
        let piece = buffer.slice(used..used + bytes)?;
        self.open = Some((buffer, used + need));
        Ok(piece)
    }

    fn note(&mut self, name: &str) {
        if let Some(view) = self.source.checkpoint.get(name)
            && self.used.insert(name.to_owned())
        {
            self.done += view.bytes.len() as u64;
            (self.source.progress)(LoadProgress { done: self.done, total: self.total });
        }
    }

    /// What was uploaded since the last call.
    pub(crate) fn residency(&mut self) -> Residency {
        Residency { uploads: std::mem::take(&mut self.pending), arrived: AtomicBool::new(false) }
    }

    pub(crate) fn finish(mut self) -> Result<Loaded, ModelError> {
        // Recomputed from config.json's rope_theta; mlx-lm drops it too.
        self.used
            .extend(self.source.checkpoint.names().filter(|n| n.ends_with("rotary_emb.inv_freq")).map(str::to_owned));
        let unused = self.source.checkpoint.unused(&self.used);
        let layers = self.source.checkpoint.config.num_hidden_layers;
        let beyond = |name: &&String| {
            let number = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next());
            number.and_then(|n| n.parse::<usize>().ok()).is_some_and(|n| n >= layers)
        };
        if let Some(tensor) = unused.iter().find(beyond) {
            return Err(self.contradiction(tensor.clone(), format!("which has {layers} layers")));
        }
        (self.source.progress)(LoadProgress { done: self.total, total: self.total });
        Ok(Loaded { held: self.held, unused })
    }

    fn contradiction(&self, tensor: String, why: String) -> ModelError {
        ModelError::Contradiction { path: self.source.checkpoint.dir().to_owned(), tensor, why }
    }
}
