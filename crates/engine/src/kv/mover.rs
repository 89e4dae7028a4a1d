use crate::kv::block_pool::{BlockPool, BlockTable, Moves};
use crate::kv::spill::SpillStore;
use mlx_serving_device::{Buffer, DeviceError, Encoder, Result, Status};
use mlx_serving_metal_layer::{Ticket, Transfer};
use mlx_serving_model::KvCache;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Copies of KV blocks between the device and the spill store. A copy begins with the step that it is made for, and settles once
/// that step has completed or failed. Blocks that a late copy may still write are in quarantine: they are held, so that the pool
/// hands them out to nobody, until nothing can write them any more.
pub(crate) struct Mover {
    store: Arc<SpillStore>,
    transfer: Arc<dyn Transfer>,
    pool: BlockPool,
    /// Bytes of a block over all layers.
    block_bytes: u64,
    /// Copies that the next step comes after, whatever became of the step that they were made for.
    moving: Vec<Ticket>,
    /// Copies into blocks that have not settled, oldest first.
    restoring: VecDeque<Restoring>,
    quarantine: Vec<(Ticket, BlockTable)>,
}

/// A copy into blocks.
struct Restoring {
    /// Number of the step that it is made for.
    step: u64,
    copy: Ticket,
    blocks: Vec<u32>,
}

impl Mover {
    /// A mover of the pool's blocks to and from `store`.
    pub(crate) fn new(store: Arc<SpillStore>, transfer: Arc<dyn Transfer>, pool: BlockPool, block_bytes: u64) -> Self {
        let (moving, restoring, quarantine) = (Vec::new(), VecDeque::new(), Vec::new());
        Self { store, transfer, pool, block_bytes, moving, restoring, quarantine }
    }

    /// Begins to copy evicted blocks out and spilled ones back in; the step's ops that follow in `encoder` come after that.
    pub(crate) fn begin(&mut self, step: u64, moves: &Moves, cache: &KvCache, encoder: &mut dyn Encoder) -> Result<()> {
        self.moving.retain(|copy| copy.status() == Status::Pending);
        let block_bytes = self.block_bytes as usize;
        let at_once = (self.transfer.max_chunk() / self.block_bytes).max(1) as usize;
        let buffers = |ids: &mut dyn Iterator<Item = u32>| -> Result<Vec<Buffer>> {
            Ok(ids.map(|id| cache.block(id)).collect::<Result<Vec<_>>>()?.concat())
        };
        for chunk in moves.out.chunks(at_once) {
            let from = buffers(&mut chunk.iter().map(|(id, _)| *id))?;
            let (store, contents) = (self.store.clone(), chunk.iter().map(|(_, content)| content.clone()).collect());
            let sink = move |bytes: &[u8]| {
                store.insert(contents, bytes);
                Ok(())
            };
            match self.transfer.gather(&from, Box::new(sink)) {
                Ok(copy) => self.moving.push(copy),
                Err(error) => tracing::warn!(%error, "evicted KV blocks could not be spilled"),
            }
        }
        for chunk in moves.back.chunks(at_once) {
            let to = buffers(&mut chunk.iter().map(|(id, ..)| *id))?;
            let (store, restored) = (self.store.clone(), chunk.to_vec());
            let fill = move |bytes: &mut [u8]| {
                let outs = bytes.chunks_exact_mut(block_bytes);
                restored.iter().zip(outs).try_for_each(|((_, content, spilled), out)| {
                    spilled.read(out).inspect_err(|_| store.discard(content))
                })?;
                store.note_restored(restored.len());
                Ok(())
            };
            let copy = self.transfer.scatter(&to, Box::new(fill))?;
            self.moving.push(copy.clone());
            self.restoring.push_back(Restoring { step, copy, blocks: chunk.iter().map(|(id, ..)| *id).collect() });
        }
        self.moving.iter().try_for_each(|copy| copy.order(encoder))
    }

    /// Waits for what is restored for steps up to this one; an error if any of it was not.
    pub(crate) fn settle(&mut self, step: u64, limit: Duration) -> Result<()> {
        let mut outcome = Ok(());
        while let Some(Restoring { copy, blocks, .. }) = self.restoring.pop_front_if(|of| of.step <= step) {
            // A transfer that is late is no sign of a device that hangs: the step has completed.
            let ended = copy.wait(limit).map_err(|error| match error {
                DeviceError::Timeout { .. } => DeviceError::CommandFailed(error.to_string()),
                error => error,
            });
            outcome = outcome.and(ended);
            if copy.may_still_land() {
                self.quarantine.push((copy, self.pool.hold(blocks)));
            }
        }
        outcome.inspect_err(|error| self.store.note_lost(error))
    }

    /// Gives blocks back to the pool that nothing can write any more.
    pub(crate) fn end_quarantine(&mut self) {
        self.quarantine.retain(|(copy, _)| copy.may_still_land());
    }
}
