// Arguments, progress and files that the benchmarks share.

import { mkdirSync, writeFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { parseArgs } from "node:util";
import { engineError } from "../src/errors.js";
import { addon } from "../src/native.js";

/** A flag of a benchmark. */
export interface Flag {
  /** What it is about, with its default. */
  text: string;
  /** Kind of its value. */
  value: "TEXT" | "FILE" | "N";
  short?: string;
}

type Flags = Record<string, Flag>;

const COMMON = {
  model: { value: "TEXT", short: "m", text: "a folder, or an id of the Hugging Face hub; the bundled model" },
  output: { value: "FILE", short: "o", text: "where the result is written as JSON; nowhere" },
  device: { value: "TEXT", text: "auto, metal, vulkan, vulkan:N or cpu; auto" },
  threads: { value: "N", text: "threads of the CPU device; 0, all cores" },
} satisfies Flags;

/** Flags of a load with so many requests where none are given. */
export const load = (questions: number): Flags => ({
  questions: { value: "N", short: "q", text: `requests; ${questions}` },
  "prompt-tokens": { value: "N", text: "tokens of each prompt; 128" },
  "max-tokens": { value: "N", text: "tokens of each answer; 64" },
  concurrency: { value: "N", text: "requests at a time; 1" },
});

/** Reads the command line: the flags that all have, and a benchmark's own. */
export function read(about: string, own: Flags) {
  const flags: Flags = { ...COMMON, ...own };
  const options = Object.entries(flags).map(([name, { short }]) => [name, { type: "string", ...(short ? { short } : {}) }]);
  const { tokens } = parseArgs({
    options: { ...Object.fromEntries(options), help: { type: "boolean", short: "h" } } as never,
    strict: false,
    tokens: true,
  });
  const values: Record<string, string> = {};
  for (const token of tokens) {
    if (token.kind === "option-terminator") continue;
    if (token.kind === "positional") throw new Error(`"${token.value}" belongs to no flag; --help lists the flags`);
    if (token.name === "help") {
      console.log(usage(about, flags));
      process.exit(0);
    }
    const flag = flags[token.name];
    if (flag === undefined) throw new Error(`there is no flag ${token.rawName}; --help lists the flags`);
    if (token.value === undefined) throw new Error(`${token.rawName} takes a value: ${flag.text}`);
    if (flag.value === "N" && !/^\d+$/.test(token.value)) throw new Error(`--${token.name} takes a whole number; it is "${token.value}"`);
    values[token.name] = token.value;
  }
  const number = (name: string) => (values[name] === undefined ? undefined : Number(values[name]));
  const loads = Object.keys(load(0)).filter((name) => name in flags);
  return {
    text: (name: string) => values[name],
    number,
    output: values.output,
    /** Arguments of the addon's measurements. */
    settings: {
      model: values.model,
      config: { engine: { device: values.device, threads: number("threads") } },
      ...Object.fromEntries(loads.map((name) => [name.replace("-", "_"), number(name)])),
    },
  };
}

/** Text of `--help`: the usage, then a line a flag. */
function usage(about: string, flags: Flags): string {
  const rows = Object.entries(flags).map(([name, { short, value, text }]) => [`${short ? `-${short}, ` : "    "}--${name} ${value}`, text]);
  rows.push(["-h, --help", "prints this"]);
  const width = Math.max(...rows.map(([flag]) => flag!.length));
  const lines = rows.map(([flag, text]) => `  ${flag!.padEnd(width)}  ${text}`);
  return `${about}\n\nUsage: npx tsx benchmarks/${basename(process.argv[1]!)} [flags]; after the semicolon is what holds without the flag\n\n${lines.join("\n")}`;
}

/** Runs a measurement of the addon; what it is doing goes to standard error. */
export async function measure<T>(measurement: "benchThroughput" | "benchCompare", settings: object): Promise<T> {
  try {
    // The addon keeps the process until it is done.
    return JSON.parse(await addon[measurement](JSON.stringify(settings), (line) => console.error(line))) as T;
  } catch (thrown) {
    throw engineError(thrown, (name) => name.replaceAll("_", "-"));
  }
}

/** Writes a file, if it is wanted, and says where it is. */
export function save(path: string | undefined, text: string, what = "Results"): void {
  if (path === undefined) return;
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  console.log(`${what} saved to: ${path}`);
}

/** A result as a file has it. */
export const json = (result: unknown): string => `${JSON.stringify(result, null, 2)}\n`;

/** Ends a program by what went wrong, in a sentence. */
export function run(program: () => Promise<void>): void {
  program().catch((error: unknown) => {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  });
}
