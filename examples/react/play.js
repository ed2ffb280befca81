// Plays the page in headless Chromium before a real gateway, as a user would; prints what it showed as one line of JSON.
//   play.js CONFIG_FILE QUESTION
import { readFileSync } from "node:fs";
import { join } from "node:path";

import { findChromium, play } from "../../client/js/test/chromium.js";

const TIMEOUT_MS = 60_000;
const chromium = findChromium();
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
const main = readFileSync(join(import.meta.dirname, "dist", "main.js"));
const files = (origin) => ({
  "/": ["text/html", page],
  "/main.js": ["text/javascript", main],
  "/config.json": ["application/json", JSON.stringify({ ...config, baseURL: origin })],
});
await play(chromium, gateway, files, TIMEOUT_MS);
