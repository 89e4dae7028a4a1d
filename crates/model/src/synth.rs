//! Random models of known shapes, for benchmarks and tests without a download.

use crate::architectures::{ALL, Architecture};
use crate::{Blueprint, modules};
use mlx_serving_checkpoint::synth::{self, Weights};
use mlx_serving_checkpoint::{Checkpoint, CheckpointError, Result};
use std::path::Path;

pub use mlx_serving_checkpoint::synth::Shape;

/// Parameters of a random model.
#[derive(Debug, Clone)]
pub struct Synth {
    /// Name of one of the [`shapes`].
    pub shape: String,
    /// Bits of a weight.
    pub bits: u8,
    /// Weights that share a scale and a bias.
    pub group_size: u16,
    /// Seed of the weights.
    pub seed: u64,
}

/// Shapes known: those of real models, and small ones of the architectures.
pub fn shapes() -> impl Iterator<Item = &'static Shape> {
    ALL.iter().flat_map(|architecture| architecture.shapes)
}

impl Synth {
    /// The shape, if these weights fit it.
    ///
    /// # Errors
    /// [`CheckpointError::Synth`], which names what is known.
    pub fn shape(&self) -> Result<&'static Shape> {
        self.find().map(|(_, shape)| shape)
    }

    fn find(&self) -> Result<(&'static Architecture, &'static Shape)> {
        let all =
            || ALL.iter().flat_map(|architecture| architecture.shapes.iter().map(move |shape| (architecture, shape)));
        let Some(found) = all().find(|(_, shape)| shape.name == self.shape) else {
            let names: Vec<&str> = shapes().map(|shape| shape.name).collect();
            return Err(CheckpointError::Synth(format!("--shape is {:?}; known are {}", self.shape, names.join(", "))));
        };
        found.1.check(self.bits, self.group_size)?;
        Ok(found)
    }

    /// A checkpoint in memory, whose tensors are computed when they are read; `change` may alter the shape.
    pub fn checkpoint(&self, change: impl FnOnce(&mut Shape)) -> Result<Checkpoint> {
        let (architecture, mut shape) = self.find().map(|(architecture, shape)| (architecture, *shape))?;
        change(&mut shape);
        let weights = Weights { bits: self.bits, group_size: self.group_size, seed: self.seed };
        let config = shape.config(architecture.name, &weights)?;
        let modules = modules(&Blueprint::from_config(&config, !shape.tied)?);
        synth::checkpoint(config, &modules, &weights)
    }

    /// Writes checkpoint, configuration and tokenizer into `dir`, which is made if need be.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let vocab = self.shape()?.vocab;
        synth::write(&self.checkpoint(|_| {})?, vocab, dir)
    }
}
