// Plays the page in headless Chromium before a real gateway, as a user would; prints what it showed as one line of JSON.
//   play.js CONFIG_FILE QUESTION
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

const TIMEOUT_MS = 60_000;
const BROWSERS = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"];
const chromium = BROWSERS.find((path) => path && existsSync(path));
if (chromium === undefined) {
  console.log(JSON.stringify({ skip: "no Chromium here; install it, or name one with CHROMIUM" }));
  process.exit(0);
}
const [configFile, question] = process.argv.slice(2);
const { gateway, ...config } = JSON.parse(readFileSync(configFile, "utf8"));

// What a user does: wait for the form, ask, wait for the receipt or for a refusal.
async function user(question) {
  const until = async (find) => {
    for (;;) {
      const found = find();
      if (found) return found;
      await new Promise((later) => setTimeout(later, 50));
    }
  };
  const $ = (what) => document.querySelector(what);
  await until(() => $("form") ?? $("#root > [role=alert]"));
  if ($("form")) {
    $("input").value = question;
    $("button").click();
    await until(() => $("small"));
  }
  const text = (what) => $(what)?.textContent ?? null;
  const shown = { alert: text("[role=alert]"), answer: text("output"), receipt: text("small") };
  await fetch("/report", { method: "POST", body: JSON.stringify(shown) });
}

const script = `<script type="module">(${user})(${JSON.stringify(question)})</script></html>`;
const page = readFileSync(join(import.meta.dirname, "index.html"), "utf8").replace("</html>", script);
let told;
const report = new Promise((resolve) => (told = resolve));
// Page and gateway share an origin: requests that are not for the page go on to the gateway, as they are.
const server = createServer((asked, answer) => {
  const files = {
    "/": ["text/html", page],
    "/main.js": ["text/javascript", readFileSync(join(import.meta.dirname, "dist", "main.js"))],
    "/config.json": ["application/json", JSON.stringify({ ...config, baseURL: `http://${asked.headers.host}` })],
  };
  if (files[asked.url]) {
    answer.writeHead(200, { "content-type": files[asked.url][0] }).end(files[asked.url][1]);
  } else if (asked.url === "/report") {
    let text = "";
    asked.on("data", (part) => (text += part)).on("end", () => (answer.writeHead(204).end(), told(JSON.parse(text))));
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
const place = `http://127.0.0.1:${server.address().port}/`;
const browser = spawn(chromium, [...FLAGS, `--user-data-dir=${profile}`, place], { stdio: "ignore" });
const late = new Promise((resolve) => setTimeout(resolve, TIMEOUT_MS, { error: "the page reported nothing in time" }));
console.log(JSON.stringify(await Promise.race([report, late])));
browser.kill("SIGKILL");
server.closeAllConnections();
server.close();
setTimeout(() => {
  rmSync(profile, { recursive: true, force: true, maxRetries: 3 });
  process.exit(0);
}, 300);
