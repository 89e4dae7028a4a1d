//! Allocate, transfer, submit: everything that an engine asks of a device goes through three small traits. Each has a plain
//! baseline; the three optimisations stand beside them.
//!
//! | trait | baseline | optimisation |
//! | --- | --- | --- |
//! | [`Allocate`] | [`CachingAllocator`] | [`MemoryPool`] |
//! | [`Transfer`] | [`InlineTransfer`] | blit coordinator |
//! | [`Submit`] | [`SingleSubmission`] | command-buffer ring |
#![forbid(unsafe_code)]

mod allocate;
mod caching_allocator;
pub mod config;
mod frontier;
mod inline_transfer;
mod layer;
mod memory_pool;
mod single_submission;
mod stats;
mod submit;
mod sync;
mod transfer;

pub use allocate::{Allocate, Allocation, Leak, Reclaim, WEIGHTS};
pub use caching_allocator::CachingAllocator;
pub use frontier::{Frontier, Lane};
pub use inline_transfer::InlineTransfer;
pub use layer::MetalLayer;
pub use memory_pool::{MemoryPool, WholeHeap, WorkingSet};
pub use single_submission::SingleSubmission;
pub use stats::{BlitStats, DeviceStats, LayerStats, PoolStats, RingStats, Switched};
pub use submit::{InFlight, Slot, Submit};
pub use transfer::{Fill, Sink, Ticket, Transfer};
