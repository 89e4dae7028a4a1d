import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loop } from "../src/loop.js";
import { version, type Engine, type GenerationStats } from "../src/index.js";
import { counter, endless, failure, generated, idle, loaded, MODEL, until } from "./support.js";

let engine: Engine;
beforeAll(async () => {
  engine = await loaded();
});
afterAll(() => engine.dispose());

const ask = { model: MODEL, prompt: "What is ownership?", maxTokens: 40, temperature: 0 };

async function streamed(params: Parameters<Engine["createGenerator"]>[0], from = engine) {
  let text = "";
  let stats: GenerationStats | undefined;
  for await (const chunk of from.createGenerator(params)) {
    if (chunk.type === "token") text += chunk.token;
    else stats = chunk.stats;
  }
  return { text, stats };
}

describe("an answer", () => {
  it("is the same streamed and whole, and ends with its statistics", async () => {
    const whole = await engine.generate(ask);
    const stream = await streamed(ask);
    expect(whole.text.length).toBeGreaterThan(0);
    expect(stream.text).toBe(whole.text);
    expect(stream.stats).toMatchObject({ finishReason: "length", promptTokens: whole.stats.promptTokens, completionTokens: 40 });
    expect(whole.tokens.every(({ tokenId }) => typeof tokenId === "number")).toBe(true);
    expect(Object.keys(whole.stats).sort()).toEqual(
      ["cachedTokens", "completionTokens", "decodeS", "finishReason", "prefillS", "promptTokens", "queueS"].sort(),
    );
  });

  it("ends at a stop sequence, which is no part of it", async () => {
    const { text } = await engine.generate(ask);
    const stop = text.slice(20, 26);
    const { text: short, stats } = await engine.generate({ ...ask, stopSequences: [stop] });
    expect(text.startsWith(short)).toBe(true);
    expect(short).not.toContain(stop);
    expect(stats.finishReason).toBe("stop");
  });

  it("follows its seed", async () => {
    const sampled = (seed: number) => engine.generate({ ...ask, temperature: 1.5, seed }).then(({ text }) => text);
    expect(await sampled(1)).toBe(await sampled(1));
    expect(await sampled(1)).not.toBe(await sampled(2));
  });

  it("reports log-probabilities where they are asked for", async () => {
    const { tokens } = await engine.generate({ ...ask, maxTokens: 4, logprobs: 3 });
    for (const { tokenId, logprob, topLogprobs } of tokens) {
      expect(logprob).toBeLessThanOrEqual(0);
      expect(topLogprobs).toHaveLength(3);
      expect(topLogprobs![0]).toEqual({ tokenId, logprob });
    }
    expect((await engine.generate({ ...ask, maxTokens: 1 })).tokens[0]).not.toHaveProperty("logprob");
  });

  it("continues a conversation", async () => {
    const messages = [{ role: "user", content: "What is ownership?" } as const];
    const { text } = await engine.generate({ model: MODEL, messages, maxTokens: 8, temperature: 0 });
    expect(text.length).toBeGreaterThan(0);
  });

  it("goes on from token ids as from their text", async () => {
    const tokens = await engine.tokenize({ text: ask.prompt, model: MODEL });
    expect(await engine.detokenize({ tokens })).toContain("ownership");
    expect((await engine.generate({ ...ask, prompt: tokens })).text).toBe((await engine.generate(ask)).text);
  });

  it("of a long prompt starts off the event loop's thread", async () => {
    const { stats } = await engine.generate({ ...ask, prompt: "ownership and borrowing ".repeat(150), maxTokens: 2 });
    expect(stats.promptTokens).toBeGreaterThan(300);
  });
});

describe("many answers at once", () => {
  it.each([5, 50])("%d are each what they are alone", async (n) => {
    const alone = await streamed(ask);
    const all = await Promise.all(Array.from({ length: n }, () => streamed(ask)));
    for (const { text } of all) expect(text).toBe(alone.text);
  });

  it("wake the event loop once a step", async () => {
    const [tokens, streams] = [60, 8];
    const before = loop.environment.wakes();
    await Promise.all(Array.from({ length: streams }, () => streamed({ ...ask, maxTokens: tokens, ignoreEos: true })));
    // Each stream joins in a step of its own at the latest, and the prompts take steps too.
    expect(loop.environment.wakes() - before).toBeLessThanOrEqual(tokens + 2 * streams);
  });

  it("run in two engines of one process", async () => {
    const other = await loaded();
    const [here, there] = await Promise.all([streamed(ask), streamed(ask, other)]);
    expect(there.text).toBe(here.text);
    await other.dispose();
    expect((await streamed(ask)).text).toBe(here.text);
  });
});

