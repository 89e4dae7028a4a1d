//! What every Vulkan and Metal device has, and no kernel may exceed.

use mlx_serving_kernels::Kernel;

#[test]
fn kernels_stay_within_what_every_device_has() {
    assert!(!Kernel::all().is_empty());
    for kernel in Kernel::all() {
        let memory: u32 = kernel.workgroup_memory.iter().map(|bytes| bytes.next_multiple_of(16)).sum();
        assert!(memory <= 16 << 10, "{}: {memory} bytes of workgroup memory", kernel.name);
        let invocations: u32 = kernel.workgroup.iter().product();
        assert!(invocations <= 256, "{}: {invocations} invocations", kernel.name);
        assert!(kernel.bindings.len() <= 16, "{}: {} bindings", kernel.name, kernel.bindings.len());
    }
}
