// Plays the page in headless Chromium before a real gateway; prints what it showed as one line of JSON.
//   browser.js GATEWAY KEY_FILE POLICY_FILE QUESTION
import { readFileSync } from "node:fs";
import { join } from "node:path";

import { build } from "esbuild";

import { findChromium, play } from "./chromium.js";
import { loadJson, needs } from "./shared.js";

const TIMEOUT_MS = 120_000;
const [gateway, keyFile, policyFile, question] = process.argv.slice(2);
const dist = join(import.meta.dirname, "..", "page", "dist");
const chromium = findChromium();
const entry = join(import.meta.dirname, "drive.js");
const driver = await build({ entryPoints: [entry], bundle: true, format: "esm", write: false, target: "es2022" });
const page = readFileSync(join(dist, "index.html"), "utf8");
const config = {
  key: readFileSync(keyFile, "utf8").trim(),
  policy: readFileSync(policyFile, "utf8"),
  question,
  vectors: needs("vectors", "xwing").skip ? [] : loadJson("vectors", "xwing", "test-vectors.json"),
};
const files = {
  "/": ["text/html", page.replace("</body>", '<script type="module" src="drive.js"></script></body>')],
  "/page.js": ["text/javascript", readFileSync(join(dist, "page.js"))],
  "/page.css": ["text/css", readFileSync(join(dist, "page.css"))],
  "/drive.js": ["text/javascript", driver.outputFiles[0].text],
  "/config.json": ["application/json", JSON.stringify(config)],
};

await play(chromium, gateway, () => files, TIMEOUT_MS);
