// tests/unit/native/metal-memory-pool.test.ts
import { describe, it, expect } from 'vitest';
import { hasPython, runPythonTest } from './python.js';

describe.skipIf(!hasPython)('MetalMemoryPool', () => {
  it('should initialize pool with correct configuration', async () => {
    const result = await runPythonTest(`
from krserve_native import MetalMemoryPool, MetalMemoryPoolConfig

config = MetalMemoryPoolConfig()
config.heap_size_mb = 128
config.num_heaps = 2

pool = MetalMemoryPool(config)
stats = pool.get_statistics()

assert stats.pool_size == 2, f"Expected pool_size=2, got {stats.pool_size}"
assert stats.available_count == 2, f"Expected available=2, got {stats.available_count}"

print("PASS")
    `);

    expect(result).toContain('PASS');
  });

  it('should acquire and release heaps', async () => {
    const result = await runPythonTest(`
from krserve_native import MetalMemoryPool, MetalMemoryPoolConfig

config = MetalMemoryPoolConfig()
pool = MetalMemoryPool(config)

# Acquire heap
heap = pool.acquire_heap()
stats_after_acquire = pool.get_statistics()
assert stats_after_acquire.total_acquired == 1
assert stats_after_acquire.available_count == 3  # 4 - 1

# Release heap
pool.release_heap(heap)
stats_after_release = pool.get_statistics()
assert stats_after_release.total_released == 1
assert stats_after_release.available_count == 4  # Back to 4

print("PASS")
    `);

    expect(result).toContain('PASS');
  });

  it('should handle pool exhaustion gracefully', async () => {
    const result = await runPythonTest(`
from krserve_native import MetalMemoryPool, MetalMemoryPoolConfig

config = MetalMemoryPoolConfig()
config.num_heaps = 2
pool = MetalMemoryPool(config)

# Acquire all heaps
heap1 = pool.acquire_heap()
heap2 = pool.acquire_heap()

stats = pool.get_statistics()
assert stats.available_count == 0, "Pool should be empty"

# Acquire beyond capacity (should fallback)
heap3 = pool.acquire_heap()
stats = pool.get_statistics()
assert stats.exhaustion_events == 1, "Should record exhaustion event"
assert stats.fallback_events == 1, "Should record fallback event"

print("PASS")
    `);

    expect(result).toContain('PASS');
  });

  it('should detect memory leaks', async () => {
    const result = await runPythonTest(`
from krserve_native import MetalMemoryPool, MetalMemoryPoolConfig

config = MetalMemoryPoolConfig()
pool = MetalMemoryPool(config)

# Acquire but don't release
heap = pool.acquire_heap()

stats = pool.get_statistics()
leak_detected = stats.total_acquired != stats.total_released
assert leak_detected, "Should detect leak"

print("PASS")
    `);

    expect(result).toContain('PASS');
  });
});
