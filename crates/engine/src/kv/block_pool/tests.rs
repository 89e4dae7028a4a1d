use super::*;
use proptest::prelude::*;

fn tokens(n: usize, seed: u32) -> Vec<u32> {
    (0..n as u32).map(|i| i * 7 + seed).collect()
}

/// Blocks for `tokens` as a sequence takes them: cached ones, then fresh ones as far as there are any, which it fills.
fn fill(pool: &BlockPool, salt: u64, tokens: &[u32]) -> BlockTable {
    let mut chain = Chain::new(salt);
    let mut table = pool.take_prefix(&mut chain, tokens, true);
    while table.room() < tokens.len() && table.grow() {}
    let (full, _) = tokens[..tokens.len().min(table.room())].as_chunks::<BLOCK_TOKENS>();
    full.iter().skip(chain.blocks()).for_each(|tokens| table.publish(&mut chain, tokens));
    table
}

fn cached(pool: &BlockPool, salt: u64, tokens: &[u32], restore: bool) -> BlockTable {
    pool.take_prefix(&mut Chain::new(salt), tokens, restore)
}

fn spilling(blocks: usize) -> (Arc<SpillStore>, BlockPool) {
    let options = crate::SpillOptions { memory_bytes: 1 << 10, ..crate::SpillOptions::default() };
    let spill = SpillStore::open(&options, 16, Default::default()).unwrap().unwrap();
    (spill.clone(), BlockPool::new(blocks, Some(spill)))
}

fn store(spill: &SpillStore, moves: Moves) {
    moves.out.into_iter().for_each(|(_, content)| spill.insert(vec![content], &[7; 16]));
}

#[test]
fn a_second_prompt_shares_the_full_blocks_of_the_first() {
    let pool = BlockPool::new(8, None);
    let prompt = tokens(40, 0);
    let held = fill(&pool, 0, &prompt);
    assert_eq!(cached(&pool, 0, &prompt, true).ids(), &held.ids()[..2]);
    let mut other = prompt.clone();
    other[20] += 1;
    assert_eq!(cached(&pool, 0, &other, true).ids(), &held.ids()[..1]);
}

#[test]
fn equal_prompts_under_unequal_salts_share_nothing() {
    let pool = BlockPool::new(8, None);
    let prompt = tokens(40, 0);
    let (plain, salted) = (fill(&pool, 0, &prompt), fill(&pool, 7, &prompt));
    assert!(plain.ids().iter().all(|id| !salted.ids().contains(id)));
    for (salt, own) in [(0, &plain), (7, &salted)] {
        assert_eq!(cached(&pool, salt, &prompt, true).ids(), &own.ids()[..2], "salt {salt}");
    }
    assert!(cached(&pool, 8, &prompt, true).ids().is_empty());
}

#[test]
fn equal_prompts_under_unequal_salts_share_no_spilled_blocks() {
    let (spill, pool) = spilling(3);
    let prompt = tokens(33, 0);
    drop(fill(&pool, 1, &prompt));
    drop(fill(&pool, 1, &tokens(48, 1)));
    store(&spill, pool.take_moves());
    assert!(cached(&pool, 0, &prompt, true).ids().is_empty());
    assert_eq!(cached(&pool, 1, &prompt, true).ids().len(), 2);
}

#[test]
fn the_last_token_is_never_served_from_the_cache() {
    let pool = BlockPool::new(8, None);
    let prompt = tokens(32, 0);
    let held = fill(&pool, 0, &prompt);
    assert_eq!(cached(&pool, 0, &prompt, true).ids(), &held.ids()[..1]);
}

#[test]
fn released_blocks_keep_their_content_until_the_room_is_needed() {
    let pool = BlockPool::new(2, None);
    let prompt = tokens(17, 0);
    drop(fill(&pool, 0, &prompt));
    assert_eq!(pool.available(), 2);
    let shared = cached(&pool, 0, &prompt, true);
    assert_eq!(shared.ids().len(), 1);
    drop(shared);
    let mut all = pool.hold(Vec::new());
    assert!(all.grow() && all.grow() && !all.grow());
    assert!(cached(&pool, 0, &prompt, true).ids().is_empty(), "taken blocks must forget");
}

