//! The plan of a measurement, and the device memory that it takes.

use super::sizes::{Extent, Sizes};
use crate::failure::Failure;
use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_device::{Device, Float, WeightFormat};
use mlx_serving_model::synth::{Shape, Synth};
use mlx_serving_model::{BLOCK_TOKENS, Blueprint};

/// Rows from which on a step is one sequence's chunk of a prompt; below, every row is a sequence that decodes.
const PREFILL_ROWS: usize = 128;
/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Case {
    pub rows: usize,
    pub sequences: usize,
    /// Tokens of every sequence at the step's end.
    pub context: usize,
}

impl Case {
    pub(super) fn new(rows: usize, context: usize) -> Self {
        let sequences = if rows < PREFILL_ROWS { rows } else { 1 };
        Self { rows, sequences, context: context.max(rows / sequences) }
    }

    /// Rows of every sequence.
    pub(super) fn rows_each(&self) -> usize {
        self.rows / self.sequences
    }

    /// Tokens of every sequence before the step.
    pub(super) fn start(&self) -> usize {
        self.context - self.rows_each()
    }

    /// KV blocks of every sequence.
    pub(super) fn blocks_each(&self) -> usize {
        self.context.div_ceil(BLOCK_TOKENS)
    }

    pub(super) fn is_prefill(&self) -> bool {
        self.sequences < self.rows
    }
}

/// Cases and buffers of a measurement.
#[derive(Debug)]
pub(super) struct Plan {
    pub shape: &'static Shape,
    pub synth: Synth,
    pub cases: Vec<Case>,
    /// Layers of the model that is measured, which may be the first of the shape's.
    pub layers: usize,
    /// Layers of the shape with a feed-forward network that all positions take, and with experts.
    pub networks: usize,
    pub experts: usize,
    /// KV blocks of each layer.
    pub blocks: usize,
    /// Bytes of all of them.
    pub kv_bytes: u64,
}

impl Plan {
    /// The cases of all rows at all contexts, of a model of this shape.
    ///
    /// # Errors
    /// The plan does not fit the device: the numbers and what would fit.
    pub(super) fn new(synth: Synth, rows: &[usize], contexts: &[usize], device: &dyn Device) -> Result<Self, Failure> {
        let mut cases: Vec<Case> = Vec::new();
        for case in rows.iter().flat_map(|&rows| contexts.iter().map(move |&context| Case::new(rows, context))) {
            if !cases.contains(&case) {
                cases.push(case);
            }
        }
        let shape = synth.shape().map_err(Failure::usage)?;
        let mut plan = Self { shape, synth, cases, layers: 1, networks: 0, experts: 0, blocks: 1, kv_bytes: 0 };
        let checkpoint = plan.checkpoint(shape.layers).map_err(Failure::failed)?;
        let model = Blueprint::of(&checkpoint).map_err(Failure::failed)?;
        plan.networks = model.layers.iter().filter(|layer| layer.mlp.width > 0).count();
        plan.experts = model.layers.iter().filter(|layer| layer.experts.is_some()).count();
        let extent = plan.extent();
        let sizes = Sizes::of(&extent, &model, device).map_err(Failure::failed)?;
        sizes.check_buffers(&extent, device.info())?;
        sizes.check_budget(shape, device.info())?;
        let copies;
        (plan.layers, copies) = sizes.walk(shape.layers, device.info());
        plan.blocks = copies * extent.blocks;
        plan.kv_bytes = (plan.layers * copies) as u64 * sizes.kv;
        Ok(plan)
    }

    /// A random model with so many of the shape's layers. Its head is the embedding, whose shape is the same and of which few rows are
    /// read.
    pub(super) fn checkpoint(&self, layers: usize) -> mlx_serving_checkpoint::Result<Checkpoint> {
        self.synth.checkpoint(|shape| (shape.layers, shape.tied) = (layers, true))
    }

    /// The longest of each kind that a case needs.
    pub(super) fn extent(&self) -> Extent {
        let longest = |of: fn(&Case) -> usize| self.cases.iter().map(of).max().unwrap_or(0);
        Extent {
            format: WeightFormat::Affine { bits: self.synth.bits, group: self.synth.group_size, scale: Float::Bf16 },
            rows: longest(|case| case.rows),
            logit_rows: longest(|case| case.sequences),
            blocks: longest(|case| case.sequences * case.blocks_each()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlx_serving_device::fake::{FakeDevice, FakeOptions};

    fn plan(name: &str, rows: &[usize], contexts: &[usize], options: FakeOptions) -> Result<Plan, String> {
        let device = FakeDevice::new(options).unwrap();
        let synth = Synth { shape: name.into(), bits: 4, group_size: 64, seed: 0 };
        Plan::new(synth, rows, contexts, device.as_ref()).map_err(|failure| failure.to_string())
    }

    #[test]
    fn few_rows_decode_and_many_are_a_chunk_of_one_prompt() {
        let decode = Case::new(32, 100);
        assert_eq!((decode.sequences, decode.rows_each(), decode.start(), decode.blocks_each()), (32, 1, 99, 7));
        let chunk = Case::new(512, 4096);
        assert_eq!((chunk.sequences, chunk.rows_each(), chunk.start()), (1, 512, 3584));
        // A chunk is longer than the context asked for; two such cases are one.
        let chunks = plan("tiny-qwen2", &[512], &[16, 64], FakeOptions::default()).unwrap();
        assert_eq!(chunks.cases, [Case { rows: 512, sequences: 1, context: 512 }]);
    }

    #[test]
    fn calls_walk_over_as_much_memory_as_there_is() {
        let plan_in = |mib: u64| {
            plan("qwen2.5-7b", &[1], &[512], FakeOptions { memory_budget: mib << 20, ..Default::default() }).unwrap()
        };
        let (roomy, narrow) = (plan_in(8 << 10), plan_in(768));
        assert!(roomy.layers > 1 && roomy.layers < 28, "{roomy:?}");
        // A walk over all that the whole model's layers would hold.
        assert!(roomy.layers * roomy.blocks >= 28 * roomy.extent().blocks, "{roomy:?}");
        assert!((1..roomy.layers).contains(&narrow.layers), "{narrow:?}");
        let all = plan("tiny-qwen2", &[1], &[512], FakeOptions::default()).unwrap();
        assert_eq!((all.layers, all.blocks), (2, 32));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_would() {
        let small = FakeOptions { memory_budget: 64 << 20, ..Default::default() };
        let cache = plan("tiny-qwen2", &[100], &[4096], small).unwrap_err();
        let tokens: usize = cache.split("a cache of ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(cache.contains("fake device has a budget of 67108864"), "{cache}");
        assert!(tokens > 16 && plan("tiny-qwen2", &[1], &[tokens], small).is_ok(), "{cache}");
        assert!(plan("tiny-qwen2", &[1], &[1 << 20], small).is_err());
        let model = plan("qwen2.5-7b", &[1], &[16], small).unwrap_err();
        assert!(model.contains("smaller --shape"), "{model}");
        let short = FakeOptions { max_buffer_len: 1 << 20, ..Default::default() };
        let cache = plan("tiny-qwen2", &[100], &[4096], short).unwrap_err();
        assert!(cache.contains("longest buffer of fake device has 1048576 bytes"), "{cache}");
        let chunk = plan("tiny-qwen2", &[2048], &[16], short).unwrap_err();
        assert!(chunk.contains("--rows"), "{chunk}");
    }
}
