use crate::load::{Loader, Module, Residency, Source};
use crate::memory::{self, KvCache, Scratch};
use crate::pass::{Pass, Shape};
use crate::rope::{Rope, Scaling};
use crate::{ModelError, llama, mistral, qwen2, qwen3};
use mlx_serving_checkpoint::{Config, RopeScaling};
use mlx_serving_device::ops::{Batch, Embed, Epilogue, Linear, Norm, RopeAngles, Span};
use mlx_serving_device::{Buffer, Encoder, KvSpec, Op, Result, Storage};
use mlx_serving_metal_layer::{Allocate, Allocation};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Tokens of one KV block.
pub const BLOCK_TOKENS: usize = 16;

/// A model in device memory: weights only. Sequence state is passed to [`Model::forward`].
#[derive(Debug)]
pub struct Model {
    pub(crate) config: Config,
    embed_tokens: Module,
    embed_ready: Residency,
    layers: Vec<LoadedLayer>,
    norm: Norm,
    /// The head, or the embedding's weights again where they are tied.
    lm_head: Module,
    head_ready: Residency,
    rope: Rope,
    /// f32 [pairs], for lengths at which scaling does not change it.
    inv_freq: Buffer,
    unused: Vec<String>,
    /// All weights have arrived.
    resident: AtomicBool,
    /// The weights' memory.
    _held: Vec<Allocation>,
    _inv_freq: Allocation,
}

#[derive(Debug)]
struct LoadedLayer {
    layer: Layer,
    ready: Residency,
}

#[derive(Debug)]
enum Layer {
    Qwen2(qwen2::Layer),
    Qwen3(qwen3::Layer),
    Llama(llama::Layer),
    Mistral(mistral::Layer),
}

/// One step's inputs.
#[derive(Debug)]
pub struct Step<'a> {
    /// The ragged batch.
    pub batch: Batch,
    /// `u32 [rows]`; see [`mlx_serving_device::ops::SAMPLED`].
    pub tokens: Buffer,
    /// The previous step's sampled tokens, if a row refers to them.
    pub sampled: Option<Buffer>,
    /// `u32 [logit_count]`: rows whose logits are wanted.
    pub logit_rows: Buffer,
    /// Number of those rows.
    pub logit_count: usize,
    /// The batch's spans, as the host knows them.
    pub spans: &'a [Span],
    /// Prompt length of each span's sequence.
    pub prompts: &'a [u32],
}

impl Model {
    /// Moves a checkpoint's weights to the device. With an asynchronous transfer the call returns before they have arrived: the
    /// device then waits for each layer's where it first needs them.
    pub fn load(source: Source<'_>) -> Result<Self, ModelError> {
        let allocate = source.allocate;
        let config = source.checkpoint.config.clone();
        let mut loader = Loader::new(source)?;
        let rope = rope(&config);
        let frequencies = rope.frequencies(0);
        let memory = allocate.allocate(4 * frequencies.len() as u64, Storage::Shared, "rope frequencies")?;
        memory.write(0, &frequencies)?;
        let c = &config;
        let embed_tokens = loader.linear("model.embed_tokens", c.vocab_size, c.hidden_size, false)?;
        let embed_ready = loader.residency();
        let layers = (0..c.num_hidden_layers)
            .map(|i| {
                let layer = Layer::load(&mut loader, c, &format!("model.layers.{i}"))?;
                Ok(LoadedLayer { layer, ready: loader.residency() })
            })
            .collect::<Result<_, ModelError>>()?;
        let norm = loader.norm("model.norm", c.hidden_size)?;
        let tied = c.tie_word_embeddings;
        let lm_head =
            if tied { embed_tokens.clone() } else { loader.linear("lm_head", c.vocab_size, c.hidden_size, false)? };
        let head_ready = loader.residency();
        let loaded = loader.finish()?;
        if !loaded.unused.is_empty() {
            tracing::warn!(tensors = ?loaded.unused, "the checkpoint has tensors that this model does not use");
        }
        Ok(Self {
            embed_tokens,
            embed_ready,
            layers,
            norm,
            lm_head,
            head_ready,
            rope,
            inv_freq: (*memory).clone(),
            unused: loaded.unused,
            resident: AtomicBool::new(false),
            _held: loaded.held,
            _inv_freq: memory,
            config,
        })
    }

    /// Tokens of the vocabulary.
    pub fn vocab(&self) -> usize {
        self.config.vocab_size
    }

    /// Longest context the model was made for, stretched by its rope scaling.
    pub fn max_context(&self) -> usize {
        self.rope.stretched(self.config.max_position_embeddings)
    }

    /// Layers.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Shape of a layer's KV cache.
    pub fn kv_spec(&self) -> KvSpec {
        memory::kv_spec(&self.config)
    }

    /// Tensors of the checkpoint that the model does not use.
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// True if a token's keys and values depend on nothing but the tokens up to it, so that sequences may share them. With
    /// dynamic scaling they depend on the prompt's length.
    pub fn prefixes_are_shareable(&self) -> bool {
        self.rope.fixed_up_to().is_none()
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
        [&self.embed_ready].into_iter().chain(layers).chain([&self.head_ready])
    }

