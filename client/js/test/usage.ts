// Compiled by `npm test`, never run: how an application uses the package, with types.
import OpenAI from "openai";

import { AppraisalRejected, connect, exchangeOf, faultOf, trustChain, type Receipt } from "confide";

export async function ask(policy: string, question: string): Promise<string> {
  const confide = await connect({ baseURL: "https://gateway.example", apiKey: "key", policy });
  for (const link of trustChain(confide.attestation)) console.log(link.state, link.name, link.says);
  const client = new OpenAI(confide.openai);
  try {
    const stream = await client.chat.completions.create({
      model: "model",
      messages: [{ role: "user", content: question }],
      stream: true,
    });
    let answer = "";
    for await (const part of stream) answer += part.choices[0]?.delta.content ?? "";
    const receipt: Receipt | undefined = confide.lastReceipt;
    return `${answer} (${receipt?.claims.outcome}, ${receipt?.claims.completion_tokens} tokens)`;
  } catch (error) {
    const fault = faultOf(error);
    if (fault instanceof AppraisalRejected) console.log(fault.result.failed);
    throw fault ?? error;
  }
}

export async function plain(policy: string): Promise<unknown> {
  const confide = await connect({ baseURL: "https://gateway.example", policy, allowSimulated: false });
  const response = await confide.fetch(`${confide.baseURL}/models`);
  return [await response.json(), exchangeOf(response)?.receipt?.claims.issued_unix_s];
}
