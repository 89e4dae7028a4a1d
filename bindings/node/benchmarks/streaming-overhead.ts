// Cost of reading an answer token by token, beside `generate`: pairs of runs in turn, in one process, with the same prompt. For each pair:
// what streaming takes beyond `generate`, of the process's CPU time a token and of wall time.
//
//   npx tsx benchmarks/streaming-overhead.ts [-m MODEL] [--max-tokens N] [--pairs N] [--output FILE]

import { createEngine, type Engine } from "../src/index.js";
import { json, read, run, save } from "./common.js";

interface Cost {
  cpuUs: number;
  wallUs: number;
}

/** Process CPU and wall time of a run, microseconds a token. */
async function cost(way: () => Promise<number>): Promise<Cost> {
  const [cpu, wall] = [process.cpuUsage(), performance.now()];
  const tokens = await way();
  const { user, system } = process.cpuUsage(cpu);
  return { cpuUs: (user + system) / tokens, wallUs: ((performance.now() - wall) * 1000) / tokens };
}

/** The value below which so much of the list lies. */
function quantile(values: number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!;
}

async function compare(engine: Engine, maxTokens: number, pairs: number) {
  const ask = { prompt: "The difference between a slice and an array is", maxTokens, ignoreEos: true, temperature: 0 };
  const whole = async () => (await engine.generate(ask)).stats.completionTokens;
  const streamed = async () => {
    let tokens = 0;
    for await (const chunk of engine.createGenerator(ask)) if (chunk.type === "token") tokens++;
    return tokens;
  };
  await cost(whole);
  await cost(streamed);
  const costs: { whole: Cost; streamed: Cost }[] = [];
  for (let i = 0; i < pairs; i++) {
    // Which goes first alternates, so that neither always finds the other's caches.
    const first = await cost(i % 2 === 0 ? whole : streamed);
    const second = await cost(i % 2 === 0 ? streamed : whole);
    costs.push(i % 2 === 0 ? { whole: first, streamed: second } : { whole: second, streamed: first });
  }
  const of = (value: (pair: (typeof costs)[number]) => number) => quantile(costs.map(value), 0.5);
  const overhead = costs.map(({ whole, streamed }) => (streamed.wallUs / whole.wallUs - 1) * 100);
  return {
    generate_us_per_token: of(({ whole }) => whole.wallUs),
    generate_cpu_us_per_token: of(({ whole }) => whole.cpuUs),
    stream_cpu_us_per_token: of(({ streamed }) => streamed.cpuUs),
    cpu_us_per_token: of(({ whole, streamed }) => streamed.cpuUs - whole.cpuUs),
    overhead_percent: quantile(overhead, 0.5),
    overhead_percent_quartiles: [quantile(overhead, 0.25), quantile(overhead, 0.75)],
  };
}

run(async () => {
  const { settings, number, output } = read("Cost of reading an answer token by token, beside generate.", {
    "max-tokens": { value: "N", text: "tokens of each answer; 400" },
    pairs: { value: "N", text: "pairs of runs; 20" },
  });
  const [maxTokens, pairs] = [number("max-tokens") ?? 400, number("pairs") ?? 20];
  const engine = await createEngine(settings.config as never);
  const { id, device } = await engine.loadModel({ model: settings.model ?? null });
  const result = { benchmark: "streaming_overhead", model: id, device, pairs, max_tokens: maxTokens, ...(await compare(engine, maxTokens, pairs)) };
  await engine.dispose();
  console.log(json(result).trimEnd());
  save(output, json(result));
});
