import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { EngineError, type Engine } from "../src/index.js";
import { endless, failure, generated, idle, loaded, MODEL, RING } from "./support.js";

declare const gc: () => Promise<void> | void;

/** A way to cancel: it begins an answer, ends it, and at that moment looks at the engine's counter. */
type Way = (engine: Engine, look: () => void) => Promise<void>;

async function begun(engine: Engine, options = {}) {
  const generator = engine.createGenerator(endless(), options);
  for (let i = 0; i < 5; i++) await generator.next();
  return generator;
}

const ways: Record<string, Way> = {
  break: async (engine, look) => {
    for await (const chunk of engine.createGenerator(endless())) if (chunk.type === "token") break;
    look();
  },
  "an exception in the loop": async (engine, look) => {
    const loop = async () => {
      for await (const _ of engine.createGenerator(endless())) throw new Error("consumer");
    };
    await expect(loop()).rejects.toThrow("consumer");
    look();
  },
  "return()": async (engine, look) => {
    const generator = await begun(engine);
    const returned = generator.return();
    look();
    expect(await returned).toEqual({ value: undefined, done: true });
    expect((await generator.next()).done).toBe(true);
  },
  "return() behind a next() that waits": async (engine, look) => {
    const generator = await begun(engine);
    const waiting = Array.from({ length: 100 }, () => generator.next());
    await generator.return();
    look();
    expect((await waiting.at(-1)!).done).toBe(true);
  },
  "throw()": async (engine, look) => {
    const generator = await begun(engine);
    const thrown = generator.throw(new Error("mine"));
    look();
    await expect(thrown).rejects.toThrow("mine");
    expect((await generator.next()).done).toBe(true);
  },
  "Symbol.asyncDispose": async (engine, look) => {
    const generator = await begun(engine);
    await (generator as unknown as AsyncDisposable)[Symbol.asyncDispose]();
    look();
  },
  "an AbortSignal": async (engine, look) => {
    const controller = new AbortController();
    const generator = await begun(engine, { signal: controller.signal });
    controller.abort(new Error("why"));
    look();
    const error = await failure(generator.next());
    expect([error.code, (error.cause as Error).message]).toEqual(["Cancelled", "why"]);
    expect((await generator.next()).done).toBe(true);
  },
  "AbortSignal.timeout": async (engine, look) => {
    const error = await failure(engine.generate(endless(), { signal: AbortSignal.timeout(20) }));
    look();
    expect(error.code).toBe("Timeout");
  },
  timeoutMs: async (engine, look) => {
    const error = await failure(engine.generate(endless(), { timeoutMs: 20 }));
    look();
    expect(error.code).toBe("Timeout");
  },
  "timeoutMs of a stream that nobody reads": async (engine, look) => {
    const generator = await begun(engine, { timeoutMs: 200 });
    await new Promise((resolve) => setTimeout(resolve, 300));
    look();
    expect((await failure(generator.next())).code).toBe("Timeout");
  },
  "the collector": async (engine, look) => {
    const signal = new AbortController().signal;
    // In a function of its own, whose frame is gone when the collector looks.
    await (async () => void (await begun(engine, { signal, timeoutMs: 60_000 })))();
    for (let i = 0; i < 5; i++) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      await gc();
    }
    look();
  },
};

describe.each([
  ["the ring off", {}, 2],
  ["the ring on", RING, 4],
])("with %s", (_, options, bound) => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await loaded(options);
  });
  afterAll(() => engine.dispose());

  it.each(Object.entries(ways))(`%s stops the engine within ${bound} steps`, async (_, way) => {
    let atCancel: Promise<number> | undefined;
    await way(engine, () => (atCancel = generated(engine)));
    const before = await atCancel!;
    await idle(engine);
    expect((await generated(engine)) - before).toBeLessThanOrEqual(bound);
  });

  it("unloading the model ends its answers", async () => {
    await engine.loadModel({ name: "other" });
    const generator = engine.createGenerator({ ...endless(), model: "other" });
    await generator.next();
    await engine.unloadModel({ model: "other" });
    const rest = (async () => {
      for await (const _ of generator);
    })();
    expect(await failure(rest)).toBeInstanceOf(EngineError);
    expect((await engine.listModels()).map(({ id }) => id)).toEqual([MODEL]);
  });
});

describe("a signal", () => {
  it("that is aborted before starts nothing", async () => {
    const engine = await loaded();
    const signal = AbortSignal.abort();
    expect((await failure(engine.generate(endless(), { signal }))).code).toBe("Cancelled");
    const generator = engine.createGenerator(endless(), { signal });
    expect((await failure(generator.next())).code).toBe("Cancelled");
    expect(await generated(engine)).toBe(0);
    await engine.dispose();
  });

  it("is not listened to any longer than the answer takes", async () => {
    const engine = await loaded();
    const { signal } = new AbortController();
    let listening = 0;
    const { addEventListener, removeEventListener } = signal;
    Object.assign(signal, {
      addEventListener: (...args: Parameters<typeof addEventListener>) => (listening++, addEventListener.apply(signal, args)),
      removeEventListener: (...args: Parameters<typeof removeEventListener>) => (listening--, removeEventListener.apply(signal, args)),
    });
    await engine.generate(endless(3), { signal });
    for await (const _ of engine.createGenerator(endless(), { signal })) break;
    expect(listening).toBe(0);
    await engine.dispose();
  });
});
