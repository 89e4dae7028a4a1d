//! Finding a GPU: the loader, a survey of what its devices offer, the choice of one, and opening it.

mod gpu;
mod instance;
mod matrix;
mod messages;
mod select;
mod survey;

pub use messages::ValidationLog;
pub use select::DeviceKind;

pub(crate) use gpu::Gpu;
pub(crate) use instance::{Instance, no_driver, show_version};
pub(crate) use select::IMMEDIATES;
pub(crate) use survey::Survey;
