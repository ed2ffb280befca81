// Before anything is sealed: what is refused, by which code, and what left this machine by then.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { mkdtempSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import OpenAI, { APIConnectionError } from "openai";

import { connect, faultOf, forgetful, loadPolicy } from "confide";
import { sealedFetch } from "../dist/fetch.js";
import { defaultMemory, defaultPath } from "../dist/memory_node.js";
import { gatewayUrl, Relay } from "../dist/relay.js";
import { ClientSession } from "../dist/session.js";

const POLICY = readFileSync(join(import.meta.dirname, "policy.toml"), "utf8");
const GATEWAY = "http://gateway.test/base";
const EVIDENCE = { headers: { "content-type": "application/confide-evidence+cbor" } };
const PROBLEM = { headers: { "content-type": "application/problem+json" } };

/** A gateway made of one function; `sent` lists what reached it. */
function fake(answer) {
  const sent = [];
  const send = async (input, init = {}) => {
    sent.push(`${init.method ?? "GET"} ${input}`);
    return answer(init);
  };
  return { sent, options: { baseURL: `${GATEWAY}/v1`, policy: POLICY, allowSimulated: true, memory: forgetful(), fetch: send } };
}

async function relayTo(gateway) {
  return Relay.open({ ...gateway.options, gateway: gateway.options.baseURL, policy: loadPolicy(POLICY) });
}

