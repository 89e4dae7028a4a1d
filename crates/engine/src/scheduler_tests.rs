use super::*;
use proptest::prelude::*;

fn scheduler(rows: usize, sequences: usize, blocks: usize) -> Scheduler<()> {
    Scheduler::new(Limits { rows, sequences }, BlockPool::new(blocks, None))
}

fn prompt(n: usize, salt: u32) -> Vec<u32> {
    (0..n as u32).map(|i| i * 31 + salt * 1000).collect()
}

fn submit(s: &mut Scheduler<()>, id: u64, tokens: Vec<u32>, answer: usize) {
    let end = tokens.len() + answer;
    s.waiting.push_back(Scheduled { id, progress: Progress::new(tokens, end), rest: () });
}

fn step(s: &mut Scheduler<()>, in_flight: usize) -> Plan {
    match s.plan(in_flight) {
        Next::Step(plan) => plan,
        other => panic!("no step: {other:?}"),
    }
}

/// Delivers a completed step's tokens; `token` decides each.
fn complete(s: &mut Scheduler<()>, plan: &Plan, token: impl Fn(u64, usize) -> u32) {
    for (part, completed) in plan.outcomes().filter(|(p, _)| p.sample.is_some()) {
        let Some(sequence) = s.running.iter_mut().find(|r| r.id == part.id) else { continue };
        let position = sequence.progress.tokens.len();
        sequence.progress.receive(token(part.id, position));
        sequence.progress.publish(&mut s.pool, completed);
        if sequence.progress.tokens.len() == sequence.progress.end {
            s.finish(part.id);
        }
    }
}

#[test]
fn a_prompt_is_cut_into_chunks_and_samples_at_its_end_only() {
    let mut s = scheduler(16, 4, 16);
    submit(&mut s, 1, prompt(40, 0), 2);
    let sizes: Vec<_> = (0..3)
        .map(|_| {
            let plan = step(&mut s, 0);
            (plan.tokens.len(), plan.logit_rows.clone(), plan.parts[0].sample)
        })
        .collect();
    assert_eq!(sizes, [(16, vec![], None), (16, vec![], None), (8, vec![7], Some(0))]);
}

