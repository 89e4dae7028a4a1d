import { describe, it, expect } from 'vitest';
import { hasPython, runPythonTest } from './python.js';

describe.skipIf(!hasPython)('CommandBufferRing', () => {
  it('should initialize ring with correct configuration', async () => {
    const result = await runPythonTest(`
from krserve_native import CommandBufferRing, CommandBufferRingConfig

config = CommandBufferRingConfig()
config.ring_size = 4
ring = CommandBufferRing(config)
stats = ring.get_statistics()
assert stats.ring_size == 4, f"Expected ring_size=4, got {stats.ring_size}"
assert stats.available_count == 4, f"Expected available=4, got {stats.available_count}"

print("PASS")
    `);

    expect(result).toContain('PASS');
  });

  it('should acquire and release buffers', async () => {
    const result = await runPythonTest(`
from krserve_native import CommandBufferRing, CommandBufferRingConfig

ring = CommandBufferRing(CommandBufferRingConfig())
buffer = ring.acquire_buffer()
stats = ring.get_statistics()
assert stats.total_acquired == 1
assert stats.available_count == 2  # 3 - 1

ring.release_buffer(buffer)
ring.wait_all()
stats = ring.get_statistics()
assert stats.total_released == 1
assert stats.available_count == 3  # Back to 3
assert stats.in_flight_count == 0

print("PASS")
    `);

    expect(result).toContain('PASS');
  });

  it('should go round', async () => {
    const result = await runPythonTest(`
from krserve_native import CommandBufferRing, CommandBufferRingConfig

config = CommandBufferRingConfig()
config.ring_size = 2
ring = CommandBufferRing(config)
for _ in range(6):
    ring.release_buffer(ring.acquire_buffer())
ring.wait_all()
stats = ring.get_statistics()
assert stats.total_acquired == 6 and stats.total_released == 6
assert stats.rotations == 3, f"Expected rotations=3, got {stats.rotations}"

print("PASS")
    `);

    expect(result).toContain('PASS');
  });
});