async function served(handler, use) {
  const server = createServer(handler);
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  try {
    await use(`http://127.0.0.1:${server.address().port}`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

test("wrong settings: one line each, nothing sent", async () => {
  const { sent, options } = fake(() => new Response());
  for (const [change, code, field] of [
    [{ baseURL: "gateway.test" }, "config", "URL"],
    [{ baseURL: "ftp://gateway.test" }, "config", "URL"],
    [{ baseURL: "https://user@gateway.test" }, "config", "URL"],
    [{ baseURL: "https://gateway.test?x" }, "config", "URL"],
    [{ policy: undefined }, "policy", "policy"],
    [{ policy: "policy.toml" }, "policy", "file"],
    [{ policy: "x = 1" }, "policy", "id"],
    [{ policy: POLICY.replace("not_after = 2096", "not_after = 2016") }, "policy", "not_after"],
    [{ memory: { floor: () => 8, remember() {} } }, "policy", "serial"],
    [{ policy: POLICY.replace("sev-snp/kernel-hashes", "tdx/direct") }, "cannot_judge", undefined],
  ]) {
    await assert.rejects(connect({ ...options, ...change }), (fault) => {
      assert.deepEqual([fault.code, fault.field], [code, field], fault.message);
      assert.ok(!fault.message.includes("\n"));
      return true;
    });
  }
  assert.deepEqual(sent, []);
});

test("a runtime without cryptography is refused by name", async () => {
  const { options } = fake(() => new Response());
  const own = Object.getOwnPropertyDescriptor(globalThis, "crypto");
  Object.defineProperty(globalThis, "crypto", { value: {}, configurable: true });
  try {
    await assert.rejects(connect(options), { code: "config", field: "crypto.subtle" });
  } finally {
    Object.defineProperty(globalThis, "crypto", own);
  }
});

test("gateways: with and without /v1", () => {
  for (const url of ["http://G.test/base", `${GATEWAY}/`, `${GATEWAY}/v1`, `${GATEWAY}/v1/`]) {
    assert.equal(gatewayUrl(url.replace("G.", "gateway.")), GATEWAY);
  }
});

test("an answer that is no evidence: refused by its status, its words never shown", async () => {
  for (const [answer, code] of [
    [() => new Response("CANARY", { status: 404 }), "not_confide"],
    [() => new Response("CANARY", { status: 404, ...PROBLEM }), "not_confide"],
    [() => new Response("CANARY", { status: 302, headers: { location: "http://elsewhere.test" } }), "not_confide"],
    [() => new Response("CANARY", { headers: { "content-type": "application/json" } }), "not_confide"],
    [() => new Response("CANARY", { status: 401, ...PROBLEM }), "relay_refused"],
    [() => new Response("CANARY", { status: 503 }), "relay_refused"],
    [() => new Response("CANARY", EVIDENCE), "evidence_malformed"],
    [() => new Response(new Uint8Array((4 << 20) + 1), EVIDENCE), "too_large"],
    [() => Promise.reject(new TypeError("CANARY")), "relay_unreachable"],
  ]) {
    const { sent, options } = fake(answer);
    await assert.rejects(connect(options), (fault) => fault.code === code && !fault.message.includes("CANARY"));
    assert.equal(sent.length, 1);
    assert.match(sent[0], /^GET http:\/\/gateway\.test\/base\/evidence\?nonce=[0-9a-f]{64}$/);
  }
});

test("a first contact that fails says where, why, and what that server now knows", async () => {
  const told = (options) => connect(options).then(assert.fail, (fault) => fault.message);
  const stranger = fake(() => new Response("", { status: 404 })).options;
  assert.match(await told(stranger), /no prompt was sent to it, but a nonce was$/);
  assert.match(await told({ ...stranger, apiKey: "k" }), /but a nonce and the API key were: if that server is not yours/);
  const refusing = fake(() => new Response("", { status: 401, ...PROBLEM })).options;
  assert.match(await told(refusing), /no API key was given, or the gateway does not know it: apiKey$/);
  let closed;
  await served(() => {}, async (baseURL) => void (closed = baseURL));
  const nobody = await told({ ...stranger, baseURL: closed, fetch: undefined });
  assert.ok(nobody.startsWith(`the gateway at ${closed} gave no evidence (TypeError, ECONNREFUSED); check the URL`), nobody);
  const odd = fake(() => Promise.reject(Object.assign(new TypeError("x", { cause: { code: "CANARY words" } })))).options;
  assert.ok(!(await told(odd)).includes("CANARY"));
});

test("a gateway that says nothing is given up; one that redirects is not followed", async () => {
  const { options } = fake(() => {});
  await served((_, response) => void response.writeHead(200, EVIDENCE.headers).write("x"), async (baseURL) => {
    const limits = { evidenceTimeoutMs: 100 };
    await assert.rejects(connect({ ...options, baseURL, fetch: undefined, limits }), { code: "relay_unreachable" });
  });
  let asked = 0;
  const redirect = (_, response) => {
    asked++;
    response.writeHead(302, { location: "/evidence" }).end();
  };
  await served(redirect, async (baseURL) => {
    await assert.rejects(connect({ ...options, baseURL, fetch: undefined }), { code: "not_confide", status: 302 });
  });
  assert.equal(asked, 1);
});

test("whether a node still holds a key: told, denied by the gateway itself, or not to be told", async () => {
  const keyset = new Uint8Array(32).fill(7);
  const asked = async (answer) => {
    const gateway = fake(answer);
    const told = await (await relayTo(gateway)).holds(keyset).catch((fault) => [fault.code, fault.status]);
    assert.match(gateway.sent[0], /evidence\?nonce=[0-9a-f]{64}&keyset=(07){32}$/);
    return told;
  };
  assert.equal(await asked(() => new Response("x", EVIDENCE)), true);
  assert.equal(await asked(() => new Response("", { status: 400, ...PROBLEM })), false);
  assert.deepEqual(await asked(() => new Response("", { status: 400 })), ["not_confide", 400]);
  assert.deepEqual(await asked(() => new Response("", { status: 503, ...PROBLEM })), ["relay_refused", 503]);
  assert.deepEqual(await asked(() => Promise.reject(new TypeError())), ["relay_unreachable", undefined]);
});

test("a refused key is replaced by what was verified after it was sent, and asked for once by all", async () => {
  const gateway = fake(() => new Response("x", EVIDENCE));
  const relay = await relayTo(gateway);
  const keys = ["first of a node", "second of that node", "of another", "of a third"].map((name) => new TextEncoder().encode(name));
  let verified = 0;
  relay.session.verify = async () => {
    const keyset = { keyset: { digest: keys[verified++] }, validUntilUnixS: Infinity };
    relay.session.verified = { keyset };
    return keyset;
  };
  await relay.ready();
  const sent = relay.flights;
  await relay.verify();
  assert.equal(await relay.replace(keys[0], undefined, sent), true); // the node had a newer key, and told it since
  assert.equal(verified, 2);
  assert.equal(await relay.replace(keys[0]), true); // the node is gone, and with it all of its keys
  assert.equal(verified, 3);
  const then = relay.flights;
  const many = Array.from({ length: 20 }, () => relay.replace(keys[2], undefined, then));
  assert.deepEqual(new Set(await Promise.all(many)), new Set([true]));
  assert.equal(verified, 4);
});

test("a refused key is not replaced by evidence that was asked for before it was sent, nor by its fault", async () => {
  for (const fault of [undefined, new Error("not this call's")]) {
    const held = [];
    const relay = await relayTo(fake(() => new Promise((answer) => held.push(() => answer(new Response("x", EVIDENCE))))));
    let verified = 0;
    relay.session.verify = async () => {
      if (++verified === 1 && fault) throw fault;
      return { keyset: { digest: new Uint8Array([verified]) }, validUntilUnixS: Infinity };
    };
    const before = relay.verify().catch((reason) => reason);
    const replaced = relay.replace(new Uint8Array([0]), undefined, relay.flights);
    while (held.length < 1) await new Promise(setImmediate);
    held[0]();
    await before;
    while (held.length < 2) await new Promise(setImmediate);
    held[1]();
    assert.deepEqual([await replaced, verified], [true, 2]);
  }
});

test("what cannot be sealed is refused before anything is sent", async () => {
  const gateway = fake(() => new Response());
  const relay = await relayTo(gateway);
  const send = sealedFetch(relay);
  const post = (init) => [`${GATEWAY}/v1/chat/completions`, { method: "POST", ...init }];
  for (const [input, code] of [
    [["http://elsewhere.test/base/v1/models"], "local_state"],
    [["http://gateway.test/v1/models"], "local_state"],
    [[`${GATEWAY}/v1/models`, { headers: { "Confide-Nonce": "x" } }], "local_state"],
    [post({ body: new Uint8Array(2 << 20) }), "too_large"],
    [post({ headers: { a: "x".repeat(29 << 10) } }), "too_large"],
  ]) {
    await assert.rejects(send(...input), { code });
  }
  await assert.rejects(send(...post({ body: new Uint8Array(2 << 20) })), /limit of 2031616 bytes/);
  assert.deepEqual(gateway.sent, []);
  const call = relay.call("POST", new URL(`${GATEWAY}/v1/x?y=1`), [["Authorization", "Bearer k"], ["cookie", "c"], ["X-A", "b"]], new Uint8Array(1));
  assert.deepEqual([call.path, call.fields], ["/v1/x?y=1", [["x-a", "b"]]]);
  await assert.rejects(relay.seal(call), { code: "local_state" });
});

test("callers that come together share one verification and its fault", async () => {
  const gateway = fake(() => new Response("", { status: 503 }));
  const send = sealedFetch(await relayTo(gateway));
  const calls = await Promise.allSettled(Array.from({ length: 10 }, () => send(`${GATEWAY}/v1/models`)));
  assert.ok(calls.every(({ reason }) => reason.code === "relay_refused" && reason.status === 503));
  assert.equal(gateway.sent.length, 1);
});

test("a caller's abort stays an abort, and harms nobody else", async () => {
  const gateway = fake(() => new Promise(() => {}));
  const send = sealedFetch(await relayTo(gateway));
  const giving = new AbortController();
  setTimeout(() => giving.abort(), 20);
  await assert.rejects(send(`${GATEWAY}/v1/models`, { signal: giving.signal }), { name: "AbortError" });
  assert.equal(gateway.sent.length, 1);
});

test("a random number generator that gives zeros has failed", () => {
  const options = { floor: 0, allowSimulated: true, random: (size) => new Uint8Array(size) };
  assert.throws(() => new ClientSession(loadPolicy(POLICY), options), { code: "local_state" });
});

test("openai's error carries ours, and is not retried", async () => {
  const gateway = fake(() => new Response("", { status: 401, ...PROBLEM }));
  const relay = await relayTo(gateway);
  const openai = new OpenAI({ baseURL: `${GATEWAY}/v1`, apiKey: "k", fetch: sealedFetch(relay), maxRetries: 0 });
  await assert.rejects(openai.models.list(), (error) => {
    assert.ok(error instanceof APIConnectionError);
    assert.equal(faultOf(error).code, "relay_refused");
    return true;
  });
  assert.equal(gateway.sent.length, 1);
  assert.equal(faultOf(new Error("other")), undefined);
});

test("policies are remembered in the file that the Python client keeps", async () => {
  const folder = mkdtempSync(join(tmpdir(), "confide-"));
  const path = join(folder, "state", "confide", "policies.json");
  const memory = defaultMemory(path);
  assert.equal(await memory.floor("a"), 0);
  await memory.remember("a", 3);
  await memory.remember("b", 1);
  await memory.remember("a", 2);
  assert.deepEqual([await memory.floor("a"), await defaultMemory(path).floor("b")], [3, 1]);
  assert.equal(readFileSync(path, "utf8"), '{\n "version": 1,\n "serials": {\n  "a": 3,\n  "b": 1\n }\n}');
  assert.equal(statSync(path).mode & 0o777, 0o600);
  for (const text of ["", "[]", '{"version": 2, "serials": {}}', '{"version": 1, "serials": {"a": -1}}']) {
    writeFileSync(path, text);
    await assert.rejects(memory.floor("a"), { code: "config", field: "policy memory" });
  }
  const other = defaultMemory(join(folder, "other.json"));
  for (const id of ["constructor", "valueof", "__proto__"]) {
    assert.equal(await other.floor(id), 0);
    await other.remember(id, 2);
    assert.equal(await other.floor(id), 2);
  }
  process.env.XDG_STATE_HOME = folder;
  assert.equal(defaultPath(), join(folder, "confide", "policies.json"));
});
