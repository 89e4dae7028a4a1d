//! Atomics, and the orders that a seed decides.

use super::Bench;

const COUNT: &str = "
    @group(0) @binding(0) var<storage, read_write> total: array<atomic<u32>>;
    @group(0) @binding(1) var<storage, read_write> seen: array<u32>;
    var<workgroup> count: atomic<u32>;
    @compute @workgroup_size(64)
    fn main_(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
        if thread == 0u { atomicStore(&count, 0u); }
        workgroupBarrier();
        atomicAdd(&count, thread + 1u);
        workgroupBarrier();
        if thread == 0u {
            seen[group.x] = atomicAdd(&total[0], atomicLoad(&count));
            atomicMax(&total[1], group.x);
            atomicMin(&total[2], group.x + 7u);
            atomicOr(&total[3], 1u << group.x);
            let done = atomicCompareExchangeWeak(&total[4], 5u, 6u);
            if done.exchanged { atomicExchange(&total[5], done.old_value); }
        }
    }";

fn count(seed: u64) -> (Vec<u32>, Vec<u32>) {
    let bench = Bench::new(COUNT).groups(20).bind(0, &[0, 0, 99, 0, 5, 0]).bind(1, &[0; 20]).seed(seed);
    (bench.words(0), bench.words(1))
}

#[test]
fn atomics_lose_nothing() {
    let bench = Bench::new(COUNT).groups(20).bind(0, &[0, 0, 99, 0, 5, 0]).bind(1, &[0; 20]);
    assert_eq!(bench.words(0), [20 * 2080, 19, 7, (1 << 20) - 1, 6, 5]);
}

#[test]
fn the_seed_decides_the_order_of_threadgroups() {
    let order = |seed| count(seed).1;
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
    let mut sums = Bench::new(COUNT).groups(20).bind(0, &[0; 6]).bind(1, &[0; 20]).words(1);
    sums.sort_unstable();
    assert_eq!(sums, (0..20).map(|i| i * 2080).collect::<Vec<_>>());
}

#[test]
fn the_seed_decides_the_order_of_simd_groups_and_lanes() {
    let wgsl = "
        @group(0) @binding(0) var<storage, read_write> y: array<u32>;
        var<workgroup> next: atomic<u32>;
        @compute @workgroup_size(128)
        fn main_(@builtin(local_invocation_index) thread: u32) {
            if thread == 0u { atomicStore(&next, 0u); }
            workgroupBarrier();
            y[atomicAdd(&next, 1u)] = thread;
        }";
    let order = |seed| Bench::new(wgsl).threads(128).bind(0, &[0; 128]).seed(seed).words(0);
    let orders: Vec<_> = (0..16).map(order).collect();
    assert!(orders.iter().any(|o| o[0] % 32 == 0) && orders.iter().any(|o| o[0] % 32 == 31), "{orders:?}");
    let mut firsts: Vec<u32> = orders.iter().map(|o| o[0] / 32).collect();
    firsts.sort_unstable();
    firsts.dedup();
    assert!(firsts.len() > 2, "{firsts:?}");
    for mut order in orders {
        order.sort_unstable();
        assert_eq!(order, (0..128).collect::<Vec<_>>());
    }
}
