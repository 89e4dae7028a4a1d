//! Allocate, transfer, submit: everything that an engine asks of a device goes through three small traits. Each has a plain
//! baseline; the three optimizations stand beside them.
//!
//! | trait | baseline | optimization |
//! | --- | --- | --- |
//! | [`Allocate`] | [`CachingAllocator`] | [`MemoryPool`] |
//! | [`Transfer`] | [`InlineTransfer`] | [`BlitCoordinator`] |
//! | [`Submit`] | [`SingleSubmission`] | [`CommandBufferRing`] |
#![forbid(unsafe_code)]

mod allocate;
mod blit_coordinator;
mod blit_worker;
mod caching_allocator;
mod command_buffer_ring;
pub mod config;
mod error;
mod frontier;
mod inline_transfer;
mod layer;
mod memory_pool;
mod metrics;
mod overlap;
mod single_submission;
mod staging;
mod stats;
mod submit;
mod sync;
mod transfer;
mod utilization;

pub use allocate::{Allocate, Allocation, Leak, Reclaim, WEIGHTS};
pub use blit_coordinator::BlitCoordinator;
pub use caching_allocator::CachingAllocator;
pub use command_buffer_ring::CommandBufferRing;
pub use error::MetalLayerError;
pub use frontier::{Frontier, Lane};
pub use inline_transfer::InlineTransfer;
pub use layer::MetalLayer;
pub use memory_pool::{MemoryPool, WholeHeap, WorkingSet};
pub use metrics::LayerMetrics;
pub use single_submission::SingleSubmission;
pub use stats::{BlitStats, DeviceStats, LayerStats, PoolStats, RingStats, Switched};
pub use submit::{InFlight, Slot, Submit};
pub use transfer::{Fill, Sink, Ticket, Transfer};
