//! The Metal backend: one `MTLDevice`, placement heaps, a command queue for ops and one for copies, shared events as timelines.
//!
//! From the outside in, all in `apple`: `MetalDevice` takes the system's GPU (`find`) and hands out memory (`heap`, `residency`), timelines
//! (`timeline`) and two queues (`queue`). An encoder turns ops into launches of kernels (`pipelines` compiles these) and records them as
//! steps (`record`). On submission these are written into a single-use command buffer, with barriers where the kernels crate's `Hazards`
//! say so, which is committed when its queue has room and retired by its completion handler (`run`). Each folder uses those before it:
//! `find`, `pipelines`, `record`, `run`.
//!
//! Systems other than Apple's have no device, except where the feature `simulated` builds the backend for the simulator.
//!
//! # Ordering
//!
//! Memory is hazard-untracked, since a tracked heap serializes everything in it. Within an encoder barriers order dispatches, a
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
//! kernels read weights in a layout of their own. Weights are packed from what was read of the file straight into shared memory
//! (`Memory::lend`): one copy, which is the packing.

#[cfg(any(target_vendor = "apple", feature = "simulated"))]
mod apple;
mod options;

#[cfg(any(target_vendor = "apple", feature = "simulated"))]
pub use apple::MetalDevice;
pub use options::MetalOptions;

use mlx_serving_device::{Device, Result};
use std::sync::Arc;

/// True if this system has a Metal device.
pub fn available() -> bool {
    #[cfg(any(target_vendor = "apple", feature = "simulated"))]
    return MetalDevice::available();
    #[cfg(not(any(target_vendor = "apple", feature = "simulated")))]
    return false;
}

/// Opens the system's default device, and begins to compile its kernels in the background.
///
/// # Errors
/// [`mlx_serving_device::DeviceError::Unsupported`] where there is none; what Metal refuses otherwise.
pub fn open(options: &MetalOptions) -> Result<Arc<dyn Device>> {
    #[cfg(any(target_vendor = "apple", feature = "simulated"))]
    return MetalDevice::open(options).map(|device| {
        device.warm();
        device as Arc<dyn Device>
    });
    #[cfg(not(any(target_vendor = "apple", feature = "simulated")))]
    {
        let _ = options;
        let message = "this system has no Metal; use --device auto, vulkan or cpu";
        Err(mlx_serving_device::DeviceError::Unsupported(message.into()))
    }
}
