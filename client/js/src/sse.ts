/** Server-sent events as bytes: where one ends and the next begins, filler taken out. Lines end in LF. */

import { join, type Bytes } from "./bytes.js";
import { TooLarge } from "./errors.js";

export const MAX_EVENT_BYTES = 4 << 20;
const LF = 0x0a;
const COLON = 0x3a;

/** Split a stream into whole events, each with its blank line, without comment lines. Throws TooLarge. */
export class EventSplitter {
  #event: Uint8Array[] = [];
  #eventBytes = 0;
  #line: Uint8Array[] = [];
  #lineBytes = 0;

  push(data: Uint8Array): Bytes[] {
    const events: Bytes[] = [];
    let rest = data;
    for (let end = rest.indexOf(LF) + 1; end > 0; end = rest.indexOf(LF) + 1) {
      this.#grow(rest.subarray(0, end));
      rest = rest.subarray(end);
      const line = join(this.#line);
      this.#line = [];
      this.#lineBytes = 0;
      if (line.length > 1 && line[0] !== COLON) {
        this.#event.push(line);
        this.#eventBytes += line.length;
      } else if (line.length === 1 && this.#eventBytes) {
        events.push(join([...this.#event, line]));
        this.#event = [];
        this.#eventBytes = 0;
      }
    }
    if (rest.length) this.#grow(rest);
    return events;
  }

  /** Say whether the stream was cut within an event. */
  finish(): boolean {
    return this.#eventBytes > 0 || (this.#lineBytes > 0 && this.#line[0]?.[0] !== COLON);
  }

  #grow(part: Uint8Array): void {
    this.#line.push(part);
    this.#lineBytes += part.length;
    if (this.#eventBytes + this.#lineBytes > MAX_EVENT_BYTES) {
      throw new TooLarge("a server-sent event is larger than its limit");
    }
  }
}
