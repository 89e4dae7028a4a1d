use super::*;
use crate::events::Receiver;
use crate::kv::prefix::Chain;
use crate::request::{Event, Request, Sampling};
use crate::sequence::tests::{from_request, sequence, some_logprobs, unread};
use mlx_serving_device::ops::{NO_HISTORY_ROW, SAMPLED, SampleParams};
use std::collections::HashMap;

mod embeddings;
mod forced;
mod properties;

/// A scheduler, and who reads the answers.
struct Bench {
    scheduler: Scheduler,
    metrics: Metrics,
    readers: HashMap<u64, Receiver>,
}

fn scheduler(rows: usize, sequences: usize, blocks: usize) -> Bench {
    let scheduler = Scheduler::new(StepLimits { rows, sequences }, BlockPool::new(blocks, None), true);
    Bench { scheduler, metrics: Metrics::new(4096), readers: HashMap::new() }
}

fn prompt(n: usize, salt: u32) -> Vec<u32> {
    (0..n as u32).map(|i| i * 31 + salt * 1000).collect()
}

impl Bench {
    fn enqueue(&mut self, (sequence, reader): (Sequence, Receiver)) {
        self.readers.insert(sequence.id(), reader);
        self.scheduler.enqueue(sequence);
    }

    fn submit(&mut self, id: u64, tokens: Vec<u32>, answer: usize) {
        self.enqueue(sequence(id, tokens, answer));
    }

    fn submit_scored(&mut self, id: u64, prompt: Vec<u32>, answer: usize) {
        let request = Request { prompt, prompt_logprobs: Some(0), ..endless(answer) };
        self.enqueue(from_request(id, request));
    }

    fn step(&mut self, in_flight: usize) -> Plan {
        match self.scheduler.plan(in_flight) {
            Next::Step(plan) => plan,
            other => panic!("no step: {other:?}"),
        }
    }

    /// Delivers a completed step's results; `token` decides each from its sequence and its place. Hidden states are a row's position, and 1.
    fn complete(&mut self, plan: &Plan, token: impl Fn(u64, usize) -> u32) {
        for (span, (part, completed)) in plan.batch.spans.iter().zip(plan.outcomes()) {
            let sampled = part.sample.map(|_| (token(part.id, completed), None));
            let state = |row: usize| [(span.start as usize + row - span.first_row as usize) as f32, 1.0];
            let hidden = part.hidden.clone().map(|rows| rows.flat_map(state).collect());
            let results = Results { scores: vec![some_logprobs(); part.scores.len()], sampled, hidden };
            self.scheduler.complete(part, completed, Ok(results), &self.metrics);
        }
    }

    /// Reads all that has come of an answer; the number of its tokens.
    fn read(&mut self, id: u64) -> usize {
        let events = unread(self.readers.get_mut(&id).unwrap());
        events.iter().filter(|event| matches!(event, Event::Token(_))).count()
    }

    /// Plans a step and completes it; the sequences in it.
    fn turn(&mut self) -> Vec<u64> {
        let plan = self.step(0);
        self.complete(&plan, |_, _| 7);
        plan.parts.iter().map(|part| part.id).collect()
    }

    /// Prompt tokens told to a sequence's reader since it was last asked.
    fn told(&mut self, id: u64) -> Vec<u32> {
        let events = unread(self.readers.get_mut(&id).unwrap());
        let told = |event| if let Event::Prompt(tokens) = event { tokens } else { Vec::new() };
        events.into_iter().flat_map(told).map(|token| token.id).collect()
    }
}

/// A request that only its length ends.
fn endless(answer: usize) -> Request {
    Request { max_tokens: Some(answer), ignore_eos: true, ..Request::default() }
}

/// Cached blocks at the head of a prompt.
fn shared(s: &Scheduler, tokens: &[u32]) -> usize {
    s.pool.take_prefix(&mut Chain::new(0), tokens, false).ids().len()
}

#[test]
fn a_prompt_is_cut_into_chunks_and_samples_at_its_end_only() {
    let mut s = scheduler(16, 4, 16);
    s.submit(1, prompt(40, 0), 2);
    let sizes: Vec<_> = (0..3)
        .map(|_| {
            let plan = s.step(0);
            (plan.batch.tokens.len(), plan.batch.logit_rows.clone(), plan.parts[0].sample)
        })
        .collect();
    assert_eq!(sizes, [(16, vec![], None), (16, vec![], None), (8, vec![7], Some(0))]);
}

