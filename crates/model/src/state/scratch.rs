use crate::blueprint::{Blueprint, ExpertsSpec, LayerSpec};
use mlx_serving_device::ops::Copy;
use mlx_serving_device::{Buffer, Device, Encoder, Op, Result, Storage};
use mlx_serving_metal_layer::{Allocate, Allocation};
use std::ops::Range;

/// Activations and logits of one step, all f32. Steps of one queue run in order, so one is enough for all in flight.
#[derive(Debug)]
pub struct Scratch {
    /// [rows][hidden]: the residual stream.
    pub(crate) residual: Buffer,
    /// [rows][(heads + 2 · kv heads) · head_dim], then what a norm behind a part takes: [rows][hidden]
    pub(crate) qkv: Buffer,
    /// [rows][heads · head_dim]
    pub(crate) attended: Buffer,
    /// [rows][intermediate]
    pub(crate) gated: Buffer,
    /// Of experts, where a layer has some.
    pub(crate) experts: ExpertScratch,
    /// Angles of each rotary embedding.
    pub(crate) angles: Vec<Angles>,
    /// `f32 [logit rows][vocabulary]`; valid until the next step begins.
    pub logits: Buffer,
    /// The logits for the host, after [`Self::make_readable`]; on unified memory the same buffer.
    readable: Buffer,
    hidden: usize,
    vocab: usize,
    _held: Vec<Allocation>,
}

/// Angles of a rotary embedding, each [rows][pairs][2]: one buffer, unless queries grow with their position.
#[derive(Debug)]
pub(crate) struct Angles {
    pub queries: Buffer,
    pub keys: Buffer,
}

/// Buffers of experts.
#[derive(Debug)]
pub(crate) struct ExpertScratch {
    /// [rows][experts]
    pub logits: Buffer,
    /// u32 [rows][slots]
    pub chosen: Buffer,
    /// [rows][slots]
    pub weights: Buffer,
    /// [rows][slots][width]
    pub gated: Buffer,
}

/// Floats of each buffer.
pub(super) struct Sizes {
    residual: usize,
    qkv: usize,
    attended: usize,
    gated: usize,
    /// Of experts: logits, weights and gated.
    experts: [usize; 3],
    /// Of each rotary embedding, and how many buffers.
    angles: Vec<(usize, usize)>,
    logits: usize,
}

impl Sizes {
    /// Sizes for steps of `rows` rows of which `logit_rows` need logits: each as wide as the widest layer's.
    pub(super) fn of(model: &Blueprint, rows: usize, logit_rows: usize) -> Self {
        let mixers = || model.layers.iter().map(|layer| &layer.mixer);
        let normed = |layer: &LayerSpec| layer.mixer.norms.after.or(layer.mlp.norms.after).is_some();
        let behind = model.layers.iter().any(normed).then_some(model.hidden);
        let widest = |widths: &mut dyn Iterator<Item = usize>| rows * widths.max().unwrap_or(0);
        Self {
            residual: rows * model.hidden,
            qkv: widest(&mut mixers().map(|m| (m.heads + 2 * m.kv_heads) * m.head_dim).chain(behind)),
            attended: widest(&mut mixers().map(|m| m.heads * m.head_dim)),
            gated: widest(&mut model.layers.iter().map(|layer| layer.mlp.width)),
            experts: [|e: &ExpertsSpec| e.count, |e: &ExpertsSpec| e.slots, |e: &ExpertsSpec| e.slots * e.width]
                .map(|of| widest(&mut model.layers.iter().filter_map(|layer| layer.experts.as_ref()).map(of))),
            angles: model.ropes.iter().map(|rope| (rows * rope.dims, 1 + usize::from(rope.growth.is_some()))).collect(),
            logits: logit_rows * model.vocab,
        }
    }

