use mlx_serving_device::Arithmetic;
use std::path::PathBuf;

/// How to open a device.
#[derive(Debug, Clone, Default)]
pub struct MetalOptions {
    /// Arithmetic mode.
    pub arithmetic: Arithmetic,
    /// Leaves matrix units alone in fast arithmetic, too.
    pub without_matrix_units: bool,
    /// Folder for compiled kernels, kept from run to run.
    pub pipeline_cache: Option<PathBuf>,
    /// Multiply-adds that Metal is handed in one piece; a tenth of a second's on a small GPU without.
    pub piece_work: Option<u64>,
}
