// Checks of what a program gives, and the sentences that say what is wrong with it.

import { inspect } from "node:util";
import { z } from "zod";
import { EngineError } from "./errors.js";

/** Phrases for what a schema takes, where its type says too little. */
export const takes = z.registry<{ phrase: string }>();

type Path = readonly PropertyKey[];

/** Kind of what is checked, as messages call it. */
type What = "parameter" | "option";

/**
 * Checks what was given against a schema. Members that are null or undefined ask for nothing.
 *
 * @throws EngineError with the name of the argument at fault.
 */
export function check<T extends z.ZodType>(schema: T, given: unknown, what: What): z.output<T> {
  carried(given, [], what);
  const value = asked(given ?? {}, (member) => member);
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const { param, message } = fault(schema, value, deepest(result.error.issues[0]!), what);
  throw new EngineError("InvalidParams", message, { param });
}

/** Copies options without the sections and keys that are null or undefined. */
export function withoutNulls(options: unknown): unknown {
  carried(options, [], "option");
  return kept(options ?? {});
}

function kept(options: unknown): unknown {
  return asked(options, kept);
}

/** Whether a value is an object with members, of whatever class or context, and not one that keeps its content elsewhere. */
const isPlain = (value: object): boolean => Object.prototype.toString.call(value) === "[object Object]";

/** Nesting of values; no argument needs more, and a value that holds itself has no end. */
const DEEPEST = 64;

/** Refuses what cannot be carried to the engine: broken text, objects that keep their content elsewhere, endless nesting. */
function carried(value: unknown, path: Path, what: What): void {
  const refuse = (reason: string): never => {
    const param = path.length === 0 ? `${what}s` : dotted(path.slice(0, DEEPEST));
    throw new EngineError("InvalidParams", `\`${param}\` ${reason}`, { param });
  };
  if (typeof value === "string" && /\p{Surrogate}/u.test(value)) refuse("has half of a surrogate pair, which is no text");
  if (typeof value !== "object" || value === null || value instanceof AbortSignal) return;
  if (path.length > DEEPEST) refuse("is nested too deep");
  if (Array.isArray(value)) {
    for (const [index, item] of value.entries()) carried(item, [...path, index], what);
  } else if (isPlain(value)) {
    for (const [key, member] of Object.entries(value)) {
      carried(key, [...path, key], what);
      carried(member, [...path, key], what);
    }
  } else {
    refuse(`is ${brief(value)}; give a plain object`);
  }
}

/** The members of an object that ask for something, each changed by `within`. */
function asked(value: unknown, within: (member: unknown) => unknown): unknown {
  if (typeof value !== "object" || value === null || !isPlain(value)) return value;
  const members = Object.entries(value).filter(([, member]) => member !== null && member !== undefined);
  return Object.fromEntries(members.map(([key, member]) => [key, within(member)]));
}

/** The issue within a union's: that of the alternative whose container was right, if there is one. */
function deepest(issue: z.core.$ZodIssue): z.core.$ZodIssue {
  if (issue.code !== "invalid_union") return issue;
  const inner = issue.errors.map(([first]) => first).find((first) => first !== undefined && first.path.length > 0);
  return inner === undefined ? issue : deepest({ ...inner, path: [...issue.path, ...inner.path] });
}

/** Says what is wrong, and with which argument. */
function fault(schema: z.ZodType, value: unknown, issue: z.core.$ZodIssue, what: What): { param: string; message: string } {
  const path: Path = issue.path;
  if (issue.code === "unrecognized_keys") {
    const key = issue.keys[0]!;
    const param = dotted([...path, key]);
    return { param, message: `there is no ${what} \`${param}\`; ${instead(key, at(schema, path), path)}` };
  }
  if (issue.code === "invalid_key") {
    const [param, key] = [dotted(path.slice(0, -1)), String(path.at(-1))];
    return { param, message: `\`${param}\` takes ${wanted(at(schema, path.slice(0, -1)))}; ${JSON.stringify(key)} is not a token id` };
  }
  const found = path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key], value);
  const phrase = wanted(at(schema, path));
  if (path.length === 0) return { param: `${what}s`, message: `give ${phrase}; the ${what}s are ${Array.isArray(found) ? "a list" : brief(found)}` };
  const param = dotted(path);
  const missing = found === null || found === undefined;
  return { param, message: missing ? `\`${param}\` is missing; it takes ${phrase}` : `\`${param}\` takes ${phrase}; it is ${brief(found)}` };
}

