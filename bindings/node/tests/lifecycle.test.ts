import { readdirSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { describe, expect, it } from "vitest";
import { createEngine } from "../src/index.js";
import { endless, failure, loaded, MODEL, program, until } from "./support.js";

declare const gc: () => Promise<void> | void;

const linux = process.platform === "linux";

describe("dispose", () => {
  it("ends answers in flight with code Disposed", async () => {
    const engine = await loaded();
    const generator = engine.createGenerator(endless());
    await generator.next();
    const whole = failure(engine.generate(endless()));
    const streamed = failure(
      (async () => {
        for await (const _ of generator);
      })(),
    );
    await new Promise((resolve) => setTimeout(resolve, 5));
    await engine.dispose();
    expect((await whole).code).toBe("Disposed");
    expect((await streamed).code).toBe("Disposed");
    expect((await generator.next()).done).toBe(true);
  });

  it("may be called twice, and leaves an engine that says so", async () => {
    const engine = await loaded();
    await Promise.all([engine.dispose(), engine.dispose()]);
    await engine[Symbol.asyncDispose]();
    const calls: Record<string, () => Promise<unknown>> = {
      loadModel: () => engine.loadModel({ model: MODEL }),
      unloadModel: () => engine.unloadModel(),
      listModels: () => engine.listModels(),
      generate: () => engine.generate({ prompt: "x" }),
      next: () => engine.createGenerator({ prompt: "x" }).next(),
      tokenize: () => engine.tokenize({ text: "x" }),
      detokenize: () => engine.detokenize({ tokens: [1] }),
      metrics: () => engine.metrics(),
      stats: () => engine.getMetalOptimizationsStats(),
    };
    for (const [name, call] of Object.entries(calls)) expect((await failure(call())).code, name).toBe("Disposed");
    expect(await engine.healthCheck()).toMatchObject({ status: "unhealthy" });
  });

  it("says what an engine without models lacks", async () => {
    const engine = await createEngine();
    expect((await failure(engine.generate({ prompt: "x" }))).code).toBe("ModelNotLoaded");
    await engine.dispose();
  });
});

describe.runIf(linux)("create and dispose", () => {
  const threads = () => readdirSync("/proc/self/task").length;

  it("leave no memory, thread or file", async () => {
    const full = process.env.MLX_SERVING_LONG_TESTS !== undefined;
    const args = full ? ["1000", "100", "50"] : ["40", "20", "10"];
    // One arena: with several, which threads come to share one decides by megabytes.
    const { code, output } = await program("rounds.mjs", { flags: ["--expose-gc"], args, env: { MALLOC_ARENA_MAX: "1" } });
    expect(code, output).toBe(0);
    const { grown, threads, files } = JSON.parse(output) as Record<"grown" | "threads" | "files", number>;
    console.log(`${grown.toFixed(2)} MiB more after ${args[0]} rounds than after ${args[1]}`);
    expect([threads, files]).toEqual([0, 0]);
    expect(grown).toBeLessThan(full ? 2 : 8);
  }, 1_200_000);

  it("an engine that was left behind ends when it is collected", async () => {
    const before = threads();
    await (async () => void (await loaded()))();
    expect(threads()).toBeGreaterThan(before);
    await until("its end", async () => {
      await gc();
      return threads() <= before;
    });
  });
});

describe("a worker", () => {
  it("is terminated in mid-generation, again and again, and the process goes on", async () => {
    const here = await loaded();
    for (let i = 0; i < 5; i++) {
      const worker = new Worker(new URL("fixtures/worker.mjs", import.meta.url));
      await new Promise((resolve, reject) => {
        worker.once("message", resolve);
        worker.once("error", reject);
      });
      await worker.terminate();
    }
    expect((await here.generate(endless(5))).stats.completionTokens).toBe(5);
    await here.dispose();
  });
});

describe("a process", () => {
  it.each([
    ["disposed.mjs", "disposed of its engine"],
    ["undisposed.mjs", "left its engine behind"],
    ["midway.mjs", "called process.exit in mid-generation"],
    ["awaits.mjs", "awaits nothing but tokens"],
    ["hanging.mjs", "waited for a hub that never answers"],
    ["unhandled.mjs", "never looked at what was rejected by its own cancellation"],
  ])("of %s ends by itself: it %s", async (file) => {
    const { code, signal, output } = await program(file);
    expect([code, signal], output).toEqual([0, null]);
    expect(output.trim()).toBe("done");
  });
});
