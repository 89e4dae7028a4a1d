import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createEngine, EngineError, type Engine } from "../src/index.js";
import { failure, generated, loaded, MODEL } from "./support.js";

let engine: Engine;
beforeAll(async () => {
  engine = await loaded();
});
afterAll(() => engine.dispose());

const ok = { model: MODEL, prompt: "What is ownership?", maxTokens: 3 };

/** Parameter, values that are refused. */
const wrong: [string, unknown[]][] = [
  ["model", [3, "", {}]],
  ["prompt", [3, {}, true, [1.5], [-1], ["a"], [NaN]]],
  ["messages", ["hi", [], {}, [3]]],
  ["chatTemplateKwargs", [3, "x", []]],
  ["addSpecialTokens", ["yes", 1]],
  ["maxTokens", [0, -1, 1.5, "3", NaN, Infinity, 1e12]],
  ["temperature", [-0.1, 2.1, "1", NaN, true]],
  ["topP", [-0.1, 1.1, "1", NaN]],
  ["topK", [-1, 1.5, "1", NaN]],
  ["minP", [-0.1, 1.1, "1", NaN]],
  ["repetitionPenalty", [0, 11, "1", NaN]],
  ["presencePenalty", [-2.1, 2.1, "1", NaN]],
  ["frequencyPenalty", [-2.1, 2.1, "1", NaN]],
  ["seed", [-1, 1.5, "1", NaN, 2 ** 60]],
  ["logitBias", [3, { a: 1 }, { 1: 101 }, { 1: NaN }, { 1: "x" }]],
  ["stopSequences", [3, [3], {}]],
  ["ignoreEos", [1, "yes"]],
  ["logprobs", [-1, 21, 1.5, "yes", NaN]],
  ["max_tokens", [3]],
  ["timeoutMs", [3]],
];

describe("createGenerator", () => {
  it.each(wrong)("refuses wrong values of %s at the call, by name", async (name, values) => {
    const before = await generated(engine);
    for (const value of values) {
      let error: unknown;
      try {
        engine.createGenerator({ ...ok, ...(name === "messages" ? { prompt: null } : {}), [name]: value } as never);
      } catch (thrown) {
        error = thrown;
      }
      expect(error, JSON.stringify(value)).toBeInstanceOf(EngineError);
      const { code, param } = error as EngineError;
      expect(code).toBe("InvalidParams");
      expect(param === name || param?.startsWith(`${name}[`) || param?.startsWith(`${name}.`), param).toBe(true);
    }
    expect(await generated(engine)).toBe(before);
  });

  it.each([
    ["signal", [3, {}, "x"]],
    ["timeoutMs", [0, -1, 1.5, "3", NaN, Infinity, 2 ** 31]],
    ["timeout", [3]],
  ])("refuses wrong values of the option %s", (name, values) => {
    for (const value of values) {
      expect(() => engine.createGenerator(ok, { [name]: value } as never)).toThrow(expect.objectContaining({ code: "InvalidParams", param: name }));
    }
  });

  it("takes null and undefined as asking for nothing", async () => {
    const names = wrong.map(([name]) => name).filter((name) => !["model", "prompt", "maxTokens"].includes(name));
    const nothing = Object.fromEntries(names.map((name, i) => [name, i % 2 === 0 ? null : undefined]));
    const { stats } = await engine.generate({ ...ok, ...nothing }, { signal: null, timeoutMs: undefined });
    expect(stats.completionTokens).toBeGreaterThan(0);
  });

  it("refuses neither and both of prompt and messages", async () => {
    expect(await failure(engine.generate({ model: MODEL }))).toMatchObject({ code: "InvalidParams", param: "prompt" });
    const both = { ...ok, messages: [{ role: "user", content: "hi" } as const] };
    expect(await failure(engine.generate(both))).toMatchObject({ code: "InvalidParams", param: "messages" });
  });

  it("names what only the model can refuse as it was given", async () => {
    const cases = [
      [{ ...ok, model: "nobody" }, "ModelNotLoaded", undefined],
      [{ ...ok, prompt: [99_999] }, "InvalidParams", "prompt"],
      [{ ...ok, logitBias: { 99999: 1 } }, "InvalidParams", "logitBias"],
      [{ ...ok, prompt: "a ".repeat(5000) }, "InvalidParams", "prompt"],
    ] as const;
    for (const [params, code, param] of cases) {
      expect(await failure(engine.generate(params as never))).toMatchObject({ code, param });
    }
  });
});

