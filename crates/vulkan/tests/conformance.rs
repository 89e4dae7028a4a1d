//! The Vulkan backend under the suite of the contract, in both modes of arithmetic, watched by the validation layer.

mod common;

use common::Watched;
use mlx_serving_device::{Arithmetic, Device};
use mlx_serving_vulkan::VulkanOptions;
use std::sync::Arc;

/// The best device of this machine; none where there is no Vulkan.
fn devices(arithmetic: Arithmetic) -> Vec<Arc<dyn Device>> {
    let device = Watched::open(VulkanOptions { arithmetic, ..VulkanOptions::default() });
    device.into_iter().map(|device| Arc::new(device) as Arc<dyn Device>).collect()
}

mod exact {
    fn devices() -> Vec<super::Arc<dyn super::Device>> {
        super::devices(super::Arithmetic::Exact)
    }

    mlx_serving_device::conformance!(devices);
}

mod fast {
    fn devices() -> Vec<super::Arc<dyn super::Device>> {
        super::devices(super::Arithmetic::Fast)
    }

    mlx_serving_device::conformance!(devices);
}
