//! The fake device, unified and discrete, under the suite.

use mlx_serving_device::Device;
use mlx_serving_device::fake::{FakeDevice, FakeOptions};
use std::sync::Arc;

fn devices() -> Vec<Arc<dyn Device>> {
    let fake = |unified_memory| FakeDevice::new(FakeOptions { unified_memory, ..FakeOptions::default() });
    [true, false].map(|unified| fake(unified).expect("threads start") as Arc<dyn Device>).to_vec()
}

mlx_serving_device::conformance!(devices);
