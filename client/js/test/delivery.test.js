// What is sent again, and what never is: a gateway that fails in every way, and nodes that count what they open.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";

import OpenAI, { APIConnectionError, APIConnectionTimeoutError, APIUserAbortError, RateLimitError } from "openai";

import { faultOf, OutcomeUnknown, RefusedAfterSending, RelayRefused } from "confide";
import { sealedFetch } from "../dist/fetch.js";
import { LIMITS } from "../dist/relay.js";
import { clear, EVENT, exchanged, failing, Gateway, honest, lost, post, relayOf, soon } from "./fakes.js";

const RESET = "UND_ERR_SOCKET";
const REFUSED = "ECONNREFUSED";
const many = (step) => Array.from({ length: 10_000 }, () => step);

async function ask(gateway, options) {
  return (await sealedFetch(gateway.relay(options))(...post())).text();
}

/** The call ends in this; returns the fault. */
async function ends(gateway, { code, status }, options) {
  let caught;
  await assert.rejects(ask(gateway, options), (fault) => {
    caught = fault;
    assert.deepEqual([fault.code, fault.status], [code, status], fault.stack);
    assert.ok(!fault.message.includes("CANARY"));
    return true;
  });
  return caught;
}

test("limits: as long as the Python client's", () => {
  assert.equal(LIMITS.recoverMs, 30_000);
});

for (const [name, ...script] of [
  ["no connection, twice", failing(REFUSED), failing(REFUSED)],
  ["no name", failing("ENOTFOUND")],
  ["503, twice", clear(503), clear(503)],
  ["a way that broke", failing(RESET)],
  ["a way that broke without a word why", failing(undefined)],
  ["broken, then 503", failing(RESET), clear(503)],
  ["503, no connection, 503", clear(503), failing(REFUSED), clear(503)],
  ["503 of a node that is lost", lost(clear(503))],
  ["400 of a node that is lost", lost(clear(400))],
  ["502 of a node that is lost", lost(clear(502))],
  ["502 of a node that lives", clear(502)],
  ["400 of a gateway that finds the node a moment later", clear(400)],
]) {
  test(`what was not run is run once: ${name}`, async () => {
    const gateway = new Gateway(...script);
    assert.equal(await ask(gateway), EVENT);
    assert.equal(gateway.executions, 1);
  });
}

for (const code of [RESET, "ECONNRESET", "EPIPE", "ETIMEDOUT", "UND_ERR_HEADERS_TIMEOUT", undefined]) {
  test(`an answer that is lost is not asked for twice: ${code}`, async () => {
    const gateway = new Gateway(failing(code, { opened: true }));
    assert.ok((await ends(gateway, { code: "outcome_unknown" })) instanceof OutcomeUnknown);
    assert.deepEqual([gateway.executions, gateway.asked], [1, 0]);
    assert.deepEqual(gateway.arrived, ["1/1", "1/1"]);
  });
}

test("a browser that sends a call again by itself, and meets its own bytes: unknown, with another key at hand or not", async () => {
  for (const other of [false, true]) {
    const gateway = new Gateway(failing(RESET, { opened: true }));
    const relay = gateway.relay({ replace: async () => other });
    const { fetch } = relay;
    relay.fetch = (...given) => fetch(...given).catch(() => fetch(...given));
    await assert.rejects(sealedFetch(relay)(...post()), { code: "outcome_unknown", message: /^these very bytes had been opened/ });
    assert.deepEqual([gateway.executions, gateway.asked, gateway.arrived], [1, 0, ["1/1", "1/1"]]);
  }
});

for (const [name, ...before] of [["at once"], ["503", clear(503)], ["400", clear(400)], ["502", clear(502)], ["broken", failing(RESET)]]) {
  test(`bytes that were opened before are never sealed anew: ${name}`, async () => {
    const gateway = new Gateway(...before, clear(409));
    await ends(gateway, { code: "outcome_unknown" });
    assert.deepEqual(new Set(gateway.arrived), new Set(["1/1"]));
    assert.equal(gateway.arrived.length, before.length + 1);
  });
}

for (const then of [400, 401, 404, 409, 429, 500, 502, 503, 504, REFUSED, RESET]) {
  test(`no later refusal hides that it may have run: ${then}`, async () => {
    const next = typeof then === "number" ? clear(then) : failing(then);
    const gateway = new Gateway(failing(RESET, { opened: true }), ...many(next));
    await ends(gateway, { code: "outcome_unknown" }, { recoverMs: 150 });
    assert.equal(gateway.executions, 1);
  });
}

test("what a dead node had begun when the gateway saw it break is asked of another, once", async () => {
  const gateway = new Gateway(lost(clear(502, { opened: true })));
  assert.equal(await ask(gateway), EVENT);
  assert.deepEqual(gateway.arrived, ["1/1", "2/2"]);
  assert.deepEqual(gateway.since, [undefined]); // what was verified before may be another key of the dead node
});

