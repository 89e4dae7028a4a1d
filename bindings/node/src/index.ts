/**
 * Language models in MLX's format, in this process.
 *
 * @module
 */

import { addon } from "./native.js";

export { createEngine, type Engine, type EngineOptions } from "./engine.js";
export { EngineError, type ErrorCode } from "./errors.js";
export type {
  DetokenizeParams,
  GenerateOptions,
  GenerateParams,
  LoadOptions,
  LoadParams,
  Message,
  ModelParams,
  TokenizeParams,
} from "./params.js";
export * from "./schemas/runtime.js";
export type * from "./types.js";

/** Version of the engine. */
export const version: string = addon.version();
