//! The way of a checkpoint's tensors into device memory.

mod residency;
mod rows;

pub(crate) use residency::Residency;

use crate::ModelError;
use crate::blueprint::{Blueprint, Division, LinearSpec, NormSpec, Norms, StackSpec, under};
use mlx_serving_checkpoint::{Checkpoint, CheckpointError};
use mlx_serving_device::ops::{Norm, Projection};
use mlx_serving_device::{Buffer, Device, Storage, Weight, WeightSpec};
use mlx_serving_metal_layer::{Allocate, Allocation, Fill, Transfer, WEIGHTS};
use residency::Upload;
use rows::{Linear, Rows, float};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Progress of loading, in bytes of the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadProgress {
    /// Bytes handed to the device.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Inputs of loading.
pub struct LoadInputs<'a> {
    /// The files.
    pub checkpoint: Arc<Checkpoint>,
    /// The device that the weights go to.
    pub device: &'a Arc<dyn Device>,
    /// Allocator of their memory.
    pub allocate: &'a dyn Allocate,
    /// Transfer that brings them there.
    pub transfer: &'a dyn Transfer,
    /// Callback after every module.
    pub progress: &'a mut dyn FnMut(LoadProgress),
}

/// A linear or embedding module: one weight, or several where the device's buffers are shorter, row after row.
pub(crate) type Module = Vec<Projection>;

/// Moves one model's tensors to the device, in the order in which a forward pass uses them.
pub(crate) struct Loader<'a> {
    source: LoadInputs<'a>,
    /// ε of the norms of what parts compute.
    eps: f32,
    /// ε of the norms of the residual stream.
    stream_eps: f32,
    /// Added to the weights of norms.
    norm_offset: f32,
    done: u64,
    total: u64,
    used: BTreeSet<String>,
    held: Vec<Allocation>,
    pending: Vec<Upload>,
    /// Storage of weights: shared with the host where both have the same memory, so that nothing is staged and copied.
    storage: Storage,
    /// Buffer of small tensors, and its bytes that are taken.
    open: Option<(Buffer, u64)>,
    /// Buffer that rows are read into; one upload is filled at a time.
    rows: Arc<Mutex<Rows>>,
}

/// Memory that a loaded model holds, and tensors that it does not use.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The weights' memory.
    pub held: Vec<Allocation>,
    /// Tensors of the checkpoint that the model does not use.
    pub unused: Vec<String>,
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