for (const [name, arrived, ...script] of [
  ["a lost node may have finished", ["1/1", "1/1"], lost(failing(RESET, { opened: true }))],
  ["a lost node, whatever it did", ["1/1", "1/1"], lost(failing(RESET))],
  ["then the gateway's", ["1/1", "1/1"], failing(RESET), lost(clear(502, { opened: true }))],
  ["after the gateway's", ["1/1", "1/1", "1/1"], clear(502), lost(failing(RESET, { opened: true }))],
  ["after a new sealing", ["1/1", "2/2", "2/2"], lost(clear(502)), lost(failing(RESET, { opened: true }))],
  ["400 for too long", ["1/1", "1/1", "1/1"], failing(RESET, { opened: true }), clear(400), clear(400)],
]) {
  test(`once our own way broke, nothing is sealed anew: ${name}`, async () => {
    const gateway = new Gateway(...script);
    await ends(gateway, { code: "outcome_unknown" });
    assert.deepEqual(gateway.arrived, arrived);
    assert.ok(gateway.executions <= 1);
  });
}

test("our own way broke, the gateway cannot tell, then says that the node is gone: unknown", async () => {
  const gateway = new Gateway(lost(failing(RESET, { opened: true })));
  gateway.says = [503, "away", 503];
  await ends(gateway, { code: "outcome_unknown" });
  assert.deepEqual([gateway.asked, gateway.arrived], [4, ["1/1", "1/1"]]);
});

test("a key that is merely stale gives way to the one of evidence asked for since the bytes were sealed, or kept", async () => {
  const sent = [];
  const gateway = new Gateway(clear(503), lost(clear(400)));
  const relay = gateway.relay({ flights: 0 });
  const { fetch } = relay;
  relay.fetch = (...given) => (sent.push(++relay.flights), fetch(...given)); // another begins whenever bytes were sent
  assert.equal(await (await sealedFetch(relay)(...post())).text(), EVENT);
  assert.deepEqual([gateway.since, sent], [[1], [1, 2, 3]]);
});

test("nodes that die for ever get two sealings, and the end is unknown", async () => {
  const gateway = new Gateway(...many(lost(clear(502, { opened: true }))));
  await ends(gateway, { code: "outcome_unknown" });
  assert.deepEqual(gateway.arrived, ["1/1", "2/2"]);
  assert.equal(gateway.executions, 2);
});

test("sealed anew after a break, then refused: still unknown", async () => {
  const gateway = new Gateway(lost(clear(502, { opened: true })), ...many(clear(503)));
  await ends(gateway, { code: "outcome_unknown" }, { recoverMs: 300 });
  assert.deepEqual([...new Set(gateway.arrived)], ["1/1", "2/2"]);
});

test("sealed anew after a break, then refused beside evidence of the same key: the new bytes once more", async () => {
  const gateway = new Gateway(lost(clear(502, { opened: true })), clear(400));
  assert.equal(await ask(gateway), EVENT);
  assert.deepEqual(gateway.arrived, ["1/1", "2/2", "2/2"]);
});

test("a doubt that comes after a 503 and a refused connection counts all the same", async () => {
  const gateway = new Gateway(clear(503), failing(REFUSED), failing(RESET, { opened: true }), failing(REFUSED));
  await ends(gateway, { code: "outcome_unknown" });
  assert.deepEqual(new Set(gateway.arrived), new Set(["1/1"]));
  assert.equal(gateway.executions, 1);
});

test("a gateway that was killed, and started anew knows no node for a moment: the same bytes again", async () => {
  const gateway = new Gateway(failing(RESET), clear(400));
  assert.equal(await ask(gateway), EVENT);
  assert.deepEqual([gateway.executions, gateway.asked], [1, 1]);
  assert.deepEqual(gateway.arrived, ["1/1", "1/1", "1/1"]);
});

test("a gateway that cannot tell is asked until it can", async () => {
  for (const [opened, says] of [[false, "1/1"], [true, "2/2"]]) {
    const gateway = new Gateway(opened ? lost(clear(502, { opened })) : clear(502));
    gateway.says = [503, "away", 503];
    assert.equal(await ask(gateway), EVENT);
    assert.equal(gateway.asked, 4);
    assert.equal(gateway.arrived.at(-1), says);
  }
});

test("a gateway that cannot tell for too long: unknown, and nothing is sealed anew", async () => {
  const gateway = new Gateway(lost(failing(RESET, { opened: true })));
  gateway.says = many(503);
  await ends(gateway, { code: "outcome_unknown" }, { recoverMs: 200 });
  assert.ok(gateway.asked > 1);
  assert.deepEqual(gateway.arrived, ["1/1", "1/1"]);
});

