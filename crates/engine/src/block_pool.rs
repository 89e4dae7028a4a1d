use crate::spill::{SpillStore, Spilled};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub(crate) use mlx_serving_model::BLOCK_TOKENS;

/// Identity of a full block's content: its own tokens and, through the chain, all before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Prefix(u128);

impl Prefix {
    /// The empty prefix.
    pub(crate) const ROOT: Prefix = Prefix(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);

    /// The prefix that `tokens` (one whole block) make behind `self`. 128-bit FNV-1a: collisions are out of reach by accident,
    /// and [`BlockPool`] compares the tokens themselves, so a forged one only misses.
    pub(crate) fn extend(self, tokens: &[u32]) -> Prefix {
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        let bytes = tokens.iter().flat_map(|t| t.to_le_bytes());
        Prefix(bytes.fold(self.0.rotate_left(1), |h, b| (h ^ u128::from(b)).wrapping_mul(PRIME)))
    }
}

#[derive(Debug, Default, Clone)]
struct Block {
    references: u32,
    /// Its content, once it is full and known.
    content: Option<Content>,
    /// Time of its last release: key into `idle`.
    idle_since: u64,
}

/// Content of a full block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub prefix: Prefix,
    pub parent: Prefix,
    pub tokens: [u32; BLOCK_TOKENS],
}

/// Blocks that move between the device and the spill store before the next step, those that leave first.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    pub out: Vec<(u32, Content)>,
    pub back: Vec<(u32, Content, Spilled)>,
}

/// The KV cache's blocks: reference-counted, shared between sequences with a common prefix, kept after use until the room is
/// needed (least recently used first).
#[derive(Debug)]
pub(crate) struct BlockPool {
    blocks: Vec<Block>,
    /// Blocks nobody refers to, by age. Blank ones have age 0 upwards from the start, so they go first.
    idle: BTreeMap<u64, u32>,
    by_prefix: HashMap<Prefix, u32>,
    clock: u64,
    /// Store for content whose room is needed.
    spill: Option<Arc<SpillStore>>,
    moves: Moves,
}

impl BlockPool {
    /// A pool of `count` blank blocks.
    pub(crate) fn new(count: usize, spill: Option<Arc<SpillStore>>) -> Self {
        let mut pool = Self {
            blocks: vec![Block::default(); count],
            idle: BTreeMap::new(),
            by_prefix: HashMap::new(),
            clock: 0,
            spill,
            moves: Moves::default(),
        };
        for id in 0..count as u32 {
            pool.make_idle(id);
        }
        pool
    }

    /// Blocks that could be taken now.
    #[cfg(test)]
    pub(crate) fn available(&self) -> usize {
        self.idle.len()
    }

    /// Share of the blocks that sequences hold.
    pub(crate) fn usage(&self) -> f64 {
        if self.blocks.is_empty() { 0.0 } else { 1.0 - self.idle.len() as f64 / self.blocks.len() as f64 }
    }

    /// Takes a block for writing; its old content is spilled or forgotten. `None` when all are held.
    pub(crate) fn take(&mut self) -> Option<u32> {
        let (_, id) = self.idle.pop_first()?;
        let block = &mut self.blocks[id as usize];
        block.references = 1;
        if let Some(content) = block.content.take() {
            self.by_prefix.remove(&content.prefix);
            let pending = self.moves.back.iter().position(|(back, ..)| *back == id);
            if let Some(pending) = pending {
                // It was never restored, and is spilled still.
                self.moves.back.swap_remove(pending);
            } else if self.spill.as_ref().is_some_and(|spill| !spill.contains(&content)) {
                self.moves.out.push((id, content));
            }
        }
        Some(id)
    }

    /// Blocks to move before the next step is submitted.
    pub(crate) fn take_moves(&mut self) -> Moves {
        std::mem::take(&mut self.moves)
    }

    /// A block for spilled content, to be filled before the next step.
    fn restore(&mut self, content: Content) -> Option<u32> {
        let spilled = self.spill.as_ref()?.fetch(&content)?;
        let id = self.take()?;
        self.by_prefix.insert(content.prefix, id);
        self.blocks[id as usize].content = Some(content.clone());
        self.moves.back.push((id, content, spilled));
        Some(id)
    }

