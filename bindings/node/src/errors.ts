// The one class of errors.

import { argumentName } from "./json.js";

/** Kinds of errors. */
export type ErrorCode =
  | "InvalidParams"
  | "ModelNotFound"
  | "ModelNotLoaded"
  | "LoadError"
  | "GenerationError"
  | "Timeout"
  | "Cancelled"
  | "Disposed"
  | "Overloaded"
  | "Internal";

/** An error of the engine. */
export class EngineError extends Error {
  override readonly name = "EngineError";
  /** Kind of the error. */
  readonly code: ErrorCode;
  /** Argument or the dotted option at fault, as it was given. */
  readonly param: string | undefined;

  constructor(code: ErrorCode, message: string, details: { param?: string; cause?: unknown } = {}) {
    super(message, "cause" in details ? { cause: details.cause } : undefined);
    this.code = code;
    this.param = details.param;
  }
}

/** Name that an argument of the addon has for programs. */
type Rename = (param: string) => string;

/** Turns what the addon threw into an `EngineError`. */
export function engineError(thrown: unknown, rename: Rename): EngineError {
  if (thrown instanceof EngineError) return thrown;
  const text = thrown instanceof Error ? thrown.message : String(thrown);
  let fields: { code: ErrorCode; message: string; param: string | null };
  try {
    fields = JSON.parse(text) as typeof fields;
  } catch {
    return new EngineError("Internal", text, { cause: thrown });
  }
  const { code, message, param } = fields;
  if (param === null) return new EngineError(code, message);
  return new EngineError(code, message.replaceAll(`\`${param}\``, `\`${rename(param)}\``), { param: rename(param) });
}

/** Runs a call of the addon. */
export function callNative<T>(call: () => T, rename: Rename = argumentName): T {
  try {
    return call();
  } catch (thrown) {
    throw engineError(thrown, rename);
  }
}

/** Awaits a call of the addon. */
export async function callNativeAsync<T>(call: () => Promise<T>, rename: Rename = argumentName): Promise<T> {
  try {
    return await call();
  } catch (thrown) {
    throw engineError(thrown, rename);
  }
}

/** Error of what a signal stopped. */
export function aborted(signal: AbortSignal, what: string): EngineError {
  const cause: unknown = signal.reason;
  const late = cause instanceof Error && cause.name === "TimeoutError";
  return late
    ? new EngineError("Timeout", `${what} took longer than its signal allows`, { cause })
    : new EngineError("Cancelled", `${what} was canceled by its signal`, { cause });
}
