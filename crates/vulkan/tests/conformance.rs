//! The Vulkan backend under the suite of the contract, in both modes of arithmetic, with matrix units and without, watched by the validation layer.

mod common;

use common::Watched;
use mlx_serving_device::{Arithmetic, Device};
use mlx_serving_vulkan::VulkanOptions;
use std::sync::Arc;

/// The best device of this machine; none where there is no Vulkan.
fn devices(device: Option<Watched>) -> Vec<Arc<dyn Device>> {
    device.into_iter().map(|device| Arc::new(device) as Arc<dyn Device>).collect()
}

mod exact {
    fn devices() -> Vec<super::Arc<dyn super::Device>> {
        let options = super::VulkanOptions { arithmetic: super::Arithmetic::Exact, ..Default::default() };
        super::devices(super::Watched::open(options))
    }

    mlx_serving_device::conformance!(devices);
}

mod fast {
    fn devices() -> Vec<super::Arc<dyn super::Device>> {
        super::devices(super::Watched::open(super::VulkanOptions::default()))
    }

    mlx_serving_device::conformance!(devices);
}

/// Matrix units: a software driver's are used nowhere else.
mod matrix {
    fn devices() -> Vec<super::Arc<dyn super::Device>> {
        super::devices(super::Watched::with_matrix_units())
    }

    mlx_serving_device::conformance! { devices;
        linear::every_format,
        linear::any_shape,
        linear::a_row_depends_on_itself_only,
        linear::gathered_rows_stay_within_the_input,
    }
}
