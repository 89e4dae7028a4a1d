use super::*;
use crate::request::Finish;
use proptest::prelude::*;

proptest! {
    /// Whatever the load, the row budget, the pool, the depth, the steps that fail and the readers that are behind: every sequence ends with the tokens that it
    /// would have had alone, each position is computed in order, a sampled token is taken from where the step before writes it,
    /// no two sequences write one block or count in one row of the history, no reader gets further behind than it may, nothing waits
    /// for one that is not, and all blocks are free in the end.
    #[test]
    fn every_answer_is_complete_and_right(
        requests in prop::collection::vec((1usize..50, 0usize..30, 0u32..3, any::<bool>(), any::<bool>(), 0usize..6), 1..8),
        rows in 1usize..40, sequences in 1usize..5, blocks in 5usize..24, depth in 1usize..5,
        failing in prop::collection::vec(0usize..40, 0..3), pace in 1usize..4,
    ) {
        let token = |id: u64, position: usize| (id as u32) * 7919 + position as u32;
        let mut s = scheduler(rows.max(sequences), sequences, blocks);
        let answers: Vec<_> = requests.iter().map(|&(_, answer, _, scored, ..)| answer.max(usize::from(!scored))).collect();
        for (i, (&(n, _, salt, scored, penalizes, read_ahead), &answer)) in requests.iter().zip(&answers).enumerate() {
            let presence_penalty = if penalizes { 1.0 } else { 0.0 };
            let request = Request {
                prompt: prompt(n, salt),
                prompt_logprobs: scored.then_some(0),
                read_ahead: (read_ahead > 0).then_some(read_ahead),
                sampling: Sampling { presence_penalty, ..Sampling::default() },
                ..endless(answer)
            };
            s.enqueue(from_request(i as u64, request));
        }
        let mut flight: VecDeque<Plan> = VecDeque::new();
        let (mut ended, mut steps) = (0, 0);
        let mut told: Vec<Vec<u32>> = vec![Vec::new(); requests.len()];
        let mut sent = told.clone();
        let (mut behind, mut scores, mut scored) = (Vec::new(), 0, 0);
        for _ in 0..20_000 {
            let mut idle = false;
            let next = if flight.len() < depth { s.scheduler.plan(flight.len()) } else { Next::Drain };
            match next {
                Next::Step(plan) => {
                    let writes: Vec<(u32, u64)> = plan.batch.spans.iter().zip(&plan.parts).flat_map(|(span, part)| {
                        (span.start..span.start + span.rows).map(|p| (plan.batch.tables[(span.table + p / 16) as usize], part.id)).collect::<Vec<_>>()
                    }).collect();
                    for (block, id) in &writes {
                        prop_assert!(writes.iter().all(|(b, i)| b != block || i == id), "block {} written by two", block);
                    }
                    prop_assert!(plan.batch.tokens.len() <= rows.max(sequences));
                    prop_assert!(plan.batch.logit_rows.len() <= sequences);
                    prop_assert!(plan.parts.iter().flat_map(Part::places).eq(0..plan.batch.logit_rows.len() as u32));
                    prop_assert_eq!(plan.params.len(), plan.batch.logit_rows.len());
                    let mut counting = Vec::new();
                    for (part, completed) in plan.outcomes() {
                        let Some(row) = part.sample else { continue };
                        let (history_row, penalizes) = (plan.params[row as usize].history_row, requests[part.id as usize].4);
                        prop_assert_eq!((history_row != NO_HISTORY_ROW, plan.params[row as usize].position), (penalizes, completed as u32));
                        prop_assert!(history_row == NO_HISTORY_ROW || !counting.contains(&history_row), "two sequences in row {}", history_row);
                        counting.push(history_row);
                        let observed = part.observe.as_ref().map_or(completed, |observed| observed.tokens.len());
                        prop_assert_eq!(observed, completed, "all tokens are known when the first is counted");
                    }
                    for (span, part) in plan.batch.spans.iter().zip(&plan.parts) {
                        let word = plan.batch.tokens[span.first_row as usize];
                        if word & SAMPLED != 0 {
                            let previous = flight.back().expect("the step before is in flight");
                            let source = previous.parts.iter().find(|p| p.id == part.id).and_then(|p| p.sample);
                            prop_assert_eq!(source, Some(word & !SAMPLED), "sequence {}", part.id);
                        }
                    }
                    flight.push_back(plan);
                }
                Next::Drain if failing.contains(&steps) => {
                    steps += 1;
                    let failed: Vec<Plan> = flight.drain(..).collect();
                    let spent = s.scheduler.requeue(&failed, |sequence| { sequence.reset(true); false });
                    prop_assert!(spent.is_empty());
                }
                Next::Drain => {
                    steps += 1;
                    let plan = flight.pop_front().expect("nothing in flight to drain");
                    s.complete(&plan, token);
                    for part in &plan.parts {
                        scores += part.scores.len();
                        // Others read now and then, and where all wait for them.
                        let read_ahead = requests[part.id as usize].5;
                        if read_ahead == 0 || (steps + part.id as usize).is_multiple_of(pace) {
                            behind.push(part.id);
                        }
                    }
                }
                Next::Idle => {
                    prop_assert!(!s.scheduler.waits());
                    idle = true;
                    behind.extend(0..requests.len() as u64);
                }
            }
            let mut read = 0;
            for id in behind.drain(..).map(|id| id as usize) {
                let mut tokens = 0;
                for event in unread(s.readers.get_mut(&(id as u64)).unwrap()) {
                    read += 1;
                    match event {
                        Event::Prompt(tokens) => {
                            scored += tokens.iter().filter(|token| token.logprobs.is_some()).count();
                            told[id].extend(tokens.iter().map(|token| token.id));
                        }
                        Event::Token(token) => {
                            tokens += 1;
                            sent[id].push(token.id);
                        }
                        Event::Finished(Finish { usage, .. }) => {
                            prop_assert_eq!((usage.prompt_tokens, usage.completion_tokens), (requests[id].0, answers[id]));
                            ended += 1;
                        }
                        event @ (Event::Embedding(_) | Event::Failed(_)) => panic!("{event:?}"),
                    }
                }
                prop_assert!(requests[id].5 == 0 || tokens <= requests[id].5, "{} tokens lay unread", tokens);
            }
            if ended == requests.len() && s.scheduler.running() + s.scheduler.waiting() == 0 && flight.is_empty() {
                break;
            }
            prop_assert!(!idle || read > 0, "all wait for readers that are not behind");
        }
        prop_assert_eq!(ended, requests.len());
        prop_assert_eq!(scored, scores);
        for (i, &(n, _, salt, scored, ..)) in requests.iter().enumerate() {
            prop_assert_eq!(&told[i], &if scored { prompt(n, salt) } else { Vec::new() });
            prop_assert!(sent[i].iter().copied().eq((n..n + answers[i]).map(|position| token(i as u64, position))));
        }
        prop_assert_eq!(s.scheduler.pool.available(), blocks);
        let prompts: u64 = requests.iter().map(|&(n, ..)| n as u64).sum();
        let Counts { prompt_tokens, prefix_queries, .. } = s.scheduler.take_counts();
        prop_assert_eq!((prompt_tokens, prefix_queries), (prompts, prompts), "each prompt once");
    }
}
