// What the addon exports; lib.rs and its modules are the other side. Arguments and structured answers are JSON.

import type { TokenChunk } from "./types.js";

export interface Addon {
  version(): string;
  /** Folder of the bundled model. */
  setBundledModels(folder: string): void;
  Environment: new (wake: () => void) => NativeEnvironment;
  benchThroughput(args: string, tell: (line: string) => void): Promise<string>;
  benchCompare(args: string, tell: (line: string) => void): Promise<string>;
  Engine: new (environment: NativeEnvironment, options: string) => NativeEngine;
}

export interface NativeEnvironment {
  rearm(): void;
  wakes(): number;
}

export interface NativeEngine {
  loadModel(
    args: string,
    progress: ((json: string) => void) | undefined,
    settle: (error: string | null | undefined, card: string | null | undefined) => void,
  ): void;
  unloadModel(args: string): Promise<void>;
  close(): void;
  check(args: string): void;
  dispose(): Promise<void>;
  listModels(): string;
  health(): string;
  metalStats(args: string): string;
  metrics(): string;
  tokenize(args: string): Promise<number[]>;
  detokenize(args: string): Promise<string>;
  start(environment: NativeEnvironment, args: string): NativeGeneration;
}

export interface NativeGeneration {
  /** Tokens, null for nothing yet, undefined for the end. */
  take(): TokenChunk[] | null | undefined;
  cancel(): void;
  summary(): string | null;
}
