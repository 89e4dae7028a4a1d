// The memory pool against plain runs, each between two of them.
//
//   npx tsx benchmarks/metal-memory-pool-benchmark.ts [-m MODEL] [-q N] [--repetitions N] [--output FILE]

import { json, load, measure, read, run, save } from "./common.js";

const OUTPUT = "results/memory-pool-benchmark.json";

interface Compared {
  memory_pool: {
    baseline: { throughput_tok_s: number };
    with_pool: { throughput_tok_s: number };
    improvement_percent: number;
    target: unknown;
    outcome: unknown;
  };
}

run(async () => {
  const { settings, number, output } = read("The memory pool against plain runs.", {
    ...load(32),
    repetitions: { value: "N", text: "runs with the pool; 11" },
    output: { value: "FILE", short: "o", text: `where the result is written as JSON; ${OUTPUT}` },
  });
  console.log("=== Memory Pool Benchmark ===\n");
  const compared = await measure<Compared>("benchCompare", {
    ...settings,
    optimizations: "memory_pool",
    repetitions: number("repetitions"),
    command: process.argv,
  });
  const { baseline, with_pool, improvement_percent, outcome } = compared.memory_pool;
  const signed = `${improvement_percent < 0 ? "" : "+"}${improvement_percent.toFixed(1)}`;
  console.log("\n=== Results ===");
  console.log(`Baseline:     ${baseline.throughput_tok_s.toFixed(2)} tok/s`);
  console.log(`With Pool:    ${with_pool.throughput_tok_s.toFixed(2)} tok/s`);
  console.log(`Improvement:  ${signed}% (${String(outcome)})`);
  save(output ?? OUTPUT, json(compared.memory_pool));
});
