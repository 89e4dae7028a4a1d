//! Kernels with barriers, shaped like the product's.

use super::{Bench, IMMEDIATES, noise};

const MATVEC: &str = "
    struct Shape { rows: u32, k: u32 }
    var<immediate> shape: Shape;
    @group(0) @binding(0) var<storage, read> w: array<vec4<u32>>;
    @group(0) @binding(1) var<storage, read> scales: array<u32>;
    @group(0) @binding(2) var<storage, read> x: array<f32>;
    @group(0) @binding(3) var<storage, read_write> y: array<f32>;
    var<workgroup> part: array<f32, 64>;
    @compute @workgroup_size(64)
    fn main_(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
        let chunks = shape.k / 32u;
        var sum = 0.0;
        for (var c = thread; c < chunks; c += 64u) {
            let q = w[group.x * chunks + c];
            let scale = unpack2x16float(scales[group.x * chunks + c]);
            for (var j = 0u; j < 4u; j++) {
                for (var t = 0u; t < 8u; t++) {
                    let weight = fma(f32((q[j] >> (4u * t)) & 15u), scale.x, scale.y);
                    sum = fma(weight, x[c * 32u + j * 8u + t], sum);
                }
            }
        }
        part[thread] = sum;
        workgroupBarrier();
        for (var n = 32u; n > 0u; n /= 2u) {
            if thread < n { part[thread] += part[thread + n]; }
            workgroupBarrier();
        }
        if thread == 0u { y[group.x] = part[0]; }
    }";

/// Computes the sum of [`MATVEC`] on the host, in the same order.
fn matvec(w: &[u32], scales: &[[half::f16; 2]], x: &[f32], rows: usize) -> Vec<f32> {
    let chunks = x.len() / 32;
    let row = |row: usize| {
        let mut part = [0f32; 64];
        for c in 0..chunks {
            let [scale, bias] = scales[row * chunks + c].map(f32::from);
            for i in 0..32 {
                let q = w[(row * chunks + c) * 4 + i / 8] >> (4 * (i % 8)) & 15;
                let weight = (q as f32).mul_add(scale, bias);
                part[c % 64] = weight.mul_add(x[c * 32 + i], part[c % 64]);
            }
        }
        let mut n = 32;
        while n > 0 {
            (0..n).for_each(|i| part[i] += part[i + n]);
            n /= 2;
        }
        part[0]
    };
    (0..rows).map(row).collect()
}

#[test]
fn a_quantized_matvec_equals_the_same_sums_bit_for_bit() {
    let (rows, k) = (48, 4096 + 96);
    let chunks = rows * k / 32;
    let w: Vec<u32> = (0..chunks * 4).map(|i| (i as u32).wrapping_mul(2654435761)).collect();
    let scales: Vec<[half::f16; 2]> =
        noise(chunks * 2, 3).chunks(2).map(|c| [half::f16::from_f32(c[0] * 0.01), half::f16::from_f32(c[1])]).collect();
    let packed: Vec<u32> = scales.iter().map(|[s, b]| u32::from(s.to_bits()) | u32::from(b.to_bits()) << 16).collect();
    let x = noise(k, 5);
    let expected: Vec<u32> = matvec(&w, &scales, &x, rows).iter().map(|v| v.to_bits()).collect();
    // Weights beyond the memory that a test's buffer has: one row at a time, each with another seed.
    for (row, expected) in expected.iter().enumerate() {
        let span = row * k / 32..(row + 1) * k / 32;
        let bench = Bench::new(MATVEC)
            .bind(0, &w[span.start * 4..span.end * 4])
            .bind(1, &packed[span])
            .bind_f32(2, &x)
            .bind_f32(3, &[0.0])
            .bind(IMMEDIATES, &[1, k as u32])
            .seed(row as u64);
        assert_eq!(bench.words(3), [*expected], "row {row}");
    }
}

const ROUND: &str = "
    @group(0) @binding(0) var<storage, read_write> y: array<u32>;
    var<workgroup> turn: array<u32, 256>;
    @compute @workgroup_size(16, 4, 4)
    fn main_(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
             @builtin(local_invocation_id) at: vec3<u32>, @builtin(global_invocation_id) global: vec3<u32>,
             @builtin(local_invocation_index) thread: u32) {
        turn[thread] = global.x + 1000u * global.y + 1000000u * global.z;
        for (var step = 0u; step < 20u; step++) {
            workgroupBarrier();
            let next = turn[(thread + 1u) % 256u];
            workgroupBarrier();
            turn[thread] = next;
        }
        workgroupBarrier();
        let index = (group.z * groups.y + group.y) * groups.x + group.x;
        y[index * 256u + (at.z * 4u + at.y) * 16u + at.x] = turn[thread];
    }";

#[test]
fn values_that_go_round_a_threadgroup_arrive_in_every_order() {
    for seed in 0..8 {
        let mut bench = Bench::new(ROUND).bind(0, &[0; 256 * 12]).seed(seed);
        (bench.groups, bench.threads) = ([3, 2, 2], [16, 4, 4]);
        let y = bench.words(0);
        for group in 0..12u32 {
            for thread in 0..256u32 {
                let from = (thread + 20) % 256;
                let x = group % 3 * 16 + from % 16 + 1000 * (group / 3 % 2 * 4 + from / 16 % 4);
                assert_eq!(y[(group * 256 + thread) as usize], x + 1000000 * (group / 6 * 4 + from / 64));
            }
        }
    }
}

const TILES: &str = "
    @group(0) @binding(0) var<storage, read> a: array<f32>;
    @group(0) @binding(1) var<storage, read> b: array<f32>;
    @group(0) @binding(2) var<storage, read_write> y: array<f32>;
    var<workgroup> left: array<vec4<f32>, 80>;
    var<workgroup> right: array<array<f32, 17>, 16>;
    @compute @workgroup_size(64)
    fn main_(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
        let m4 = thread / 16u;
        let n = thread % 16u;
        var sum = vec4<f32>(0.0);
        for (var tile = 0u; tile < 3u; tile++) {
            workgroupBarrier();
            for (var i = thread; i < 256u; i += 64u) {
                let row = i / 16u;
                left[i % 16u * 5u + row / 4u][row & 3u] = a[row * 48u + tile * 16u + i % 16u];
                right[row][i % 16u] = b[(tile * 16u + row) * 32u + group.x * 16u + i % 16u];
            }
            workgroupBarrier();
            for (var k = 0u; k < 16u; k++) { sum = fma(vec4<f32>(right[k][n]), left[k * 5u + m4], sum); }
        }
        for (var i = 0u; i < 4u; i++) { y[(m4 * 4u + i) * 32u + group.x * 16u + n] = sum[i]; }
    }";

#[test]
fn tiles_in_threadgroup_memory_multiply_matrices() {
    let (a, b) = (noise(16 * 48, 1), noise(48 * 32, 2));
    for seed in 0..4 {
        let bench = Bench::new(TILES).groups(2).seed(seed).bind_f32(0, &a).bind_f32(1, &b).bind(2, &[0; 16 * 32]);
        for (at, y) in bench.words(2).into_iter().enumerate() {
            let sum = (0..48).fold(0f32, |sum, k| b[k * 32 + at % 32].mul_add(a[at / 32 * 48 + k], sum));
            assert_eq!(y, sum.to_bits(), "element {at}, seed {seed}");
        }
    }
}
