// The house's own rules: short files, few dependencies, no host of a registry in what is committed.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

const ROOT = join(import.meta.dirname, "..");
const MAX_LINES = 400;
const text = (name) => readFileSync(join(ROOT, name), "utf8");

test("no file is longer than a sitting", () => {
  for (const folder of ["src", "test", "page"]) {
    for (const name of readdirSync(join(ROOT, folder), { recursive: true })) {
      if (!/\.(ts|js|html|css)$/.test(name) || name.startsWith("dist")) continue;
      assert.ok(text(join(folder, name)).split("\n").length <= MAX_LINES, name);
    }
  }
});

test("what is installed with the package is pinned, and depends on nothing else", () => {
  const { dependencies, devDependencies } = JSON.parse(text("package.json"));
  const { packages } = JSON.parse(text("package-lock.json"));
  const installed = Object.entries(packages).filter(([path, { dev }]) => path && !dev);
  const names = installed.map(([path]) => path.replace("node_modules/", "")).sort();
  assert.deepEqual(names, [...Object.keys(dependencies), "@noble/ciphers"].sort());
  for (const version of Object.values({ ...dependencies, ...devDependencies })) assert.match(version, /^\d+\.\d+\.\d+$/);
  assert.ok(installed.every(([, { integrity }]) => integrity.startsWith("sha512-")));
  assert.ok(!text("package-lock.json").includes('"resolved"'));
});