    /// Records a step: logits of the wanted rows end in [`Scratch::logits`], keys and values in `cache`. What it returns is to be
    /// kept until the step has been submitted.
    pub fn forward(
        &self,
        encoder: &mut dyn Encoder,
        step: &Step<'_>,
        cache: &KvCache,
        scratch: &Scratch,
        allocate: &dyn Allocate,
    ) -> Result<Vec<Allocation>> {
        let x = &scratch.activations;
        self.embed_ready.order(encoder)?;
        encoder.record(Op::Embed(Embed {
            table: self.embed_tokens.iter().map(|p| p.weight.clone()).collect(),
            tokens: step.tokens.clone(),
            sampled: step.sampled.clone(),
            rows: step.batch.rows,
            out: x.residual.clone(),
        }))?;
        let temporaries = self.angles(encoder, step, scratch, allocate)?;
        let shape = Shape {
            heads: self.config.num_attention_heads,
            kv: self.kv_spec(),
            pairs: self.rope.dims / 2,
            interleaved: self.rope.interleaved,
        };
        for (i, LoadedLayer { layer, ready }) in self.layers.iter().enumerate() {
            ready.order(encoder)?;
            let (batch, window) = (&step.batch, self.config.windows[i]);
            layer.forward(&mut Pass { encoder, batch, x, shape, cache: cache.layer(i), window })?;
        }
        if step.logit_count > 0 {
            self.head_ready.order(encoder)?;
            encoder.record(Op::Linear(Linear {
                input: x.residual.clone(),
                gather: Some(step.logit_rows.clone()),
                rows: step.logit_count,
                norm: Some(self.norm.clone()),
                projections: self.lm_head.clone(),
                epilogue: Epilogue::Store(scratch.logits.clone()),
            }))?;
        }
        Ok(temporaries)
    }

    /// Rotary angles of every row: one op, or with dynamic scaling one for each run of rows that share frequencies.
    fn angles(
        &self,
        encoder: &mut dyn Encoder,
        step: &Step<'_>,
        scratch: &Scratch,
        allocate: &dyn Allocate,
    ) -> Result<Vec<Allocation>> {
        let pairs = self.rope.dims / 2;
        let (mut first, mut temporaries) = (0, Vec::new());
        for (rows, length) in self.rope.runs(step.spans, step.prompts, step.batch.rows) {
            let inv_freq = if self.rope.fixed_up_to().is_none_or(|limit| length <= limit) {
                self.inv_freq.clone()
            } else {
                let memory = allocate.allocate(4 * pairs as u64, Storage::Shared, "rope frequencies")?;
                memory.write(0, &self.rope.frequencies(length))?;
                let buffer = (*memory).clone();
                temporaries.push(memory);
                buffer
            };
            let row = 8 * pairs as u64;
            encoder.record(Op::RopeAngles(RopeAngles {
                positions: step.batch.positions.slice(4 * first..4 * (first + rows as u64))?,
                inv_freq,
                pairs,
                scale: self.rope.attention_factor(),
                rows,
                out: scratch.activations.angles.slice(row * first..row * (first + rows as u64))?,
            }))?;
            first += rows as u64;
        }
        Ok(temporaries)
    }
}

impl Layer {
    fn load(loader: &mut Loader<'_>, c: &Config, prefix: &str) -> Result<Self, ModelError> {
        Ok(match c.model_type.as_str() {
            "qwen2" => Layer::Qwen2(qwen2::Layer::load(loader, c, prefix)?),
            "qwen3" => Layer::Qwen3(qwen3::Layer::load(loader, c, prefix)?),
            "mistral" => Layer::Mistral(mistral::Layer::load(loader, c, prefix)?),
            // The checkpoint admits no other.
            _ => Layer::Llama(llama::Layer::load(loader, c, prefix)?),
        })
    }

    fn forward(&self, pass: &mut Pass<'_>) -> Result<()> {
        match self {
            Layer::Qwen2(layer) => layer.forward(pass),
            Layer::Qwen3(layer) => layer.forward(pass),
            Layer::Llama(layer) => layer.forward(pass),
            Layer::Mistral(layer) => layer.forward(pass),
        }
    }
}

/// The configuration's rotary embedding, over whole heads.
fn rope(c: &Config) -> Rope {
    let scaling = match c.rope.scaling {
        RopeScaling::None => Scaling::None,
        RopeScaling::Linear { factor } => Scaling::Linear { factor },
        RopeScaling::Dynamic { factor } => Scaling::Dynamic { factor, max_position: c.max_position_embeddings },
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
            Scaling::Llama3 { factor, low: low_freq_factor, high: high_freq_factor, original }
        }
        RopeScaling::Yarn { factor, original, beta_fast, beta_slow, attention } => {
            Scaling::Yarn { factor, original, beta_fast, beta_slow, attention }
        }
    };
    Rope { dims: c.head_dim, theta: c.rope.theta, interleaved: c.rope.traditional, scaling }
}
