import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

it("the example of the README prints what the README says", () => {
  const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
  const [, code, output] = /```js\n(.*?)```.*?```text\n(.*?)```/s.exec(readme)!;
  const cwd = fileURLToPath(new URL("..", import.meta.url));
  const { stdout, stderr, status } = spawnSync(process.execPath, ["--input-type=module", "-e", code!], { cwd, encoding: "utf8" });
  expect(stderr).toBe("");
  expect(status).toBe(0);
  expect(stdout).toBe(output);
});

it("the examples of the README compile as TypeScript", () => {
  const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
  const blocks = [...readme.matchAll(/```js\n(.*?)```/gs)].map(([, code]) => code!);
  const folder = mkdtempSync(new URL("readme-", import.meta.url).pathname);
  try {
    const files = blocks.map((code, i) => {
      // Each is a function's body; the first one alone creates the engine that the others go on with.
      const [imports, body] = [code.match(/^import .*$/gm) ?? [], code.replace(/^import .*$/gm, "")];
      const engine = /const engine =/.test(body) ? "" : "engine: Engine";
      const path = join(folder, `example${i}.ts`);
      const known = imports.length > 0 ? imports.join("\n") : 'import { createEngine } from "mlx-serving";\nvoid createEngine;';
      writeFileSync(path, `${known}\nimport type { Engine } from "mlx-serving";\nexport type E = Engine;\nexport async function example(${engine}) {\n${body}\n}\n`);
      return path;
    });
    expect(files.length).toBeGreaterThan(2);
    const flags = ["--noEmit", "--strict", "--target", "es2022", "--module", "node20", "--types", "node", "--skipLibCheck"];
    const cwd = fileURLToPath(new URL("..", import.meta.url));
    const { stdout, status } = spawnSync(join(cwd, "node_modules/.bin/tsc"), [...flags, ...files], { cwd, encoding: "utf8" });
    expect(stdout).toBe("");
    expect(status).toBe(0);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
