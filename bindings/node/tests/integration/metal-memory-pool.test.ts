// tests/integration/metal-memory-pool.test.ts
import { describe, it, expect } from 'vitest';
import { createEngine } from '../../src/index.js';

describe('MetalMemoryPool Integration', () => {
  it('should work with real MLX inference (pool enabled)', async () => {
    const engine = await createEngine({
      metal_optimizations: {
        enabled: true,
        memory_pool: {
          enabled: true,
          heap_size_mb: 256,
          num_heaps: 4,
        },
      },
    });

    await engine.loadModel({
      model: 'rustbook-5m-4bit',
    });

    // Generate with pool enabled
    let tokenCount = 0;
    for await (const chunk of engine.createGenerator({
      model: 'rustbook-5m-4bit',
      prompt: 'What is quantum computing?',
      maxTokens: 50,
    })) {
      if (chunk.type === 'token') {
        tokenCount++;
      }
    }

    expect(tokenCount).toBeGreaterThan(0);

    // Check pool statistics
    const stats = await engine.getMetalOptimizationsStats();
    expect(stats.memory_pool.enabled).toBe(true);
    expect(stats.memory_pool.enabled && stats.memory_pool.total_acquired).toBeGreaterThan(0);

    await engine.dispose();
  });

  it('should gracefully fallback when pool disabled', async () => {
    const engine = await createEngine({
      metal_optimizations: {
        enabled: false,  // Disabled
      },
    });

    await engine.loadModel({
      model: 'rustbook-5m-4bit',
    });

    // Should work without pool
    let tokenCount = 0;
    for await (const chunk of engine.createGenerator({
      model: 'rustbook-5m-4bit',
      prompt: 'What is quantum computing?',
      maxTokens: 50,
    })) {
      if (chunk.type === 'token') {
        tokenCount++;
      }
    }

    expect(tokenCount).toBeGreaterThan(0);

    await engine.dispose();
  });

  it('should handle concurrent requests with pooling', async () => {
    const engine = await createEngine({
      metal_optimizations: {
        enabled: true,
        memory_pool: {
          enabled: true,
          num_heaps: 8,  // More heaps for concurrency
        },
      },
    });

    await engine.loadModel({
      model: 'rustbook-5m-4bit',
    });

    // Concurrent requests
    const promises = Array.from({ length: 5 }, async (_, i) => {
      let tokenCount = 0;
      for await (const chunk of engine.createGenerator({
        model: 'rustbook-5m-4bit',
        prompt: `Question ${i + 1}: What is AI?`,
        maxTokens: 30,
      })) {
        if (chunk.type === 'token') {
          tokenCount++;
        }
      }
      return tokenCount;
    });

    const results = await Promise.all(promises);
    expect(results.every(count => count > 0)).toBe(true);

    await engine.dispose();
  });
});