#[test]
fn decode_rows_come_before_prompt_chunks() {
    let mut s = scheduler(8, 4, 16);
    s.submit(1, prompt(4, 0), 4);
    let plan = s.step(0);
    s.complete(&plan, |_, _| 7);
    s.submit(2, prompt(20, 1), 4);
    let plan = s.step(0);
    assert_eq!(plan.parts.iter().map(|p| p.id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(plan.batch.spans[0].rows, 1);
    assert_eq!(plan.batch.spans[1].rows, 7);
    assert_eq!(plan.batch.tokens[0], 7);
}

#[test]
fn a_step_ahead_refers_to_the_sampled_token_of_the_step_before() {
    let mut s = scheduler(8, 4, 16);
    s.submit(1, prompt(3, 0), 4);
    s.submit(2, prompt(4, 1), 4);
    let first = s.step(0);
    assert!(!first.continues);
    let ahead = s.step(1);
    assert!(ahead.continues);
    assert_eq!(ahead.batch.tokens, [SAMPLED, SAMPLED | 1]);
    assert_eq!(ahead.batch.positions, [3, 4]);
    s.complete(&first, |_, _| 5);
    let third = s.step(1);
    assert_eq!((third.batch.positions.clone(), third.continues), (vec![4, 5], true));
}

#[test]
fn what_is_computed_ahead_is_shared_once_it_has_completed() {
    let mut s = scheduler(16, 4, 16);
    s.submit(1, prompt(40, 0), 2);
    let chunks = [s.step(0), s.step(1), s.step(2)];
    for (i, plan) in chunks.iter().enumerate() {
        assert_eq!(shared(&s.scheduler, &prompt(40, 0)), i, "before chunk {i} has completed");
        s.complete(plan, |_, _| 7);
    }
}

#[test]
fn three_steps_in_flight_each_refer_to_the_one_before() {
    let mut s = scheduler(8, 4, 16);
    s.submit(1, prompt(3, 0), 9);
    s.submit(2, prompt(4, 1), 2);
    s.submit(3, prompt(1, 2), 9);
    let first = s.step(0);
    let second = s.step(1);
    assert_eq!(second.batch.tokens, [SAMPLED, SAMPLED | 1, SAMPLED | 2]);
    // The second sequence is at its length, so the third's row moves up among the samples.
    let third = s.step(2);
    assert_eq!((third.batch.tokens.clone(), third.batch.positions.clone()), (vec![SAMPLED, SAMPLED | 2], vec![4, 2]));
    s.complete(&first, |_, _| 5);
    assert_eq!(s.step(2).batch.tokens, [SAMPLED, SAMPLED | 1]);
}

#[test]
fn no_step_is_planned_beyond_the_end_of_an_answer() {
    let mut s = scheduler(8, 4, 16);
    s.submit(1, prompt(3, 0), 2);
    s.step(0);
    s.step(1);
    assert!(matches!(s.scheduler.plan(2), Next::Drain));
}

#[test]
fn when_blocks_run_out_the_youngest_is_computed_again_later() {
    let mut s = scheduler(64, 4, 3);
    s.submit(1, prompt(16, 0), 20);
    s.submit(2, prompt(16, 1), 20);
    let plan = s.step(0);
    s.complete(&plan, |_, _| 9);
    let plan = s.step(0);
    assert_eq!(s.scheduler.counts.preemptions, 1);
    assert_eq!(plan.parts.iter().map(|p| p.id).collect::<Vec<_>>(), [1]);
    assert_eq!(s.scheduler.waiting[0].id(), 2);
    assert_eq!(s.scheduler.waiting[0].tokens().len(), 17, "the answer so far is kept");
}

#[test]
fn preemption_waits_for_the_steps_in_flight() {
    let mut s = scheduler(64, 4, 2);
    s.submit(1, prompt(15, 0), 20);
    s.submit(2, prompt(15, 1), 20);
    s.step(0);
    s.step(1);
    assert!(matches!(s.scheduler.plan(2), Next::Drain));
    assert_eq!(s.scheduler.counts.preemptions, 0);
}

/// A request whose reader may be so many tokens behind.
fn read_ahead(tokens: usize, prompt: Vec<u32>) -> Request {
    Request { prompt, read_ahead: Some(tokens), ..endless(20) }
}

#[test]
fn a_sequence_whose_reader_is_behind_is_left_out_until_it_is_read() {
    let mut s = scheduler(64, 4, 16);
    s.enqueue(from_request(1, read_ahead(2, prompt(3, 0))));
    s.submit(2, prompt(3, 1), 4);
    assert_eq!([s.turn(), s.turn(), s.turn()], [vec![1, 2], vec![1, 2], vec![2]]);
    assert_eq!(s.turn(), [2], "the other one goes on to its end");
    assert!(matches!(s.scheduler.plan(0), Next::Idle));
    assert!(!s.scheduler.waits() && s.scheduler.running() == 1);
    assert_eq!(s.read(1), 2);
    assert_eq!([s.turn(), s.turn()], [[1], [1]]);
    assert!(matches!(s.scheduler.plan(0), Next::Idle));
}

#[test]
fn tokens_in_flight_count_as_unread() {
    let mut s = scheduler(64, 4, 16);
    s.enqueue(from_request(1, read_ahead(2, prompt(3, 0))));
    let plans = [s.step(0), s.step(1)];
    assert!(matches!(s.scheduler.plan(2), Next::Drain));
    plans.iter().for_each(|plan| s.complete(plan, |_, _| 7));
    assert!(matches!(s.scheduler.plan(0), Next::Idle));
    assert_eq!(s.read(1), 2);
    assert_eq!(s.step(0).batch.positions, [4]);
}

#[test]
fn a_reader_that_is_behind_holds_no_place_that_another_can_use() {
    let mut s = scheduler(64, 1, 16);
    s.enqueue(from_request(1, read_ahead(1, prompt(17, 0))));
    s.submit(2, prompt(3, 1), 2);
    assert_eq!([s.turn(), s.turn(), s.turn()], [[1], [2], [2]]);
    assert_eq!(s.scheduler.counts.preemptions, 1);
    assert!(matches!(s.scheduler.plan(0), Next::Idle));
    assert!(!s.scheduler.waits() && s.scheduler.waiting() == 1);
    assert_eq!(s.read(1), 1);
    let plan = s.step(0);
    assert_eq!((plan.batch.spans[0].start, plan.batch.spans[0].rows), (16, 2), "its own blocks are found again");
}

#[test]
fn blocks_are_taken_first_from_a_sequence_whose_reader_is_behind() {
    let mut s = scheduler(64, 3, 2);
    s.enqueue(from_request(1, read_ahead(1, prompt(16, 0))));
    s.submit(2, prompt(15, 1), 20);
    assert_eq!(s.turn(), [1, 2]);
    // The second one's next token but one needs another block; its steps in flight need not be waited for.
    let ahead = [s.step(0), s.step(1)];
    assert!(ahead.iter().all(|plan| plan.parts[0].id == 2 && plan.parts.len() == 1));
    assert_eq!((s.scheduler.counts.preemptions, s.scheduler.waiting[0].id()), (1, 1));
}

#[test]
fn a_sequence_that_gave_its_row_of_the_history_back_is_counted_again() {
    let mut s = scheduler(64, 1, 16);
    let sampling = Sampling { presence_penalty: 1.0, ..Sampling::default() };
    for id in [1, 2] {
        let request = Request { sampling: sampling.clone(), ..read_ahead(1, prompt(3, id as u32)) };
        s.enqueue(from_request(id, request));
    }
    for round in 0..4u64 {
        let plan = s.step(0);
        let part = &plan.parts[0];
        assert_eq!(part.id, 1 + round % 2);
        assert_ne!(plan.params[0].history_row, NO_HISTORY_ROW);
        assert_eq!(part.observe.as_ref().unwrap().tokens.len() as u64, 3 + round / 2);
        s.complete(&plan, |_, _| 7);
        s.read(2 - round % 2);
    }
}

#[test]
fn a_prompt_seen_before_is_not_computed_again() {
    let mut s = scheduler(64, 4, 16);
    s.submit(1, prompt(33, 0), 1);
    let plan = s.step(0);
    s.complete(&plan, |_, _| 1);
    assert!(s.scheduler.running.is_empty());
    s.submit(2, prompt(33, 0), 1);
    let plan = s.step(0);
    assert_eq!((plan.batch.tokens.len(), plan.batch.spans[0].start), (1, 32));
    assert_eq!((s.scheduler.counts.prefix_queries, s.scheduler.counts.prefix_hits), (66, 32));
}

#[test]
fn a_preempted_sequence_is_counted_once_and_finds_no_hits_in_its_own_blocks() {
    let mut s = scheduler(64, 4, 4);
    s.submit(1, prompt(16, 0), 40);
    s.submit(2, prompt(33, 1), 5);
    let plan = s.step(0);
    s.complete(&plan, |_, _| 9);
    while s.scheduler.counts.preemptions == 0 {
        let plan = s.step(0);
        s.complete(&plan, |_, _| 9);
    }
    while !s.scheduler.running.is_empty() || !s.scheduler.waiting.is_empty() {
        let plan = s.step(0);
        s.complete(&plan, |_, _| 9);
    }
    assert_eq!(
        (s.scheduler.counts.prompt_tokens, s.scheduler.counts.prefix_queries, s.scheduler.counts.prefix_hits),
        (49, 49, 0)
    );
}

#[test]
fn a_scored_prompt_has_no_more_rows_than_there_are_for_logits() {
    let mut s = scheduler(16, 4, 16);
    s.submit_scored(1, prompt(10, 0), 1);
    let mut told = Vec::new();
    let mut scores = Vec::new();
    for _ in 0..3 {
        let plan = s.step(0);
        assert_eq!(plan.batch.logit_rows.len(), plan.batch.tokens.len().min(4));
        scores.push((plan.parts[0].scores.clone(), plan.parts[0].sample));
        s.complete(&plan, |_, _| 7);
        told.push(s.told(1));
    }
    assert_eq!(scores, [(0..4, None), (0..4, None), (0..1, Some(1))]);
    let prompt = prompt(10, 0);
    assert_eq!(told, [&prompt[..5], &prompt[5..9], &prompt[9..]]);
}

#[test]
fn a_prompt_that_is_only_scored_ends_with_a_row_that_needs_no_logits() {
    let mut s = scheduler(16, 4, 16);
    s.submit_scored(1, prompt(5, 0), 0);
    let plan = s.step(0);
    assert_eq!(
        (plan.batch.logit_rows.clone(), plan.parts[0].scores.clone(), plan.parts[0].sample),
        (vec![0, 1, 2, 3], 0..4, None)
    );
    assert_eq!(plan.batch.tokens.len(), 5);
    s.complete(&plan, |_, _| 7);
    assert_eq!(s.told(1), prompt(5, 0));
    assert!(matches!(s.scheduler.plan(0), Next::Idle));
    assert_eq!(s.scheduler.running() + s.scheduler.waiting(), 0);
    s.submit_scored(2, prompt(1, 0), 0);
    let plan = s.step(0);
    assert!(plan.batch.logit_rows.is_empty());
    s.complete(&plan, |_, _| 7);
    assert_eq!(s.told(2), prompt(1, 0));
}

#[test]
fn rows_of_logits_go_to_decoding_sequences_first_and_then_in_order() {
    let mut s = scheduler(32, 4, 32);
    s.submit(1, prompt(3, 0), 9);
    s.submit(2, prompt(3, 1), 9);
    let plan = s.step(0);
    s.complete(&plan, |_, _| 7);
    s.submit_scored(3, prompt(8, 2), 1);
    s.submit(4, prompt(5, 3), 1);
    let plan = s.step(0);
    let parts: Vec<_> = plan.parts.iter().map(|p| (p.id, p.scores.len(), p.sample)).collect();
    // The last has no row of logits left for its newest token.
    assert_eq!(parts, [(1, 0, Some(0)), (2, 0, Some(1)), (3, 2, None), (4, 0, None)]);
    assert_eq!(plan.batch.spans.iter().map(|s| s.rows).collect::<Vec<_>>(), [1, 1, 2, 4]);
    assert_eq!(plan.batch.logit_rows, [0, 1, 2, 3]);
}

#[test]
fn what_was_told_is_not_scored_again_and_may_come_from_the_cache() {
    let mut s = scheduler(24, 24, 16);
    s.submit(1, prompt(40, 0), 1);
    for _ in 0..2 {
        let plan = s.step(0);
        s.complete(&plan, |_, _| 1);
    }
    s.submit_scored(2, prompt(40, 0), 1);
    let plan = s.step(0);
    assert_eq!((plan.batch.spans[0].start, plan.parts[0].scores.len()), (0, 24), "cached positions have no logits");
    s.complete(&plan, |_, _| 7);
    assert_eq!(s.told(2), prompt(40, 0)[..25]);
    let mut again = s.scheduler.take(2).unwrap();
    again.release();
    s.scheduler.waiting.push_front(again);
    let plan = s.step(0);
    // 24 positions have served; of those, one block is whole.
    assert_eq!((plan.batch.spans[0].start, plan.batch.spans[0].rows), (16, 24));
    assert_eq!((plan.parts[0].scores.clone(), plan.parts[0].sample), (0..15, Some(15)));
    assert_eq!(plan.batch.logit_rows[0], 8);
    s.complete(&plan, |_, _| 7);
    assert_eq!(s.told(2), prompt(40, 0)[25..]);
}

#[test]
fn a_plan_carries_what_each_row_of_logits_is_sampled_with() {
    let mut s = scheduler(16, 4, 16);
    let sampling = Sampling { temperature: 0.5, seed: Some(9), logit_bias: vec![(3, 1.0)], ..Sampling::default() };
    let scored = Request { prompt: prompt(3, 0), prompt_logprobs: Some(2), sampling, ..endless(4) };
    s.enqueue(from_request(1, scored));
    let penalizing = Sampling { presence_penalty: 1.0, ..Sampling::default() };
    s.enqueue(from_request(2, Request { prompt: prompt(2, 1), sampling: penalizing, logprobs: Some(3), ..endless(4) }));
    let plan = s.step(0);
    assert_eq!(plan.params[..2], [SampleParams::GREEDY; 2]);
    let (drawn, penalized) = (&plan.params[2], &plan.params[3]);
    assert_eq!(
        (drawn.temperature, drawn.seed_low, drawn.position, drawn.bias_count, drawn.history_row),
        (0.5, 9, 3, 1, NO_HISTORY_ROW)
    );
    assert_eq!((penalized.presence, penalized.bias_count), (1.0, 0));
    let [first, second] = &plan.parts[..] else { panic!("{plan:?}") };
    assert_eq!((&first.scored[..], first.scored_top, first.sampled_top), (&prompt(3, 0)[1..], 2, None));
    assert!(first.observe.is_none() && plan.reads_logits());
    let observed = second.observe.as_ref().unwrap();
    assert_eq!((observed.row, &observed.tokens, observed.prompt), (penalized.history_row, &prompt(2, 1), 2));
    assert_eq!(second.sampled_top, Some(3));
    s.complete(&plan, |_, _| 7);
    let plan = s.step(0);
    assert_eq!(plan.params[1].history_row, observed.row);
    assert!(plan.parts.iter().all(|part| part.observe.is_none()), "they are counted once");
    assert_eq!(s.scheduler.lookahead(), 0);
}

#[test]
fn sequences_of_failed_steps_come_first_again_and_share_nothing_of_them() {
    let mut s = scheduler(16, 2, 16);
    s.submit(1, prompt(16, 0), 3);
    s.submit(2, prompt(3, 1), 3);
    s.submit(3, prompt(3, 2), 3);
    let plan = s.step(0);
    s.complete(&plan, |_, _| 7);
    assert_eq!(shared(&s.scheduler, &prompt(17, 0)), 1);
    let failed = [s.step(0), s.step(1)];
    let spent = s.scheduler.requeue(&failed, |sequence| sequence.reset(true) > 1);
    assert!(spent.is_empty());
    assert_eq!(s.scheduler.waiting.iter().map(Sequence::id).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((shared(&s.scheduler, &prompt(17, 0)), s.scheduler.pool.available()), (0, 16));
    let again = s.step(0);
    let spent = s.scheduler.requeue(&[again], |sequence| sequence.reset(true) > 1);
    assert_eq!(spent.iter().map(Sequence::id).collect::<Vec<_>>(), [1]);
}

#[test]
fn whoever_is_gone_frees_blocks_and_a_row_of_the_history() {
    let mut s = scheduler(16, 1, 4);
    let sampling = Sampling { presence_penalty: 1.0, ..Sampling::default() };
    let penalizing = |seed| Request { prompt: prompt(4, seed), sampling: sampling.clone(), ..endless(9) };
    for id in 1..=3 {
        s.enqueue(from_request(id, penalizing(id as u32)));
    }
    let row = s.step(0).params[0].history_row;
    for id in [1, 2] {
        s.readers.remove(&id);
    }
    let gone = s.scheduler.take_gone();
    assert_eq!(gone.iter().map(Sequence::id).collect::<Vec<_>>(), [1, 2]);
    drop(gone);
    assert_eq!(s.scheduler.pool.available(), 4);
    assert_eq!(s.step(0).params[0].history_row, row);
}
