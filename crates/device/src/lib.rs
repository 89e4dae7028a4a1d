//! The device contract: what a backend must do, and all that the layers above may ask of it.
//!
//! # Life cycles
//!
//! 1. A [`Heap`] is one large reservation; [`Heap::place`] views a range of it as a [`Buffer`]. A dedicated buffer comes from
//!    [`Device::new_buffer`]. Both count as device allocations in [`Counters`]; placing does not.
//! 2. A [`Buffer`] is a cheap view (memory, offset, length). The view keeps the memory alive, not the range: whoever
//!    sub-allocates a heap reuses a range only after the last submission that used it has completed.
//! 3. An [`Encoder`] records [`Op`]s and finishes into a [`CommandBuffer`], which is submitted once ([`Queue::submit`] takes
//!    it by value).
//! 4. A [`Submission`] reports how its command buffer ended and when it ran. Before its end shows, it has released the memory
//!    that its ops used; before its point is reached, its end shows.
//!
//! # Ordering
//!
//! 1. Ops of one command buffer behave as if run in the order of recording.
//! 2. Command buffers of one queue behave as if run in the order of submission.
//! 3. Between two queues, and between a queue and the host, only a [`Timeline`] orders: a submission waits for its points
//!    before its first op and signals its own after its last.
//! 4. A command buffer that fails still signals its point, so that nobody waits for ever; the error is in its [`Submission`].
//! 5. Host access to a range ([`Buffer::read`], [`Buffer::write`]) is the caller's to order: not before the submission that
//!    writes the range has completed, not while one that uses it is in flight. One exception: a range that only ops behind an
//!    [`Encoder::wait`] read may be written until the host signals that wait's point ([`Timeline::signal`]), by any thread whose writes
//!    happen before the signal. Those ops see what was written, on memory of [`Storage::Shared`]. Such a wait holds up its own queue from
//!    there on, and nothing before it.
//!
//! # Batch invariance
//!
//! A token's activations never depend on who else is in the batch, nor on how the batch was cut into chunks: a backend reduces
//! each row in one fixed order. Switching an optimization on or off therefore cannot change an output token.
#![forbid(unsafe_code)]

mod completion;
#[cfg(feature = "conformance")]
pub mod conformance;
mod device;
mod error;
#[cfg(feature = "fake")]
pub mod fake;
mod kv;
mod memory;
mod micro;
pub mod ops;
pub mod oracle;
mod patience;
mod queue;
mod queue_kind;
mod timeline;
mod weight;

pub use completion::Completion;
pub use device::{Arithmetic, Counters, Device, DeviceInfo, Placement};
pub use error::{DeviceError, Result};
pub use kv::KvSpec;
pub use memory::{Buffer, Heap, Memory, Storage, range_within};
pub use micro::Micro;
pub use ops::Op;
pub use patience::{Patience, RunningTime};
pub use queue::{CommandBuffer, Encoder, Queue, QueueId, Status, Submission, Times};
pub use queue_kind::QueueKind;
pub use timeline::{Point, Timeline};
pub use weight::{Float, Weight, WeightFormat, WeightLayout, WeightSource, WeightSpec};
