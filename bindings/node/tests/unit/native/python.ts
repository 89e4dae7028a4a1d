// Python programs as tests.

import { spawn, spawnSync } from "node:child_process";

const python = ["python3", "python"].find((name) => spawnSync(name, ["--version"]).status === 0);
if (python === undefined) console.warn("skipped: there is no python on PATH");

/** Whether there is a Python to run the tests with. Without the extension they fail. */
export const hasPython = python !== undefined;

/** Runs a program, and returns what it prints. */
export async function runPythonTest(code: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(python!, ["-c", code]);
    let [stdout, stderr] = ["", ""];
    child.stdout.on("data", (data: Buffer) => (stdout += data.toString()));
    child.stderr.on("data", (data: Buffer) => (stderr += data.toString()));
    child.on("error", reject);
    child.on("close", (status) => (status === 0 ? resolve(stdout) : reject(new Error(stderr))));
  });
}
