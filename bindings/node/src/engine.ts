// The engine as programs see it.

import type { z } from "zod";
import type { NativeEngine } from "./addon.js";
import { check, withoutNulls } from "./check.js";
import { aborted, callNative, callNativeAsync, engineError, type EngineError } from "./errors.js";
import { argumentName, fromNativeJson, toNativeJson } from "./json.js";
import { loop, type Waiter } from "./loop.js";
import { addon } from "./native.js";
import {
  DetokenizeParamsSchema,
  GenerateOptionsSchema,
  GenerateParamsSchema,
  LoadOptionsSchema,
  LoadParamsSchema,
  ModelParamsSchema,
  TokenizeParamsSchema,
  type DetokenizeParams,
  type GenerateOptions,
  type GenerateParams,
  type LoadOptions,
  type LoadParams,
  type ModelParams,
  type TokenizeParams,
} from "./params.js";
import { RuntimeConfigSchema, type RuntimeConfigInput } from "./schemas/runtime.js";
import { TokenStream } from "./stream.js";
import type { GenerationChunk, GenerationResult, Health, LoadProgress, MetalOptimizationsStats, ModelInfo } from "./types.js";

/** Options of an engine: the keys of `runtime.yaml`, all of them optional; null is as good as leaving one out. */
export type EngineOptions = { [K in keyof RuntimeConfigInput]: RuntimeConfigInput[K] | null };

/**
 * Creates an engine. It opens nothing yet.
 *
 * @throws EngineError of code `InvalidParams` with the dotted option at fault.
 */
export async function createEngine(options?: EngineOptions | null): Promise<Engine> {
  const given = withoutNulls(options);
  check(RuntimeConfigSchema, given, "option");
  return new Engine(callNative(() => new addon.Engine(loop.environment, JSON.stringify(given)), (option) => option));
}

/** Models in this process. Every method fails with an `EngineError`; after `dispose()` with one of code `Disposed`. */
export class Engine {
  readonly #native: NativeEngine;
  /** What ends the wait for each load that goes on. */
  readonly #loads = new Set<() => void>();
  #disposal: Promise<void> | undefined;

  /** @internal */
  constructor(native: NativeEngine) {
    this.#native = native;
  }

  /**
   * Loads a model, and returns its `ModelInfo`. A signal stops the waiting: what is loaded then is unloaded again. What
   * `onProgress` throws rejects the promise once the model is loaded.
   */
  async loadModel(params?: LoadParams | null, options?: LoadOptions | null): Promise<ModelInfo> {
    const args = toArgs(LoadParamsSchema, params);
    const { onProgress, signal } = check(LoadOptionsSchema, options, "option");
    if (signal?.aborted) throw aborted(signal, "loading the model");
    const before = this.#models().map(({ id }) => id);
    let thrown: { error: unknown } | undefined;
    const progress = (json: string) => {
      try {
        onProgress!(JSON.parse(json) as LoadProgress);
      } catch (error) {
        thrown ??= { error };
      }
    };
    const { card, leave } = this.#load(args, onProgress && progress);
    const loading = card.then(async (card) => {
      // What was reported before the end is delivered by then.
      if (onProgress !== undefined) await new Promise(setImmediate);
      if (thrown !== undefined) throw thrown.error;
      return fromNativeJson<ModelInfo>(card);
    });
    if (signal === undefined) return loading;
    return new Promise((resolve, reject) => {
      const abort = () => {
        leave();
        reject(aborted(signal, "loading the model"));
        // Whoever has left is not told what becomes of it; a model that was there before stays.
        loading.then(({ id }) => (before.includes(id) ? undefined : this.unloadModel({ model: id }))).catch(() => {});
      };
      signal.addEventListener("abort", abort);
      loading.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
    });
  }

