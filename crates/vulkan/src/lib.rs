//! The Vulkan backend: command buffers of Vulkan, recorded as ops come and handed to the driver as their points allow.
//!
//! From the outside in: [`VulkanDevice`] chooses a GPU (`find`) and hands out memory (`heap`), timelines and two queues (`queue`). An
//! encoder turns ops into launches of kernels (`pipelines` compiles these) and records them into command buffers (`record`). An executor
//! keeps submissions until their points allow them, gives them to the driver and ends them (`run`). Each folder uses those before it:
//! `find`, `pipelines`, `record`, `run`.

mod device;
mod error;
mod find;
mod heap;
mod pipelines;
mod queue;
mod record;
mod run;
mod testing;

pub use device::{Found, VulkanDevice, VulkanOptions};
pub use find::{DeviceKind, ValidationLog};
pub use run::KernelTime;
