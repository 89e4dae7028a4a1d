// Speed of a model under a fixed load, as `mlx-serving bench throughput` measures it.
//
//   npx tsx benchmarks/flexible-benchmark.ts -q 16 [-m MODEL] [--output FILE] [--max-tokens N …]

import { json, load, measure, read, run, save } from "./common.js";

interface Throughput {
  throughput_tok_s: number;
  prefill_tok_s: number | null;
  decode_tok_s: number | null;
  ttft_ms: { p50: number; p99: number };
}

run(async () => {
  const { settings, output } = read("Speed of a model under a fixed load.", load(16));
  const result = await measure<Throughput>("benchThroughput", settings);
  console.log(`Throughput: ${result.throughput_tok_s.toFixed(2)} tok/s`);
  console.log(`Prefill:    ${result.prefill_tok_s?.toFixed(2) ?? "n/a"} tok/s`);
  console.log(`Decode:     ${result.decode_tok_s?.toFixed(2) ?? "n/a"} tok/s`);
  console.log(`First token: p50 ${result.ttft_ms.p50.toFixed(1)} ms, p99 ${result.ttft_ms.p99.toFixed(1)} ms`);
  save(output, json(result));
});
