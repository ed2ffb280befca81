/**
 * The retries of a library that are none of its business. openai's Node SDK, unless told otherwise, asks again twice
 * when its `fetch` threw or timed out, and for some statuses; it says so in a header field. Each such retry would be
 * sealed anew and could be executed anew, so none is sent: what may be sent again, `Delivery` has sent again.
 */

import { hex, utf8, type Bytes } from "./bytes.js";
import { OutcomeUnknown } from "./errors.js";
import { sha256 } from "./hash.js";

/** Of every SDK that Stainless made: how often this call was tried before. */
const COUNT = "x-stainless-retry-count";
/** `false` of an answer keeps such an SDK from asking again. */
export const SHOULD_RETRY = "x-should-retry";
/** How many ends are remembered. What is forgotten is refused all the same, in fewer words. */
const MAX_ENDS = 256;

/** Whether whoever asks may ask again by itself. */
export function counts(request: Request): boolean {
  return request.headers.has(COUNT);
}

/** What the calls of such SDKs ended in. */
export class Ends {
  readonly #faults = new Map<string, unknown>();

  /** Refuse a retry: throws what the try before it ended in, or OutcomeUnknown. */
  demandFirst(request: Request, body: Bytes): void {
    if (!counts(request) || request.headers.get(COUNT) === "0") return;
    const key = keyOf(request, body);
    throw this.#faults.has(key) ? this.#faults.get(key) : new OutcomeUnknown("a library tried a call again by itself");
  }

  /** Take note of what a call ended in. */
  note(request: Request, body: Bytes, fault: unknown): void {
    if (!counts(request)) return;
    const key = keyOf(request, body);
    this.#faults.delete(key);
    this.#faults.set(key, fault);
    if (this.#faults.size > MAX_ENDS) this.#faults.delete(this.#faults.keys().next().value!);
  }
}

function keyOf(request: Request, body: Bytes): string {
  return hex(sha256(utf8(`${request.method} ${request.url}\n`), body));
}
