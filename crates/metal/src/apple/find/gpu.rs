use crate::apple::heap::ALIGN;
use crate::apple::objects::Object;
use mlx_serving_device::{Arithmetic, DeviceInfo};
use objc2_metal::{MTLCreateSystemDefaultDevice, MTLDevice, MTLGPUFamily};

// `MTLCreateSystemDefaultDevice` answers nil on macOS unless this is linked.
#[cfg(target_os = "macos")]
#[link(name = "CoreGraphics", kind = "framework")]
unsafe extern "C" {}

/// The longest buffer that an op may refer to: kernels are told the length of what is bound in a u32.
const MAX_BUFFER_LEN: u64 = (1 << 32) - ALIGN;

/// The first GPUs that have matrices of a simd-group: the language has them as squares of 8, f16 into f32 among them.
const MATRIX_UNITS: MTLGPUFamily = MTLGPUFamily::Apple7;
const MATRIX_SIDE: u32 = 8;

/// The system's default GPU, if it has one.
pub(crate) fn system_default() -> Option<Object<dyn MTLDevice>> {
    MTLCreateSystemDefaultDevice()
}

/// Side of the squares that the GPU's matrix units multiply, if it has some.
pub(crate) fn matrix_side(device: &Object<dyn MTLDevice>) -> Option<u32> {
    device.supportsFamily(MATRIX_UNITS).then_some(MATRIX_SIDE)
}

/// Description of the GPU for the contract.
pub(crate) fn info(
    device: &Object<dyn MTLDevice>,
    arithmetic: Arithmetic,
    matrix_side: Option<u32>,
    residency_sets: bool,
) -> DeviceInfo {
    let families = [
        (MTLGPUFamily::Metal3, "Metal 3"),
        (MTLGPUFamily::Apple7, "Apple 7"),
        (MTLGPUFamily::Apple8, "Apple 8"),
        (MTLGPUFamily::Apple9, "Apple 9"),
    ];
    let mut features: Vec<String> = families
        .into_iter()
        .filter(|(family, _)| device.supportsFamily(*family))
        .map(|(_, name)| name.into())
        .collect();
    features.extend(matrix_side.map(|side| format!("{side}x{side} matrix units")));
    if residency_sets {
        features.push("residency sets".into());
    }
    DeviceInfo {
        backend: "metal",
        name: device.name().to_string(),
        instructions: None,
        features,
        unified_memory: device.hasUnifiedMemory(),
        memory_budget: device.recommendedMaxWorkingSetSize(),
        max_buffer_len: MAX_BUFFER_LEN.min(device.maxBufferLength() as u64),
        arithmetic,
        // Metal does not tell how many cores a GPU has.
        units: 1,
    }
}
