use super::*;

#[test]
fn a_list_switches_on_exactly_what_it_names() {
    let mut config = MetalOptimizations::default();
    for (list, active) in [
        ("all", &NAMES[..]),
        ("none", &[]),
        ("blit_queue", &["blit_queue"]),
        ("memory_pool, command_buffer_ring", &["memory_pool", "command_buffer_ring"]),
    ] {
        config.select(list).unwrap();
        assert_eq!(config.active(), active, "{list}");
    }
    assert!(config.select("memory_pool,turbo").unwrap_err().contains("turbo"));
    assert!(config.select("").is_err());
}

#[test]
fn the_master_switch_rules_the_rest() {
    let mut config = MetalOptimizations::default();
    config.memory_pool.enabled = true;
    assert!(config.active().is_empty());
}

#[test]
fn defaults_are_within_their_own_ranges() {
    let config = MetalOptimizations::default();
    config.validate().unwrap();
    config.check_across().unwrap();
}

#[test]
fn keys_that_contradict_each_other_are_named() {
    let mut config = MetalOptimizations::default();
    config.memory_pool.max_heap_size_mb = 128;
    assert!(config.check_across().unwrap_err().contains("max_heap_size_mb"));
    let mut config = MetalOptimizations::default();
    config.memory_pool.warmup_buffer_sizes_mb = vec![4096];
    assert!(config.check_across().unwrap_err().contains("4096"));
    let mut config = MetalOptimizations::default();
    config.memory_pool.min_heaps = 8;
    assert!(config.check_across().unwrap_err().contains("min_heaps"));
}

#[test]
fn values_out_of_range_are_refused() {
    for change in [
        |c: &mut MetalOptimizations| c.memory_pool.heap_size_mb = 32,
        |c: &mut MetalOptimizations| c.memory_pool.num_heaps = 17,
        |c: &mut MetalOptimizations| c.memory_pool.warmup_buffer_sizes_mb = vec![0],
        |c: &mut MetalOptimizations| c.blit_queue.max_pending_ops = 0,
        |c: &mut MetalOptimizations| c.blit_queue.timeout_ms = 99,
        |c: &mut MetalOptimizations| c.command_buffer_ring.ring_size = 1,
        |c: &mut MetalOptimizations| c.command_buffer_ring.max_wait_ms = 10_001,
    ] {
        let mut config = MetalOptimizations::default();
        change(&mut config);
        assert!(config.validate().is_err(), "{config:?}");
    }
}
