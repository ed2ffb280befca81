// Plays the page in headless Chromium before a real gateway; prints what it showed as one line of JSON.
//   browser.js GATEWAY KEY_FILE POLICY_FILE QUESTION
// The page and the gateway share an origin here: requests that are not for the page go on to the gateway, as they are.
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { build } from "esbuild";

import { loadJson, needs } from "./shared.js";

const BROWSERS = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const TIMEOUT_MS = 120_000;
const [gateway, keyFile, policyFile, question] = process.argv.slice(2);
const dist = join(import.meta.dirname, "..", "page", "dist");
const chromium = BROWSERS.find((path) => path && existsSync(path));
if (chromium === undefined) {
  console.log(JSON.stringify({ skip: "no Chromium here; install it, or name one with CHROMIUM" }));
  process.exit(0);
}

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

let told;
const report = new Promise((resolve) => (told = resolve));
const server = createServer((asked, answer) => {
  const file = files[asked.url];
  if (file) {
    answer.writeHead(200, { "content-type": file[0] }).end(file[1]);
  } else if (asked.url === "/report") {
    let text = "";
    asked.on("data", (part) => (text += part)).on("end", () => {
      answer.writeHead(204).end();
      told(JSON.parse(text));
    });
  } else {
    const onward = request(gateway + asked.url, { method: asked.method, headers: asked.headers }, (got) => {
      answer.writeHead(got.statusCode, got.headers);
      got.pipe(answer);
    });
    onward.on("error", () => answer.destroy());
    asked.pipe(onward);
  }
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
const profile = mkdtempSync(join(tmpdir(), "confide-chromium-"));
const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"];
const browser = spawn(chromium, [...flags, `--user-data-dir=${profile}`, `http://127.0.0.1:${server.address().port}/`], { stdio: "ignore" });
const late = new Promise((resolve) => setTimeout(resolve, TIMEOUT_MS, { error: "the page reported nothing in time" }));
console.log(JSON.stringify(await Promise.race([report, late])));
browser.kill("SIGKILL");
server.closeAllConnections();
server.close();
setTimeout(() => {
  rmSync(profile, { recursive: true, force: true, maxRetries: 3 });
  process.exit(0);
}, 300);
