"""Programs as users of the memory pool have them, run by an interpreter of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAMS = {
    "should initialize pool with correct configuration": """
from krserve_native import MetalMemoryPool, MetalMemoryPoolConfig

config = MetalMemoryPoolConfig()
config.heap_size_mb = 128
config.num_heaps = 2

pool = MetalMemoryPool(config)
stats = pool.get_statistics()

assert stats.pool_size == 2, f"Expected pool_size=2, got {stats.pool_size}"
assert stats.available_count == 2, f"Expected available=2, got {stats.available_count}"

print("PASS")
    """,
    "should acquire and release heaps": """
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
    """,
    "should handle pool exhaustion gracefully": """
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
    """,
    "should detect memory leaks": """
from krserve_native import MetalMemoryPool, MetalMemoryPoolConfig

config = MetalMemoryPoolConfig()
pool = MetalMemoryPool(config)

# Acquire but don't release
heap = pool.acquire_heap()

stats = pool.get_statistics()
leak_detected = stats.total_acquired != stats.total_released
assert leak_detected, "Should detect leak"

print("PASS")
    """,
    "should warm up": """
import sys
from krserve_native import MetalMemoryPool, MetalMemoryPoolConfig

# Create pool config
pool_config = MetalMemoryPoolConfig()
pool_config.heap_size_mb = 256
pool_config.num_heaps = 4
pool_config.warmup_sizes = [32, 128]
pool_config.track_statistics = True
pool_config.log_exhaustion = True

# Initialize pool
metal_pool = MetalMemoryPool(pool_config)

# Warmup
metal_pool.warmup()

pool_stats = metal_pool.get_statistics()
assert 1.0 - (pool_stats.available_count / pool_stats.pool_size) == 0.0

print("PASS")
    """,
    "should upload and download": """
from krserve_native import BlitCoordinator, BlitCoordinatorConfig

config = BlitCoordinatorConfig()
coordinator = BlitCoordinator(config)

upload = coordinator.upload_async(b"weights")
handle = coordinator.wait_for_completion(upload)
download = coordinator.download_async(handle)
assert coordinator.wait_for_completion(download, timeout_ms=5000) == b"weights"
coordinator.wait_for_all()
assert coordinator.is_completed(upload)

stats = coordinator.get_statistics()
assert stats.total_uploads == 1
assert stats.total_downloads == 1

print("PASS")
    """,
    "should rotate command buffers": """
from krserve_native import CommandBufferRing, CommandBufferRingConfig

config = CommandBufferRingConfig()
ring = CommandBufferRing(config)

buffer = ring.acquire_buffer()
stats = ring.get_statistics()
assert stats.total_acquired == 1
assert stats.available_count == 2  # 3 - 1

ring.release_buffer(buffer)
ring.wait_all()
stats = ring.get_statistics()
assert stats.total_released == 1
assert stats.available_count == 3  # Back to 3

print("PASS")
    """,
}


@pytest.mark.parametrize("title", PROGRAMS)
def test_program(title: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAMS[title]], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "PASS" in done.stdout