    /// The longest run of cached blocks at the head of `tokens`, each now held once more; spilled ones are restored if
    /// `restore`. Stops short of the last token, which must be computed to have logits.
    pub(crate) fn take_prefix(&mut self, tokens: &[u32], restore: bool) -> Vec<u32> {
        let mut parent = Prefix::ROOT;
        let mut found = Vec::new();
        let (chunks, _) = tokens[..tokens.len().saturating_sub(1)].as_chunks::<BLOCK_TOKENS>();
        for chunk in chunks {
            let content = Content { prefix: parent.extend(chunk), parent, tokens: *chunk };
            parent = content.prefix;
            let id = match self.by_prefix.get(&content.prefix) {
                Some(&id) if self.blocks[id as usize].content.as_ref() == Some(&content) => {
                    self.hold(id);
                    id
                }
                Some(_) => break,
                None if restore => match self.restore(content) {
                    Some(id) => id,
                    None => break,
                },
                None => break,
            };
            found.push(id);
        }
        found
    }

    /// Notes that a held block is full of `tokens` behind `parent`, so that others may share it; returns their prefix.
    pub(crate) fn publish(&mut self, id: u32, parent: Prefix, tokens: &[u32]) -> Prefix {
        let prefix = parent.extend(tokens);
        let block = &mut self.blocks[id as usize];
        debug_assert!(block.references > 0, "published block {id} is not held");
        let Ok(tokens) = <[u32; BLOCK_TOKENS]>::try_from(tokens) else { return prefix };
        if block.content.is_none() && !self.by_prefix.contains_key(&prefix) {
            block.content = Some(Content { prefix, parent, tokens });
            self.by_prefix.insert(prefix, id);
        }
        prefix
    }

    /// Releases a block; its content stays for sharing until the room is needed.
    pub(crate) fn release(&mut self, id: u32) {
        let block = &mut self.blocks[id as usize];
        debug_assert!(block.references > 0, "block {id} released twice");
        block.references -= 1;
        if block.references == 0 {
            self.make_idle(id);
        }
    }

    /// Forgets all content: nothing computed so far is shared any more.
    pub(crate) fn forget(&mut self) {
        self.by_prefix.clear();
        self.moves = Moves::default();
        self.blocks.iter_mut().for_each(|b| b.content = None);
    }

    /// Holds a block once more.
    pub(crate) fn hold(&mut self, id: u32) {
        let block = &mut self.blocks[id as usize];
        if block.references == 0 {
            self.idle.remove(&block.idle_since);
        }
        block.references += 1;
    }

