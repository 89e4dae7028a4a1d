//! Models that are open on this machine, and generation with them: what every public face of the project stands on.
//!
//! A [`Runtime`] holds what models share: the configuration, the devices, one budget of memory. [`Runtime::open`] makes a [`Model`] of a
//! [`Source`]; [`Model::chat`] and [`Model::complete`] give an [`Answer`], an iterator over pieces of text that ends with a [`Finish`].
//!
//! ```
#![doc = include_str!("../examples/embed.rs")]
//! ```
//!
//! | module | does |
//! | --- | --- |
//! | [`config`] | the schema of `runtime.yaml` |
//! | `source`, [`hub()`] | finds a model's folder: bundled, named, or downloaded |
//! | [`device`], `choice` | chooses a device and opens it, once for all models |
//! | `fit`, `memory` | refuse a model that does not fit beside the others |
//! | `open` | from a folder to a running engine |
//! | `conversation`, `prompt` | from messages, texts or ids to the ids that an engine takes |
//! | `model`, `answer` | one open model, and what it answers |
//! | `generate` | what a server needs of a model; scripts implement it in tests |
//! | `registry`, `revive` | the models of a server: loaded, lost and loaded again, unloaded |
//! | [`machine`] | this machine and this process, for records |
#![forbid(unsafe_code)]

mod answer;
mod caches;
mod choice;
pub mod config;
mod conversation;
pub mod device;
mod embed;
mod error;
mod fit;
mod generate;
mod hub;
pub mod machine;
mod memory;
mod model;
mod open;
mod prompt;
mod registry;
mod revive;
mod runtime;
mod source;
mod spill;

pub use answer::{Answer, Next, Parameters, Piece};
pub use config::Config;
pub use conversation::{Conversation, Message, Role, Tool, ToolCall, ToolChoice};
pub use embed::Embedder;
pub use error::RuntimeError;
pub use generate::{Card, Events, Generate};
pub use hub::hub;
pub use mlx_serving_engine::{Finish, FinishReason, Pooling, Sampling, Usage};
pub use mlx_serving_grammar::{GrammarError, Structure};
pub use model::Model;
pub use open::{OnProgress, OpenOptions, Progress};
pub use prompt::{Input, Prepared, PromptError};
pub use registry::{Registry, RegistryError, State, Unavailable, death};
pub use revive::revive;
pub use runtime::Runtime;
pub use source::{Source, set_bundled_models};
