//! A device whose ops are the oracle's, with settable latencies and faults, for tests of the layers above.
//!
//! A full [`crate::Device`]: heaps, two queues with a thread each, timelines, counters and timestamps of what its threads
//! really did. [`FakeControl`] changes latencies and plants faults while it runs, and hands out the log of what was asked of it.
//!
//! Latencies pass before an op takes effect, so that a missing wait shows as stale bytes. Fresh memory is filled with all ones
//! (NaN as `f32`) where that is cheap, so that reading what nobody wrote shows too.

mod control;
mod device;
mod layout;
mod log;
mod machine;
mod memory;
mod options;
mod queue;
mod run;
mod timeline;

pub use crate::QueueKind;
pub use control::FakeControl;
pub use device::FakeDevice;
pub use log::{Event, Mark};
pub use options::{FakeOptions, Fault, Latency};
pub use run::{next_allowed, scripted_token};
