//! Sequences are laid out and packed as a step reads them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::cpu;
use mlx_serving_device::ops::Span;
use mlx_serving_device::{Arithmetic, Buffer, Storage};
use mlx_serving_model::inputs::{ALIGN, Packer, Sequences};

fn words(buffer: &Buffer) -> Vec<u32> {
    let mut values = vec![0; buffer.len() as usize / 4];
    buffer.read(0, &mut values).unwrap();
    values
}

#[test]
fn a_chunk_and_a_decoding_sequence_lie_side_by_side() {
    let mut sequences = Sequences { logit_rows: vec![2, 3], ..Sequences::default() };
    sequences.push(&[7, 8, 9], 16, 40, [5, 2]);
    sequences.push(&[1], 20, 4, [4, 0]);
    let spans =
        [Span { first_row: 0, rows: 3, start: 16, table: 0 }, Span { first_row: 3, rows: 1, start: 20, table: 2 }];
    assert_eq!((&sequences.spans[..], &sequences.prompts[..], sequences.max_context), (&spans[..], &[40, 4][..], 21));

    let device = cpu(Arithmetic::Exact);
    let room = |len| device.new_buffer(len, Storage::Shared).unwrap();
    let (host, own) = (room(sequences.bytes()), room(sequences.bytes()));
    let mut packer = Packer::new(&host, &own);
    let inputs = packer.sequences(&sequences).unwrap();
    assert_eq!((packer.bytes(), packer.bytes() % ALIGN), (sequences.bytes(), 0));
    assert!(inputs.tokens.overlaps(&own) && !inputs.tokens.overlaps(&host));
    // As the copy between the two would.
    own.write(0, &words(&host)).unwrap();
    assert_eq!(words(&inputs.tokens), [7, 8, 9, 1]);
    assert_eq!(words(&inputs.batch.positions), [16, 17, 18, 20]);
    assert_eq!(words(&inputs.batch.block_tables), [5, 2, 4, 0]);
    assert_eq!(words(&inputs.batch.spans), [0, 3, 16, 0, 3, 1, 20, 2]);
    assert_eq!(words(&inputs.logit_rows), [2, 3]);
    let step = inputs.step(&sequences);
    assert_eq!((step.batch.rows, step.batch.sequences, step.batch.max_context, step.logit_count), (4, 2, 21, 2));
}