describe("messages of errors", () => {
  it.each<[object | string, string]>([
    [{ temperature: -1 }, "`temperature` takes a number from 0 to 2; it is -1"],
    [{ temperature: "1" }, '`temperature` takes a number from 0 to 2; it is "1"'],
    [{ topK: 1.5 }, "`topK` takes a whole number from 0 to 4294967295; it is 1.5"],
    [{ model: "" }, '`model` takes text that is not empty; it is ""'],
    [{ ignoreEos: 1 }, "`ignoreEos` takes true or false; it is 1"],
    [{ prompt: NaN }, "`prompt` takes text or a list of token ids; it is NaN"],
    [{ prompt: [1, -1] }, "`prompt[1]` takes a whole number from 0 to 4294967295; it is -1"],
    [{ stopSequences: {} }, "`stopSequences` takes text or a list of texts; it is an object"],
    [{ logprobs: 21 }, "`logprobs` takes true, false or a number of alternatives from 0 to 20; it is 21"],
    [{ logitBias: { foo: 1 } }, '`logitBias` takes an object that gives token ids a number from -100 to 100; "foo" is not a token id'],
    [{ logitBias: { 1: 101 } }, "`logitBias.1` takes a number from -100 to 100; it is 101"],
    [{ messages: [] }, "`messages` takes a list of messages, each with a role and a content; it is empty"],
    [{ messages: [{ role: "user" }] }, "`messages[0].content` is missing; it takes text"],
    [{ messages: [{ role: "me", content: "" }] }, '`messages[0].role` takes system, developer, user or assistant; it is "me"'],
    [{ max_tokens: 3 }, "there is no parameter `max_tokens`; did you mean `maxTokens`?"],
    [{ stop: "x" }, "there is no parameter `stop`; did you mean `stopSequences`?"],
    ["Once", 'give an object, such as { prompt: "Once" }; the parameters are "Once"'],
  ])("say what %j is to be", (params, message) => {
    expect(() => engine.createGenerator(params as never)).toThrow(expect.objectContaining({ code: "InvalidParams", message }));
  });

  it.each<[unknown, string]>([
    [{ engine: { device: "gpu" } }, '`engine.device` takes auto, metal, vulkan, vulkan:N or cpu; it is "gpu"'],
    [{ engine: { arithmetic: "slow" } }, '`engine.arithmetic` takes fast or exact; it is "slow"'],
    [{ engine: { threads: "two" } }, '`engine.threads` takes a whole number from 0 to 1024; it is "two"'],
    [{ engine: { device: null, devise: "cpu" } }, "there is no option `engine.devise`; did you mean `engine.device`?"],
    [{ motor: {} }, "there is no option `motor`; there are server, engine, models, metal_optimizations and telemetry"],
    [[], 'give an object, such as { engine: { device: "cpu" } }; the options are a list'],
  ])("say what the options %j are to be", async (options, message) => {
    expect(await failure(createEngine(options as never))).toMatchObject({ code: "InvalidParams", message });
  });

  it("takes every role, and nothing said by an assistant", async () => {
    const messages = [{ role: "developer", content: "x" }, { role: "user", content: "x" }, { role: "assistant" }] as const;
    expect(() => engine.createGenerator({ messages: [...messages] })).not.toThrow();
  });
});

describe("what cannot be carried to the engine", () => {
  const cyclic: Record<string, unknown> = {};
  cyclic.self = cyclic;
  const cases: [string, object, string][] = [
    ["half of a surrogate pair", { prompt: "hello 😀".slice(0, 7) }, "prompt"],
    ["half of a surrogate pair in a message", { messages: [{ role: "user", content: "\ud83d" }] }, "messages[0].content"],
    ["a value that holds itself", { prompt: "x", chatTemplateKwargs: { cyclic } }, "chatTemplateKwargs.cyclic"],
    ["a map", new Map([["prompt", "x"]]), "parameters"],
    ["a promise", Promise.resolve({ prompt: "x" }), "parameters"],
    ["neither prompt nor messages", {}, "prompt"],
    ["an empty stop string", { prompt: "x", stopSequences: [""] }, "stopSequences"],
  ];
  it.each(cases)("%s is refused at the call, by name", async (_, params, param) => {
    expect(() => engine.createGenerator(params as never)).toThrow(expect.objectContaining({ code: "InvalidParams" }));
    const { param: named } = await failure(engine.generate(params as never));
    expect(named?.startsWith(param), named).toBe(true);
  });

  it("a forgotten await of options is refused", async () => {
    expect(await failure(createEngine(Promise.resolve({}) as never))).toMatchObject({ code: "InvalidParams", param: "options" });
    expect(await failure(createEngine({ engine: new Map() } as never))).toMatchObject({ code: "InvalidParams", param: "engine" });
  });

  it("an object without a prototype is as good as any", () => {
    expect(() => engine.createGenerator(Object.assign(Object.create(null), { prompt: "x", seed: null }))).not.toThrow();
  });
});

describe("the other methods", () => {
  it("refuse wrong arguments by name", async () => {
    const cases: [() => Promise<unknown>, string][] = [
      [() => engine.loadModel({ model: 3 } as never), "model"],
      [() => engine.loadModel({ name: "" }), "name"],
      [() => engine.loadModel({ path: "x" } as never), "path"],
      [() => engine.loadModel({ chatTemplate: 1 } as never), "chatTemplate"],
      [() => engine.loadModel({}, { onProgress: 3 } as never), "onProgress"],
      [() => engine.loadModel({}, { signal: 3 } as never), "signal"],
      [() => engine.unloadModel({ model: 3 } as never), "model"],
      [() => engine.tokenize({} as never), "text"],
      [() => engine.tokenize({ text: 3 } as never), "text"],
      [() => engine.tokenize({ text: "x", addSpecialTokens: 1 } as never), "addSpecialTokens"],
      [() => engine.detokenize({ tokens: "x" } as never), "tokens"],
      [() => engine.detokenize({ tokens: [99_999] }), "tokens"],
      [() => engine.getMetalOptimizationsStats({ model: 3 } as never), "model"],
      [() => engine.generate("x" as never), "parameters"],
    ];
    for (const [call, param] of cases) {
      expect(await failure(call()), param).toMatchObject({ code: "InvalidParams", param });
    }
  });

  it("say that a model is not there", async () => {
    expect(await failure(engine.loadModel({ model: "/nowhere/at/all" }))).toMatchObject({ code: "ModelNotFound", param: "model" });
    expect(await failure(engine.unloadModel({ model: "nobody" }))).toMatchObject({ code: "ModelNotLoaded" });
  });
});