    /// Bytes of all buffers, and where they lie.
    pub(super) fn bytes(&self, device: &dyn Device) -> Vec<(u64, Storage)> {
        let [logits, chosen, gated] = self.experts;
        let all = [self.residual, self.qkv, self.attended, self.gated, logits, chosen, chosen, gated].into_iter();
        let angles = self.angles.iter().flat_map(|&(floats, buffers)| std::iter::repeat_n(floats, buffers));
        let activations = all.chain(angles).filter(|&floats| floats > 0);
        let mut all: Vec<(u64, Storage)> = activations.map(|floats| (4 * floats as u64, Storage::Private)).collect();
        let (logits, readable) = logits_storage(device);
        all.extend([logits].into_iter().chain(readable).map(|storage| (4 * self.logits as u64, storage)));
        all
    }
}

/// Storage of the logits, and of those for the host where it does not reach the device's.
fn logits_storage(device: &dyn Device) -> (Storage, Option<Storage>) {
    match device.info().unified_memory {
        true => (Storage::Shared, None),
        // Sampling would read them over the bus, and the host seldom wants them.
        false => (Storage::Private, Some(Storage::Shared)),
    }
}

impl Scratch {
    /// Room for steps of `rows` rows of which `logit_rows` need logits.
    pub fn new(
        model: &Blueprint,
        device: &dyn Device,
        allocate: &dyn Allocate,
        rows: usize,
        logit_rows: usize,
    ) -> Result<Self> {
        let sizes = Sizes::of(model, rows, logit_rows);
        let mut held = Vec::new();
        let mut room = |floats: usize, storage, tag| -> Result<Buffer> {
            let memory = allocate.allocate(4 * floats as u64, storage, tag)?;
            let buffer = (*memory).clone();
            held.push(memory);
            Ok(buffer)
        };
        let residual = room(sizes.residual, Storage::Private, "activations")?;
        // What no layer uses stands for anything.
        let mut own = |floats| match floats {
            0 => Ok(residual.clone()),
            _ => room(floats, Storage::Private, "activations"),
        };
        let (qkv, attended, gated) = (own(sizes.qkv)?, own(sizes.attended)?, own(sizes.gated)?);
        let [logits, chosen, of_experts] = sizes.experts;
        let experts = ExpertScratch {
            logits: own(logits)?,
            chosen: own(chosen)?,
            weights: own(chosen)?,
            gated: own(of_experts)?,
        };
        let mut angles = Vec::new();
        for &(floats, buffers) in &sizes.angles {
            let keys = own(floats)?;
            angles.push(Angles { queries: if buffers > 1 { own(floats)? } else { keys.clone() }, keys });
        }
        let (storage, other) = logits_storage(device);
        let logits = room(sizes.logits, storage, "logits")?;
        let readable = other.map_or(Ok(logits.clone()), |storage| room(sizes.logits, storage, "logits"))?;
        Ok(Self {
            residual,
            qkv,
            attended,
            gated,
            experts,
            angles,
            logits,
            readable,
            hidden: model.hidden,
            vocab: model.vocab,
            _held: held,
        })
    }

    /// Width of the residual stream.
    pub(crate) fn hidden_width(&self) -> usize {
        self.hidden
    }

    /// Rows of the residual stream, f32 `[rows][hidden]`: after a step's ops, what its layers made of them; valid until the next step
    /// begins.
    ///
    /// # Errors
    /// Rows that no step has.
    pub fn hidden(&self, rows: Range<usize>) -> Result<Buffer> {
        let at = |row: usize| 4 * (row * self.hidden) as u64;
        self.residual.slice(at(rows.start)..at(rows.end))
    }

    /// Records, after a step's ops, what lets the host read the first `rows` rows of its logits.
    pub fn make_readable(&self, encoder: &mut dyn Encoder, rows: usize) -> Result<()> {
        let bytes = 0..4 * (rows * self.vocab) as u64;
        if self.logits.overlaps(&self.readable) || rows == 0 {
            return Ok(());
        }
        encoder.record(Op::Copy(Copy { from: self.logits.slice(bytes.clone())?, to: self.readable.slice(bytes)? }))
    }

    /// Reads whole rows of logits from row `first` on, once the step has completed.
    pub fn read_logits(&self, first: usize, logits: &mut [f32]) -> Result<()> {
        self.readable.read(4 * (first * self.vocab) as u64, logits)
    }
}
