use crate::ModelError;
use crate::architectures::{TIED, says_tied};
use crate::blocks::{Embedding, Head, Layer, Pass, Rotary};
use crate::blueprint::{Blueprint, HeadWeights};
use crate::contradictions::refuse_contradictions;
use crate::inputs::Step;
use crate::load::{LoadInputs, Loader, Residency};
use crate::state::{KvCache, Scratch};
use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_device::{Encoder, Result};
use mlx_serving_metal_layer::{Allocate, Allocation};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A model in device memory: weights only. Sequence state is passed to [`Model::forward`].
#[derive(Debug)]
pub struct Model {
    blueprint: Blueprint,
    rotary: Vec<Rotary>,
    embedding: Embedding,
    layers: Vec<Layer>,
    head: Head,
    unused: Vec<String>,
    /// True once all weights have arrived.
    resident: AtomicBool,
    /// The weights' memory.
    _held: Vec<Allocation>,
}

impl Model {
    /// Moves a checkpoint's weights to the device. With an asynchronous transfer the call returns before they have arrived: the
    /// device then waits for each layer's where it first needs them.
    pub fn load(source: LoadInputs<'_>) -> Result<Self, ModelError> {
        let blueprint = Blueprint::of(&source.checkpoint)?;
        tell(&source.checkpoint, &blueprint);
        refuse_contradictions(&source.checkpoint, &blueprint)?;
        let allocate = source.allocate;
        let mut loader = Loader::new(source, &blueprint)?;
        loader.check_experts(&blueprint)?;
        let rotary = Rotary::all(&blueprint.ropes, allocate)?;
        let embedding = Embedding::load(&mut loader, &blueprint)?;
        let layers = (0..blueprint.layers.len())
            .map(|i| Layer::load(&mut loader, &blueprint, i))
            .collect::<Result<_, ModelError>>()?;
        let head = Head::load(&mut loader, &blueprint, &embedding)?;
        let loaded = loader.finish();
        if !loaded.unused.is_empty() {
            tracing::warn!(tensors = ?loaded.unused, "the checkpoint has tensors that this model does not use");
        }
        Ok(Self {
            blueprint,
            rotary,
            embedding,
            layers,
            head,
            unused: loaded.unused,
            resident: AtomicBool::new(false),
            _held: loaded.held,
        })
    }

    /// Parts that the model is made of.
    pub fn blueprint(&self) -> &Blueprint {
        &self.blueprint
    }

    /// Tokens of the vocabulary.
    pub fn vocab(&self) -> usize {
        self.blueprint.vocab
    }

    /// Longest context the model was made for, stretched by its rope scaling.
    pub fn max_context(&self) -> usize {
        let positions = self.blueprint.max_positions;
        self.blueprint.ropes.iter().map(|rope| rope.stretched(positions)).min().unwrap_or(positions)
    }

    /// False if it has no head: it makes embeddings, and no logits.
    pub fn generates(&self) -> bool {
        self.blueprint.head.is_some()
    }

    /// Makes hidden states of rows of the residual stream behind the last layer, f32 `[rows][hidden]`, in place: the norm in front of the
    /// head, on the host.
    pub fn finish_hidden(&self, rows: &mut [f32]) {
        rows.chunks_exact_mut(self.blueprint.hidden).for_each(|row| self.head.host_norm.apply(row));
    }

    /// Tensors of the checkpoint that the model does not use.
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// True if a token's keys and values depend on nothing but the tokens up to it, so that sequences may share them. With
    /// dynamic scaling they depend on the prompt's length.
    pub fn prefixes_are_shareable(&self) -> bool {
        self.blueprint.ropes.iter().all(|rope| rope.fixed_up_to().is_none())
    }

    /// Blocks until all weights have arrived, at most `limit` for each transfer of them. Costs nothing once they have. Fails if a
    /// transfer has: nothing computed with its weights is to be trusted, now or later.
    pub fn wait_resident(&self, limit: Duration) -> Result<(), ModelError> {
        if !self.resident.load(Ordering::Relaxed) {
            self.residencies().try_for_each(|part| part.wait(limit))?;
            self.resident.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// True once all weights have arrived; never waits. Costs nothing once they have. Fails as [`Self::wait_resident`] does.
    pub fn resident(&self) -> Result<bool, ModelError> {
        if !self.resident.load(Ordering::Relaxed) {
            for part in self.residencies() {
                if !part.arrived()? {
                    return Ok(false);
                }
            }
            self.resident.store(true, Ordering::Relaxed);
        }
        Ok(true)
    }

    /// The weights' transfers, in the order in which they were asked for.
    fn residencies(&self) -> impl Iterator<Item = &Residency> {
        let layers = self.layers.iter().map(|l| &l.ready);
        [&self.embedding.ready].into_iter().chain(layers).chain([&self.head.ready])
    }

    /// Records a step: logits of the wanted rows end in [`Scratch::logits`], what the layers made of all rows where
    /// [`Scratch::hidden`] finds it, keys and values in `cache`. What it returns is to be kept until the step has been submitted.
    pub fn forward(
        &self,
        encoder: &mut dyn Encoder,
        step: &Step<'_>,
        cache: &KvCache,
        scratch: &Scratch,
        allocate: &dyn Allocate,
    ) -> Result<Vec<Allocation>> {
        let (batch, x) = (&step.batch, scratch);
        self.embedding.record(encoder, step, x)?;
        let mut temporaries = Vec::new();
        for rotary in &self.rotary {
            rotary.record(encoder, step, x, allocate, &mut temporaries)?;
        }
        for (layer, cache) in self.layers.iter().zip(cache.layers()) {
            layer.record(&mut Pass { encoder, batch, x, cache })?;
        }
        self.head.record(encoder, step, x)?;
        Ok(temporaries)
    }
}

/// Logs what of a checkpoint is not read, and what its configuration leaves open.
fn tell(checkpoint: &Checkpoint, model: &Blueprint) {
    for warning in checkpoint.warnings() {
        tracing::warn!("{warning}");
    }
    let config = checkpoint.dir().join("config.json");
    match (says_tied(&checkpoint.config).is_ok_and(|keys| keys.is_some()), model.head) {
        (_, None) if checkpoint.embedding.is_some() => tracing::info!("an embedding model: it generates nothing"),
        (_, None) => {
            tracing::warn!(
                "{} says that the head has weights of its own, and the checkpoint has none: an embedding model, which generates nothing",
                config.display()
            );
        }
        (true, _) => {}
        (false, Some(HeadWeights::Tied)) => {
            tracing::info!("{} has no {TIED}, nor are there weights of a head: tied", config.display());
        }
        (false, Some(HeadWeights::Own)) => {
            tracing::warn!("{} has no {TIED}: untied, because the checkpoint has weights of a head", config.display());
        }
    }
}