test("a node that outlived a break may have finished before it was gone: unknown", async () => {
  const gateway = new Gateway(clear(502), lost(clear(502)));
  await ends(gateway, { code: "outcome_unknown" });
  assert.equal(new Set(gateway.arrived).size, 1);
});

test("a node that is gone and leaves no other: unknown", async () => {
  const gateway = new Gateway(lost(clear(502, { opened: true })));
  await ends(gateway, { code: "outcome_unknown" }, { replace: async () => false });
  assert.deepEqual(gateway.arrived, ["1/1"]);
});

test("another node's evidence that does not pass does not hide the doubt", async () => {
  const { EvidenceMalformed } = await import("confide");
  const replace = async () => {
    throw new EvidenceMalformed();
  };
  const fault = await ends(new Gateway(lost(clear(502))), { code: "outcome_unknown" }, { replace });
  assert.ok(fault.cause instanceof EvidenceMalformed);
});

test("a 400 beside evidence of the same key: the same bytes once, and no more", async () => {
  const gateway = new Gateway(...many(clear(400)));
  const fault = await ends(gateway, { code: "relay_refused", status: 400 });
  assert.ok(fault instanceof RefusedAfterSending);
  assert.deepEqual(gateway.arrived, ["1/1", "1/1"]);
});

test("a gateway that swaps nodes for ever gets two sealings", async () => {
  const gateway = new Gateway(...many(lost(clear(400))));
  await ends(gateway, { code: "relay_refused", status: 400 });
  assert.deepEqual(gateway.arrived, ["1/1", "2/2"]);
});

for (const status of [401, 403, 404, 405, 408, 413, 415, 429]) {
  test(`other refusals are final: ${status}`, async () => {
    const gateway = new Gateway(clear(status));
    assert.ok((await ends(gateway, { code: "relay_refused", status })) instanceof RefusedAfterSending);
    assert.equal(gateway.arrived.length, 1);
  });
}

for (const status of [200, 204, 302, 409, 410, 422, 499, 500, 501, 504, 520, 524]) {
  test(`after any other answer in clear it may have run: ${status}`, async () => {
    const gateway = new Gateway();
    const answer = { answered: () => { throw new RelayRefused(status); } }; // prettier-ignore
    const fault = await ends(gateway, { code: "outcome_unknown" }, { answer });
    assert.deepEqual([fault.cause.status, gateway.arrived.length], [status, 1]);
    if (status !== 409) assert.ok(fault.message.startsWith(`the gateway answered ${status} in clear, and an enclave may`));
  });
}

for (const [step, code, status] of [
  [failing(REFUSED), "relay_unreachable"],
  [clear(503), "relay_refused", 503],
  [clear(502), "outcome_unknown"],
  [failing(RESET), "outcome_unknown"],
]) {
  test(`patience ends, and has none with recoverMs 0: ${code} ${status ?? ""}`, async () => {
    for (const recoverMs of [150, 0]) {
      const gateway = new Gateway(...many(step));
      await soon(ends(gateway, { code, status }, { recoverMs }));
      assert.equal(gateway.arrived.length > 1, recoverMs > 0);
    }
  });
}

test("without patience a stale key alone is replaced", async () => {
  assert.equal(await ask(new Gateway(lost(clear(400))), { recoverMs: 0 }), EVENT);
});

test("what is older than the clocks' tolerance is not sent again", async () => {
  for (const [step, code, status] of [[clear(503), "relay_refused", 503], [failing(RESET), "outcome_unknown", undefined]]) {
    let nowS = 0;
    const late = (...given) => ((nowS = 46), step(...given));
    const gateway = new Gateway(clear(503), late);
    await ends(gateway, { code, status }, { nowS: () => nowS });
    assert.equal(gateway.arrived.length, 2);
  }
});

test("what never left is sealed with the time at which it leaves", async () => {
  const gateway = new Gateway(failing(REFUSED));
  assert.equal(await ask(gateway), EVENT);
  assert.deepEqual(gateway.arrived, ["1/1", "1/2"]);
});

test("once begun nothing is repeated", async () => {
  const torn = (...given) => {
    honest(...given);
    const pull = (controller) => controller.error(new TypeError("CANARY"));
    return new Response(new ReadableStream({ pull }));
  };
  for (const type of ["text/event-stream", "application/json"]) {
    const gateway = new Gateway(torn);
    await ends(gateway, { code: "truncated" }, { answer: { type } });
    assert.deepEqual([gateway.executions, gateway.arrived.length], [1, 1]);
  }
});

