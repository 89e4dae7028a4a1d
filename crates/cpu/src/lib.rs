//! The CPU backend: command buffers run by a pool of workers that walk through the ops together, with a barrier after each.
//!
//! From the outside in: [`CpuDevice`] hands out memory (`heap`, `mapping`), timelines and two queues (`queue`); an encoder turns
//! each op into a step (`ops`); the queue's thread runs steps on its pool (`pool`, `barrier`, `share`); steps compute with
//! `kernels`, which work on slices and know nothing of threads.

mod barrier;
mod device;
mod encoder;
mod heap;
mod kernels;
mod machine;
mod mapping;
mod ops;
mod pool;
mod queue;
mod scratch;
mod share;
mod simd;
mod sync;
mod timeline;
mod view;

pub use device::{CpuDevice, CpuOptions};
pub use machine::{HostMemory, host_memory};
pub use simd::Isa;
