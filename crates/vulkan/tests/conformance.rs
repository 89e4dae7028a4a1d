//! The Vulkan backend under the suite of the contract, in both modes of arithmetic, with matrix units and without, watched by the validation layer.

mod common;

use common::Watched;
use mlx_serving_device::{Arithmetic, Device};
use mlx_serving_vulkan::VulkanOptions;
use std::sync::Arc;

/// The best device of this machine; none where there is no Vulkan.
fn devices(options: VulkanOptions) -> Vec<Arc<dyn Device>> {
    let device = Watched::open(options);
    device.into_iter().map(|device| Arc::new(device) as Arc<dyn Device>).collect()
}

mod exact {
    fn devices() -> Vec<super::Arc<dyn super::Device>> {
        super::devices(super::VulkanOptions { arithmetic: super::Arithmetic::Exact, ..Default::default() })
    }

    mlx_serving_device::conformance!(devices);
}

mod fast {
    fn devices() -> Vec<super::Arc<dyn super::Device>> {
        super::devices(super::VulkanOptions::default())
    }

    mlx_serving_device::conformance!(devices);
}

/// Where the device has matrix units, its other kernels, too.
mod plain {
    fn devices() -> Vec<super::Arc<dyn super::Device>> {
        super::devices(super::VulkanOptions { without_matrix_units: true, ..Default::default() })
    }

    mlx_serving_device::conformance! { devices;
        linear::every_format,
        linear::any_shape,
        linear::a_row_depends_on_itself_only,
    }
}
