//! The extension module `krserve_native._native`.
#![deny(unsafe_code)]

mod bench;
mod convert;
mod engine;
mod errors;
mod generation;
mod layer;
mod local;
mod mailbox;
mod wait;

use pyo3::prelude::*;
use std::path::PathBuf;

/// Native part of the packages `krserve_native` and `mlx_serving`.
#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::bench::{bench_compare, bench_throughput};
    #[pymodule_export]
    use crate::engine::Engine;
    #[pymodule_export]
    use crate::generation::{Generation, Token};
    #[pymodule_export]
    use crate::layer::blit::{BlitCoordinator, BlitCoordinatorStats, BlitDownload, BlitUpload, DeviceBuffer};
    #[pymodule_export]
    use crate::layer::configs::{BlitCoordinatorConfig, CommandBufferRingConfig, MetalMemoryPoolConfig};
    #[pymodule_export]
    use crate::layer::pool::{MetalHeap, MetalMemoryPool, MetalMemoryPoolStats};
    #[pymodule_export]
    use crate::layer::ring::{CommandBuffer, CommandBufferRing, CommandBufferRingStats};
    #[pymodule_export]
    use crate::mailbox::Mailbox;

    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", mlx_serving_bindings::VERSION)
    }

    /// Says where the package has the bundled model, in a folder of models.
    #[pyfunction]
    fn set_bundled_models(folder: PathBuf) {
        mlx_serving_runtime::set_bundled_models(folder);
    }
}
