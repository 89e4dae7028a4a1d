use ash::vk::{self, Handle};
use mlx_serving_kernels::{Access, Use};

/// Bytes that a launch or a copy touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Touch {
    pub(super) buffer: vk::Buffer,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) access: Access,
}

impl From<&Touch> for Use {
    fn from(touch: &Touch) -> Self {
        // Handles of living buffers differ; 64 bits, as an address here.
        Use { memory: touch.buffer.as_raw() as usize, range: touch.start..touch.end, access: touch.access }
    }
}
