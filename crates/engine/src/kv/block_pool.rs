use crate::kv::prefix::{BlockTokens, Chain, Content, Prefix};
use crate::kv::spill::{SpillStore, Spilled};
use mlx_serving_model::BLOCK_TOKENS;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

/// The KV cache's blocks: reference-counted, shared between sequences with a common prefix, kept after use until the room is
/// needed (least recently used first). Clones are handles of one pool, all on the engine's thread.
#[derive(Debug, Clone)]
pub(crate) struct BlockPool(Rc<RefCell<Blocks>>);

/// Held blocks, in order. Dropping it releases them, last first, so that the head of a prefix outlives its tail; their content
/// stays for sharing until the room is needed.
#[derive(Debug)]
pub(crate) struct BlockTable {
    ids: Vec<u32>,
    pool: BlockPool,
}

/// Blocks that move between the device and the spill store before the next step, those that leave first.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    pub out: Vec<(u32, Content)>,
    pub back: Vec<(u32, Content, Spilled)>,
}

#[derive(Debug)]
struct Blocks {
    blocks: Vec<Block>,
    /// Blocks nobody refers to, by age. Blank ones have age 0 upwards from the start, so they go first.
    idle: BTreeMap<u64, u32>,
    by_prefix: HashMap<Prefix, u32>,
    clock: u64,
    /// Store for content whose room is needed.
    spill: Option<Arc<SpillStore>>,
    moves: Moves,
}

#[derive(Debug, Default, Clone)]
struct Block {
    references: u32,
    /// Its content, once it is full and known.
    content: Option<Content>,
    /// Time of its last release: key into `idle`.
    idle_since: u64,
}

impl BlockPool {
    /// A pool of `count` blank blocks.
    pub(crate) fn new(count: usize, spill: Option<Arc<SpillStore>>) -> Self {
        let mut blocks = Blocks {
            blocks: vec![Block::default(); count],
            idle: BTreeMap::new(),
            by_prefix: HashMap::new(),
            clock: 0,
            spill,
            moves: Moves::default(),
        };
        (0..count as u32).for_each(|id| blocks.make_idle(id));
        Self(Rc::new(RefCell::new(blocks)))
    }

    /// Blocks that could be taken now.
    #[cfg(test)]
    pub(crate) fn available(&self) -> usize {
        self.0.borrow().idle.len()
    }

    /// Share of the blocks that are held.
    pub(crate) fn usage(&self) -> f64 {
        let blocks = self.0.borrow();
        let count = blocks.blocks.len();
        if count == 0 { 0.0 } else { 1.0 - blocks.idle.len() as f64 / count as f64 }
    }

    /// The longest run of cached blocks at the head of `tokens`, by which `chain` grows; spilled ones are restored if `restore`.
    /// Stops short of the last token, which must be computed to have logits.
    pub(crate) fn take_prefix(&self, chain: &mut Chain, tokens: &[u32], restore: bool) -> BlockTable {
        let mut blocks = self.0.borrow_mut();
        let mut ids = Vec::new();
        let (chunks, _) = tokens[..tokens.len().saturating_sub(1)].as_chunks::<BLOCK_TOKENS>();
        for chunk in chunks {
            let content = chain.next(chunk);
            let Some(id) = blocks.find(&content, restore) else { break };
            chain.push(&content);
            ids.push(id);
        }
        BlockTable { ids, pool: self.clone() }
    }

    /// Holds blocks once more.
    pub(crate) fn hold(&self, ids: Vec<u32>) -> BlockTable {
        let mut blocks = self.0.borrow_mut();
        ids.iter().for_each(|&id| blocks.hold(id));
        BlockTable { ids, pool: self.clone() }
    }

    /// Blocks to move before the next step.
    pub(crate) fn take_moves(&self) -> Moves {
        std::mem::take(&mut self.0.borrow_mut().moves)
    }

    /// Forgets all content: nothing computed so far is shared any more.
    pub(crate) fn forget(&self) {
        let mut blocks = self.0.borrow_mut();
        blocks.by_prefix.clear();
        blocks.moves = Moves::default();
        blocks.blocks.iter_mut().for_each(|b| b.content = None);
    }
}

impl BlockTable {
    /// Its blocks, in order.
    pub(crate) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Positions for which it has room.
    pub(crate) fn room(&self) -> usize {
        self.ids.len() * BLOCK_TOKENS
    }

    /// Takes one more block, for writing; its old content is spilled or forgotten. False when all are held.
    pub(crate) fn grow(&mut self) -> bool {
        let id = self.pool.0.borrow_mut().take();
        self.ids.extend(id);
        id.is_some()
    }

    /// Notes that the block behind `chain` is full of `tokens`, so that others may share it; `chain` grows by it.
    pub(crate) fn publish(&self, chain: &mut Chain, tokens: &BlockTokens) {
        let content = chain.next(tokens);
        let id = self.ids[chain.blocks()];
        chain.push(&content);
        self.pool.0.borrow_mut().publish(id, content);
    }
}

impl Drop for BlockTable {
    fn drop(&mut self) {
        let mut blocks = self.pool.0.borrow_mut();
        self.ids.drain(..).rev().for_each(|id| blocks.release(id));
    }
}

impl Blocks {
    fn take(&mut self) -> Option<u32> {
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

    /// The block with this content, now held once more.
    fn find(&mut self, content: &Content, restore: bool) -> Option<u32> {
        match self.by_prefix.get(&content.prefix) {
            Some(&id) if self.blocks[id as usize].content.as_ref() == Some(content) => {
                self.hold(id);
                Some(id)
            }
            Some(_) => None,
            None if restore => self.restore(content),
            None => None,
        }
    }

    /// A block for spilled content, to be filled before the next step.
    fn restore(&mut self, content: &Content) -> Option<u32> {
        let spilled = self.spill.as_ref()?.fetch(content)?;
        let id = self.take()?;
        self.by_prefix.insert(content.prefix, id);
        self.blocks[id as usize].content = Some(content.clone());
        self.moves.back.push((id, content.clone(), spilled));
        Some(id)
    }

    fn publish(&mut self, id: u32, content: Content) {
        let block = &mut self.blocks[id as usize];
        debug_assert!(block.references > 0, "published block {id} is not held");
        if block.content.is_none() && !self.by_prefix.contains_key(&content.prefix) {
            self.by_prefix.insert(content.prefix, id);
            block.content = Some(content);
        }
    }

    fn hold(&mut self, id: u32) {
        let block = &mut self.blocks[id as usize];
        if block.references == 0 {
            self.idle.remove(&block.idle_since);
        }
        block.references += 1;
    }

    fn release(&mut self, id: u32) {
        let block = &mut self.blocks[id as usize];
        debug_assert!(block.references > 0, "block {id} released twice");
        block.references -= 1;
        if block.references == 0 {
            self.make_idle(id);
        }
    }

    fn make_idle(&mut self, id: u32) {
        self.clock += 1;
        self.blocks[id as usize].idle_since = self.clock;
        self.idle.insert(self.clock, id);
    }
}

#[cfg(test)]
mod tests;