/** A path as it is written: `messages[0].role`. */
function dotted(path: Path): string {
  const join = (name: string, key: PropertyKey) => (typeof key === "number" ? `${name}[${key}]` : name === "" ? String(key) : `${name}.${String(key)}`);
  return path.reduce<string>(join, "");
}

/** The schema without what makes it optional. */
function bare(schema: z.ZodType): z.ZodType {
  while ("innerType" in schema.def) schema = schema.def.innerType as z.ZodType;
  return schema;
}

/** The schema of a member, as far as there is one. With a pattern, the one that has its description. */
function at(schema: z.ZodType, path: Path): z.ZodType | undefined {
  const [key, ...rest] = path;
  if (key === undefined) return schema;
  const inner = bare(schema);
  let member: z.core.$ZodType | undefined;
  if (inner instanceof z.ZodObject) member = inner.shape[String(key)] as z.ZodType | undefined;
  else if (inner instanceof z.ZodArray) member = inner.element;
  else if (inner instanceof z.ZodRecord) member = inner.valueType;
  else if (inner instanceof z.ZodUnion) return at(inner.options.find((option) => option instanceof z.ZodArray) as z.ZodType, path);
  return member === undefined ? undefined : at(member as z.ZodType, rest);
}

/** What a schema takes. */
function wanted(schema: z.ZodType | undefined): string {
  if (schema === undefined) return "another value";
  const inner = bare(schema);
  const phrase = takes.get(inner)?.phrase;
  if (phrase !== undefined) return phrase;
  if (inner instanceof z.ZodBoolean) return "true or false";
  if (inner instanceof z.ZodNumber) return `${inner.isInt ? "a whole number" : "a number"} from ${inner.minValue} to ${inner.maxValue}`;
  if (inner instanceof z.ZodEnum) return listed(inner.options.map(String), "or");
  if (inner instanceof z.ZodArray) return `a list, each item ${wanted(inner.element as z.ZodType)}`;
  if (inner instanceof z.ZodObject) return `an object with any of ${listed(Object.keys(inner.shape), "and")}`;
  if (!(inner instanceof z.ZodString)) return "another value";
  // A pattern is for programs; the description says the same to people.
  if (inner.def.checks?.some((check) => check._zod.def.check === "string_format") && schema.description !== undefined) return schema.description;
  return (inner.minLength ?? 0) > 0 ? "text that is not empty" : "text";
}

/** What may have been meant by a name that is unknown. */
function instead(name: string, schema: z.ZodType | undefined, path: Path): string {
  const inner = schema && bare(schema);
  const known = inner instanceof z.ZodObject ? Object.keys(inner.shape) : [];
  const plain = (name: string) => name.toLowerCase().replace(/[^a-z0-9]/g, "");
  const near = known
    .map((key) => ({ key, far: name.length >= 3 && plain(key).startsWith(plain(name)) ? 0 : distance(plain(name), plain(key)) }))
    .sort((a, b) => a.far - b.far)[0];
  if (near !== undefined && near.far <= name.length / 4) return `did you mean \`${dotted([...path, near.key])}\`?`;
  return `there ${known.length === 1 ? "is" : "are"} ${listed(known, "and")}`;
}

/** Letters to insert, remove or change between two names. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length]!;
}

function listed(words: string[], last: string): string {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} ${last} ${words.at(-1)}`;
}

/** A value, cut short for a message. */
function brief(value: unknown): string {
  const LONGEST = 60;
  if (Array.isArray(value)) return value.length === 0 ? "empty" : "a list";
  if (typeof value === "function") return "a function";
  if (typeof value === "object" && value !== null) return "an object";
  if (typeof value !== "string") return inspect(value);
  return JSON.stringify(value.length > LONGEST ? `${value.slice(0, LONGEST)}…` : value);
}
