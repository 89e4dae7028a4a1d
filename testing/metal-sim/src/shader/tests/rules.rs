//! Tests that break every strict rule on purpose.

use super::{Bench, IMMEDIATES, SIZES};

/// A kernel of 64 threads over `y` and a workgroup array `tile`, with this body.
fn kernel(body: &str) -> Bench {
    Bench::new(&format!(
        "@group(0) @binding(3) var<storage, read_write> y: array<u32>;
        var<workgroup> tile: array<u32, 64>;
        @compute @workgroup_size(64)
        fn main_(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {{ {body} }}"
    ))
    .bind(3, &[0; 64])
}

fn error(bench: &Bench, parts: &[&str]) {
    let error = bench.run().unwrap_err();
    for part in ["kernel main_"].iter().chain(parts) {
        assert!(error.contains(part), "`{part}` is missing in: {error}");
    }
}

// naga refuses divergence that it can see, so these kernels are MSL.
fn divergent(body: &str) -> Bench {
    let msl = format!(
        "#include <metal_stdlib>\nusing namespace metal;\nkernel void main_(device uint* y [[buffer(3)]], \
         uint t [[thread_index_in_threadgroup]]) {{\n{body}\n}}"
    );
    Bench::of_msl(&msl, "main_").bind(3, &[0; 64])
}

#[test]
fn a_barrier_that_some_threads_miss_is_named_with_them() {
    let bench = divergent("if (t != 37) threadgroup_barrier(mem_flags::mem_none);");
    error(&bench, &["thread [37, 0, 0] (lane 5 of simd-group 1)", "has ended", "threadgroup_barrier (kernel.metal:4:"]);
    // What waited is gone: the same stage serves the next dispatch.
    assert_eq!(divergent("threadgroup_barrier(mem_flags::mem_none); y[t] = t;").words(3)[63], 63);
}

#[test]
fn threads_at_two_barriers_diverge() {
    let bench = divergent(
        "if (t < 32) threadgroup_barrier(mem_flags::mem_none);\nelse threadgroup_barrier(mem_flags::mem_none);",
    );
    error(&bench, &["threads diverge", "kernel.metal:4:", "kernel.metal:5:"]);
}

#[test]
fn a_simd_operation_that_a_lane_misses_is_named_with_it() {
    let bench = divergent("uint v = 0; if (t % 32 != 9) v = simd_sum(t);\ny[t] = v;");
    error(&bench, &["simd_sum (kernel.metal:4", "(lane 9 of simd-group", "has ended"]);
}

#[test]
fn a_lane_at_a_barrier_does_not_meet_one_at_a_simd_operation() {
    let bench = divergent("if (t == 3) threadgroup_barrier(mem_flags::mem_none);\nelse y[t] = simd_max(t);");
    error(&bench, &["threads diverge", "simd_max (kernel.metal:5", "threadgroup_barrier (kernel.metal:4"]);
}

#[test]
fn simd_groups_may_differ_in_simd_operations() {
    let bench = divergent("y[t] = t < 32 ? simd_sum(1u) : simd_max(t);");
    assert_eq!((bench.words(3)[0], bench.words(3)[63]), (32, 63));
}

#[test]
fn a_store_past_a_buffers_end_is_named_with_thread_and_buffer() {
    error(&kernel("y[thread + 4u] = 1u;"), &["writes at", "0 bytes past the end of buffer index 3, `y`, of 256 bytes"]);
    error(
        &kernel("if group.x == 1u && thread == 2u { y[100000u] = 1u; }").groups(3),
        &["thread [2, 0, 0]", "of threadgroup [1, 0, 0]", "399744 bytes past the end of buffer index 3"],
    );
    // With fibers as well.
    error(&kernel("workgroupBarrier(); y[thread + 9u] = 1u;"), &["past the end of buffer index 3, `y`"]);
    assert_eq!(kernel("workgroupBarrier(); y[thread] = 5u;").words(3), [5; 64]);
}

#[test]
fn one_bad_threadgroup_of_many_ends_the_dispatch() {
    let body = "var x = f32(group.x); for (var i = 0u; i < 2000u; i++) { x = fma(x, 0.5, 1.0); }
        if group.x == 700u { y[90000u + u32(x)] = 1u; } workgroupBarrier(); y[thread] = 3u + u32(x) / 5u;";
    error(&kernel(body).groups(1000), &["of threadgroup [700, 0, 0]", "writes at", "buffer index 3, `y`"]);
    assert_eq!(kernel(body).groups(600).words(3), [3; 64]);
}

#[test]
fn a_load_past_the_end_is_told_from_a_store() {
    error(&kernel("y[thread] = y[thread * 100000u];"), &["reads at", "past the end of buffer index 3"]);
}

#[test]
fn a_store_before_a_buffers_start_is_named() {
    // Into the page before the 32 KiB at whose end `y` lies: what is before that page is somebody's.
    let bench = divergent("y[(long)t - 8640] = 1;");
    error(&bench, &["bytes before the start of buffer index 3, `y`"]);
}

#[test]
fn threadgroup_memory_ends_where_it_ends() {
    error(
        &kernel("tile[thread * 2u] = 1u; y[thread] = tile[thread];"),
        &["writes at", "past the end of threadgroup memory 0 of 256 bytes"],
    );
}

#[test]
fn threadgroup_memory_is_poisoned_for_each_threadgroup() {
    let bench = kernel("y[thread] = tile[thread]; workgroupBarrier(); tile[thread] = 7u;").groups(2);
    assert_eq!(bench.words(3), [0xA5A5A5A5; 64]);
}

#[test]
fn a_missing_barrier_shows() {
    let passed_on = |between: &str, seed| {
        kernel(&format!("tile[thread] = thread; {between} y[thread] = tile[thread ^ 33u];")).seed(seed).words(3)
    };
    let expected: Vec<u32> = (0..64).map(|thread| thread ^ 33).collect();
    for seed in 0..8 {
        assert_eq!(passed_on("workgroupBarrier();", seed), expected);
        assert!(passed_on("", seed).contains(&0xA5A5A5A5), "seed {seed}");
    }
}

#[test]
fn a_stack_that_overflows_is_a_fault() {
    let msl = "#include <metal_stdlib>\nvoid deep(device uint* y, uint n) { volatile uint room[64]; room[n % 64] = n; \
        if (n) deep(y, n - 1); y[0] += room[n % 64]; }\n\
        kernel void main_(device uint* y [[buffer(0)]]) { deep(y, 1u << 20); }";
    error(&Bench::of_msl(msl, "main_").threads(1).bind(0, &[0]), &["thread [0, 0, 0]", "writes at"]);
}

#[test]
fn an_integer_division_by_zero_is_a_fault() {
    let msl = "#include <metal_stdlib>\nkernel void main_(device uint* y [[buffer(0)]]) { y[0] = 7 / y[0]; }";
    error(&Bench::of_msl(msl, "main_").threads(1).bind(0, &[0]), &["divides an integer by zero"]);
}

#[test]
fn what_is_bound_must_serve_the_kernel() {
    let mut bench = kernel("y[thread] = 1u;");
    bench.buffers[3] = None;
    error(&bench, &["nothing is bound at buffer index 3, `y`"]);

    let wide = "@group(0) @binding(0) var<storage, read_write> y: array<vec4<u32>>;
        @compute @workgroup_size(1) fn main_() { y[0] = vec4<u32>(1u); }";
    error(&Bench::new(wide).threads(1).bind(0, &[0; 3]), &["12 bytes are bound at buffer index 0, `y` needs 16"]);
    let mut bench = Bench::new(wide).threads(1).bind(0, &[0; 8]);
    bench.buffers[0] = bench.buffers[0].map(|(address, len)| (address.wrapping_add(4), len - 4));
    error(&bench, &["buffer index 0, `y`, starts at", "no multiple of 16"]);

    let constants = "struct P { a: u32, b: u32 } var<immediate> p: P;
        @group(0) @binding(0) var<storage, read_write> y: array<u32>;
        @compute @workgroup_size(1) fn main_() { y[0] = p.a + p.b; }";
    let bench = Bench::new(constants).threads(1).bind(0, &[0]);
    error(&bench, &["nothing is bound at buffer index 10"]);
    error(&bench.bind(IMMEDIATES, &[1]), &["4 bytes are bound at buffer index 10", "needs 8"]);
}

#[test]
fn threadgroup_memory_must_have_been_set() {
    let mut bench = kernel("tile[thread] = 1u; y[thread] = tile[thread];");
    bench.threadgroup = vec![240];
    error(&bench, &["240 bytes of threadgroup memory at index 0, which needs 256"]);
    bench.threadgroup.clear();
    error(&bench, &["0 bytes of threadgroup memory at index 0"]);
    bench.threadgroup = vec![256, 32 << 10];
    error(&bench, &["33024 bytes of threadgroup memory; there are 32768"]);
}

#[test]
fn a_threadgroup_has_a_size_that_the_kernel_allows() {
    error(&kernel("y[thread] = 1u;").threads(65), &["[65, 1, 1] threads a threadgroup; it may have 1 to 64"]);
    error(&kernel("y[thread] = 1u;").threads(0), &["it may have 1 to 64"]);
    let mut bench = divergent("y[t] = 1;").threads(1025);
    error(&bench, &["it may have 1 to 1024"]);
    bench.threads = [u32::MAX; 3];
    error(&bench, &["it may have 1 to 1024"]);
    bench.threads = [1, 1, 1];
    bench.groups = [u32::MAX; 3];
    error(&bench, &["more than 2^32"]);
    bench.groups = [5, 0, 5];
    bench.run().unwrap();
}

#[test]
fn arguments_say_index_access_and_size() {
    use crate::shader::{Access, Argument};
    let bench = Bench::new(
        "struct P { a: vec3<f32>, b: u32 } var<immediate> p: P;
        @group(0) @binding(4) var<storage, read> x: array<vec2<u32>>;
        @group(0) @binding(2) var<storage, read_write> y: array<u32>;
        var<workgroup> tile: array<vec3<f32>, 5>;
        @compute @workgroup_size(8) fn main_() {
            tile[1] = p.a; workgroupBarrier(); y[0] = x[p.b].x + u32(tile[1].x) + arrayLength(&y); }",
    );
    let buffer = |index: u8, access, name: &str, min_len| Argument::Buffer {
        index: index.into(),
        access,
        name: name.into(),
        min_len,
    };
    let mut arguments = bench.function.arguments().to_vec();
    arguments.sort_by_key(|a| format!("{a:?}"));
    let mut expected = vec![
        buffer(4, Access::Read, "x", 8),
        buffer(2, Access::Write, "y", 4),
        buffer(IMMEDIATES, Access::Read, "p", 16),
        buffer(SIZES, Access::Read, "_buffer_sizes", 8),
        Argument::Threadgroup { index: 0, min_len: 80 },
    ];
    expected.sort_by_key(|a| format!("{a:?}"));
    assert_eq!(arguments, expected);
    assert_eq!((bench.function.name(), bench.function.max_threads()), ("main_", 8));
}

#[test]
fn text_that_is_no_msl_is_refused() {
    let error = |msl: &str| crate::shader::Library::compile(msl).unwrap_err();
    assert!(error("float f;").contains("no kernel"));
    assert!(error("kernel void f(device float& x) {}").contains("has no attribute"));
    let broken = error("#include <metal_stdlib>\nkernel void f() {\n  float x = ;\n}");
    assert!(broken.contains("kernel.metal:3"), "{broken}");
}
