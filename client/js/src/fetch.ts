/** The shape of `fetch`: plain OpenAI requests go in, sealed ones go out, verified answers come back. */

import type { Bytes } from "./bytes.js";
import { Delivery } from "./delivery.js";
import { ConfideError, Truncated } from "./errors.js";
import type { Exchange } from "./exchange.js";
import { Patience } from "./patience.js";
import { chunksOf, type Relay } from "./relay.js";
import { counts, Ends, SHOULD_RETRY } from "./retries.js";

/** What an answer's length and framing are is for the HTTP library to say, once the seal is off. */
const UNSHOWN = new Set(["connection", "content-length", "keep-alive", "transfer-encoding", "upgrade"]);
const WITHOUT_BODY = [204, 205, 304];
const exchanges = new WeakMap<Response, Exchange>();

/** Return the exchange that a response belongs to; its `receipt` is set once the answer has ended well. */
export function exchangeOf(response: Response): Exchange | undefined {
  return exchanges.get(response);
}

/**
 * Make a `fetch` that seals every request to an enclave that was verified, and refuses what it cannot seal.
 *
 * An answer that is no stream resolves when its receipt has verified. Of a stream the body fails, before its last
 * event, if it was cut or its receipt is wrong. What it throws is a ConfideError, or the caller's own abort.
 * What is sent again, and when, stands in `delivery.ts`; what a library tries again by itself is refused.
 */
export function sealedFetch(relay: Relay): typeof fetch {
  const ends = new Ends();
  return async (input, init) => {
    const request = new Request(input, init);
    const body = new Uint8Array(await request.arrayBuffer());
    ends.demandFirst(request, body);
    try {
      return await exchange(relay, request, body);
    } catch (fault) {
      ends.note(request, body, fault);
      throw fault;
    }
  };
}

async function exchange(relay: Relay, request: Request, body: Bytes): Promise<Response> {
  const call = relay.call(request.method, new URL(request.url), [...request.headers], body);
  const authorization = request.headers.get("authorization") ?? undefined;
  const patience = new Patience(request, relay.limits.silenceTimeoutMs);
  const begun = await new Delivery(relay, call, authorization, patience).begin();
  const sealed = chunksOf(begun.response, (step) => patience.forGateway(step));
  const response = await answer(relay, begun.exchange, sealed, patience);
  if (!response.ok && counts(request)) response.headers.set(SHOULD_RETRY, "false");
  return response;
}

async function answer(
  relay: Relay,
  exchange: Exchange,
  sealed: AsyncGenerator<Uint8Array>,
  patience: Patience,
): Promise<Response> {
  const events = open(relay, exchange, sealed, patience);
  const first: Bytes[] = [];
  let done = false;
  // Nobody reads a body that cannot be: such an answer is verified here, whatever type it claims.
  while (!done && (!exchange.streamed || WITHOUT_BODY.includes(exchange.head!.status))) {
    const next = await events.next();
    done = next.done === true;
    if (!next.done) first.push(...next.value);
  }
  return respond(exchange, first, events, patience);
}

/** Yield what may be shown of an answer; returns only when it is whole and signed. */
async function* open(
  relay: Relay,
  exchange: Exchange,
  sealed: AsyncGenerator<Uint8Array>,
  patience: Patience,
): AsyncGenerator<Bytes[], void, undefined> {
  try {
    for await (const data of sealed) yield await exchange.push(data);
  } catch (fault) {
    patience.signal.throwIfAborted();
    throw fault instanceof ConfideError ? fault : new Truncated();
  }
  const rest = await exchange.finish();
  relay.lastReceipt = exchange.receipt;
  yield rest;
}

function respond(exchange: Exchange, first: Bytes[], events: AsyncGenerator<Bytes[]>, patience: Patience): Response {
  const { status = 200, fields = [] } = exchange.head ?? {};
  const shown = fields.filter(([name]) => !UNSHOWN.has(name));
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const part of first) controller.enqueue(part);
    },
    async pull(controller) {
      try {
        for (;;) {
          const { done, value } = await events.next();
          if (done) return controller.close();
          for (const part of value) controller.enqueue(part);
          if (value.length) return;
        }
      } catch (fault) {
        controller.error(fault);
      }
    },
    async cancel() {
      patience.end(); // else this would wait for the chunk that is being waited for
      await events.return(undefined);
    },
  });
  const headers = new Headers();
  for (const [name, value] of shown) headers.append(name, value);
  const response = new Response(WITHOUT_BODY.includes(status) ? null : body, { status, headers });
  exchanges.set(response, exchange);
  return response;
}
