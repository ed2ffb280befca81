// npm's ehbp, unmodified, and openai's SDK for Node over it; asked in JSON lines.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
const { createTransport, KeyConfigMismatchError } = await import(pathToFileURL(`${process.env.NPM}/ehbp/dist/esm/index.js`));
const OpenAI = createRequire(process.env.NPM + "/")("openai").default;
let at, url, key;

const ops = {
  async discover(asked) {
    ({ url, key } = asked);
    try {
      at = await createTransport(url);
    } catch (fault) {
      return { error: fault.message };
    }
    return { key: await at.getServerPublicKeyHex() };
  },
  async post({ path, body }) {
    try {
      const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
      const got = await at.post(url + path, JSON.stringify(body), { headers });
      return { status: got.status, body: Buffer.from(await got.arrayBuffer()).toString("base64") };
    } catch (fault) {
      if (fault instanceof KeyConfigMismatchError) return { error: "KEY_CONFIG_MISMATCH" };
      return { error: fault.name };
    }
  },
  async openai({ model, question, max_tokens = 16 }) {
    const fetch = (target, init) => at.request(target, init);
    const client = new OpenAI({ baseURL: url + "/v1", apiKey: key, maxRetries: 0, fetch });
    const asked = { model, messages: [{ role: "user", content: question }], temperature: 0, max_tokens };
    const plain = await client.chat.completions.create(asked);
    let streamed = "";
    for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
      streamed += chunk.choices[0]?.delta?.content ?? "";
    }
    const refused = await client.chat.completions.create({ ...asked, model: "none" }).catch((fault) => fault.code);
    const models = (await client.models.list()).data.map((each) => each.id);
    return { plain: plain.choices[0].message.content, receipt: !!plain.confide.receipt, streamed, refused, models };
  },
};

export const { discover, openai } = ops;

if (process.argv[1]?.endsWith("ehbp_peer.mjs")) {
  for await (const line of createInterface({ input: process.stdin })) {
    const { op, ...asked } = JSON.parse(line);
    console.log(JSON.stringify(await ops[op](asked)));
  }
}