impl<'a> Loader<'a> {
    pub(crate) fn new(source: LoadInputs<'a>, model: &Blueprint) -> Result<Self, ModelError> {
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
            eps: model.norm_eps,
            stream_eps: model.stream_eps(),
            norm_offset: model.norm_offset,
            done: 0,
            total,
            used: BTreeSet::new(),
            held: Vec::new(),
            pending: Vec::new(),
            storage,
            open: None,
            rows: Arc::default(),
        })
    }

    /// Loads the weight of a module under `layer`, and its bias if there is to be one.
    pub(crate) fn linear(&mut self, layer: &str, spec: &LinearSpec) -> Result<Module, ModelError> {
        let module = &under(layer, spec.path);
        let checkpoint = self.source.checkpoint.clone();
        let linear = Linear::of(&checkpoint, module, spec.rows, spec.cols)?;
        let bias = if spec.bias { Some(self.vector(&format!("{module}.bias"), spec.rows, |x| x)?) } else { None };
        let mut parts = Module::new();
        for range in self.ranges(module, &linear, spec.division)? {
            let spec = WeightSpec { rows: range.len(), ..linear.spec };
            let buffer = self.upload_weight(&linear, range.clone())?;
            let bias = match &bias {
                Some(bias) => Some(bias.slice(4 * range.start as u64..4 * range.end as u64)?),
                None => None,
            };
            parts.push(Projection { weight: Weight { spec, buffer }, bias });
        }
        linear.tensors.iter().for_each(|tensor| self.note(tensor));
        Ok(parts)
    }

    /// Loads the matrices of all experts of a module under `layer`, one after the other in one weight.
    pub(crate) fn stack(&mut self, layer: &str, spec: &StackSpec) -> Result<Weight, ModelError> {
        let linear = self.check_stack(layer, spec)?;
        let buffer = self.upload_weight(&linear, 0..linear.spec.rows)?;
        linear.tensors.iter().for_each(|tensor| self.note(tensor));
        Ok(Weight { spec: linear.spec, buffer })
    }

    /// Refuses a stack that is not as it must be; allocates nothing.
    fn check_stack(&self, layer: &str, spec: &StackSpec) -> Result<Linear, ModelError> {
        let (module, checkpoint) = (&under(layer, spec.path), &self.source.checkpoint);
        let linear = Linear::stack(checkpoint, module, spec)?;
        self.ranges(module, &linear, Division::Nowhere)?;
        Ok(linear)
    }

    /// Refuses experts that are not as they must be, before anything is allocated: they are most of a model.
    pub(crate) fn check_experts(&self, model: &Blueprint) -> Result<(), ModelError> {
        for (i, layer) in model.layers.iter().enumerate() {
            let path = model.layer_path(i);
            let stacks = layer.stacks(model.hidden);
            let stacks = stacks.iter().map(|spec| self.check_stack(&path, spec)).collect::<Result<Vec<_>, _>>()?;
            if let [gate, up, _] = &stacks[..] {
                self.check_gated(&path, &gate.spec, &up.spec)?;
            }
        }
        Ok(())
    }

    /// Refuses a gate and an up projection that the device does not multiply together.
    pub(crate) fn check_gated(&self, layer: &str, gate: &WeightSpec, up: &WeightSpec) -> Result<(), ModelError> {
        let checked = self.source.device.check_gated(gate, up);
        checked.map_err(|source| ModelError::Gated { layer: layer.to_owned(), source })
    }

    /// Rows of each weight of a module. Refuses one that does not lie in one buffer and must.
    fn ranges(&self, module: &str, linear: &Linear, division: Division) -> Result<Vec<Range<usize>>, ModelError> {
        let (device, rows) = (self.source.device.as_ref(), linear.spec.rows);
        let parts = match division {
            Division::Anywhere => return Ok(row_parts(device, &linear.spec)?),
            Division::Nowhere => 1,
            Division::Halves => 2,
        };
        let ranges: Vec<_> = (0..parts).map(|part| part * rows / parts..(part + 1) * rows / parts).collect();
        let bytes = device.weight_layout(&WeightSpec { rows: ranges[0].len(), ..linear.spec })?.bytes() as u64;
        let limit = device.info().max_buffer_len;
        match bytes > limit {
            true => Err(ModelError::TooLong { module: module.to_owned(), bytes, limit }),
            false => Ok(ranges),
        }
    }

    fn upload_weight(&mut self, linear: &Linear, range: Range<usize>) -> Result<Buffer, ModelError> {
        let layout = self.source.device.weight_layout(&WeightSpec { rows: range.len(), ..linear.spec })?;
        let buffer = self.room(layout.bytes() as u64)?;
        let chunk = (self.source.transfer.max_chunk() / layout.bytes_per_block as u64).max(1) as usize;
        for first in (0..layout.blocks).step_by(chunk) {
            let blocks = first..(first + chunk).min(layout.blocks);
            let bytes = (blocks.start * layout.bytes_per_block) as u64..(blocks.end * layout.bytes_per_block) as u64;
            let row = |block: usize| (range.start + block * layout.rows_per_block).min(range.end);
            let wanted = row(blocks.start)..row(blocks.end);
            let (checkpoint, device) = (self.source.checkpoint.clone(), self.source.device.clone());
            let (matrix, rows) = (linear.clone(), self.rows.clone());
            let fill = move |out: &mut [u8]| {
                let mut rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
                rows.pack(&checkpoint, &matrix, wanted, device.as_ref(), out)
            };
            self.stream(&linear.tensors[0], &buffer.slice(bytes)?, Box::new(fill))?;
        }
        Ok(buffer)
    }

    /// Loads the weight of an RMS norm under `layer`, of what a part computes.
    pub(crate) fn norm(&mut self, layer: &str, spec: &NormSpec) -> Result<Norm, ModelError> {
        Ok(Norm { weight: self.norm_weight(layer, spec, 1.0)?, eps: self.eps })
    }

    /// Loads the weight of an RMS norm of the residual stream, times `scale`.
    pub(crate) fn stream_norm(&mut self, layer: &str, spec: &NormSpec, scale: f32) -> Result<Norm, ModelError> {
        Ok(Norm { weight: self.norm_weight(layer, spec, scale)?, eps: self.stream_eps })
    }

    /// Loads a norm's weight with its offset, f32, times `scale`.
    fn norm_weight(&mut self, layer: &str, spec: &NormSpec, scale: f32) -> Result<Buffer, ModelError> {
        let offset = self.norm_offset;
        self.vector(&format!("{}.weight", under(layer, spec.path)), spec.len, move |x| (x + offset) * scale)
    }

    /// Loads the norm in front of a part of `layer`, if it has one.
    pub(crate) fn before(&mut self, layer: &str, norms: &Norms, hidden: usize) -> Result<Option<Norm>, ModelError> {
        norms.before.map(|path| self.stream_norm(layer, &NormSpec { path, len: hidden }, 1.0)).transpose()
    }

    /// Loads the norm behind a part of `layer`, if it has one.
    pub(crate) fn after(&mut self, layer: &str, norms: &Norms, hidden: usize) -> Result<Option<Norm>, ModelError> {
        norms.after.map(|path| self.norm(layer, &NormSpec { path, len: hidden })).transpose()
    }

    /// Loads a vector, widened to f32, as `change` has its values.
    pub(crate) fn vector(
        &mut self,
        name: &str,
        len: usize,
        change: impl Fn(f32) -> f32 + Send + 'static,
    ) -> Result<Buffer, ModelError> {
        let checkpoint = self.source.checkpoint.clone();
        let info = checkpoint.vector(name, len)?;
        let (dtype, bytes) = (float(info.dtype), info.bytes as usize);
        let buffer = self.room(4 * len as u64)?;
        let tensor = name.to_owned();
        let fill = move |out: &mut [u8]| {
            let mut values = vec![0; bytes];
            checkpoint.read(&tensor, 0, &mut values).map_err(|e| e.to_string())?;
            let mut values = dtype.widen(&values);
            values.iter_mut().for_each(|x| *x = change(*x));
            out.copy_from_slice(bytemuck::cast_slice(&values));
            Ok(())
        };
        self.stream(name, &buffer, Box::new(fill))?;
        self.note(name);
        Ok(buffer)
    }

    /// Reads a vector, widened to f32, for the host.
    pub(crate) fn on_host(&self, name: &str, len: usize) -> Result<Vec<f32>, ModelError> {
        let checkpoint = &self.source.checkpoint;
        let info = checkpoint.vector(name, len)?;
        let mut values = vec![0; info.bytes as usize];
        let failed = |e: CheckpointError| {
            let path = checkpoint.path_of(name).to_owned();
            ModelError::Upload { tensor: name.to_owned(), path, why: e.to_string() }
        };
        checkpoint.read(name, 0, &mut values).map_err(failed)?;
        Ok(float(info.dtype).widen(&values))
    }

    /// Hands over one transfer of a tensor, which a step will wait for, unless it has failed already.
    fn stream(&mut self, tensor: &str, to: &Buffer, fill: Fill) -> Result<(), ModelError> {
        let ticket = self.source.transfer.stream(to, fill)?;
        let path = self.source.checkpoint.path_of(tensor).to_owned();
        let upload = Upload { tensor: tensor.to_owned(), path, ticket };
        upload.arrived()?;
        self.pending.push(upload);
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
        if let Some(info) = self.source.checkpoint.get(name)
            && self.used.insert(name.to_owned())
        {
            self.done += info.bytes;
            (self.source.progress)(LoadProgress { done: self.done, total: self.total });
        }
    }

    /// Uploads since the last call.
    pub(crate) fn residency(&mut self) -> Residency {
        Residency::new(std::mem::take(&mut self.pending))
    }

    /// Ends the loading of a model.
    pub(crate) fn finish(mut self) -> Loaded {
        // Recomputed from config.json's rope_theta; mlx-lm drops it too.
        self.used
            .extend(self.source.checkpoint.names().filter(|n| n.ends_with("rotary_emb.inv_freq")).map(str::to_owned));
        let unused = self.source.checkpoint.unused(&self.used);
        (self.source.progress)(LoadProgress { done: self.total, total: self.total });
        Loaded { held: self.held, unused }
    }
}
