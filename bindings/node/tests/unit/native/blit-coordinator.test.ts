import { describe, it, expect } from 'vitest';
import { hasPython, runPythonTest } from './python.js';

describe.skipIf(!hasPython)('BlitCoordinator', () => {
  it('should give back what was uploaded', async () => {
    const result = await runPythonTest(`
from krserve_native import BlitCoordinator, BlitCoordinatorConfig

config = BlitCoordinatorConfig()
config.verify_checksums = True
coordinator = BlitCoordinator(config)

data = bytes(range(256)) * 64
upload = coordinator.upload_async(data)
buffer = coordinator.wait_for_completion(upload)
assert coordinator.is_completed(upload)
download = coordinator.download_async(buffer)
assert coordinator.wait_for_completion(download) == data

stats = coordinator.get_statistics()
assert stats.total_uploads == 1 and stats.total_downloads == 1
assert stats.bytes_uploaded == len(data) and stats.bytes_downloaded == len(data)
assert stats.pending_operations == 0
assert stats.checksum_failures == 0

print("PASS")
    `);

    expect(result).toContain('PASS');
  });

  it('should take more copies than may be pending', async () => {
    const result = await runPythonTest(`
from krserve_native import BlitCoordinator, BlitCoordinatorConfig

config = BlitCoordinatorConfig()
config.max_pending_ops = 2
coordinator = BlitCoordinator(config)

uploads = [coordinator.upload_async(bytes([n]) * 4096) for n in range(8)]
coordinator.wait_for_all()
assert all(coordinator.is_completed(upload) for upload in uploads)
for n, upload in enumerate(uploads):
    download = coordinator.download_async(coordinator.wait_for_completion(upload))
    assert coordinator.wait_for_completion(download) == bytes([n]) * 4096

print("PASS")
    `);

    expect(result).toContain('PASS');
  });

  it('should reset statistics', async () => {
    const result = await runPythonTest(`
from krserve_native import BlitCoordinator, BlitCoordinatorConfig

coordinator = BlitCoordinator(BlitCoordinatorConfig())
coordinator.wait_for_completion(coordinator.upload_async(b"x" * 4096))
coordinator.reset_statistics()
assert coordinator.get_statistics().total_uploads == 0

print("PASS")
    `);

    expect(result).toContain('PASS');
  });
});
