// A page in headless Chromium before a real gateway: what it reports is printed as one line of JSON.
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

const BROWSERS = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"];

// Where Chromium is; without one this says so and ends the process.
export function findChromium() {
  const chromium = BROWSERS.find((path) => path && existsSync(path));
  if (chromium === undefined) {
    console.log(JSON.stringify({ skip: "no Chromium here; install it, or name one with CHROMIUM" }));
    process.exit(0);
  }
  return chromium;
}

// Serves `files` ([content type, body] by path; they may be made of the origin) and shows "/" until the page POSTs /report.
// Page and gateway share an origin: requests that are not for the page go on to the gateway, as they are.
export async function play(chromium, gateway, files, timeoutMs) {
  let told;
  const report = new Promise((resolve) => (told = resolve));
  const server = createServer((asked, answer) => {
    const file = files(`http://${asked.headers.host}`)[asked.url];
    if (file) {
      answer.writeHead(200, { "content-type": file[0] }).end(file[1]);
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
  const late = new Promise((resolve) => setTimeout(resolve, timeoutMs, { error: "the page reported nothing in time" }));
  console.log(JSON.stringify(await Promise.race([report, late])));
  browser.kill("SIGKILL");
  server.closeAllConnections();
  server.close();
  setTimeout(() => {
    rmSync(profile, { recursive: true, force: true, maxRetries: 3 });
    process.exit(0);
  }, 300);
}
