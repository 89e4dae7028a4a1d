//! Device memory: the contract of an allocator, the plain one that caches buffers, and the pool of heaps. Memory that is released is
//! reused only once everything submitted by then has completed.

pub(crate) mod caching;
pub(crate) mod pool;

use crate::observe::stats::PoolStats;
use mlx_serving_device::{Buffer, Result, Storage};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// Tag of a model's weights, for which an allocator may reserve memory of their own.
pub const WEIGHTS: &str = "weights";

/// Hands out device memory.
pub trait Allocate: fmt::Debug + Send + Sync {
    /// `len` bytes (at least 1) for `tag`; their content is undefined.
    fn allocate(&self, len: u64, storage: Storage, tag: &'static str) -> Result<Allocation>;
    /// Counters.
    fn stats(&self) -> PoolStats;
    /// Allocations that are not yet released, oldest first.
    fn leaks(&self) -> Vec<Leak>;
    /// Releases memory that is not in use to the device.
    fn trim(&self);
    /// Says that about `bytes` will be allocated for [`WEIGHTS`], so that they can be taken from the device in few pieces.
    fn expect_weights(&self, _bytes: u64) {}
}

/// Reclaims ranges that are released. Such a range may still be used by what was submitted before.
pub trait Reclaim: fmt::Debug + Send + Sync {
    /// Reclaims the range that `id` names: its owner has released it.
    fn reclaim(&self, id: u64);
}

/// An allocation still held.
#[derive(Debug, Clone, PartialEq)]
pub struct Leak {
    /// Purpose of the allocation.
    pub tag: &'static str,
    /// Bytes asked for.
    pub bytes: u64,
    /// Time since it was made.
    pub age: Duration,
}

/// Device memory with one owner; dropping it releases the range, to be reused once everything submitted so far has completed.
#[derive(Debug)]
pub struct Allocation {
    buffer: Buffer,
    id: u64,
    owner: Arc<dyn Reclaim>,
}

impl Allocation {
    /// Makes the allocation of a range that `owner` knows as `id`; for allocators.
    pub fn new(buffer: Buffer, id: u64, owner: Arc<dyn Reclaim>) -> Self {
        Self { buffer, id, owner }
    }
}

impl Deref for Allocation {
    type Target = Buffer;
    fn deref(&self) -> &Buffer {
        &self.buffer
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        self.owner.reclaim(self.id);
    }
}
