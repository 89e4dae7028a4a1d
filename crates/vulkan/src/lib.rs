//! The Vulkan backend: command buffers of Vulkan, recorded as ops come and handed to the driver as their points allow.
//!
//! From the outside in: [`VulkanDevice`] chooses a GPU (`instance`, `survey`, `matrix`, `select`, `gpu`) and hands out memory (`heap`),
//! timelines and two queues (`queue`). An `encoder` turns ops into launches of kernels and records them (`record`,
//! `pipeline`, `warm`) into command buffers of a `bundle`, which is used again. The `executor` keeps submissions until their
//! points allow them (`schedule`, `counter`), gives them to the driver (`handover`) and ends them (`flight`, `clock`, `profile`).

mod bundle;
mod cache_file;
mod clock;
mod counter;
mod device;
mod encoder;
mod error;
mod executor;
mod flight;
mod gpu;
mod handover;
mod heap;
mod instance;
mod matrix;
mod messages;
mod pipeline;
mod profile;
mod queue;
mod record;
mod schedule;
mod select;
mod submission;
mod survey;
mod testing;
mod timeline;
mod touch;
mod warm;

pub use device::{Found, VulkanDevice, VulkanOptions};
pub use messages::ValidationLog;
pub use profile::KernelTime;
pub use select::DeviceKind;
