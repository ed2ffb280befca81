// Many conversations at once over one sealed client, and what became of every call.
import OpenAI from "openai";

import { faultOf } from "confide";
import { hex } from "../dist/bytes.js";

/** Each conversation asks again as soon as it was answered. Half of them leave openai's own retries on. */
export class Storm {
  #whole = 0;
  #begun = {};
  #unbegun = {};
  #stop = false;
  #client;
  #conversations;

  constructor(client, count, body) {
    this.#client = client;
    this.#conversations = Array.from({ length: count }, (_, n) => {
      const openai = new OpenAI({ ...client.openai, ...(n % 2 ? { maxRetries: 2 } : {}) });
      return this.#converse(openai, { ...body, stream: true });
    });
  }

  get told() {
    const keyset = this.#client.lastReceipt && hex(this.#client.lastReceipt.claims.keyset_digest);
    return { whole: this.#whole, begun: this.#begun, unbegun: this.#unbegun, keyset };
  }

  async calm() {
    this.#stop = true;
    await Promise.all(this.#conversations);
    return this.told;
  }

  async #converse(openai, body) {
    while (!this.#stop) {
      let stream;
      try {
        stream = await openai.chat.completions.create(body);
        for await (const part of stream) void part;
        this.#whole++;
      } catch (error) {
        const name = faultOf(error)?.code ?? `NOT OURS: ${error?.stack ?? error}`;
        // An answer that was cut had begun, even if openai had not been given the stream yet.
        const ended = stream || name === "truncated" ? this.#begun : this.#unbegun;
        ended[name] = (ended[name] ?? 0) + 1;
      }
    }
  }
}
