// What the package and its tests stand on is permissively licensed, and named without a registry.

import { readFileSync } from "node:fs";
import { expect, it } from "vitest";

interface Locked {
  license?: string;
  link?: boolean;
  resolved?: string;
}

const lock = JSON.parse(readFileSync(new URL("../package-lock.json", import.meta.url), "utf8")) as { packages: Record<string, Locked> };
const packages = Object.entries(lock.packages).filter(([name]) => name !== "");

/** The licenses of `deny.toml` that occur here. */
const accepted = ["0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT"];

it("every dependency has a license that is accepted", () => {
  expect(packages.length).toBeGreaterThan(0);
  expect(packages.filter(([, { license }]) => license === undefined || !accepted.includes(license))).toEqual([]);
});

it("the lockfile names no registry", () => {
  expect(packages.filter(([, { resolved }]) => resolved !== undefined)).toEqual([]);
});
