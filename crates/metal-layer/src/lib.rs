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
pub mod config;
mod error;
mod frontier;
mod layer;
mod observe;
mod submit;
mod sync;
mod transfer;
mod wiring;

pub use allocate::caching::CachingAllocator;
pub use allocate::pool::{MemoryPool, WholeHeap, WorkingSet};
pub use allocate::{Allocate, Allocation, Leak, Reclaim, WEIGHTS};
pub use error::MetalLayerError;
pub use frontier::{Frontier, Track};
pub use layer::MetalLayer;
pub use observe::intervals::{Activity, Interval, Intervals};
pub use observe::metrics::LayerMetrics;
pub use observe::stats::{BlitStats, DeviceStats, LayerStats, PoolStats, RingStats, Switched};
pub use submit::ring::CommandBufferRing;
pub use submit::single::SingleSubmission;
pub use submit::{InFlight, Slot, Submit};
pub use transfer::blit::BlitCoordinator;
pub use transfer::inline::InlineTransfer;
pub use transfer::{Fill, Sink, Ticket, Transfer};
pub use wiring::Wiring;
