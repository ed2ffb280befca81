/** Server-sent events as bytes: where one ends and the next begins, filler taken out. Lines end in LF. */

import { concat, EMPTY, type Bytes } from "./bytes.js";
import { TooLarge } from "./errors.js";

export const MAX_EVENT_BYTES = 4 << 20;
const LF = 0x0a;
const COLON = 0x3a;

/** Split a stream into whole events, each with its blank line, without comment lines. Throws TooLarge. */
export class EventSplitter {
  #event: Bytes[] = [];
  #eventBytes = 0;
  #line: Bytes = EMPTY;

  push(data: Uint8Array): Bytes[] {
    const events: Bytes[] = [];
    let rest = data;
    for (let end = rest.indexOf(LF) + 1; end > 0; end = rest.indexOf(LF) + 1) {
      const line = concat(this.#line, rest.subarray(0, end));
      this.#checkSize(line.length);
      this.#line = EMPTY;
      rest = rest.subarray(end);
      if (line.length > 1 && line[0] !== COLON) {
        this.#event.push(line);
        this.#eventBytes += line.length;
      } else if (line.length === 1 && this.#eventBytes) {
        events.push(concat(...this.#event, line));
        this.#event = [];
        this.#eventBytes = 0;
      }
    }
    if (rest.length) this.#line = concat(this.#line, rest);
    this.#checkSize(this.#line.length);
    return events;
  }

  /** Say whether the stream was cut within an event. */
  finish(): boolean {
    return this.#eventBytes > 0 || (this.#line.length > 0 && this.#line[0] !== COLON);
  }

  #checkSize(lineBytes: number): void {
    if (this.#eventBytes + lineBytes > MAX_EVENT_BYTES) throw new TooLarge("a server-sent event is larger than its limit");
  }
}