  /** Unloads a model; ends when its memory is free. */
  async unloadModel(params?: ModelParams | null): Promise<void> {
    const args = toArgs(ModelParamsSchema, params);
    return callNativeAsync(() => this.#native.unloadModel(args));
  }

  /** The models of this engine. */
  async listModels(): Promise<ModelInfo[]> {
    return this.#models();
  }

  /**
   * Generates an answer token by token. Arguments are checked at the call, which throws; nothing is computed before the first `next()`.
   * Leaving the loop, `return()`, `throw()`, a signal, `timeoutMs` and `dispose()` stop it at once. What is not read holds it up.
   *
   * @throws EngineError of code `InvalidParams` with the argument at fault.
   */
  createGenerator(params: GenerateParams, options?: GenerateOptions | null): AsyncGenerator<GenerationChunk, void, void> {
    return this.#stream(params, options);
  }

  /** Generates a whole answer. */
  generate(params: GenerateParams, options?: GenerateOptions | null): Promise<GenerationResult> {
    let stream: TokenStream;
    try {
      stream = this.#stream(params, options);
    } catch (error) {
      return Promise.reject(error as EngineError);
    }
    const answer = stream.collect();
    // Whoever aborts, or disposes of the engine, may look at the promise later than it is rejected.
    answer.catch(() => {});
    return answer;
  }

  /** Token ids of a text. */
  async tokenize(params: TokenizeParams): Promise<number[]> {
    const args = toArgs(TokenizeParamsSchema, params);
    return callNativeAsync(() => this.#native.tokenize(args));
  }

  /** The text of token ids. */
  async detokenize(params: DetokenizeParams): Promise<string> {
    const args = toArgs(DetokenizeParamsSchema, params);
    return callNativeAsync(() => this.#native.detokenize(args));
  }

  /** Whether the engine and its models answer; never fails. */
  async healthCheck(): Promise<Health> {
    return fromNativeJson<Health>(callNative(() => this.#native.health()));
  }

  /** Statistics of the Metal-layer optimizations, of the only model or the one that is named, as they are at the call. */
  async getMetalOptimizationsStats(params?: ModelParams | null): Promise<MetalOptimizationsStats> {
    const args = toArgs(ModelParamsSchema, params);
    return JSON.parse(callNative(() => this.#native.metalStats(args))) as MetalOptimizationsStats;
  }

  /** Metrics as they are at the call, as Prometheus reads them. */
  async metrics(): Promise<string> {
    return callNative(() => this.#native.metrics());
  }

  /** Ends everything: answers fail with code `Disposed`. Resolves when all memory is free. */
  dispose(): Promise<void> {
    if (this.#disposal === undefined) {
      this.#native.close();
      for (const end of this.#loads) end();
      this.#disposal = callNativeAsync(() => this.#native.dispose());
    }
    return this.#disposal;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  /** Begins a load: its answer, which keeps the process while somebody waits for it, and what says that nobody does any more. */
  #load(args: string, progress: ((json: string) => void) | undefined): { card: Promise<string>; leave: () => void } {
    const waiter: Waiter = { deliver: () => {} };
    const leave = () => loop.leave(waiter);
    const card = new Promise<string>((resolve, reject) => {
      const closed = () => settle(JSON.stringify({ code: "Disposed", message: "the engine is closed; create another", param: null }));
      const settle = (error: string | null | undefined, card?: string | null) => {
        this.#loads.delete(closed);
        leave();
        if (typeof card === "string") resolve(card);
        else reject(engineError(error, argumentName));
      };
      loop.wait(waiter);
      this.#loads.add(closed);
      try {
        this.#native.loadModel(args, progress, settle);
      } catch (thrown) {
        settle(thrown instanceof Error ? thrown.message : String(thrown));
      }
    });
    return { card, leave };
  }

  #models(): ModelInfo[] {
    return fromNativeJson<ModelInfo[]>(callNative(() => this.#native.listModels()));
  }

  #stream(params: GenerateParams, options: GenerateOptions | null | undefined): TokenStream {
    const args = toArgs(GenerateParamsSchema, params);
    const limits = check(GenerateOptionsSchema, options, "option");
    callNative(() => this.#native.check(args));
    return new TokenStream(() => this.#native.start(loop.environment, args), limits);
  }
}

/** Checks arguments, and writes them as the addon takes them. */
function toArgs<T extends z.ZodObject>(schema: T, params: unknown): string {
  return toNativeJson(check(schema, params, "parameter"));
}
