// The addon: one built beside the package, else the platform's package.

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import type { Addon } from "./addon.js";

/** The platform as its package is named, after the system, the processor and the C library. */
const platform =
  process.platform === "linux" ? `linux-${process.arch}-gnu` : `${process.platform}-${process.arch}`;

function load(): Addon {
  const require = createRequire(import.meta.url);
  const local = fileURLToPath(new URL(`../mlx-serving.${platform}.node`, import.meta.url));
  const name = existsSync(local) ? local : `@mlx-serving/${platform}`;
  try {
    return require(name) as Addon;
  } catch (cause) {
    throw new Error(
      `the addon for ${platform} cannot be loaded from ${name}; there are packages for Linux (x64 and arm64, glibc 2.28 or newer) ` +
        "and macOS (arm64), which npm leaves out with --omit=optional; elsewhere build it: npm run build in the package's source",
      { cause },
    );
  }
}

export const addon = load();
addon.setBundledModels(fileURLToPath(new URL("../models", import.meta.url)));