#[test]
fn evicted_content_leaves_before_what_is_wanted_again_is_restored() {
    let (spill, pool) = spilling(3);
    let (first, second) = (tokens(33, 0), tokens(33, 1));
    drop(fill(&pool, 0, &first));
    drop(fill(&pool, 0, &second));
    let moves = pool.take_moves();
    assert_eq!((moves.out.len(), moves.back.len()), (2, 0));
    store(&spill, moves);
    let back = cached(&pool, 0, &first, true);
    let moves = pool.take_moves();
    assert_eq!(moves.back.iter().map(|(id, ..)| *id).collect::<Vec<_>>(), back.ids());
    assert_eq!((back.ids().len(), moves.out.len()), (2, 1), "the second prompt made room, its tail first");
    assert!(cached(&pool, 0, &second, false).ids().len() < 2, "not restored where that is not wanted");
}

#[test]
fn a_block_that_is_taken_before_it_was_restored_is_spilled_still() {
    let (spill, pool) = spilling(1);
    let take = || {
        let mut table = pool.hold(Vec::new());
        assert!(table.grow());
    };
    drop(fill(&pool, 0, &tokens(16, 0)));
    take();
    store(&spill, pool.take_moves());
    assert_eq!(cached(&pool, 0, &tokens(17, 0), true).ids().len(), 1);
    take();
    let moves = pool.take_moves();
    assert!(moves.out.is_empty() && moves.back.is_empty(), "{moves:?}");
    assert_eq!(cached(&pool, 0, &tokens(17, 0), true).ids().len(), 1);
}

#[test]
fn equal_content_is_published_once() {
    let pool = BlockPool::new(4, None);
    // Of 16 tokens the last is computed by each.
    let (first, second) = (fill(&pool, 0, &tokens(16, 3)), fill(&pool, 0, &tokens(16, 3)));
    assert_ne!(first.ids(), second.ids());
    drop(second);
    assert_eq!(cached(&pool, 0, &tokens(17, 3), true).ids(), first.ids());
}

proptest! {
    /// Whatever is taken, shared, quarantined, forgotten and released in whatever order: no block leaks, none is freed twice (the
    /// pool itself asserts that), and none that a sequence or a copy may write is handed out to another, spilled or not.
    #[test]
    fn blocks_are_conserved_and_handed_out_to_one_writer(
        steps in prop::collection::vec((0u8..7, 1usize..60, 0u32..3, 0u64..2), 1..80), spills in any::<bool>(),
    ) {
        const BLOCKS: usize = 12;
        let (spill, pool) = spilling(BLOCKS);
        let pool = if spills { pool } else { BlockPool::new(BLOCKS, None) };
        let mut running: Vec<BlockTable> = Vec::new();
        let mut quarantine: Vec<BlockTable> = Vec::new();
        for (action, n, seed, salt) in steps {
            match action {
                0 | 1 => {
                    let prompt = tokens(n, seed);
                    let mut chain = Chain::new(salt);
                    let mut table = pool.take_prefix(&mut chain, &prompt, true);
                    let shared = table.ids().len();
                    while table.room() < prompt.len() && table.grow() {}
                    for id in &table.ids()[shared..] {
                        let held = running.iter().chain(&quarantine).any(|table| table.ids().contains(id));
                        prop_assert!(!held, "block {id} handed out while held");
                    }
                    if table.room() >= prompt.len() {
                        let (full, _) = prompt.as_chunks::<BLOCK_TOKENS>();
                        full.iter().skip(shared).for_each(|tokens| table.publish(&mut chain, tokens));
                        running.push(table);
                    }
                }
                2 if !running.is_empty() => drop(running.swap_remove(n % running.len())),
                // A copy into the blocks of one that runs, or has ended, was abandoned.
                3 if !running.is_empty() => quarantine.push(pool.hold(running[n % running.len()].ids().to_vec())),
                4 => quarantine.push(pool.hold(vec![(n % BLOCKS) as u32])),
                5 if !quarantine.is_empty() => drop(quarantine.swap_remove(n % quarantine.len())),
                6 if n < 10 => pool.forget(),
                6 => store(&spill, pool.take_moves()),
                _ => {}
            }
            let held: std::collections::HashSet<u32> =
                running.iter().chain(&quarantine).flat_map(|table| table.ids()).copied().collect();
            prop_assert_eq!(pool.available(), BLOCKS - held.len());
        }
        drop((running, quarantine));
        prop_assert_eq!(pool.available(), BLOCKS);
        prop_assert_eq!(pool.usage(), 0.0);
    }
}
