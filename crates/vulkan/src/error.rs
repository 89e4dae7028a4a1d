use ash::vk;
use mlx_serving_device::DeviceError;

/// The error of a Vulkan call that is not about memory: what was asked, and the driver's answer.
pub(crate) fn driver(what: &str, result: vk::Result) -> DeviceError {
    match result {
        vk::Result::ERROR_DEVICE_LOST => DeviceError::Lost(format!("the driver lost the device ({what})")),
        vk::Result::ERROR_OUT_OF_HOST_MEMORY | vk::Result::ERROR_OUT_OF_DEVICE_MEMORY => DeviceError::OutOfMemory {
            requested: 0,
            what: "the driver's own objects",
            detail: format!("{what}: {result}"),
        },
        _ => DeviceError::Unsupported(format!("the Vulkan driver refused {what}: {result}; update the driver")),
    }
}
