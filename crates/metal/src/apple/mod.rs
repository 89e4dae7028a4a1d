//! The backend itself.

mod device;
mod find;
mod heap;
mod objects;
mod pipelines;
mod queue;
mod record;
mod residency;
mod run;
mod timeline;

pub use device::MetalDevice;
