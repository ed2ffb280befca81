// openai's SDK for Node over npm's ehbp, unmodified: chat, stream, models, errors.
import assert from "node:assert";
import { openai, discover } from "./ehbp_peer.mjs";
const model = "smollm2-135m-instruct";
const { key } = await discover({ url: process.env.CONFIDE_URL, key: process.env.CONFIDE_API_KEY });
assert.equal(key.length, 64);
const said = await openai({ model, question: "What is the capital of France? Answer in one sentence." });
assert(said.plain.includes("Paris"));
assert.equal(said.plain, said.streamed);
assert(said.receipt);
assert(said.models.includes(model));
assert.equal(said.refused, "model_not_found");
console.log("openai for Node over ehbp");
