//! Errors as the languages show them: a code, a sentence, and the argument at fault.

use mlx_serving_engine::EngineError;
use mlx_serving_hub::HubError;
use mlx_serving_runtime::config::ValueError;
use mlx_serving_runtime::{PromptError, RegistryError, RuntimeError, Unavailable};
use std::fmt;

/// Kind of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// An argument or option that is not taken.
    InvalidParams,
    /// No such model on this machine.
    ModelNotFound,
    /// No model of that name answers now.
    ModelNotLoaded,
    /// The model could not be loaded.
    LoadError,
    /// The answer failed while it was computed.
    GenerationError,
    /// The time that the request was given is over.
    Timeout,
    /// The engine was disposed of.
    Disposed,
    /// More requests than the engine takes.
    Overloaded,
    /// A fault of this program.
    Internal,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// An error that crosses into another language.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Its kind.
    pub code: Code,
    /// A sentence: what happened, where, what to do.
    pub message: String,
    /// The argument or dotted option at fault.
    pub param: Option<String>,
    /// True if no value of that type would do.
    pub wrong_type: bool,
}

impl Error {
    /// Error for which no argument is to blame.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), param: None, wrong_type: false }
    }

    /// An argument whose value is not taken.
    pub fn value(param: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code: Code::InvalidParams, message, param: Some(param.to_owned()), wrong_type: false }
    }

    /// An argument of the wrong type.
    pub fn wrong_type(param: &str, message: impl Into<String>) -> Self {
        Self { wrong_type: true, ..Self::value(param, message) }
    }

    /// Refusal of an engine that was disposed of.
    pub(crate) fn disposed() -> Self {
        Self::new(Code::Disposed, "the engine is closed; create another")
    }
}

impl From<ValueError> for Error {
    fn from(error: ValueError) -> Self {
        let ValueError { key, message, wrong_type } = error;
        let key = if key.is_empty() { "options" } else { key.as_str() };
        Self { wrong_type, ..Self::value(key, message) }
    }
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        match error {
            EngineError::Invalid { param, .. } | EngineError::ContextLength { param, .. } => {
                Self::value(param, message)
            }
            EngineError::Overloaded { .. } => Self::new(Code::Overloaded, message),
            EngineError::Unstarted(_) => Self::new(Code::LoadError, message),
            EngineError::Stopped(reason) => {
                let message = format!("the answer ended with its engine, as when its model is unloaded: {reason}");
                Self::new(Code::GenerationError, message)
            }
            EngineError::Device(_) | EngineError::Grammar(_) | EngineError::Masks(_) | EngineError::Slow(_) => {
                Self::new(Code::GenerationError, message)
            }
        }
    }
}

impl From<PromptError> for Error {
    fn from(error: PromptError) -> Self {
        let message = error.to_string();
        match error {
            PromptError::NoTemplate { .. } => Self::value("messages", format!("{message}; give a prompt instead")),
            PromptError::Template(template) if template.is_client_error() => Self::value("messages", message),
            PromptError::Template(_) => Self::new(Code::GenerationError, message),
            PromptError::NoTools
            | PromptError::NoCalls
            | PromptError::NoStrictCalls { .. }
            | PromptError::Tool { .. }
            | PromptError::Both => Self::value("tools", message),
            PromptError::Continuation { .. } => Self::value("continue_final_message", message),
            PromptError::Structure(_) => Self::value("structure", message),
            PromptError::TooLong { .. } | PromptError::UnknownToken { .. } | PromptError::Text(_) => {
                Self::value("prompt", message)
            }
        }
    }
}

impl From<Unavailable> for Error {
    fn from(error: Unavailable) -> Self {
        let message = error.to_string();
        match error {
            Unavailable::Unnamed { models } => {
                Self::value("model", format!("name one of the models that are loaded: {}", models.join(", ")))
            }
            Unavailable::Empty => Self::new(Code::ModelNotLoaded, "no model is loaded"),
            Unavailable::Unknown { model, models } => {
                let loaded =
                    if models.is_empty() { "none is".to_owned() } else { format!("loaded: {}", models.join(", ")) };
                Self::new(Code::ModelNotLoaded, format!("model {model:?} is not loaded; {loaded}"))
            }
            Unavailable::Loading { .. }
            | Unavailable::Reloading { .. }
            | Unavailable::Unloaded { .. }
            | Unavailable::Failed { .. } => Self::new(Code::ModelNotLoaded, message),
        }
    }
}

impl From<RuntimeError> for Error {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::Engine(error) => error.into(),
            RuntimeError::Prompt(error) => error.into(),
            error @ (RuntimeError::NoFolder(_)
            | RuntimeError::NoBundledModel(_)
            | RuntimeError::Hub(HubError::Id { .. })) => {
                Self { param: Some("model".into()), ..Self::new(Code::ModelNotFound, error.to_string()) }
            }
            error @ RuntimeError::UnknownDevice(_) => Self::value("engine.device", error.to_string()),
            error => Self::new(Code::LoadError, error.to_string()),
        }
    }
}

impl From<RegistryError> for Error {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Unavailable(error) => error.into(),
            RegistryError::Open(error) => error.into(),
            RegistryError::Closed { .. } => Self::disposed(),
            error @ RegistryError::Loaded { .. } => {
                Self::value("name", format!("{error}; give another `name`, or unload it first"))
            }
        }
    }
}
