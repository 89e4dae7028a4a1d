use super::*;
use mlx_serving_text::{Formats, OutputFormat, ReasoningFormat};

/// A sequence whose reasoning ends with its first token, so that the tokens that end it are forced then.
fn thinker(id: u64) -> (Sequence, Receiver) {
    let formats = Formats { reasoning: Some(ReasoningFormat::Think), calls: None };
    let format = OutputFormat::new(formats, Vec::new(), "<think>\n");
    from_request(id, Request { prompt: prompt(4, 0), reasoning_budget: Some(1), format, ..endless(40) })
}

/// Rows that each sequence has in the next step, which is completed.
fn rows(s: &mut Bench) -> Vec<(u64, u32)> {
    let plan = s.step(0);
    s.complete(&plan, |_, _| 7);
    plan.parts.iter().zip(&plan.batch.spans).map(|(part, span)| (part.id, span.rows)).collect()
}

#[test]
fn forced_tokens_are_a_chunk_unless_others_decode_freely() {
    let mut s = scheduler(64, 4, 16);
    s.enqueue(thinker(1));
    assert_eq!(rows(&mut s), [(1, 4)]);
    let [(1, chunk)] = rows(&mut s)[..] else { panic!("others are there") };
    assert!(chunk > 2, "{chunk} rows are no chunk");

    s.submit(2, prompt(3, 1), 40);
    rows(&mut s);
    s.enqueue(thinker(3));
    assert_eq!(rows(&mut s), [(1, 1), (2, 1), (3, 4)]);
    for _ in 0..chunk {
        assert_eq!(rows(&mut s), [(1, 1), (2, 1), (3, 1)]);
    }
    let told = s.read(3);
    assert_eq!(told, chunk as usize + 1, "the answer goes on behind what was forced");
}
