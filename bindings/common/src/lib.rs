//! The engine in process, as the bindings for other languages need it: models by name, answers that are polled, errors with codes.
//!
//! Arguments and options are JSON values, so that every language is held to the same checks and gets the same sentences. Numbers must be
//! finite before they become one: `serde_json` has no other.
//!
//! | module | does |
//! | --- | --- |
//! | `engine` | models by name, over `runtime` |
//! | `ask`, `args` | arguments of a call into a request, or an error that names one |
//! | `generation` | one answer, read by polling or by waiting |
//! | `mailbox` | wakes an event loop once for all its answers |
//! | `prompts` | the thread that encodes long prompts |
//! | `fork` | keeps a forked child from what only its parent can use |
//! | [`bench`](mod@bench) | the engine's own measurements, for benchmark programs |
//! | `error`, `log` | codes and sentences; warnings on standard error |
#![forbid(unsafe_code)]

mod args;
mod ask;
pub mod bench;
mod engine;
mod error;
mod fork;
mod generation;
mod log;
mod mailbox;
mod prompts;

pub use engine::{Engine, panic_message};
pub use error::{Code, Error};
pub use generation::{Generation, Next, Reader, Summary, Taken, Token};
pub use log::start_default as start_log;
pub use mailbox::Mailbox;
pub use mlx_serving_runtime::{OnProgress, Progress};

/// Version of the engine.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