describe("an answer that is not read", () => {
  it("holds the engine up, and goes on when it is read", async () => {
    const before = await generated(engine);
    const generator = engine.createGenerator(endless(1000));
    await generator.next();
    let last = -1;
    // As long as tokens come it has not stopped.
    await until("a pause", async () => {
      await new Promise((resolve) => setTimeout(resolve, 300));
      const now = await generated(engine);
      return now === last || ((last = now), false);
    });
    expect(last - before).toBeLessThan(300);
    let tokens = 1;
    for await (const chunk of generator) if (chunk.type === "token" && chunk.tokenId !== null) tokens++;
    expect(tokens).toBe(1000);
    await idle(engine);
  });

  it("and not begun computes nothing", async () => {
    const before = await generated(engine);
    engine.createGenerator(endless());
    const generator = engine.createGenerator(endless());
    expect(await generator.return()).toEqual({ value: undefined, done: true });
    expect(await generator.next()).toEqual({ value: undefined, done: true });
    expect(await generated(engine)).toBe(before);
  });
});

describe("next()", () => {
  it("may be called ahead, and answers in order", async () => {
    const generator = engine.createGenerator({ ...ask, maxTokens: 3, ignoreEos: true });
    const items = await Promise.all(Array.from({ length: 6 }, () => generator.next()));
    expect(items.map(({ value, done }) => (done ? "done" : value.type))).toEqual(["token", "token", "token", "metadata", "done", "done"]);
  });
});

describe("the engine", () => {
  it("tells what it has and does", async () => {
    expect(version).toMatch(/^\d+\.\d+\.\d+/);
    expect(await engine.listModels()).toMatchObject([{ id: MODEL, state: "ready", backend: "cpu", vocab: 4096, context: 2048 }]);
    expect(await engine.healthCheck()).toMatchObject({ status: "healthy", models: [{ id: MODEL }] });
    expect(await engine.getMetalOptimizationsStats()).toMatchObject({ memory_pool: { enabled: false }, device: { backend: "cpu" } });
    expect(await counter(engine, "vllm:prompt_tokens_total")).toBeGreaterThan(0);
  });

  it("tells how far loading is, and calls a model as it is told to", async () => {
    const progress: number[] = [];
    const card = await engine.loadModel({ name: "second" }, { onProgress: ({ done }) => progress.push(done) });
    expect(card).toMatchObject({ id: "second", state: "ready" });
    await until("progress", () => progress.length > 0);
    expect((await engine.generate({ ...ask, model: "second" })).text).toBe((await engine.generate(ask)).text);
    await engine.unloadModel({ model: "second" });
    expect(await failure(engine.generate({ ...ask, model: "second" }))).toMatchObject({ code: "ModelNotLoaded" });
  });

  it("rejects loading with what onProgress throws", async () => {
    const onProgress = () => {
      throw new Error("mine");
    };
    await expect(engine.loadModel({ name: "thrown" }, { onProgress })).rejects.toThrow("mine");
    await engine.unloadModel({ model: "thrown" });
  });

  it("does not load for a signal that is aborted, and unloads what an aborted wait has loaded", async () => {
    const error = await failure(engine.loadModel({ name: "never" }, { signal: AbortSignal.abort() }));
    expect(error.code).toBe("Cancelled");
    const controller = new AbortController();
    const loading = failure(engine.loadModel({ name: "late" }, { signal: controller.signal }));
    controller.abort();
    expect((await loading).code).toBe("Cancelled");
    await until("its removal", async () => (await engine.listModels()).every(({ id }) => id === MODEL));
    const again = new AbortController();
    const there = failure(engine.loadModel({ model: MODEL }, { signal: again.signal }));
    again.abort();
    expect((await there).code).toBe("Cancelled");
    expect((await engine.generate(ask)).text.length).toBeGreaterThan(0);
  });
});
