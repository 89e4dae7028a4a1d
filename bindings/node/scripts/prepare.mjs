// What npm runs for a package that is installed from its source folder: builds the addon and compiles TypeScript. npm links the folder and
// leaves the installation of what the build needs to the folder itself.

import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const folder = dirname(dirname(fileURLToPath(import.meta.url)));

function npm(...args) {
  const { status } = spawnSync("npm", args, { cwd: folder, stdio: "inherit", shell: process.platform === "win32" });
  if (status !== 0) process.exit(status ?? 1);
}

const { dependencies, devDependencies } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
const needed = Object.keys({ ...dependencies, ...devDependencies });
if (!needed.every((name) => existsSync(join(folder, "node_modules", name)))) npm("ci", "--ignore-scripts");
npm("run", "build");