#[test]
fn decode_rows_come_before_prompt_chunks() {
    let mut s = scheduler(8, 4, 16);
    submit(&mut s, 1, prompt(4, 0), 4);
    let plan = step(&mut s, 0);
    complete(&mut s, &plan, |_, _| 7);
    submit(&mut s, 2, prompt(20, 1), 4);
    let plan = step(&mut s, 0);
    assert_eq!(plan.parts.iter().map(|p| p.id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(plan.spans[0].rows, 1);
    assert_eq!(plan.spans[1].rows, 7);
    assert_eq!(plan.tokens[0], 7);
}

#[test]
fn a_step_ahead_refers_to_the_sampled_token_of_the_step_before() {
    let mut s = scheduler(8, 4, 16);
    submit(&mut s, 1, prompt(3, 0), 4);
    submit(&mut s, 2, prompt(4, 1), 4);
    let first = step(&mut s, 0);
    assert!(!first.continues);
    let ahead = step(&mut s, 1);
    assert!(ahead.continues);
    assert_eq!(ahead.tokens, [SAMPLED, SAMPLED | 1]);
    assert_eq!(ahead.positions, [3, 4]);
    complete(&mut s, &first, |_, _| 5);
    let third = step(&mut s, 1);
    assert_eq!((third.positions.clone(), third.continues), (vec![4, 5], true));
}

#[test]
fn what_is_computed_ahead_is_shared_once_it_has_completed() {
    let mut s = scheduler(16, 4, 16);
    submit(&mut s, 1, prompt(40, 0), 2);
    let chunks = [step(&mut s, 0), step(&mut s, 1), step(&mut s, 2)];
    for (i, plan) in chunks.iter().enumerate() {
        assert_eq!(s.pool.take_prefix(&prompt(40, 0), false).len(), i, "before chunk {i} has completed");
        let (_, completed) = plan.outcomes().next().unwrap();
        s.running[0].progress.publish(&mut s.pool, completed);
    }
}

#[test]
fn three_steps_in_flight_each_refer_to_the_one_before() {
    let mut s = scheduler(8, 4, 16);
    submit(&mut s, 1, prompt(3, 0), 9);
    submit(&mut s, 2, prompt(4, 1), 2);
    submit(&mut s, 3, prompt(1, 2), 9);
    let first = step(&mut s, 0);
    let second = step(&mut s, 1);
    assert_eq!(second.tokens, [SAMPLED, SAMPLED | 1, SAMPLED | 2]);
    // The second sequence is at its length, so the third's row moves up among the samples.
    let third = step(&mut s, 2);
    assert_eq!((third.tokens.clone(), third.positions.clone()), (vec![SAMPLED, SAMPLED | 2], vec![4, 2]));
    complete(&mut s, &first, |_, _| 5);
    assert_eq!(step(&mut s, 2).tokens, [SAMPLED, SAMPLED | 1]);
}

#[test]
fn no_step_is_planned_beyond_the_end_of_an_answer() {
    let mut s = scheduler(8, 4, 16);
    submit(&mut s, 1, prompt(3, 0), 2);
    step(&mut s, 0);
    step(&mut s, 1);
    assert!(matches!(s.plan(2), Next::Drain));
}

#[test]
fn when_blocks_run_out_the_youngest_is_computed_again_later() {
    let mut s = scheduler(64, 4, 3);
    submit(&mut s, 1, prompt(16, 0), 20);
    submit(&mut s, 2, prompt(16, 1), 20);
    let plan = step(&mut s, 0);
    complete(&mut s, &plan, |_, _| 9);
    let plan = step(&mut s, 0);
    assert_eq!(s.preemptions, 1);
    assert_eq!(plan.parts.iter().map(|p| p.id).collect::<Vec<_>>(), [1]);
    assert_eq!(s.waiting[0].id, 2);
    assert_eq!(s.waiting[0].progress.tokens.len(), 17, "the answer so far is kept");
}

#[test]
fn preemption_waits_for_the_steps_in_flight() {
    let mut s = scheduler(64, 4, 2);
    submit(&mut s, 1, prompt(15, 0), 20);
    submit(&mut s, 2, prompt(15, 1), 20);
    step(&mut s, 0);
    step(&mut s, 1);
    assert!(matches!(s.plan(2), Next::Drain));
    assert_eq!(s.preemptions, 0);
}

#[test]
fn a_prompt_seen_before_is_not_computed_again() {
    let mut s = scheduler(64, 4, 16);
    submit(&mut s, 1, prompt(33, 0), 1);
    let plan = step(&mut s, 0);
    complete(&mut s, &plan, |_, _| 1);
    assert!(s.running.is_empty());
    submit(&mut s, 2, prompt(33, 0), 1);
    let plan = step(&mut s, 0);
    assert_eq!((plan.tokens.len(), plan.spans[0].start), (1, 32));
    assert_eq!((s.prefix_queries, s.prefix_hits), (66, 32));
}

#[test]
fn a_preempted_sequence_is_counted_once_and_finds_no_hits_in_its_own_blocks() {
    let mut s = scheduler(64, 4, 4);
    submit(&mut s, 1, prompt(16, 0), 40);
    submit(&mut s, 2, prompt(33, 1), 5);
    let plan = step(&mut s, 0);
    complete(&mut s, &plan, |_, _| 9);
    while s.preemptions == 0 {
        let plan = step(&mut s, 0);
        complete(&mut s, &plan, |_, _| 9);
    }
    while !s.running.is_empty() || !s.waiting.is_empty() {
        let plan = step(&mut s, 0);
        complete(&mut s, &plan, |_, _| 9);
    }
    assert_eq!((s.prompt_tokens, s.prefix_queries, s.prefix_hits), (49, 49, 0));
}

fn submit_scored(s: &mut Scheduler<()>, id: u64, tokens: Vec<u32>, answer: usize) {
    let end = tokens.len() + answer;
    s.waiting.push_back(Scheduled { id, progress: Progress::new(tokens, end).scoring(), rest: () });
}

/// Takes the tokens told by a completed step of the only sequence that runs.
fn tell(s: &mut Scheduler<()>, plan: &Plan) -> Range<usize> {
    let (part, completed) = plan.outcomes().next().unwrap();
    assert_eq!(s.running[0].id, part.id);
    s.running[0].progress.tell(completed)
}

#[test]
fn a_scored_prompt_has_no_more_rows_than_there_are_for_logits() {
    let mut s = scheduler(16, 4, 16);
    submit_scored(&mut s, 1, prompt(10, 0), 1);
    let mut told = Vec::new();
    let mut scores = Vec::new();
    for _ in 0..3 {
        let plan = step(&mut s, 0);
        assert_eq!(plan.logit_rows.len(), plan.tokens.len().min(4));
        scores.push((plan.parts[0].scores.clone(), plan.parts[0].sample));
        told.push(tell(&mut s, &plan));
    }
    assert_eq!(scores, [(0..4, None), (0..4, None), (0..1, Some(1))]);
    assert_eq!(told, [0..5, 5..9, 9..10]);
}

#[test]
fn a_prompt_that_is_only_scored_ends_with_a_row_that_needs_no_logits() {
    let mut s = scheduler(16, 4, 16);
    submit_scored(&mut s, 1, prompt(5, 0), 0);
    let plan = step(&mut s, 0);
    assert_eq!(
        (plan.logit_rows.clone(), plan.parts[0].scores.clone(), plan.parts[0].sample),
        (vec![0, 1, 2, 3], 0..4, None)
    );
    assert_eq!(plan.tokens.len(), 5);
    assert_eq!(tell(&mut s, &plan), 0..5);
    assert!(matches!(s.plan(0), Next::Idle));
    s.finish(1);
    submit_scored(&mut s, 2, prompt(1, 0), 0);
    let plan = step(&mut s, 0);
    assert!(plan.logit_rows.is_empty());
    assert_eq!(tell(&mut s, &plan), 0..1);
}

#[test]
fn rows_of_logits_go_to_decoding_sequences_first_and_then_in_order() {
    let mut s = scheduler(32, 4, 32);
    submit(&mut s, 1, prompt(3, 0), 9);
    submit(&mut s, 2, prompt(3, 1), 9);
    let plan = step(&mut s, 0);
    complete(&mut s, &plan, |_, _| 7);
    submit_scored(&mut s, 3, prompt(8, 2), 1);
    submit(&mut s, 4, prompt(5, 3), 1);
    let plan = step(&mut s, 0);
    let parts: Vec<_> = plan.parts.iter().map(|p| (p.id, p.scores.len(), p.sample)).collect();
    // The last has no row of logits left for its newest token.
    assert_eq!(parts, [(1, 0, Some(0)), (2, 0, Some(1)), (3, 2, None), (4, 0, None)]);
    assert_eq!(plan.spans.iter().map(|s| s.rows).collect::<Vec<_>>(), [1, 1, 2, 4]);
    assert_eq!(plan.logit_rows, [0, 1, 2, 3]);
}

#[test]
fn what_was_told_is_not_scored_again_and_may_come_from_the_cache() {
    let mut s = scheduler(24, 24, 16);
    submit(&mut s, 1, prompt(40, 0), 1);
    for _ in 0..2 {
        let plan = step(&mut s, 0);
        complete(&mut s, &plan, |_, _| 1);
    }
    submit_scored(&mut s, 2, prompt(40, 0), 1);
    let plan = step(&mut s, 0);
    assert_eq!((plan.spans[0].start, plan.parts[0].scores.len()), (0, 24), "cached positions have no logits");
    assert_eq!(tell(&mut s, &plan), 0..25);
    let mut again = s.finish(2).unwrap();
    again.progress.pending = 0;
    s.waiting.push_front(again);
    let plan = step(&mut s, 0);
    // 24 positions have served; of those, one block is whole.
    assert_eq!((plan.spans[0].start, plan.spans[0].rows, plan.parts[0].first), (16, 24, true));
    assert_eq!((plan.parts[0].scores.clone(), plan.parts[0].sample), (0..15, Some(15)));
    assert_eq!(plan.logit_rows[0], 8);
    assert_eq!(tell(&mut s, &plan), 25..40);
}

proptest! {
    /// Whatever the load, the row budget, the pool and the depth: every sequence ends with the tokens that it would have had
    /// alone, each position is computed in order, a sampled token is taken from where the step before writes it, no two sequences
    /// write one block, and all blocks are free in the end.
    #[test]
    fn every_answer_is_complete_and_right(
        requests in prop::collection::vec((1usize..50, 0usize..30, 0u32..3, any::<bool>()), 1..8),
        rows in 1usize..40, sequences in 1usize..5, blocks in 5usize..24, depth in 1usize..5,
    ) {
        let token = |id: u64, position: usize| (id as u32) * 7919 + position as u32;
        let mut s = scheduler(rows.max(sequences), sequences, blocks);
        let mut expected = std::collections::HashMap::new();
        let mut told = vec![0; requests.len()];
        for (i, &(n, answer, salt, scored)) in requests.iter().enumerate() {
            let id = i as u64;
            let tokens = prompt(n, salt);
            let answer = answer.max(usize::from(!scored));
            expected.insert(id, n + answer);
            if scored { submit_scored(&mut s, id, tokens, answer) } else { submit(&mut s, id, tokens, answer) }
        }
        let mut flight: VecDeque<Plan> = VecDeque::new();
        let mut done = 0;
        for _ in 0..20_000 {
            let next = if flight.len() < depth { s.plan(flight.len()) } else { Next::Drain };
            match next {
                Next::Step(plan) => {
                    let writes: Vec<(u32, u64)> = plan.spans.iter().zip(&plan.parts).flat_map(|(span, part)| {
                        (span.start..span.start + span.rows).map(|p| (plan.tables[(span.table + p / 16) as usize], part.id)).collect::<Vec<_>>()
                    }).collect();
                    for (block, id) in &writes {
                        prop_assert!(writes.iter().all(|(b, i)| b != block || i == id), "block {} written by two", block);
                    }
                    prop_assert!(plan.tokens.len() <= rows.max(sequences));
                    prop_assert!(plan.logit_rows.len() <= sequences);
                    let asked = plan.parts.iter().flat_map(|p| p.scores.clone().chain(p.sample));
                    prop_assert!(asked.eq(0..plan.logit_rows.len() as u32));
                    for (span, part) in plan.spans.iter().zip(&plan.parts) {
                        let word = plan.tokens[span.first_row as usize];
                        if word & SAMPLED != 0 {
                            let previous = flight.back().expect("the step before is in flight");
                            let source = previous.parts.iter().find(|p| p.id == part.id).and_then(|p| p.sample);
                            prop_assert_eq!(source, Some(word & !SAMPLED), "sequence {}", part.id);
                        }
                    }
                    flight.push_back(plan);
                }
                Next::Drain => {
                    let plan = flight.pop_front().expect("nothing in flight to drain");
                    for (part, completed) in plan.outcomes() {
                        let Some(r) = s.running.iter_mut().find(|r| r.id == part.id) else { continue };
                        let run = r.progress.tell(completed);
                        prop_assert_eq!(run.clone().filter(|&t| t > 0).count(), part.scores.len());
                        prop_assert!(run.is_empty() || run.start == told[part.id as usize]);
                        told[part.id as usize] += run.len();
                        if part.sample.is_some() {
                            let position = r.progress.tokens.len();
                            r.progress.receive(token(part.id, position));
                        }
                        r.progress.publish(&mut s.pool, completed);
                        if completed >= r.progress.prompt && r.progress.tokens.len() == r.progress.end {
                            let (prompt, tokens) = (r.progress.prompt, r.progress.tokens.clone());
                            prop_assert_eq!(tokens.len(), expected[&part.id]);
                            for (p, t) in tokens.iter().enumerate().skip(prompt) { prop_assert_eq!(*t, token(part.id, p)); }
                            s.finish(part.id);
                            done += 1;
                        }
                    }
                }
                Next::Idle => break,
            }
        }
        prop_assert_eq!(done, requests.len());
        for (told, (n, _, _, scored)) in told.iter().zip(&requests) {
            prop_assert_eq!(*told, if *scored { *n } else { 0 });
        }
        prop_assert_eq!(s.pool.available(), blocks);
        let prompts: u64 = requests.iter().map(|&(n, ..)| n as u64).sum();
        prop_assert_eq!((s.prompt_tokens, s.prefix_queries), (prompts, prompts), "each prompt once");
    }
}
