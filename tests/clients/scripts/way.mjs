// Where a script goes: straight to the gateway over this repository's TypeScript client, or in clear to the proxy.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { CONFIDE_API_KEY, CONFIDE_JS, CONFIDE_URL, NPM, PROXY_KEY, PROXY_URL } = process.env;
const require = createRequire(NPM + "/");

async function sealed() {
  const { connect, forgetful } = await import(CONFIDE_JS);
  const policy = readFileSync("policy.toml", "utf8");
  return connect({ baseURL: CONFIDE_URL, apiKey: CONFIDE_API_KEY, policy, allowSimulated: true, memory: forgetful() });
}

export const place =
  process.argv[2] === "direct" ? (await sealed()).openai : { baseURL: PROXY_URL + "/v1", apiKey: PROXY_KEY, maxRetries: 0 };
export const model = "smollm2-135m-instruct";
export const question = "What is the capital of France? Answer in one sentence.";

/** A package of the environment that the harness made. */
export async function load(name) {
  const found = await import(require.resolve(name));
  return found.default ? { ...found.default, ...found } : found;
}
