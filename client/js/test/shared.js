// Where published vectors and real evidence lie: CONFIDE_SHARED, else `../shared` beside the checkout.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const ROOT = process.env.CONFIDE_SHARED ?? join(import.meta.dirname, "../../../../shared");

/** Options of a test that needs a path below the shared folder: skipped, with the reason, where it is absent. */
export function needs(...parts) {
  const there = existsSync(join(ROOT, ...parts));
  return { skip: there ? false : `${parts.join("/")} is not here; set CONFIDE_SHARED to the folder that has it` };
}

export function load(...parts) {
  return new Uint8Array(readFileSync(join(ROOT, ...parts)));
}

export function loadJson(...parts) {
  return JSON.parse(readFileSync(join(ROOT, ...parts), "utf8"));
}

/** Every case of a Wycheproof file, with its group. */
export function wycheproof(name) {
  const { testGroups, numberOfTests } = loadJson("vectors", "wycheproof", name);
  const cases = testGroups.flatMap((group) => group.tests.map((each) => ({ ...each, group })));
  if (cases.length !== numberOfTests) throw new Error("a vector is missing");
  return cases;
}
