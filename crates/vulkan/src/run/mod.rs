//! Running submissions: they are held until their points allow them, handed to the driver, and ended as the device finishes them.

mod clock;
mod counter;
mod dispatcher;
mod executor;
mod flight;
mod handover;
mod profile;
mod schedule;
mod submission;
mod timeline;

pub use profile::KernelTime;

pub(crate) use executor::Executor;
pub(crate) use schedule::Mark;
pub(crate) use submission::VulkanSubmission;
pub(crate) use timeline::VulkanTimeline;
