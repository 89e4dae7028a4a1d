//! The CPU backend under the suite of the contract: every instruction set of this machine, in both modes of arithmetic.

use mlx_serving_cpu::{CpuDevice, CpuOptions, Isa};
use mlx_serving_device::{Arithmetic, Device};
use std::sync::Arc;

/// Devices for each instruction set with three workers, which no shape divides evenly, and for the best one with a single worker.
fn devices(arithmetic: Arithmetic) -> Vec<Arc<dyn Device>> {
    let make = |isa, threads| {
        let options = CpuOptions { threads: Some(threads), arithmetic, isa: Some(isa) };
        CpuDevice::new(&options).expect("threads start") as Arc<dyn Device>
    };
    let mut devices = vec![make(Isa::best(), 1)];
    devices.extend(Isa::available().into_iter().map(|isa| make(isa, 3)));
    devices
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
