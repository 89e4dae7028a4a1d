//! The addon behind the package `mlx-serving`: the engine as TypeScript (`*.ts` beside this file) calls it. Arguments and structured answers
//! cross as JSON, tokens as objects; an error's text is a JSON object with its code, message and argument.

pub mod bench;
mod engine;
mod environment;
mod failure;
mod generation;
mod work;

use napi_derive::napi;

/// Version of the engine.
#[napi]
pub fn version() -> &'static str {
    mlx_serving_bindings::VERSION
}

/// Says where the package has the bundled model, in a folder of models.
#[napi]
pub fn set_bundled_models(folder: String) {
    mlx_serving_runtime::set_bundled_models(folder.into());
}
