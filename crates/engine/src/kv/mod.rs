//! The KV cache's blocks: who holds them, what they hold, and the copies between the device and the spill store.

pub(crate) mod block_pool;
pub(crate) mod mover;
pub(crate) mod prefix;
pub(crate) mod spill;
pub(crate) mod spill_file;
