use super::*;
use mlx_serving_model::Pooling;
use proptest::prelude::*;

const POOLINGS: [Option<Pooling>; 4] = [Some(Pooling::Last), Some(Pooling::Mean), Some(Pooling::First), None];

/// Embedding of a prompt of so many tokens whose hidden states are those of [`Bench::complete`].
fn expected(pooling: Pooling, prompt: usize) -> [f32; 2] {
    match pooling {
        Pooling::Last => [prompt as f32 - 1.0, 1.0],
        Pooling::Mean => [(prompt as f32 - 1.0) / 2.0, 1.0],
        Pooling::First => [0.0, 1.0],
    }
}

#[test]
fn steps_run_ahead_until_hidden_states_are_to_be_read() {
    let mut s = scheduler(16, 4, 16);
    let embed = Some(Pooling::Last);
    s.enqueue(from_request(1, Request { prompt: prompt(40, 0), embed, ..Request::default() }));
    let mut plans = Vec::new();
    for hidden in [None, None, Some(7..8)] {
        assert_eq!(s.scheduler.lookahead(), usize::MAX);
        plans.push(s.step(plans.len()));
        assert_eq!(plans.last().unwrap().parts[0].hidden, hidden);
    }
    assert_eq!(s.scheduler.lookahead(), 0);
    plans.iter().for_each(|plan| s.complete(plan, |_, _| 7));
    assert_eq!(s.scheduler.lookahead(), usize::MAX);
    assert_eq!(s.scheduler.running(), 0);
}

proptest! {
    /// Whatever the load, the rows of a step, the pool, the depth and the steps that fail: every embedding is of the rows that it should
    /// be of, each taken once; no step is submitted that would overwrite rows before they are read; answers beside them are complete.
    #[test]
    fn every_embedding_is_of_its_rows(
        requests in prop::collection::vec((1usize..60, 0u32..3, 0usize..4), 1..8),
        rows in 1usize..40, sequences in 1usize..5, blocks in 5usize..24, depth in 1usize..5,
        failing in prop::collection::vec(0usize..40, 0..3),
    ) {
        let mut s = scheduler(rows.max(sequences), sequences, blocks);
        for (i, &(n, salt, pooling)) in requests.iter().enumerate() {
            let request = Request { prompt: prompt(n, salt), embed: POOLINGS[pooling], ..endless(5) };
            s.enqueue(from_request(i as u64, request));
        }
        let mut flight: VecDeque<Plan> = VecDeque::new();
        let mut steps = 0;
        for _ in 0..20_000 {
            let ahead = depth.min(s.scheduler.lookahead().saturating_add(1));
            match if flight.len() < ahead { s.scheduler.plan(flight.len()) } else { Next::Drain } {
                Next::Step(plan) => {
                    let reads = |plan: &Plan| plan.parts.iter().any(|part| part.hidden.is_some());
                    prop_assert!(!flight.iter().any(reads), "rows are overwritten");
                    flight.push_back(plan);
                }
                Next::Drain if failing.contains(&steps) => {
                    steps += 1;
                    let failed: Vec<Plan> = flight.drain(..).collect();
                    let spent = s.scheduler.requeue(&failed, |sequence| sequence.reset(true) == 0);
                    prop_assert!(spent.is_empty());
                }
                Next::Drain => {
                    steps += 1;
                    let plan = flight.pop_front().expect("nothing in flight to drain");
                    s.complete(&plan, |_, _| 7);
                }
                Next::Idle => break,
            }
        }
        prop_assert_eq!(s.scheduler.running() + s.scheduler.waiting() + flight.len(), 0);
        prop_assert_eq!(s.scheduler.pool.available(), blocks);
        for (i, &(n, _, pooling)) in requests.iter().enumerate() {
            let events = unread(s.readers.get_mut(&(i as u64)).unwrap());
            let tokens = events.iter().filter(|event| matches!(event, Event::Token(_))).count();
            let embedding = events.iter().find_map(|event| match event {
                Event::Embedding(values) => Some(&values[..]),
                _ => None,
            });
            let (Some(Event::Finished(finish)), count) = (events.last(), events.len()) else { panic!("{events:?}") };
            prop_assert_eq!(finish.usage.prompt_tokens, n);
            match POOLINGS[pooling] {
                Some(pooling) => prop_assert_eq!((embedding, count), (Some(&expected(pooling, n)[..]), 2)),
                None => prop_assert_eq!((embedding, tokens), (None, 5)),
            }
        }
    }
}
