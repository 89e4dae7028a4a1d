// What every kernel has: immediates that begin with a head, and the fault word.
//
// head.base holds, for each binding, how many 4-byte words of its range come before the tensor (ranges begin at multiples of
// the device's alignment, tensors at multiples of 4 bytes): one byte a binding.
// A kernel that finds an input that leads outside of its buffers raises a fault (raise.wgsl); kernels after it do nothing.
struct Head {
    base: vec4<u32>,
    op: u32,
}

fn base(head: Head, binding: u32) -> u32 {
    return (head.base[binding >> 2u] >> ((binding & 3u) * 8u)) & 255u;
}
