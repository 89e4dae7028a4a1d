//! The addon behind the package `mlx-serving`.

use napi_derive::napi;

/// Version of the engine.
#[napi]
pub fn version() -> &'static str {
    mlx_serving_bindings::VERSION
}
