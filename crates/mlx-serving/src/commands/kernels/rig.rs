//! A part of a model in device memory, large enough that caches do not hold it, and the ops that work on it.

use super::memory::Memory;
use super::plan::{Case, Plan};
use mlx_serving_device::ops::{
    Activation, Attend, Batch, Embed, Epilogue, Linear, NO_HISTORY_ROW, Norm, Projection, RopeAngles, Sample,
    SampleParams, Span,
};
use mlx_serving_device::{Buffer, Op, Result};
use serde::Serialize;

/// An op of a forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kernel {
    Embed,
    RopeAngles,
    Qkv,
    Attend,
    O,
    GateUp,
    Down,
    LmHead,
    Sample,
}

impl Kernel {
    /// In the order of a step.
    pub(super) const ALL: [Self; 9] = [
        Self::Embed,
        Self::RopeAngles,
        Self::Qkv,
        Self::Attend,
        Self::O,
        Self::GateUp,
        Self::Down,
        Self::LmHead,
        Self::Sample,
    ];

    /// For people.
    pub(super) fn label(self) -> &'static str {
        match self {
            Kernel::Embed => "embed",
            Kernel::RopeAngles => "rope angles",
            Kernel::Qkv => "norm, q, k, v",
            Kernel::Attend => "attend",
            Kernel::O => "o",
            Kernel::GateUp => "norm, gate, up",
            Kernel::Down => "down",
            Kernel::LmHead => "norm, lm_head",
            Kernel::Sample => "sample",
        }
    }

    /// Calls in a step of a model with so many layers.
    pub(super) fn calls(self, layers: usize) -> usize {
        match self {
            Kernel::Qkv | Kernel::Attend | Kernel::O | Kernel::GateUp | Kernel::Down => layers,
            Kernel::Embed | Kernel::RopeAngles | Kernel::LmHead | Kernel::Sample => 1,
        }
    }

    /// The step's context, if that matters.
    pub(super) fn context(self, case: &Case) -> Option<usize> {
        (self == Kernel::Attend).then_some(case.context)
    }

    /// Rows that it works on: what follows the layers sees only each sequence's last.
    pub(super) fn rows(self, case: &Case) -> usize {
        if matches!(self, Kernel::LmHead | Kernel::Sample) { case.sequences } else { case.rows }
    }
}

/// One layer's weights.
struct Layer {
    input_norm: Norm,
    qkv: Vec<Projection>,
    head_norms: Option<(Norm, Norm)>,
    o: Vec<Projection>,
    post_norm: Norm,
    gate_up: Vec<Projection>,
    down: Vec<Projection>,
}

/// Activations, as a model's.
struct Activations {
    residual: Buffer,
    qkv: Buffer,
    attended: Buffer,
    gated: Buffer,
    angles: Buffer,
    logits: Buffer,
}

pub(super) struct Rig<'a> {
    plan: &'a Plan,
    memory: Memory<'a>,
    layers: Vec<Layer>,
    norm: Norm,
    /// The embedding's table, too: it has the same shape, and few of its rows are read.
    head: Vec<Projection>,
    kv: Vec<Buffer>,
    inv_freq: Buffer,
    x: Activations,
}

