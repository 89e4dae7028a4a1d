// Each Metal-layer optimization alone and all together, each run between two plain ones, as `mlx-serving bench compare` measures them.
//
//   npx tsx benchmarks/metal-optimization-comparison.ts --optimizations all|NAME,… [--baseline FILE] [--output FILE] [-m MODEL] …

import { parse } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { json, load, measure, read, run, save } from "./common.js";

interface Compared {
  result: unknown;
  page: string;
  table: string;
}

run(async () => {
  const { settings, text, number, output } = read("Each Metal-layer optimization, and all of them, against plain runs.", {
    ...load(32),
    optimizations: { value: "TEXT", text: "all, or memory_pool, blit_queue and command_buffer_ring with commas between; all" },
    repetitions: { value: "N", text: "runs of each; 11" },
    "prefix-tokens": { value: "N", text: "tokens that prompts begin with in common; 512" },
    baseline: { value: "FILE", text: "an earlier result to compare with; none" },
    output: { value: "FILE", short: "o", text: "where the result is written as JSON, with a page of HTML beside it; nowhere" },
  });
  const { result, page, table } = await measure<Compared>("benchCompare", {
    ...settings,
    baseline: text("baseline"),
    optimizations: text("optimizations"),
    repetitions: number("repetitions"),
    prefix_tokens: number("prefix-tokens"),
    command: process.argv,
  });
  console.log(process.stdout.isTTY ? table : stripVTControlCharacters(table));
  save(output, json(result));
  if (output !== undefined) {
    const { dir, name } = parse(output);
    save(`${dir === "" ? "." : dir}/${name}.html`, page, "Page");
  }
});
