//! The extension module `krserve_native`.

use pyo3::prelude::*;

/// The engine of the package `mlx_serving`.
#[pymodule]
mod _native {
    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", mlx_serving_bindings::VERSION)
    }
}
