use crate::config::ConfigError;
use crate::prompt::PromptError;
use mlx_serving_checkpoint::CheckpointError;
use mlx_serving_device::DeviceError;
use mlx_serving_engine::EngineError;
use mlx_serving_hub::HubError;
use mlx_serving_metal_layer::MetalLayerError;
use mlx_serving_model::ModelError;
use mlx_serving_text::{TemplateError, TextError};
use std::path::{Path, PathBuf};

/// Failure to open a model, or to answer with it.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A file that is no configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `engine.device` names no device.
    #[error("engine.device (--device) is {0:?}; it takes auto, metal, vulkan, vulkan:N or cpu")]
    UnknownDevice(String),
    /// The backend finds no device that it can use.
    #[error("no {backend} device: {reason}; `mlx-serving doctor` lists what there is")]
    NoDevice {
        /// The backend.
        backend: &'static str,
        /// The fault, and what to do.
        reason: String,
    },
    /// The processor lacks what `engine.cpu_instructions` names.
    #[error("engine.cpu_instructions (--cpu-instructions): {0}; auto takes the best")]
    NoInstructions(String),
    /// The device refused.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The bundled model is not installed.
    #[error(
        "the bundled model is not here: models/{0} is neither beside this program, nor in the folder share/mlx-serving of its prefix, nor in \
         the current folder, nor where the program was built. Name another with -m, a folder or an id such as mlx-community/Qwen2.5-0.5B-Instruct-4bit, which is downloaded, or copy the \
         folder models beside the program"
    )]
    NoBundledModel(&'static str),
    /// A path at which there is no folder.
    #[error("{}", no_folder(.0))]
    NoFolder(PathBuf),
    /// Downloaded models have no folder.
    #[error("this user has no home folder: set HF_HUB_CACHE to a folder for downloaded models")]
    NoCache,
    /// The hub, or the cache in front of it.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The checkpoint's files.
    #[error(transparent)]
    Checkpoint(CheckpointError),
    /// The tokenizer's files, or a text.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The chat template that was given in the place of the model's own.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A model and its configuration take more memory than there is.
    #[error("{model} does not fit: {reason}")]
    DoesNotFit {
        /// The model's name.
        model: String,
        /// The sizes, and the key to lower.
        reason: String,
    },
    /// Weights that could not be read to their end, as when their file was shortened meanwhile. They may be whole later.
    #[error("{reason}")]
    Weights {
        /// The model's name.
        model: String,
        /// The cause, with its file.
        reason: String,
    },
    /// The model cannot be loaded.
    #[error(transparent)]
    Model(ModelError),
    /// The engine's ways to allocate, copy and submit cannot be set up.
    #[error(transparent)]
    Layer(#[from] MetalLayerError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An input that cannot be a prompt of the model.
    #[error(transparent)]
    Prompt(#[from] PromptError),
}

impl RuntimeError {
    /// True if the request itself is at fault, not this machine or a model.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Config(_)
                | Self::UnknownDevice(_)
                | Self::Template(_)
                | Self::NoFolder(_)
                | Self::Hub(HubError::Id { .. })
        )
    }
}

fn no_folder(path: &Path) -> String {
    match path.is_file() {
        true => format!(
            "{} is a file; name the folder that has the model's config.json and safetensors files",
            path.display()
        ),
        false if path.starts_with("~") => {
            format!(
                "there is no folder {}; only a shell knows ~, and not in quotes: write the path out",
                path.display()
            )
        }
        false => format!(
            "there is no folder {}; check the path; it is relative to the current folder unless it begins with /",
            path.display()
        ),
    }
}
