use crate::Step;
use crate::rope::Rope;
use crate::state::Scratch;
use mlx_serving_device::ops::RopeAngles;
use mlx_serving_device::{Buffer, Encoder, Op, Result, Storage};
use mlx_serving_metal_layer::{Allocate, Allocation};

/// Rotary angles of every row: angles = (cos, sin)(position · frequency), once a step for all layers; those of queries again where these
/// grow with their position
#[derive(Debug)]
pub(crate) struct Rotary {
    rope: Rope,
    /// Place of its angles in the scratch memory.
    index: usize,
    /// f32 [pairs], for lengths at which scaling does not change it.
    inv_freq: Allocation,
}

impl Rotary {
    /// Each of a model's rotary embeddings.
    pub(crate) fn all(ropes: &[Rope], allocate: &dyn Allocate) -> Result<Vec<Self>> {
        let one = |(index, rope): (usize, &Rope)| {
            let inv_freq = frequencies(rope, 0, allocate)?;
            Ok(Self { rope: rope.clone(), index, inv_freq })
        };
        ropes.iter().enumerate().map(one).collect()
    }

    /// Records one op, or with dynamic scaling one for each run of rows that share frequencies; these go to `temporaries`.
    pub(crate) fn record(
        &self,
        encoder: &mut dyn Encoder,
        step: &Step<'_>,
        x: &Scratch,
        allocate: &dyn Allocate,
        temporaries: &mut Vec<Allocation>,
    ) -> Result<()> {
        let (pairs, mut first) = (self.rope.pairs(), 0);
        for (rows, length) in self.rope.runs(step.spans, step.prompts, step.batch.rows) {
            let inv_freq: Buffer = if self.rope.fixed_up_to().is_none_or(|limit| length <= limit) {
                (*self.inv_freq).clone()
            } else {
                let memory = frequencies(&self.rope, length, allocate)?;
                let buffer = (*memory).clone();
                temporaries.push(memory);
                buffer
            };
            let row = 8 * pairs as u64;
            let place = row * first..row * (first + rows as u64);
            let angles = &x.angles[self.index];
            let keys = RopeAngles {
                positions: step.batch.positions.slice(4 * first..4 * (first + rows as u64))?,
                inv_freq,
                pairs,
                scale: self.rope.attention_factor(),
                growth: None,
                rows,
                out: angles.keys.slice(place.clone())?,
            };
            if let growth @ Some(_) = self.rope.growth {
                let out = angles.queries.slice(place)?;
                encoder.record(Op::RopeAngles(RopeAngles { growth, out, ..keys.clone() }))?;
            }
            encoder.record(Op::RopeAngles(keys))?;
            first += rows as u64;
        }
        Ok(())
    }
}

fn frequencies(rope: &Rope, length: usize, allocate: &dyn Allocate) -> Result<Allocation> {
    let memory = allocate.allocate(4 * rope.pairs() as u64, Storage::Shared, "rope frequencies")?;
    memory.write(0, &rope.frequencies(length))?;
    Ok(memory)
}