impl<'a> Rig<'a> {
    /// Allocates and fills all that the plan needs.
    pub(super) fn new(plan: &'a Plan, memory: Memory<'a>) -> Result<Self> {
        let (s, rows) = (plan.shape, plan.max_rows());
        let linear = |rows, cols, bias| memory.linear(&plan.weight(rows, cols), (plan.bits, plan.group_size), bias);
        let (q, kv, biased) = (s.heads * s.head_dim, s.kv_heads * s.head_dim, s.model_type == "qwen2");
        let layer = |_| {
            let normed = s.model_type == "qwen3";
            Ok(Layer {
                input_norm: memory.norm(s.hidden)?,
                qkv: [linear(q, s.hidden, biased)?, linear(kv, s.hidden, biased)?, linear(kv, s.hidden, biased)?]
                    .concat(),
                head_norms: if normed { Some((memory.norm(s.head_dim)?, memory.norm(s.head_dim)?)) } else { None },
                o: linear(s.hidden, q, false)?,
                post_norm: memory.norm(s.hidden)?,
                gate_up: [linear(s.intermediate, s.hidden, false)?, linear(s.intermediate, s.hidden, false)?].concat(),
                down: linear(s.hidden, s.intermediate, false)?,
            })
        };
        let layers = (0..plan.layers).map(layer).collect::<Result<_>>()?;
        let pairs = s.head_dim / 2;
        let inv_freq: Vec<f32> = (0..pairs).map(|i| 1e6f32.powf(-(i as f32) / pairs as f32)).collect();
        Ok(Self {
            plan,
            layers,
            norm: memory.norm(s.hidden)?,
            head: linear(s.vocab, s.hidden, false)?,
            kv: (0..plan.kv_buffers).map(|_| memory.cache(plan.kv_buffer_bytes)).collect::<Result<_>>()?,
            inv_freq: memory.values(&inv_freq)?,
            x: Activations {
                residual: memory.floats(rows * s.hidden)?,
                qkv: memory.floats(rows * plan.qkv_width())?,
                attended: memory.floats(rows * q)?,
                gated: memory.floats(rows * s.intermediate)?,
                angles: memory.floats(rows * s.head_dim)?,
                logits: memory.floats(plan.max_logit_rows() * s.vocab)?,
            },
            memory,
        })
    }

    /// Bytes of a token's keys and values in one layer.
    pub(super) fn kv_token_bytes(&self) -> u64 {
        let kv = self.plan.kv();
        (self.memory.device.kv_block_bytes(&kv) / kv.block_tokens) as u64
    }

    /// A step's inputs.
    pub(super) fn step(&self, case: &Case) -> Result<Step<'_, 'a>> {
        let (each, blocks) = (case.rows_each(), case.blocks_each());
        let span = |i: usize| Span {
            first_row: (i * each) as u32,
            rows: each as u32,
            start: case.start() as u32,
            table: (i * blocks) as u32,
        };
        let positions: Vec<u32> = (0..case.rows).map(|row| (case.start() + row % each) as u32).collect();
        let spans: Vec<Span> = (0..case.sequences).map(span).collect();
        let tables: Vec<u32> = (0..case.sequences * blocks).map(|block| block as u32).collect();
        // Tokens from all over the vocabulary.
        let tokens: Vec<u32> = (0..case.rows).map(|row| (row * 7919 % self.plan.shape.vocab) as u32).collect();
        let last_rows: Vec<u32> = (1..=case.sequences).map(|i| (i * each - 1) as u32).collect();
        let greedy =
            SampleParams { top_p: 1.0, repetition: 1.0, history_row: NO_HISTORY_ROW, ..bytemuck::Zeroable::zeroed() };
        let m = &self.memory;
        Ok(Step {
            rig: self,
            batch: Batch {
                rows: case.rows,
                sequences: case.sequences,
                max_context: case.context,
                positions: m.values(&positions)?,
                spans: m.values(&spans)?,
                block_tables: m.values(&tables)?,
            },
            tokens: m.values(&tokens)?,
            last_rows: m.values(&last_rows)?,
            params: m.values(&vec![greedy; case.sequences])?,
            biases: m.values::<u32>(&[0, 0])?,
            sampled: m.values(&vec![0u32; case.sequences])?,
            caches: self.caches(case)?,
        })
    }

    /// As many caches of that case as the buffers hold, at most one a layer of the model.
    fn caches(&self, case: &Case) -> Result<Vec<Buffer>> {
        let device = self.memory.device;
        let bytes = device.kv_block_bytes(&self.plan.kv()) as u64 * (case.sequences * case.blocks_each()) as u64;
        let stride = bytes.next_multiple_of(device.placement(bytes).align);
        let starts = |buffer: &Buffer| (0..=buffer.len() - bytes).step_by(stride as usize);
        let all = self.kv.iter().flat_map(|buffer| starts(buffer).map(move |at| buffer.slice(at..at + bytes)));
        all.take(self.plan.shape.layers).collect()
    }
}

