// What the tests share: an engine with the bundled model, its counters, and waiting for what comes to be.

import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import { createEngine, EngineError, type Engine, type EngineOptions } from "../src/index.js";

export const MODEL = "rustbook-5m-4bit";

/** A request that goes on until it is stopped, or for so many tokens. */
export const endless = (maxTokens = 1500) => ({ model: MODEL, prompt: "What is ownership?", temperature: 0, ignoreEos: true, maxTokens });

/** With the ring, steps are submitted ahead. */
export const RING: EngineOptions = { metal_optimizations: { enabled: true, command_buffer_ring: { enabled: true, ring_size: 3 } } };

export async function loaded(options: EngineOptions = {}): Promise<Engine> {
  const engine = await createEngine({ ...options, engine: { device: "cpu", threads: 2, ...options.engine } });
  await engine.loadModel({ model: MODEL });
  return engine;
}

/** A counter out of the metrics as they are now. */
export async function counter(engine: Engine, name: string): Promise<number> {
  const line = (await engine.metrics()).split("\n").find((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
  expect(line, `${name} is in the metrics`).toBeDefined();
  return Number(line!.split(" ").at(-1));
}

export const generated = (engine: Engine) => counter(engine, "vllm:generation_tokens_total");

/** Waits for something that comes by itself. */
export async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = Date.now() + 60_000;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`${what} did not come`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

export const idle = (engine: Engine) =>
  until("the end of all requests", async () => (await counter(engine, "vllm:num_requests_running")) === 0);

/** The error of a promise, which has to be ours. */
export async function failure(promise: Promise<unknown>): Promise<EngineError> {
  const error = await promise.then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(error).toBeInstanceOf(EngineError);
  return error as EngineError;
}

/** Runs a program of tests/fixtures against the compiled package, and returns what it printed. */
export async function program(
  name: string,
  { flags = [], args = [], env = {} }: { flags?: string[]; args?: string[]; env?: Record<string, string> } = {},
): Promise<{ code: number | null; signal: string | null; output: string }> {
  const path = fileURLToPath(new URL(`fixtures/${name}`, import.meta.url));
  const child = spawn(process.execPath, [...flags, path, ...args], { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...env } });
  let output = "";
  child.stdout.on("data", (data: Buffer) => (output += data.toString()));
  child.stderr.on("data", (data: Buffer) => (output += data.toString()));
  return new Promise((resolve) => child.on("close", (code, signal) => resolve({ code, signal, output })));
}
