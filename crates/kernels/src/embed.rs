use crate::Launch;
use crate::layout::Packed;
use crate::params::EmbedParams;
use crate::variant::Variant;
use bytemuck::bytes_of;
use mlx_serving_device::Result;
use mlx_serving_device::ops::Embed;

/// Makes one launch per part of the table.
pub(crate) fn lower(op: &Embed) -> Result<Vec<Launch>> {
    let vocabulary: usize = op.table.iter().map(|part| part.spec.rows).sum();
    let sampled = op.sampled.as_ref().map_or(0, |sampled| sampled.len() / 4);
    let mut first = 0;
    let mut launches = Vec::with_capacity(op.table.len());
    for part in &op.table {
        let packed = Packed::new(&part.spec)?;
        let params = EmbedParams {
            cols: part.spec.cols as u32,
            chunks: packed.chunks,
            block_words: packed.block_words,
            group_shift: packed.group_shift,
            kind: packed.kind,
            first,
            count: part.spec.rows as u32,
            vocabulary: vocabulary as u32,
            sampled_count: sampled as u32,
            scale: op.scale,
        };
        launches.push(Launch {
            kernel: Variant::Embed { bits: packed.bits }.kernel(),
            bindings: vec![
                part.buffer.clone(),
                op.tokens.clone(),
                op.sampled.clone().unwrap_or_else(|| op.tokens.clone()),
                op.out.clone(),
            ],
            groups: [packed.chunks.div_ceil(64), op.rows as u32, 1],
            work: (op.rows * part.spec.cols) as u64,
            params: bytes_of(&params).into(),
        });
        first += part.spec.rows as u32;
    }
    Ok(launches)
}