/// A step's inputs, and the ops that work on them.
pub(super) struct Step<'r, 'a> {
    rig: &'r Rig<'a>,
    batch: Batch,
    tokens: Buffer,
    last_rows: Buffer,
    params: Buffer,
    biases: Buffer,
    sampled: Buffer,
    caches: Vec<Buffer>,
}

impl Step<'_, '_> {
    /// The n-th call of a kernel: calls take the layers in turn.
    pub(super) fn op(&self, kernel: Kernel, n: usize) -> Op {
        let (rig, s) = (self.rig, self.rig.plan.shape);
        let (x, layer) = (&rig.x, &rig.layers[n % rig.layers.len()]);
        match kernel {
            Kernel::Embed => Op::Embed(Embed {
                table: rig.head.iter().map(|part| part.weight.clone()).collect(),
                tokens: self.tokens.clone(),
                sampled: None,
                rows: self.batch.rows,
                out: x.residual.clone(),
            }),
            Kernel::RopeAngles => Op::RopeAngles(RopeAngles {
                positions: self.batch.positions.clone(),
                inv_freq: rig.inv_freq.clone(),
                pairs: s.head_dim / 2,
                scale: 1.0,
                rows: self.batch.rows,
                out: x.angles.clone(),
            }),
            Kernel::Qkv => {
                self.linear(&x.residual, Some(&layer.input_norm), &layer.qkv, Epilogue::Store(x.qkv.clone()))
            }
            Kernel::Attend => self.attend(layer, &self.caches[n % self.caches.len()]),
            Kernel::O => self.linear(&x.attended, None, &layer.o, Epilogue::Add(x.residual.clone())),
            Kernel::GateUp => {
                let gated = Epilogue::Gated(Activation::Silu, x.gated.clone());
                self.linear(&x.residual, Some(&layer.post_norm), &layer.gate_up, gated)
            }
            Kernel::Down => self.linear(&x.gated, None, &layer.down, Epilogue::Add(x.residual.clone())),
            Kernel::LmHead => Op::Linear(Linear {
                input: x.residual.clone(),
                gather: Some(self.last_rows.clone()),
                rows: self.batch.sequences,
                norm: Some(rig.norm.clone()),
                projections: rig.head.clone(),
                epilogue: Epilogue::Store(x.logits.clone()),
            }),
            Kernel::Sample => Op::Sample(Sample {
                logits: x.logits.clone(),
                vocab: s.vocab,
                rows: self.batch.sequences,
                params: self.params.clone(),
                biases: self.biases.clone(),
                history: None,
                out: self.sampled.clone(),
            }),
        }
    }

    fn linear(&self, input: &Buffer, norm: Option<&Norm>, projections: &[Projection], epilogue: Epilogue) -> Op {
        Op::Linear(Linear {
            input: input.clone(),
            gather: None,
            rows: self.batch.rows,
            norm: norm.cloned(),
            projections: projections.to_vec(),
            epilogue,
        })
    }

    fn attend(&self, layer: &Layer, cache: &Buffer) -> Op {
        let (s, kv) = (self.rig.plan.shape, self.rig.plan.kv());
        Op::Attend(Attend {
            qkv: self.rig.x.qkv.clone(),
            heads: s.heads,
            kv,
            q_norm: layer.head_norms.as_ref().map(|(q, _)| q.clone()),
            k_norm: layer.head_norms.as_ref().map(|(_, k)| k.clone()),
            angles: self.rig.x.angles.clone(),
            pairs: s.head_dim / 2,
            interleaved: false,
            cache: cache.clone(),
            batch: self.batch.clone(),
            scale: 1.0 / (s.head_dim as f32).sqrt(),
            window: None,
            out: self.rig.x.attended.clone(),
        })
    }
}