test("first contact is not repeated: the URL may be wrong", async () => {
  let tries = 0;
  const ready = async () => {
    tries++;
    throw new RefusedAfterSending(503);
  };
  const first = { ready, session: { verified: undefined } };
  await assert.rejects(ask(new Gateway(), first), { status: 503 });
  assert.equal(tries, 1);
  await assert.rejects(ask(new Gateway(), { ready, recoverMs: 200 }), { status: 503 });
  assert.ok(tries > 2);
});

test("a caller's abort ends the pause between two tries at once", async (context) => {
  context.mock.method(Math, "random", () => 0.999); // pauses end after 50, 150, 350, 750 and 1550 ms
  const giving = new AbortController();
  const gateway = new Gateway(...many(failing(RESET)));
  let aborted;
  setTimeout(() => ((aborted = performance.now()), giving.abort()), 900);
  const call = sealedFetch(gateway.relay({ recoverMs: 60_000 }))(...post({ signal: giving.signal }));
  await assert.rejects(soon(call), { name: "AbortError" });
  assert.ok(performance.now() - aborted < 300);
  await new Promise((resolve) => setTimeout(resolve, 900));
  assert.equal(gateway.arrived.length, 5);
});

test("Node's own fetch: a port where nobody listens is no doubt, a connection that breaks is", async () => {
  const server = createServer((request) => request.socket.destroy());
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  const url = `http://127.0.0.1:${server.address().port}`;
  const relay = relayOf(fetch, { url, limits: { recoverMs: 0 } });
  await assert.rejects(sealedFetch(relay)(...post()), { code: "outcome_unknown" });
  await new Promise((closed) => server.close(closed));
  await assert.rejects(sealedFetch(relay)(...post()), { code: "relay_unreachable" });
});

// --- openai's Node SDK, which asks again by itself twice unless told otherwise

const HELLO = { model: "m", messages: [{ role: "user", content: "Hello" }] };

function sdk(relay, options) {
  const openai = new OpenAI({ baseURL: "http://gateway.test/v1", apiKey: "k", fetch: sealedFetch(relay), ...options });
  return (request) => openai.chat.completions.create(HELLO, request);
}

test("its retries of a call that may have run are not sent, and the typed error arrives", async () => {
  for (const script of [
    [failing(RESET, { opened: true })],
    [failing(RESET, { opened: true }), clear(503)],
    [(...given) => (honest(...given), new Response(null))],
  ]) {
    const gateway = new Gateway(...script, ...(script.length > 1 ? many(clear(503)) : []));
    let sealed = 0;
    const relay = gateway.relay({ recoverMs: 150, answer: { finish: () => Promise.reject(new OutcomeUnknown()) } });
    const { seal } = relay;
    relay.seal = (...given) => (sealed++, seal(...given));
    await assert.rejects(sdk(relay)(), (error) => {
      assert.ok(error instanceof APIConnectionError);
      assert.ok(faultOf(error) instanceof OutcomeUnknown);
      return true;
    });
    assert.deepEqual([gateway.executions, sealed], [1, 1]);
  }
});

test("a time-out of its own is no reason to run a call again, nor is an abort", async () => {
  let sent = 0;
  const relay = relayOf(() => (sent++, new Promise(() => {})));
  await assert.rejects(sdk(relay, { timeout: 50 })(), APIConnectionTimeoutError);
  assert.equal(sent, 1);
  const giving = new AbortController();
  setTimeout(() => giving.abort(), 50);
  await assert.rejects(sdk(relay)({ signal: giving.signal }), APIUserAbortError);
  assert.equal(sent, 2);
});

test("what an enclave refused, signed, is told at once", async () => {
  let sent = 0;
  const relay = relayOf(async () => (sent++, new Response("x")), { answer: { status: 429, type: "application/json" } });
  await assert.rejects(sdk(relay)(), RateLimitError);
  assert.equal(sent, 1);
  const plain = await sealedFetch(relay)(...post());
  assert.deepEqual([plain.status, plain.headers.get("x-should-retry")], [429, null]);
});

test("two calls of the same words: each retry ends in what such a call ended in; one unknown to it is unknown", async () => {
  const gateway = new Gateway(failing(RESET, { opened: true }), failing(RESET, { opened: true }));
  const ask = sdk(gateway.relay({ recoverMs: 0 }), { maxRetries: 1 });
  const faults = (await Promise.allSettled([ask(), ask()])).map(({ reason }) => faultOf(reason).code);
  assert.deepEqual(faults, ["outcome_unknown", "outcome_unknown"]);
  assert.equal(gateway.arrived.length, 2);
  const headers = { "x-stainless-retry-count": "1" };
  await assert.rejects(sealedFetch(gateway.relay())(...post({ headers })), { code: "outcome_unknown" });
  assert.equal(gateway.arrived.length, 2);
});
