// A chat in the browser: sealed there, to an enclave that the browser verified itself.
import OpenAI from "openai";
import { useState } from "react";

export function Chat({ confide }) {
  const [client] = useState(() => new OpenAI({ ...confide.openai, dangerouslyAllowBrowser: true })); // the key is this user's own
  const [said, setSaid] = useState("");
  const [receipt, setReceipt] = useState();
  const { model } = confide.attestation.keyset.manifest;

  async function ask(form) {
    setSaid("");
    setReceipt(undefined);
    const messages = [{ role: "user", content: form.get("question") }];
    const stream = await client.chat.completions.create({ model, messages, stream: true, temperature: 0, max_tokens: 64 });
    for await (const chunk of stream) setSaid((text) => text + (chunk.choices[0]?.delta.content ?? ""));
    setReceipt(confide.lastReceipt); // verified, else the loop had thrown
  }

  return (
    <form action={ask}>
      <input name="question" aria-label="Question" required />
      <button>Ask {model}</button>
      {confide.attestation.simulated && <p role="alert">Simulated hardware: this proves nothing.</p>}
      <output>{said}</output>
      {receipt && <small>Signed in the enclave: {receipt.claims.outcome}</small>}
    </form>
  );
}
