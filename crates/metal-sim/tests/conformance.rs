//! The Metal backend under the suite of the contract, on the simulated device: unified and discrete, in both modes of arithmetic.
extern crate metal_sim;

use metal_sim::faults;
use mlx_serving_device::{Arithmetic, Device};
use mlx_serving_metal::{MetalDevice, MetalOptions};
use std::sync::Arc;

/// The memory of the simulated device is a setting of the process, so that each case has a process of its own for each of them.
fn device(arithmetic: Arithmetic, unified: bool) -> Vec<Arc<dyn Device>> {
    faults::set_unified_memory(unified);
    faults::set_seed(7);
    let options = MetalOptions { arithmetic, ..MetalOptions::default() };
    vec![MetalDevice::open(&options).expect("the simulator has a device")]
}

mod exact {
    fn devices() -> Vec<super::Arc<dyn super::Device>> {
        super::device(super::Arithmetic::Exact, true)
    }

    mlx_serving_device::conformance!(devices);
}

mod fast {
    fn devices() -> Vec<super::Arc<dyn super::Device>> {
        super::device(super::Arithmetic::Fast, true)
    }

    mlx_serving_device::conformance!(devices);
}

mod discrete {
    fn devices() -> Vec<super::Arc<dyn super::Device>> {
        super::device(super::Arithmetic::Fast, false)
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
