//! The Metal backend under the suite of the contract, on the simulated device: unified and discrete, in both modes of arithmetic,
//! with matrix units and without.
extern crate metal_sim;

use metal_sim::faults;
use mlx_serving_device::{Arithmetic, Device};
use mlx_serving_metal::{MetalDevice, MetalOptions};
use std::sync::Arc;

/// The memory of the simulated device is a setting of the process, so that each case has a process of its own for each of them.
fn device(options: MetalOptions, unified: bool) -> Vec<Arc<dyn Device>> {
    faults::set_unified_memory(unified);
    faults::set_seed(7);
    vec![MetalDevice::open(&options).expect("the simulator has a device")]
}

mod exact {
    fn devices() -> Vec<super::Arc<dyn super::Device>> {
        super::device(super::MetalOptions { arithmetic: super::Arithmetic::Exact, ..Default::default() }, true)
    }

    mlx_serving_device::conformance!(devices);
}

mod fast {
    fn devices() -> Vec<super::Arc<dyn super::Device>> {
        super::device(super::MetalOptions::default(), true)
    }

    mlx_serving_device::conformance!(devices);
}

mod plain {
    fn devices() -> Vec<super::Arc<dyn super::Device>> {
        super::device(super::MetalOptions { matrix_side: Some(0), ..Default::default() }, true)
    }

    mlx_serving_device::conformance! { devices;
        linear::every_format,
        linear::any_shape,
        linear::a_row_depends_on_itself_only,
    }
}

/// Squares that Vulkan's devices have.
mod squares_of_16 {
    fn devices() -> Vec<super::Arc<dyn super::Device>> {
        let devices = super::device(super::MetalOptions { matrix_side: Some(16), ..Default::default() }, true);
        let features = &devices[0].info().features;
        assert!(features.iter().any(|feature| feature == "16x16 matrix units"), "{features:?}");
        devices
    }

    mlx_serving_device::conformance! { devices;
        linear::every_format,
        linear::any_shape,
        linear::a_row_depends_on_itself_only,
    }
}

mod discrete {
    fn devices() -> Vec<super::Arc<dyn super::Device>> {
        super::device(super::MetalOptions::default(), false)
    }

    mlx_serving_device::conformance! { devices;
        memory::heaps_place_what_fits_and_is_aligned,
        memory::views_keep_their_memory_and_share_its_bytes,
        memory::private_memory_is_reached_through_either_queue,
        memory::touching_keeps_the_contents,
        memory::counters_follow_allocations,
        memory::too_much_is_refused,
        order::ops_and_command_buffers_run_in_order,
        order::queues_wait_for_each_other,
    }
}
