use crate::simd::Isa;
use mlx_serving_device::Arithmetic;

/// Settings by which an op becomes a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lowering {
    pub(crate) isa: Isa,
    pub(crate) arithmetic: Arithmetic,
    pub(crate) workers: usize,
}
