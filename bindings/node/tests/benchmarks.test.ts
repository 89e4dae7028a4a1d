import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));
const tiny = ["--device", "cpu", "--threads", "2", "--max-tokens", "4"];
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "mlx-serving-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Runs a benchmark as `npx tsx` does; the event loop goes on meanwhile, which vitest needs. */
async function bench(name: string, ...flags: string[]) {
  const child = spawn(join(root, "node_modules/.bin/tsx"), [`benchmarks/${name}.ts`, ...flags], { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
  const closed = once(child, "close");
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  return { status: ((await closed) as [number | null])[0], stdout, stderr };
}

const written = (path: string) => JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;

it("the benchmarks measure, and write what they found", async () => {
  const [speed, pool, compared, overhead] = ["speed", "pool", "compared", "overhead"].map((name) => join(folder, `${name}.json`)) as [string, string, string, string];
  const short = ["-q", "1", ...tiny];
  const runs = [
    await bench("flexible-benchmark", ...short, "-m", "rustbook-5m-4bit", "--output", speed),
    await bench("metal-memory-pool-benchmark", ...short, "--repetitions", "1", "--output", pool),
    await bench("metal-optimization-comparison", ...short, "--repetitions", "1", "--prefix-tokens", "64", "--baseline", speed,
      "--optimizations", "memory_pool", "--output", compared),
    await bench("streaming-overhead", ...tiny, "--pairs", "2", "--output", overhead),
  ];
  for (const { status, stderr } of runs) expect(status, stderr).toBe(0);
  expect(runs[2]!.stdout).toContain(`Page saved to: ${join(folder, "compared.html")}`);
  expect(runs[2]!.stdout).not.toContain("\u001b");
  expect(written(speed)).toMatchObject({ benchmark: "throughput", throughput_tok_s: expect.any(Number) });
  expect(written(pool)).toMatchObject({ benchmark: "memory_pool", baseline: { questions: 1 }, outputs_equal: true });
  expect(written(compared)).toHaveProperty("runs");
  expect(existsSync(join(folder, "compared.html"))).toBe(true);
  expect(written(overhead)).toMatchObject({ benchmark: "streaming_overhead", pairs: 2, cpu_us_per_token: expect.any(Number) });
});

it("the benchmarks say what is wrong with their flags", async () => {
  expect(await bench("flexible-benchmark", "-q", "x")).toMatchObject({ status: 1, stderr: expect.stringContaining("--questions") });
  expect(await bench("flexible-benchmark", "-q", "0")).toMatchObject({ status: 1, stderr: expect.stringContaining("questions") });
  expect(await bench("flexible-benchmark", "--pairs", "2")).toMatchObject({ status: 1, stderr: "there is no flag --pairs; --help lists the flags\n" });
  expect(await bench("flexible-benchmark", "-m")).toMatchObject({ status: 1, stderr: expect.stringContaining("-m takes a value") });
  expect(await bench("flexible-benchmark", "llama")).toMatchObject({ status: 1, stderr: expect.stringContaining('"llama" belongs to no flag') });
});

it.each([
  ["flexible-benchmark", "requests; 16"],
  ["metal-memory-pool-benchmark", "results/memory-pool-benchmark.json"],
  ["metal-optimization-comparison", "--prefix-tokens N"],
  ["streaming-overhead", "--pairs N"],
])("%s lists its flags", async (name, line) => {
  expect(await bench(name, "--help")).toMatchObject({ status: 0, stderr: "", stdout: expect.stringContaining(line) });
});