    fn make_idle(&mut self, id: u32) {
        self.clock += 1;
        self.blocks[id as usize].idle_since = self.clock;
        self.idle.insert(self.clock, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tokens(n: usize, salt: u32) -> Vec<u32> {
        (0..n as u32).map(|i| i * 7 + salt).collect()
    }

    /// Fills a sequence's blocks as the engine does.
    fn fill(pool: &mut BlockPool, tokens: &[u32]) -> Vec<u32> {
        let mut prefix = Prefix::ROOT;
        tokens
            .chunks(BLOCK_TOKENS)
            .map(|chunk| {
                let id = pool.take().unwrap();
                if chunk.len() == BLOCK_TOKENS {
                    prefix = pool.publish(id, prefix, chunk);
                }
                id
            })
            .collect()
    }

    #[test]
    fn a_second_prompt_shares_the_full_blocks_of_the_first() {
        let mut pool = BlockPool::new(8, None);
        let prompt = tokens(40, 0);
        let held = fill(&mut pool, &prompt);
        assert_eq!(pool.take_prefix(&prompt, true), held[..2]);
        let mut other = prompt.clone();
        other[20] += 1;
        assert_eq!(pool.take_prefix(&other, true), held[..1]);
    }

    #[test]
    fn the_last_token_is_never_served_from_the_cache() {
        let mut pool = BlockPool::new(8, None);
        let prompt = tokens(32, 0);
        let held = fill(&mut pool, &prompt);
        assert_eq!(pool.take_prefix(&prompt, true), held[..1]);
    }

    #[test]
    fn released_blocks_keep_their_content_until_the_room_is_needed() {
        let mut pool = BlockPool::new(2, None);
        let prompt = tokens(17, 0);
        for id in fill(&mut pool, &prompt) {
            pool.release(id);
        }
        assert_eq!(pool.available(), 2);
        let shared = pool.take_prefix(&prompt, true);
        assert_eq!(shared.len(), 1);
        pool.release(shared[0]);
        assert!(pool.take().is_some() && pool.take().is_some());
        assert_eq!(pool.take(), None);
        assert!(pool.take_prefix(&prompt, true).is_empty(), "taken blocks must forget");
    }

    #[test]
    fn evicted_content_leaves_before_what_is_wanted_again_is_restored() {
        let options = crate::SpillOptions { memory_bytes: 1 << 10, ..crate::SpillOptions::default() };
        let spill = SpillStore::open(&options, 16, Default::default()).unwrap().unwrap();
        let mut pool = BlockPool::new(3, Some(spill.clone()));
        let (first, second) = (tokens(33, 0), tokens(33, 1));
        fill(&mut pool, &first).into_iter().for_each(|id| pool.release(id));
        fill(&mut pool, &second).into_iter().for_each(|id| pool.release(id));
        let moves = pool.take_moves();
        assert_eq!((moves.out.len(), moves.back.len()), (2, 0));
        moves.out.into_iter().for_each(|(_, content)| spill.insert(vec![content], &[7; 16]));
        let back = pool.take_prefix(&first, true);
        let moves = pool.take_moves();
        assert_eq!(moves.back.iter().map(|(id, ..)| *id).collect::<Vec<_>>(), back);
        assert_eq!((back.len(), moves.out.len()), (2, 2), "the second prompt made room");
        assert!(pool.take_prefix(&second, false).len() < 2, "not restored where that is not wanted");
    }

    #[test]
    fn a_block_that_is_taken_before_it_was_restored_is_spilled_still() {
        let options = crate::SpillOptions { memory_bytes: 1 << 10, ..crate::SpillOptions::default() };
        let spill = SpillStore::open(&options, 16, Default::default()).unwrap().unwrap();
        let mut pool = BlockPool::new(1, Some(spill.clone()));
        let held = fill(&mut pool, &tokens(16, 0));
        pool.release(held[0]);
        assert!(pool.take().is_some());
        let moves = pool.take_moves();
        spill.insert(vec![moves.out[0].1.clone()], &[7; 16]);
        pool.release(held[0]);
        let back = pool.take_prefix(&tokens(17, 0), true);
        pool.release(back[0]);
        assert!(pool.take().is_some());
        let moves = pool.take_moves();
        assert!(moves.out.is_empty() && moves.back.is_empty(), "{moves:?}");
        pool.release(back[0]);
        assert_eq!(pool.take_prefix(&tokens(17, 0), true).len(), 1);
    }

    #[test]
    fn equal_content_is_published_once() {
        let mut pool = BlockPool::new(4, None);
        let prompt = tokens(16, 3);
        let first = fill(&mut pool, &prompt);
        let second = fill(&mut pool, &prompt);
        pool.release(second[0]);
        assert_eq!(pool.take_prefix(&tokens(17, 3), true), first);
    }

    proptest! {
        #[test]
        fn blocks_are_conserved_and_never_held_by_two_writers(steps in prop::collection::vec((0u8..3, 1usize..60, 0u32..3), 1..80)) {
            let mut pool = BlockPool::new(12, None);
            let mut held: Vec<Vec<u32>> = Vec::new();
            for (action, n, salt) in steps {
                match action {
                    0 => {
                        let prompt = tokens(n, salt);
                        let mut ids = pool.take_prefix(&prompt, true);
                        let mut prefix = prompt.chunks_exact(BLOCK_TOKENS).take(ids.len()).fold(Prefix::ROOT, |p, c| p.extend(c));
                        for chunk in prompt.chunks(BLOCK_TOKENS).skip(ids.len()) {
                            let Some(id) = pool.take() else { break };
                            prop_assert!(!held.iter().flatten().any(|&h| h == id), "block {id} taken while held");
                            ids.push(id);
                            if chunk.len() == BLOCK_TOKENS { prefix = pool.publish(id, prefix, chunk); }
                        }
                        held.push(ids);
                    }
                    1 if !held.is_empty() => { for id in held.remove(n % held.len()) { pool.release(id); } }
                    _ => {}
                }
                let mut distinct: Vec<u32> = held.iter().flatten().copied().collect();
                distinct.sort_unstable();
                distinct.dedup();
                prop_assert_eq!(pool.available(), 12 - distinct.len());
            }
            for id in held.into_iter().flatten() { pool.release(id); }
            prop_assert_eq!(pool.available(), 12);
            prop_assert_eq!(pool.usage(), 0.0);
        }
    }
}
