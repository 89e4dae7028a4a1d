//! What the Vulkan backend does beyond the contract.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::Watched;
use mlx_serving_device::ops::Copy;
use mlx_serving_device::{Device, Op, Storage};
use mlx_serving_vulkan::VulkanOptions;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_copy_longer_than_a_binding_is_whole() {
    let Some(device) = Watched::open(VulkanOptions::default()) else { return };
    let len = (device.info().max_buffer_len + 1_000_001).min(1 << 29);
    let from = device.new_buffer(len, Storage::Shared).unwrap();
    let to = device.new_buffer(len, Storage::Shared).unwrap();
    from.lend(&mut |bytes| bytes.iter_mut().zip(0u64..).for_each(|(byte, i)| *byte = (i * 31 >> 8) as u8)).unwrap();
    let queue = device.compute_queue();
    let mut encoder = queue.encoder().unwrap();
    encoder.record(Op::Copy(Copy { from: from.clone(), to: to.clone() })).unwrap();
    queue.submit(encoder.finish().unwrap(), &[], None).unwrap().wait(LIMIT).unwrap();
    assert!(from.to_vec::<u8>().unwrap() == to.to_vec::<u8>().unwrap());
}
