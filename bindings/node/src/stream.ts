// One answer as an async generator. It is written out, not an `async function*`: that would let `return()` wait behind a `next()` which waits
// for a token, and an answer has to stop at once.

import type { NativeGeneration } from "./addon.js";
import { aborted, EngineError, engineError } from "./errors.js";
import { argumentName, fromNativeJson } from "./json.js";
import { loop, type Waiter } from "./loop.js";
import type { GenerationChunk, GenerationResult, GenerationStats, TokenChunk } from "./types.js";

type Item = IteratorResult<GenerationChunk, void>;

/** A call of `next()` that waits. */
interface Reader {
  resolve(item: Item): void;
  reject(error: EngineError): void;
}

/** Ends that an answer may find from outside. */
export interface Limits {
  signal?: AbortSignal | undefined;
  timeoutMs?: number | undefined;
}

const WHAT = "the answer";

/** Undoes what watches a stream that nobody can read any more; the addon cancels it when it is collected too. */
const collected = new FinalizationRegistry<() => void>((unwatch) => unwatch());

/** Ends a stream at its signal or its deadline, and does not keep it from being collected. Returns what stops watching. */
function watch(stream: TokenStream, { signal, timeoutMs }: Limits): () => void {
  const weak = new WeakRef(stream);
  const abort = () => weak.deref()?.fail(aborted(signal!, WHAT));
  const late = () => weak.deref()?.fail(new EngineError("Timeout", `${WHAT} took longer than timeoutMs, ${timeoutMs}`));
  const timer = timeoutMs === undefined ? undefined : setTimeout(late, timeoutMs).unref();
  signal?.addEventListener("abort", abort);
  const unwatch = () => {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  };
  if (signal !== undefined || timer !== undefined) collected.register(stream, unwatch, stream);
  return unwatch;
}

/**
 * Tokens, then the metadata. Nothing is computed before the first `next()`. What is taken from the addon at once is kept here until it is
 * read; while more waits there unread than the engine's read-ahead, the engine does not go on.
 */
export class TokenStream implements AsyncGenerator<GenerationChunk, void, void>, Waiter {
  readonly #start: () => NativeGeneration;
  readonly #limits: Limits;
  #generation: NativeGeneration | undefined;
  #unwatch: (() => void) | undefined;
  #tokens: TokenChunk[] = [];
  #read = 0;
  readonly #readers: Reader[] = [];
  /** Error that nobody has been told yet. */
  #failure: EngineError | undefined;
  #over = false;

  constructor(start: () => NativeGeneration, limits: Limits) {
    this.#start = start;
    this.#limits = limits;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<Item> {
    const promise = new Promise<Item>((resolve, reject) => {
      this.#readers.push({ resolve, reject });
      if (this.#readers.length > 1) return;
      this.deliver();
      if (this.#readers.length > 0) loop.wait(this);
    });
    // Whoever asks ahead may look at the promise later than it is rejected, and after an abort not at all.
    promise.catch(() => {});
    return promise;
  }

  return(value?: void | PromiseLike<void>): Promise<Item> {
    this.#cancel();
    return Promise.resolve(value).then((value) => ({ value, done: true }));
  }

  throw(error: unknown): Promise<Item> {
    this.#cancel();
    return Promise.reject(error);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#cancel();
  }

  /** The whole answer. */
  async collect(): Promise<GenerationResult> {
    const tokens: TokenChunk[] = [];
    for (;;) {
      const item = this.#item() ?? (await this.next());
      if (item.done) throw new EngineError("Internal", `${WHAT} ended without its statistics`);
      if (item.value.type === "token") {
        tokens.push(item.value);
      } else {
        return { text: tokens.map(({ token }) => token).join(""), tokens, stats: item.value.stats };
      }
    }
  }

  /** Ends it with an error. */
  fail(error: EngineError): void {
    if (this.#over) return;
    this.#stop();
    this.#failure = error;
    this.deliver();
  }

  /** Gives what has come to those who wait. */
  deliver(): void {
    while (this.#readers.length > 0) {
      let item: Item | undefined;
      try {
        item = this.#item();
      } catch (error) {
        this.#readers.shift()!.reject(error as EngineError);
        continue;
      }
      if (item === undefined) return;
      this.#readers.shift()!.resolve(item);
    }
    loop.leave(this);
  }

  /** Takes what comes next, if it has come. */
  #item(): Item | undefined {
    if (this.#read < this.#tokens.length) return { value: this.#tokens[this.#read++]!, done: false };
    if (this.#failure !== undefined) {
      const failure = this.#failure;
      this.#failure = undefined;
      throw failure;
    }
    if (this.#over) return { value: undefined, done: true };
    try {
      this.#generation ??= this.#begin();
      const taken = this.#generation.take();
      if (taken === null) return undefined;
      if (taken === undefined) return this.#finish(this.#generation.summary());
      this.#tokens = taken;
      this.#read = 1;
      return { value: taken[0]!, done: false };
    } catch (thrown) {
      this.#end();
      throw engineError(thrown, argumentName);
    }
  }

  #begin(): NativeGeneration {
    const { signal } = this.#limits;
    if (signal?.aborted) throw aborted(signal, WHAT);
    const generation = this.#start();
    this.#unwatch = watch(this, this.#limits);
    return generation;
  }

  #finish(summary: string | null): Item {
    this.#end();
    if (summary === null) return { value: undefined, done: true };
    return { value: { type: "metadata", stats: fromNativeJson<GenerationStats>(summary) }, done: false };
  }

  /** Ends it for a reader who has left. */
  #cancel(): void {
    this.#failure = undefined;
    if (!this.#over) this.#stop();
    this.#tokens = [];
    this.deliver();
  }

  /** Stops the engine, and drops what was not read. */
  #stop(): void {
    this.#generation?.cancel();
    this.#tokens = [];
    this.#end();
  }

  #end(): void {
    this.#over = true;
    this.#generation = undefined;
    this.#unwatch?.();
    this.#unwatch = undefined;
    collected.unregister(this);
  }
}
