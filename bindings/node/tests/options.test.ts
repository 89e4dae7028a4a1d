import { describe, expect, it } from "vitest";
import { z } from "zod";
import { createEngine, MetalMemoryPoolConfigSchema, MetalOptimizationsConfigSchema, RuntimeConfigSchema } from "../src/index.js";
import { failure } from "./support.js";

interface Leaf {
  key: string;
  node: { type?: string | string[]; minimum?: number; maximum?: number; enum?: string[]; items?: unknown; anyOf?: { type: string }[] };
}

/** Every key of the configuration with its JSON schema. */
function leaves(node: { properties?: Record<string, never> }, prefix = ""): Leaf[] {
  return Object.entries(node.properties ?? {}).flatMap(([name, child]: [string, { properties?: Record<string, never> }]) => {
    const key = prefix + name;
    if (child.properties) return leaves(child, `${key}.`);
    const node = child as Leaf["node"];
    // What may be null has that as its second type.
    return [{ key, node: { ...node, ...node.anyOf?.[0], type: [node.anyOf?.[0]?.type ?? node.type ?? "string"].flat()[0]! } }];
  });
}

/** Options in which one key is set. */
const options = (key: string, value: unknown): object =>
  key.split(".").reduceRight<unknown>((inner, name) => ({ [name]: inner }), value) as object;

const all = leaves(z.toJSONSchema(RuntimeConfigSchema, { io: "input" }) as never);

describe("the schemas", () => {
  it("have the defaults that are documented", () => {
    expect(MetalMemoryPoolConfigSchema.parse({})).toEqual({
      enabled: false,
      heap_size_mb: 256,
      num_heaps: 4,
      warmup_buffer_sizes_mb: [32, 128, 512],
      track_statistics: true,
      log_pool_exhaustion: true,
      max_heap_size_mb: 2048,
      min_heaps: 2,
    });
    expect(MetalOptimizationsConfigSchema.parse({ memory_pool: {} })).toMatchObject({
      enabled: false,
      graceful_fallback: true,
      log_fallbacks: true,
      expose_metrics: true,
    });
  });

  it.each([
    ["heap_size_mb", 64, 2048],
    ["num_heaps", 2, 16],
    ["max_heap_size_mb", 256, 4096],
    ["min_heaps", 1, 8],
  ])("hold %s to its range", (key, low, high) => {
    const accepts = (value: number) => MetalMemoryPoolConfigSchema.safeParse({ [key]: value }).success;
    expect([low - 1, low, high, high + 1, low + 0.5].map(accepts)).toEqual([false, true, true, false, false]);
  });

  it("describe every key", () => {
    for (const { key, node } of all) expect(node, key).toHaveProperty("description");
  });
});

describe("createEngine", () => {
  it("takes every default, null and nothing", async () => {
    for (const given of [RuntimeConfigSchema.parse({}), {}, null, undefined, { metal_optimizations: null }]) {
      await (await createEngine(given)).dispose();
    }
  });

  it.each(all.map(({ key, node }) => [key, node] as const))("refuses a wrong type of %s", async (key, node) => {
    const wrong = node.type === "string" || node.enum ? 7 : "seven";
    const error = await failure(createEngine(options(key, wrong)));
    expect([error.code, error.param]).toEqual(["InvalidParams", key]);
    expect(error.message).toContain(key);
  });

  const ranged = all.filter(({ node }) => node.minimum !== undefined || node.maximum !== undefined);
  it.each(ranged.map(({ key, node }) => [key, node] as const))("refuses what is out of the range of %s", async (key, node) => {
    for (const value of [node.minimum! - 1, node.maximum! + 1, node.minimum! + 0.5, NaN, Infinity]) {
      const error = await failure(createEngine(options(key, value)));
      expect([error.code, error.param], String(value)).toEqual(["InvalidParams", key]);
    }
  });

  it("refuses unknown keys, and elements of lists, by name", async () => {
    expect((await failure(createEngine({ motor: {} } as never))).param).toBe("motor");
    const pool = (memory_pool: object) => createEngine({ metal_optimizations: { memory_pool } });
    expect((await failure(pool({ heaps: 3 }))).param).toBe("metal_optimizations.memory_pool.heaps");
    expect((await failure(pool({ warmup_buffer_sizes_mb: [32, 0] }))).param).toBe(
      "metal_optimizations.memory_pool.warmup_buffer_sizes_mb[1]",
    );
  });

  it("refuses what breaks a rule between two keys", async () => {
    const memory_pool = { heap_size_mb: 512, max_heap_size_mb: 256 };
    const error = await failure(createEngine({ metal_optimizations: { memory_pool } }));
    expect(error.code).toBe("InvalidParams");
    expect(error.message).toContain("max_heap_size_mb");
  });

  it.each(["text", 3, [], true])("refuses %j as options", async (given) => {
    expect((await failure(createEngine(given as never))).param).toBe("options");
  });
});
