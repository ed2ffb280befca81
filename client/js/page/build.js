// Bundle the page: one classic script without modules, so that it can be opened from a disk.
import { copyFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";

import { build } from "esbuild";

const here = import.meta.dirname;
const out = join(here, "dist");
mkdirSync(out, { recursive: true });
for (const name of ["index.html", "page.css"]) copyFileSync(join(here, name), join(out, name));
await build({
  entryPoints: [join(here, "page.js")],
  outfile: join(out, "page.js"),
  bundle: true,
  format: "iife",
  minify: true,
  target: "es2022",
  legalComments: "none",
  logLevel: "warning",
});
