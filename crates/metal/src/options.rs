use mlx_serving_device::Arithmetic;
use std::path::PathBuf;

/// Options for opening a device.
#[derive(Debug, Clone, Default)]
pub struct MetalOptions {
    /// Arithmetic mode.
    pub arithmetic: Arithmetic,
    /// Side of the squares that matrix units multiply in fast arithmetic, 0 for none; 8 without, if the device has units. Metal has no
    /// others, the simulator has 16.
    pub matrix_side: Option<u32>,
    /// Folder for compiled kernels, kept from run to run.
    pub pipeline_cache: Option<PathBuf>,
    /// Multiply-adds that Metal is handed in one piece; a tenth of a second's on a small GPU without.
    pub piece_work: Option<u64>,
}
