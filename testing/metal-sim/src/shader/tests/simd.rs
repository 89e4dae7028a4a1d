//! Simd operations and simd-group matrices.

use super::{Bench, noise};

fn lanes(expression: &str) -> Vec<u32> {
    let wgsl = format!(
        "@group(0) @binding(0) var<storage, read_write> y: array<u32>;
        @compute @workgroup_size(64)
        fn main_(@builtin(local_invocation_index) thread: u32, @builtin(subgroup_invocation_id) lane: u32,
                 @builtin(subgroup_id) simd: u32, @builtin(subgroup_size) size: u32,
                 @builtin(num_subgroups) count: u32) {{
            let v = thread * thread + 3u;
            y[thread] = {expression};
        }}"
    );
    Bench::new(&wgsl).bind(0, &[0; 64]).words(0)
}

#[test]
fn simd_operations_give_each_lane_its_simd_groups_values() {
    let v = |thread: usize| (thread * thread + 3) as u32;
    let group = |thread: usize| thread / 32 * 32..thread / 32 * 32 + 32;
    let check = |expression: &str, expected: &dyn Fn(usize) -> u32| {
        assert_eq!(lanes(expression), (0..64).map(expected).collect::<Vec<_>>(), "{expression}");
    };
    check("subgroupAdd(v)", &|t| group(t).map(v).sum());
    check("subgroupMul(v % 5u + 1u)", &|t| group(t).map(|u| v(u) % 5 + 1).fold(1, u32::wrapping_mul));
    check("subgroupMin(v)", &|t| v(group(t).start));
    check("subgroupMax(v)", &|t| v(group(t).end - 1));
    check("subgroupAnd(v | 8u)", &|t| group(t).map(|u| v(u) | 8).fold(!0, |a, b| a & b));
    check("subgroupOr(v)", &|t| group(t).map(v).fold(0, |a, b| a | b));
    check("subgroupXor(v)", &|t| group(t).map(v).fold(0, |a, b| a ^ b));
    check("subgroupInclusiveAdd(v)", &|t| (group(t).start..=t).map(v).sum());
    check("subgroupExclusiveAdd(v)", &|t| (group(t).start..t).map(v).sum());
    check("subgroupShuffle(v, 31u - lane)", &|t| v(group(t).end - 1 - t % 32));
    check("subgroupShuffleXor(v, 5u)", &|t| v(t ^ 5));
    check("select(0u, subgroupShuffleUp(v, 3u), lane >= 3u)", &|t| if t % 32 < 3 { 0 } else { v(t - 3) });
    check("select(0u, subgroupShuffleDown(v, 1u), lane < 31u)", &|t| if t % 32 == 31 { 0 } else { v(t + 1) });
    check("subgroupBroadcast(v, 7u)", &|t| v(group(t).start + 7));
    check("subgroupBroadcastFirst(v)", &|t| v(group(t).start));
    check("subgroupBallot(thread % 3u == 0u).x", &|t| {
        group(t).filter(|u| u % 3 == 0).fold(0, |bits, u| bits | 1 << (u % 32))
    });
    check("u32(subgroupAll(lane < 32u)) + 2u * u32(subgroupAny(thread == 40u))", &|t| 1 + 2 * (t / 32) as u32);
    check("quadSwapX(v) + quadBroadcast(v, 2u)", &|t| v(t ^ 1) + v(t / 4 * 4 + 2));
    check("simd * 1000u + lane + size * count", &|t| (t / 32 * 1000 + t % 32 + 64) as u32);
}

#[test]
fn vectors_and_floats_meet_too() {
    let wgsl = "
        @group(0) @binding(0) var<storage, read_write> y: array<vec4<f32>>;
        @compute @workgroup_size(32)
        fn main_(@builtin(local_invocation_index) thread: u32) { y[thread] = subgroupAdd(y[thread]); }";
    let x: Vec<f32> = (0..128).map(|i| i as f32).collect();
    let y = Bench::new(wgsl).threads(32).bind_f32(0, &x).floats(0);
    for (i, y) in y.iter().enumerate() {
        assert_eq!(*y, (0..32).map(|t| (t * 4 + i % 4) as f32).sum::<f32>());
    }
}

#[test]
fn a_sum_has_one_order_whatever_the_seed() {
    let wgsl = "
        @group(0) @binding(0) var<storage, read_write> y: array<f32>;
        @compute @workgroup_size(64)
        fn main_(@builtin(local_invocation_index) thread: u32) { y[thread] = subgroupAdd(y[thread]); }";
    let x = noise(64, 1);
    let sum = |seed| Bench::new(wgsl).bind_f32(0, &x).seed(seed).words(0);
    assert!((1..10).all(|seed| sum(seed) == sum(0)));
}

#[test]
fn the_last_simd_group_may_be_partial() {
    let wgsl = "
        @group(0) @binding(0) var<storage, read_write> y: array<u32>;
        @compute @workgroup_size(40)
        fn main_(@builtin(local_invocation_index) thread: u32) { y[thread] = subgroupAdd(1u); }";
    let expected: Vec<u32> = (0..40).map(|t| if t < 32 { 32 } else { 8 }).collect();
    assert_eq!(Bench::new(wgsl).threads(40).bind(0, &[0; 40]).words(0), expected);
}

#[test]
fn simd_group_matrices_multiply() {
    let wgsl = "
        enable wgpu_cooperative_matrix;
        @group(0) @binding(0) var<storage, read> a: array<f32>;
        @group(0) @binding(1) var<storage, read> b: array<f32>;
        @group(0) @binding(2) var<storage, read_write> y: array<f32>;
        @compute @workgroup_size(32)
        fn main_() {
            var sum = coopLoadT<coop_mat8x8<f32, C>>(&y[0], 8u);
            for (var k = 0u; k < 2u; k++) {
                let left = coopLoadT<coop_mat8x8<f32, A>>(&a[k * 8u], 16u);
                let right = coopLoadT<coop_mat8x8<f32, B>>(&b[k * 64u], 8u);
                sum = coopMultiplyAdd(left, right, sum);
            }
            coopStoreT(sum, &y[0], 8u);
        }";
    let (a, b, c) = (noise(8 * 16, 1), noise(16 * 8, 2), noise(64, 3));
    let y = Bench::new(wgsl).threads(32).bind_f32(0, &a).bind_f32(1, &b).bind_f32(2, &c).words(2);
    for (at, y) in y.iter().enumerate() {
        let sum = (0..16).fold(c[at], |sum, k| a[at / 8 * 16 + k].mul_add(b[k * 8 + at % 8], sum));
        assert_eq!(*y, sum.to_bits(), "element {at}");
    }
}
