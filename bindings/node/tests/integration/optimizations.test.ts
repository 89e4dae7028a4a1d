import { describe, expect, it } from "vitest";
import { createEngine, type EngineOptions } from "../../src/index.js";
import { loaded, MODEL } from "../support.js";

const ask = { model: MODEL, prompt: "What is quantum computing?", maxTokens: 50, temperature: 0 };

/** Text of an answer with an optimization, and what it counted. */
async function optimized(metal_optimizations: NonNullable<EngineOptions["metal_optimizations"]>) {
  const engine = await loaded({ metal_optimizations });
  const texts = await Promise.all(Array.from({ length: 5 }, () => engine.generate(ask).then(({ text }) => text)));
  const stats = await engine.getMetalOptimizationsStats();
  await engine.dispose();
  return { texts, stats };
}

describe("the optimizations", () => {
  it("change no answer, and count what they do", async () => {
    const plain = await optimized({});
    expect(plain.stats.blit_queue).toEqual({ enabled: false });
    const [text] = plain.texts;
    const blit = await optimized({ enabled: true, blit_queue: { enabled: true } });
    expect(blit.stats.blit_queue).toMatchObject({ enabled: true, checksum_failures: 0 });
    expect(blit.stats.blit_queue.enabled && blit.stats.blit_queue.total_uploads).toBeGreaterThan(0);
    const ring = await optimized({ enabled: true, command_buffer_ring: { enabled: true, ring_size: 3 } });
    expect(ring.stats.command_buffer_ring).toMatchObject({ enabled: true, ring_size: 3 });
    expect(ring.stats.command_buffer_ring.enabled && ring.stats.command_buffer_ring.rotations).toBeGreaterThan(0);
    for (const { texts } of [plain, blit, ring]) expect(texts).toEqual(texts.map(() => text));
  });

  it("fall back where the pool has no room, and say so", async () => {
    const pool = { enabled: true, heap_size_mb: 64, num_heaps: 2, max_heap_size_mb: 256, warmup_buffer_sizes_mb: [] };
    const engine = await createEngine({
      engine: { device: "cpu", threads: 2, kv_cache_tokens: 131_072 },
      metal_optimizations: { enabled: true, memory_pool: pool, log_fallbacks: false },
    });
    await engine.loadModel({ model: MODEL });
    expect((await engine.generate({ ...ask, maxTokens: 3 })).stats.completionTokens).toBe(3);
    const { memory_pool } = await engine.getMetalOptimizationsStats();
    expect(memory_pool).toMatchObject({ enabled: true });
    expect(memory_pool.enabled && memory_pool.exhaustion_events + memory_pool.fallback_events).toBeGreaterThan(0);
    await engine.dispose();
  });
});
