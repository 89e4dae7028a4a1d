use crate::apple::heap::{ALIGN, Allocator, MetalMemory};
use mlx_serving_device::{Buffer, Result, Storage};
use std::sync::{Arc, Mutex, PoisonError};

/// Memory that lives until an op's last launch. Ops of a queue run in order, so that every op is given the same bytes.
pub(crate) struct Scratch {
    allocator: Arc<Allocator>,
    /// The largest piece so far; earlier ones live on in the launches that use them.
    piece: Mutex<Option<Arc<MetalMemory>>>,
}

/// The least piece, bytes.
const PIECE: u64 = 1 << 20;

impl Scratch {
    pub(crate) fn new(allocator: Arc<Allocator>) -> Self {
        Self { allocator, piece: Mutex::default() }
    }

    /// Lowers one op: `f` may ask for pieces, each its own.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut dyn FnMut(u64) -> Result<Buffer>) -> Result<T>) -> Result<T> {
        let mut piece = self.piece.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = 0;
        f(&mut |len| {
            let room = piece.as_deref().map_or(0, mlx_serving_device::Memory::len);
            if at + len > room {
                let size = (2 * room).max(len.next_power_of_two()).max(PIECE);
                *piece = Some(self.allocator.internal(size, Storage::Private, "scratch")?);
                at = 0;
            }
            let start = at;
            at = (at + len).next_multiple_of(ALIGN);
            let whole = piece.clone().map(|memory| Buffer::whole(memory));
            whole.expect("made above if there was none").slice(start..start + len)
        })
    }
}
