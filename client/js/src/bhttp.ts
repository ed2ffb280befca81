/** Binary HTTP (RFC 9292), indeterminate length: requests out, responses in. As strict as the Python side. */

import { concat, EMPTY, fromLatin1, latin1, isZero, type Bytes } from "./bytes.js";
import { LocalStateError, Malformed, TooLarge, Truncated } from "./errors.js";
import { encodeVarint, readVarint } from "./varint.js";

export const MAX_HEAD_BYTES = 32 * 1024;

export type Fields = readonly (readonly [string, string])[];

export interface RequestHead {
  method: string;
  scheme: string;
  authority: string;
  path: string;
  fields: Fields;
}

export type Event =
  | { type: "head"; status: number; fields: Fields }
  | { type: "content"; data: Bytes }
  | { type: "trailers"; fields: Fields }
  | { type: "end" };

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const FIELD_NAME = /^[!#$%&'*+.^_`|~0-9a-z-]+$/;
const FIELD_VALUE = /^(?![ \t])[\t -~\x80-\xff]*(?<![ \t])$/;
const SCHEME = /^[a-z][a-z0-9+.-]*$/;
const AUTHORITY = /^[!-~]*$/;
const PATH = /^(\/[!-~]*|\*)$/;

/** Encode a whole request. Throws LocalStateError for what HTTP forbids. */
export function encodeRequest(head: RequestHead, content: Uint8Array): Bytes {
  const control = [head.method, head.scheme, head.authority, head.path] as const;
  const patterns = [TOKEN, SCHEME, AUTHORITY, PATH] as const;
  if (!control.every((part, at) => patterns[at]!.test(part))) {
    throw new LocalStateError("the head of the message is not valid HTTP");
  }
  return concat(
    Uint8Array.of(2),
    ...control.map((part) => prefixed(latin1(part))),
    encodeFields(head.fields),
    content.length ? prefixed(content) : EMPTY,
    Uint8Array.of(0, 0),
  );
}

function encodeFields(fields: Fields): Bytes {
  if (!areValid(fields)) throw new LocalStateError("a field's name or value is not valid HTTP");
  return concat(...fields.flat().map((part) => prefixed(latin1(part))), Uint8Array.of(0));
}

function prefixed(data: Uint8Array): Bytes {
  return concat(encodeVarint(data.length), data);
}

function areValid(fields: Fields): boolean {
  return fields.every(([name, value]) => FIELD_NAME.test(name) && FIELD_VALUE.test(value));
}

/** A step yields while bytes are missing and is resumed when more have come, or none will. */
type Step<T> = Generator<void, T, void>;

/**
 * Read one response from a stream split anywhere.
 *
 * Empty sections that the sender left off the end count as empty (RFC 9292 section 3.8).
 * Informational responses are read and dropped. After any error it takes no more bytes.
 */
export class ResponseDecoder {
  #budget = MAX_HEAD_BYTES;
  #buffer: Uint8Array = EMPTY;
  #at = 0;
  #ended = false;
  #closed = false;
  #events: Event[] = [];
  readonly #message = this.#readMessage();

  /** Take bytes as they came; return the events that they complete. Throws Malformed, TooLarge. */
  push(data: Uint8Array): Event[] {
    this.#buffer = this.#buffer.length ? concat(this.#buffer, data) : data;
    return this.#resume();
  }

  /** Take the end of the stream; the last event is `end`. Throws Truncated, Malformed. */
  finish(): Event[] {
    this.#ended = true;
    return this.#resume();
  }

  #resume(): Event[] {
    if (this.#closed) throw new LocalStateError("the message has ended or failed");
    this.#closed = true;
    this.#closed = this.#message.next().done === true;
    const events = this.#events;
    this.#events = [];
    return events;
  }

  *#readMessage(): Step<void> {
    const framing = yield* this.#integer();
    if (framing !== 1 && framing !== 3) throw new Malformed("the sealed message is not a response");
    const known = framing === 1;
    let status = yield* this.#integer();
    for (; status >= 100 && status <= 199; status = yield* this.#integer()) {
      this.#spend(3); // what the shortest one takes
      yield* this.#fields(known, false);
    }
    if (status < 200 || status > 599) throw new Malformed("the head of a message is not valid HTTP");
    const fields = yield* this.#fields(known, true); // events are taken away while a step waits
    this.#events.push({ type: "head", status, fields });
    yield* this.#content(known);
    this.#budget = MAX_HEAD_BYTES;
    const trailers = yield* this.#fields(known, true);
    if (trailers.length) this.#events.push({ type: "trailers", fields: trailers });
    yield* this.#padding();
    this.#events.push({ type: "end" });
  }

  *#fields(known: boolean, optional: boolean): Step<Fields> {
    const fields: [string, string][] = [];
    let end: number | undefined;
    if (known) {
      const length = yield* this.#integer(optional);
      if (length > this.#budget) throw new TooLarge();
      end = this.#at + length;
    }
    while (this.#at !== end) {
      const size = yield* this.#integer(optional && end === undefined && fields.length === 0);
      if (size === 0 && end === undefined) break;
      const name = yield* this.#text(size);
      const value = yield* this.#text(yield* this.#integer());
      fields.push([name, value]);
      if (end !== undefined && this.#at > end) throw new Malformed("a field runs over the end of its section");
    }
    if (!areValid(fields)) throw new Malformed("a field is not valid HTTP");
    return fields;
  }

  *#content(known: boolean): Step<void> {
    let missing = yield* this.#integer(true);
    while (missing > 0) {
      while (this.#buffer.length === 0) yield* this.#wait();
      const data = this.#take(Math.min(missing, this.#buffer.length));
      this.#events.push({ type: "content", data });
      missing -= data.length;
      if (missing === 0 && !known) missing = yield* this.#integer();
    }
  }

  *#padding(): Step<void> {
    while (this.#buffer.length > 0 || !this.#ended) {
      if (!isZero(this.#buffer)) throw new Malformed("the padding is not zero");
      this.#buffer = EMPTY;
      if (!this.#ended) yield;
    }
  }

  /** Read a variable-length integer; an optional one that the stream ends before is 0. */
  *#integer(optional = false): Step<number> {
    for (;;) {
      const found = readVarint(this.#buffer);
      if (found !== undefined) {
        this.#take(found[1]);
        return found[0];
      }
      if (optional && this.#ended && this.#buffer.length === 0) return 0;
      yield* this.#wait();
    }
  }

  *#text(size: number): Step<string> {
    this.#spend(1 + size);
    while (this.#buffer.length < size) yield* this.#wait();
    return fromLatin1(this.#take(size));
  }

  #take(size: number): Bytes {
    const taken = this.#buffer.slice(0, size) as Bytes;
    this.#buffer = this.#buffer.subarray(size);
    this.#at += size;
    return taken;
  }

  #spend(size: number): void {
    this.#budget -= size;
    if (this.#budget < 0) throw new TooLarge();
  }

  *#wait(): Step<void> {
    if (this.#ended) throw new Truncated();
    yield;
  }
}
