// Runs inside the browser: plays a person at the page, then reports what the page shows.
import { fromHex, hex } from "../dist/bytes.js";
import { encapsulate, KEM_X_WING, native, PrivateKey } from "../dist/xwing.js";

const at = (selector) => document.querySelector(selector);

async function until(name, holds, timeoutMs = 30_000) {
  for (const end = Date.now() + timeoutMs; ; await new Promise((next) => setTimeout(next, 50))) {
    const found = holds();
    if (found) return found;
    if (Date.now() > end) throw new Error(`waited in vain for ${name}; verdict: ${at("#verdict").textContent}; said: ${at("#messages").textContent}`);
  }
}

async function verify({ key }, policy) {
  const { elements } = at("#connect");
  elements.key.value = key;
  elements.policy.value = policy;
  elements.simulated.checked = true;
  at("#verdict").textContent = "";
  at("#connect").requestSubmit(at("#connect button"));
  return until("a verdict", () => /^(Accepted|\w+: )/.test(at("#verdict").textContent) && at("#verdict").textContent);
}

function picture() {
  const boxes = [...document.querySelectorAll("#picture g")];
  return boxes.map((box) => [box.dataset.name, box.dataset.state]);
}

/** Both halves of X-Wing, as this browser does them, and each published vector. */
async function xwing(vectors) {
  const key = PrivateKey.generate(KEM_X_WING, crypto.getRandomValues(new Uint8Array(32)));
  const { enc, secret } = await encapsulate(KEM_X_WING, key.public);
  const opened = hex(key.decapsulate(enc)) === hex(secret);
  return opened && vectors.every(({ seed, ct, ss }) => hex(PrivateKey.generate(KEM_X_WING, fromHex(seed)).decapsulate(fromHex(ct))) === ss);
}

async function drive(config) {
  const wrong = config.policy.replace('measurements = ["', `measurements = ["${"00".repeat(48)}"] #`);
  const refused = { verdict: await verify(config, wrong), picture: picture(), chat: at("#chat").hidden };
  const accepted = { verdict: await verify(config, config.policy), picture: picture(), banner: !at("#simulated").hidden };
  at("#ask").elements.prompt.value = config.question;
  at("#ask").elements.tokens.value = 16;
  at("#ask").requestSubmit(at("#ask button"));
  await until("a note", () => at("#messages .receipt"), 60_000);
  const answer = at("#messages li:last-of-type").textContent;
  const { width, height } = at("#picture svg").getBoundingClientRect();
  return {
    native: await native(),
    xwing: await xwing(config.vectors),
    refused,
    accepted,
    answer,
    picture: picture(),
    drawn: width > 100 && height > 100,
    checks: document.querySelectorAll("#checks tr").length,
  };
}

const config = await (await fetch("config.json")).json();
const report = await drive(config).catch((error) => ({ error: String(error.stack ?? error) }));
await fetch("report", { method: "POST", body: JSON.stringify(report) });
