import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/**/*.test.ts"],
    // Engines share the machine's cores: files run one after the other. Each in a process of its own, so that threads and files can be counted.
    pool: "forks",
    fileParallelism: false,
    poolOptions: { forks: { execArgv: ["--expose-gc"] } },
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // The packages of the Python bindings, for the tests that run Python and where nobody has said where else they are.
    env: { PYTHONPATH: process.env.PYTHONPATH ?? new URL("../python/python", import.meta.url).pathname },
  },
});
