// What the types take and refuse; `npm run check` compiles it, nothing runs it.

import {
  createEngine,
  EngineError,
  MetalMemoryPoolConfigSchema,
  MetalOptimizationsConfigSchema,
  type ErrorCode,
  type GenerationChunk,
  type MetalMemoryPoolConfig,
  type DetokenizeParams,
  type GenerateOptions,
  type GenerateParams,
  type LoadOptions,
  type LoadParams,
  type Message,
  type MetalOptimizationsConfig,
  type ModelParams,
  type RuntimeConfig,
  type RuntimeConfigInput,
  type RuntimeConfigSchema,
  type TokenizeParams,
} from "../src/index.js";
import type { z } from "zod";
import type * as schemas from "../src/params.js";

/** True if two types have the same names, and each takes what the other does. */
type Same<A, B> = [Required<A>, Required<B>] extends [Required<B>, Required<A>] ? true : false;
/** The keys that a type names, without those that it takes under any name. */
type Own<T> = T extends object ? { [K in keyof T as string extends K ? never : K]: T[K] } : never;
/** What a schema takes, where null is as good as leaving a parameter out. */
type Given<T extends z.ZodType> = { [K in keyof z.input<T>]: undefined extends z.input<T>[K] ? z.input<T>[K] | null : z.input<T>[K] };

true satisfies Same<GenerateParams, Given<typeof schemas.GenerateParamsSchema>>;
true satisfies Same<GenerateOptions, Given<typeof schemas.GenerateOptionsSchema>>;
true satisfies Same<LoadParams, Given<typeof schemas.LoadParamsSchema>>;
true satisfies Same<LoadOptions, Given<typeof schemas.LoadOptionsSchema>>;
true satisfies Same<ModelParams, Given<typeof schemas.ModelParamsSchema>>;
true satisfies Same<TokenizeParams, Given<typeof schemas.TokenizeParamsSchema>>;
// Among the keys of `models` are names of models, which the two write differently: its own keys are compared without them.
true satisfies Same<Omit<RuntimeConfigInput, "models">, Omit<z.input<typeof RuntimeConfigSchema>, "models">>;
true satisfies Same<Own<RuntimeConfigInput["models"]>, Own<z.input<typeof RuntimeConfigSchema>["models"]>>;
true satisfies Same<DetokenizeParams, Given<typeof schemas.DetokenizeParamsSchema>>;

export const history: Message[] = [
  { role: "developer", content: "Be brief." },
  { role: "user", content: "Hello", name: "Ada" },
  { role: "assistant" },
];

const pool: MetalMemoryPoolConfig = MetalMemoryPoolConfigSchema.parse({ heap_size_mb: 128 });
const optimizations: MetalOptimizationsConfig = MetalOptimizationsConfigSchema.parse({});
export const heaps: number = pool.num_heaps + optimizations.memory_pool.num_heaps;
export const threads = (config: RuntimeConfig): number => config.engine.threads;

export async function right(): Promise<void> {
  await using engine = await createEngine({ metal_optimizations: { enabled: true, memory_pool: { enabled: true } }, models: null });
  await engine.loadModel({ model: "m", name: null }, { onProgress: ({ done, total }) => void (done / total) });
  const generator: AsyncGenerator<GenerationChunk, void, void> = engine.createGenerator(
    { model: "m", prompt: [1, 2], stopSequences: "x", logprobs: true, seed: undefined },
    { signal: AbortSignal.timeout(1), timeoutMs: 5 },
  );
  for await (const chunk of generator) {
    if (chunk.type === "token") {
      const text: string = chunk.token;
      const id: number | null = chunk.tokenId;
      void [text, id];
    } else {
      const reason: "stop" | "length" = chunk.stats.finishReason;
      void reason;
    }
  }
  const { memory_pool } = await engine.getMetalOptimizationsStats();
  if (memory_pool.enabled) void (memory_pool.total_acquired satisfies number);
  else void (memory_pool.reason satisfies string | undefined);
  void ((await engine.listModels())[0]?.kvCacheBytes satisfies number | undefined);
  const code: ErrorCode = new EngineError("Timeout", "late").code;
  void code;
}

export async function wrong(): Promise<void> {
  // @ts-expect-error an unknown section
  await createEngine({ motor: {} });
  // @ts-expect-error an unknown key
  await createEngine({ metal_optimizations: { memory_pool: { heaps: 3 } } });
  // @ts-expect-error a wrong type
  const engine = await createEngine({ engine: { threads: "two" } });
  // @ts-expect-error no word of it
  await createEngine({ engine: { arithmetic: "slow" } });
  // @ts-expect-error the addon's name
  engine.createGenerator({ prompt: "x", max_tokens: 3 });
  // @ts-expect-error a wrong type
  engine.createGenerator({ prompt: 3 });
  // @ts-expect-error nobody's role
  engine.createGenerator({ messages: [{ role: "nobody", content: "x" }] });
  // @ts-expect-error only an assistant may have said nothing
  engine.createGenerator({ messages: [{ role: "user" }] });
  // @ts-expect-error no signal
  engine.createGenerator({ prompt: "x" }, { signal: 3 });
  // @ts-expect-error a text is needed
  await engine.tokenize({});
  // @ts-expect-error only the package creates engines
  new (engine.constructor as typeof import("../src/index.js").Engine)();
  // @ts-expect-error no code
  new EngineError("Late", "late");
}
