// Answers JSON lines for the Python side: one command a line in, one answer a line out, errors by their codes.
import { createInterface } from "node:readline";

import OpenAI from "openai";

import { appraise, auditFile, claimsAsJson, connect, exchangeOf, faultOf, forgetful, loadPolicy, parseBundle } from "confide";
import { hex } from "../dist/bytes.js";
import { AMD_ROOTS, simulatedRoots } from "../dist/snp/chain.js";
import { judgeSnp } from "../dist/snp/judge.js";
import { Storm } from "./storm.js";

const bytes = (text) => (text === undefined || text === null ? undefined : new Uint8Array(Buffer.from(text, "base64")));
const base64 = (data) => Buffer.from(data).toString("base64");
const told = (result) => ({
  verdict: result.verdict,
  checks: result.checks.map((check) => [check.id, check.outcome, check.detail]),
  claims: result.claims,
  policy: hex(result.policyDigest),
  digest: result.keyset && hex(result.keyset.resultDigest),
  until: result.keyset?.validUntilUnixS,
});
const clients = new Map();
let sent = [];
let storm;

const commands = {
  async appraise({ bundle, policy, now, floor, nonce, epochs, allow }) {
    return told(
      await appraise(parseBundle(bytes(bundle)), loadPolicy(policy), {
        nowUnixS: now,
        floor,
        nonce: bytes(nonce),
        epochs: new Map(Object.entries(epochs ?? {})),
        allowSimulated: allow,
      }),
    );
  },

  async policy({ text }) {
    return { digest: hex(loadPolicy(text).digest) };
  },

  async snp({ files, now }) {
    const { report, root, ...parts } = Object.fromEntries(Object.entries(files).map(([name, data]) => [name, bytes(data)]));
    const roots = root ? simulatedRoots(hex(new Uint8Array(await crypto.subtle.digest("SHA-256", root)))) : AMD_ROOTS;
    const part = await judgeSnp(report ?? new Uint8Array(0), parts.vek && parts, now, undefined, roots);
    return { holds: part.holds, failed: part.checks.filter((each) => each.outcome === "FAIL").map((each) => each.id), claims: part.claims };
  },

  /** `twice`: each POST, unasked, as a browser does where a connection that it used before broke. */
  async open({ id, url, key, policy, allow, now, limits, twice }) {
    sent = [];
    const counting = async (input, init) => {
      sent.push(`${init.method ?? "GET"} ${new URL(input).pathname}`);
      if (twice && init.method === "POST") await (await fetch(input, init)).arrayBuffer();
      return fetch(input, init);
    };
    const clock = now === undefined ? undefined : () => now;
    const given = { baseURL: url, apiKey: key, policy, allowSimulated: allow, limits };
    const client = await connect({ ...given, memory: forgetful(), fetch: counting, clock });
    clients.set(id, client);
    return told(client.attestation);
  },

  async fetch({ id, path, body, headers }) {
    const client = clients.get(id);
    const response = await client.fetch(`${client.baseURL}${path}`, {
      method: body === undefined ? "GET" : "POST",
      headers: { "content-type": "application/json", ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    let text = "";
    const decoder = new TextDecoder();
    try {
      for await (const part of response.body) text += decoder.decode(part, { stream: true });
    } catch (fault) {
      return { ...failure(fault), text };
    }
    return { status: response.status, text, claims: claimsAsJson(exchangeOf(response).receipt.claims) };
  },

  /** The same call many times at once; by their statuses or codes. */
  async many({ count, ...call }) {
    const answers = await Promise.all(Array.from({ length: count }, () => commands.fetch(call).catch(failure)));
    return { answers: answers.map((each) => each.error?.code ?? each.status) };
  },

  async openai({ id, method, body }) {
    const client = clients.get(id);
    const openai = new OpenAI(client.openai);
    const resource = method.split(".").reduce((at, name) => at[name], { openai });
    const owner = method.split(".").slice(0, -1).reduce((at, name) => at[name], { openai });
    const answer = await resource.call(owner, ...(body === undefined ? [] : [body]));
    let said = answer;
    if (body?.stream) {
      said = [];
      for await (const event of answer) said.push(event);
    }
    const receipt = client.lastReceipt;
    return {
      said,
      claims: claimsAsJson(receipt.claims),
      audit: base64(auditFile(receipt, client.policy, { disclose: true })),
      closed: base64(auditFile(receipt, client.policy, { disclose: false })),
    };
  },

  async sent() {
    return { sent };
  },

  async storm({ id, conversations, body }) {
    storm = new Storm(clients.get(id), conversations, body);
    return storm.told;
  },

  async told() {
    return storm.told;
  },

  async calm() {
    return storm.calm();
  },
};

function failure(error) {
  const fault = faultOf(error);
  if (fault === undefined) return { error: { code: "foreign", message: String(error?.stack ?? error) } };
  const { code, message, part, field, status, kind, result } = fault;
  const failed = result?.failed.map((check) => check.id);
  return { error: { code, message, part, field, status, kind, failed } };
}

for await (const line of createInterface({ input: process.stdin })) {
  const { op, ...options } = JSON.parse(line);
  const answer = await commands[op](options).catch(failure);
  process.stdout.write(`${JSON.stringify(answer, (_, value) => (typeof value === "bigint" ? value.toString() : value))}\n`);
}
