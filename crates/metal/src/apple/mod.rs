//! The backend itself.

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
mod timeline;

pub use device::MetalDevice;
