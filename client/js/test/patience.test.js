// A gateway that is silent, a caller that leaves, an answer that nobody could read: each call ends, by name.
import assert from "node:assert/strict";
import { test } from "node:test";

import { sealedFetch } from "../dist/fetch.js";
import { LIMITS } from "../dist/relay.js";
import { EVENT, post, relayOf, soon } from "./fakes.js";

/** A gateway's body that sends `first` and then nothing; `left` settles when it is cancelled. */
function silent(...first) {
  let cancelled;
  const left = new Promise((resolve) => (cancelled = resolve));
  const start = (controller) => first.forEach((each) => controller.enqueue(new Uint8Array([each])));
  return { left, body: new ReadableStream({ start, cancel: () => cancelled("left") }) };
}

test("limits: the gateway's silence has one, by default", () => {
  assert.equal(LIMITS.silenceTimeoutMs, 600_000);
});

test("a stream that is left is left at once, while its next chunk is waited for", async () => {
  const { left, body } = silent(1);
  const response = await sealedFetch(relayOf(async () => new Response(body)))(...post());
  const reader = response.body.getReader();
  assert.equal(new TextDecoder().decode((await reader.read()).value), EVENT);
  reader.read().catch(() => {});
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(await soon(reader.cancel()), undefined);
  assert.equal(await soon(left), "left");
});

test("a caller's abort ends a stream, with the caller's reason", async () => {
  const { left, body } = silent(1);
  const giving = new AbortController();
  const response = await sealedFetch(relayOf(async () => new Response(body)))(...post({ signal: giving.signal }));
  const reader = response.body.getReader();
  await reader.read();
  const next = assert.rejects(reader.read(), { name: "AbortError" });
  giving.abort();
  assert.equal(await soon(next), undefined);
  assert.equal(await soon(left), "left");
});

test("a gateway that is silent is given up: before the head", async () => {
  let given;
  const never = (_, init) => ((given = init.signal), new Promise(() => {}));
  const answer = sealedFetch(relayOf(never, { limits: { silenceTimeoutMs: 30 } }))(...post());
  await assert.rejects(soon(answer), { code: "outcome_unknown", message: /limits\.silenceTimeoutMs/ });
  assert.ok(given.aborted);
});

test("a gateway that is silent is given up: before the first chunk, and between chunks", async () => {
  const none = silent();
  const answer = sealedFetch(relayOf(async () => new Response(none.body), { limits: { silenceTimeoutMs: 30 } }))(...post());
  await assert.rejects(soon(answer), { code: "relay_unreachable" });
  assert.equal(await soon(none.left), "left");

  const one = silent(1);
  const response = await sealedFetch(relayOf(async () => new Response(one.body), { limits: { silenceTimeoutMs: 30 } }))(...post());
  await assert.rejects(soon(response.text()), { code: "relay_unreachable" });
  assert.equal(await soon(one.left), "left");
});

test("a reader may be slow: only the gateway's silence counts", async () => {
  const chunks = [1, 2, 3];
  const pull = (controller) => (chunks.length ? controller.enqueue(new Uint8Array([chunks.pop()])) : controller.close());
  const relay = relayOf(async () => new Response(new ReadableStream({ pull })), { limits: { silenceTimeoutMs: 40 } });
  const reader = (await sealedFetch(relay)(...post())).body.getReader();
  for (let each = 0; each < 3; each++) {
    await new Promise((resolve) => setTimeout(resolve, 80));
    assert.equal((await reader.read()).done, false);
  }
  assert.equal((await reader.read()).done, true);
});

test("what was begun for a caller that had left fails for nobody", async () => {
  const faults = [];
  const note = (fault) => faults.push(fault.message);
  process.on("unhandledRejection", note);
  try {
    const late = async () => {
      await new Promise((resolve) => setTimeout(resolve, 5));
      throw new Error("no evidence");
    };
    const given = relayOf(async () => assert.fail("sent"), { ready: late });
    await assert.rejects(sealedFetch(given)(...post({ signal: AbortSignal.abort() })), { name: "AbortError" });

    const giving = new AbortController();
    const replace = () => (giving.abort(), late());
    const stale = relayOf(async () => new Response("", { status: 400 }), { replace });
    await assert.rejects(sealedFetch(stale)(...post({ signal: giving.signal })), { name: "AbortError" });
    await new Promise((resolve) => setTimeout(resolve, 30));
  } finally {
    process.off("unhandledRejection", note);
  }
  assert.deepEqual(faults, []);
});

test("a stream without a body is verified before it is shown", async () => {
  for (const status of [204, 205, 304]) {
    const finish = async () => {
      throw new Error("the receipt is wrong");
    };
    const wrong = relayOf(async () => new Response("x"), { answer: { status, finish } });
    await assert.rejects(sealedFetch(wrong)(...post()), { message: "the receipt is wrong" });
    const right = await sealedFetch(relayOf(async () => new Response("x"), { answer: { status } }))(...post());
    assert.deepEqual([right.status, right.body], [status, null]);
  }
});
