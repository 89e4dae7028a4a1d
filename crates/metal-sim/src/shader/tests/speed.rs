use super::*;
use std::time::Instant;
fn time(name: &str, bench: &Bench, n: u32) {
    bench.run().unwrap();
    let t = Instant::now();
    for _ in 0..n {
        bench.run().unwrap();
    }
    println!("{name}: {:?} a dispatch", t.elapsed() / n);
}
#[test]
#[ignore]
fn speed() {
    let barrier = "
    @group(0) @binding(0) var<storage, read_write> y: array<f32>;
    var<workgroup> part: array<f32, 64>;
    @compute @workgroup_size(64)
    fn main_(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
        part[thread] = y[thread];
        workgroupBarrier();
        for (var n = 32u; n > 0u; n /= 2u) { if thread < n { part[thread] += part[thread + n]; } workgroupBarrier(); }
        if thread == 0u { y[group.x] = part[0]; }
    }";
    time("1000 groups of 64, 7 barriers", &Bench::new(barrier).bind_f32(0, &vec![0.5; 1000]).groups(1000), 20);
    let b256 = barrier.replace("64", "256").replace("32u", "128u");
    time(
        "1000 groups of 256, 9 barriers",
        &Bench::new(&b256).threads(256).bind_f32(0, &vec![0.5; 1000]).groups(1000),
        20,
    );
    let simd = "
    @group(0) @binding(0) var<storage, read_write> y: array<f32>;
    @compute @workgroup_size(64)
    fn main_(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
        var x = y[thread]; for (var n = 0u; n < 8u; n++) { x = subgroupAdd(x) * 0.01; } if thread == 0u { y[group.x] = x; }
    }";
    time("1000 groups of 64, 8 simd sums", &Bench::new(simd).bind_f32(0, &vec![0.5; 1000]).groups(1000), 20);
    let plain = "
    @group(0) @binding(0) var<storage, read_write> y: array<f32>;
    @compute @workgroup_size(64)
    fn main_(@builtin(global_invocation_id) at: vec3<u32>) { y[at.x % 4096u] = y[at.x % 4096u] * 0.5 + 1.0; }";
    time("1000 groups of 64, no barrier", &Bench::new(plain).bind_f32(0, &vec![0.5; 4096]).groups(1000), 20);
    time("1 group of 64, no barrier", &Bench::new(plain).bind_f32(0, &vec![0.5; 4096]).groups(1), 2000);
    time("1 group of 64, 7 barriers", &Bench::new(barrier).bind_f32(0, &vec![0.5; 1000]).groups(1), 2000);
}
