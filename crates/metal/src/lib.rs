//! The Metal backend: one `MTLDevice`, placement heaps, a command queue for ops and one for copies, shared events as timelines.
//!
//! From the outside in: `MetalDevice` hands out memory (`heap`), timelines and two queues (`queue`). An encoder (`encoder`) turns
//! ops into launches of the kernels crate; on submission a `lane` writes them into a single-use command buffer (`pass`, with
//! barriers where the kernels crate's `Hazards` say so) and commits it; its completion handler retires it (`flights`).
//!
//! Empty on systems other than Apple's, except where `cfg(metal_sim)` builds it for the simulator.
//!
//! # Ordering
//!
//! All memory is hazard-untracked, since a tracked heap serialises everything in it. Within an encoder barriers order dispatches, a
//! fence orders the encoders of a queue, and shared events order queues. The device signals a timeline's event itself, so that one
//! queue waits for the other without the host; the value that the host sees is another one, raised only when a submission has
//! been retired (see `timeline`).
//!
//! # Residency
//!
//! Residency sets keep all memory resident where the system has them (macOS 15). Elsewhere Metal makes resident what an encoder binds,
//! and nothing is reached by any other way than a binding, so neither `useHeap` nor `useResource` is needed.
//!
//! # Weights
//!
//! `newBufferWithBytesNoCopy` is not used: it wants whole pages at page boundaries, where tensors of a checkpoint do not lie, and
//! kernels read weights in a layout of their own. Weights are packed from the mapped file straight into shared memory
//! (`Memory::lend`): one copy, which is the packing.
#![cfg(any(target_vendor = "apple", metal_sim))]

mod clock;
mod device;
mod encoder;
mod flights;
mod heap;
mod lane;
mod objects;
mod pass;
mod pipelines;
mod queue;
mod residency;
mod scratch;
mod submission;
mod timeline;

pub use device::{MetalDevice, MetalOptions};
