// Builds the addon for this machine and puts it beside the package: node scripts/native.mjs [--profile NAME]

import { spawnSync } from "node:child_process";
import { copyFileSync, renameSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const { values } = parseArgs({ options: { profile: { type: "string", default: "release" } } });
const folder = dirname(dirname(fileURLToPath(import.meta.url)));
const platform =
  process.platform === "linux" ? `linux-${process.arch}-gnu` : `${process.platform}-${process.arch}`;

// Cargo says where the library is; what it compiles and what is wrong it writes for people.
const cargo = spawnSync(
  "cargo",
  ["build", "--locked", "--profile", values.profile, "-p", "mlx-serving-node", "--message-format=json-render-diagnostics"],
  { cwd: folder, stdio: ["ignore", "pipe", "inherit"], maxBuffer: 64 << 20 },
);
if (cargo.error) {
  console.error(`cargo cannot be run: ${cargo.error.message}; install Rust with rustup, https://rustup.rs`);
}
if (cargo.status !== 0) process.exit(1);
const library = cargo.stdout
  .toString()
  .split("\n")
  .filter((line) => line.startsWith('{"reason":"compiler-artifact"'))
  .map((line) => JSON.parse(line))
  .find((artifact) => artifact.target.name === "mlx_serving_node").filenames[0];

// Renamed into place: a process that runs with the old one keeps it whole.
const addon = join(folder, `mlx-serving.${platform}.node`);
copyFileSync(library, `${addon}.new`);
renameSync(`${addon}.new`, addon);
console.log(`built ${addon}`);
