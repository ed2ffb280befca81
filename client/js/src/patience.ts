/** How long one call waits: until its caller gives up, its answer is not wanted any more, or the gateway is silent. */

import { RelayUnreachable } from "./errors.js";

/** Longer than this a timer of the runtime fires at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** One call's patience. `signal` goes to whatever carries its bytes. */
export class Patience {
  /** Held for the whole call: some runtimes stop following the caller's signal when they collect the request. */
  readonly request: Request;
  readonly #silenceMs: number;
  readonly #own = new AbortController();

  constructor(request: Request, silenceMs: number) {
    this.request = request;
    this.#silenceMs = silenceMs;
    const { signal } = request;
    if (signal.aborted) this.end(signal.reason);
    else signal.addEventListener("abort", () => this.end(signal.reason), { once: true });
  }

  get signal(): AbortSignal {
    return this.#own.signal;
  }

  /** Wait no more for anything of this call. */
  end(reason?: unknown): void {
    this.#own.abort(reason);
  }

  /** Wait for the gateway's next sign of life. Throws RelayUnreachable when it is silent for too long. */
  async forGateway<T>(step: Promise<T>): Promise<T> {
    const silent = () => this.end(new RelayUnreachable("the gateway was silent for too long; see limits.silenceTimeoutMs"));
    const timer = setTimeout(silent, Math.min(this.#silenceMs, MAX_TIMER_MS));
    try {
      return await this.unlessEnded(step);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Wait for some time. Throws the reason of this call's end, at once. */
  async pause(ms: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      await this.unlessEnded(new Promise<void>((resolve) => (timer = setTimeout(resolve, ms))));
    } finally {
      clearTimeout(timer);
    }
  }

  /** Wait for what other callers may wait for too, unless this call has ended. Throws the reason of its end. */
  async unlessEnded<T>(shared: Promise<T>): Promise<T> {
    const { signal } = this;
    shared.catch(() => {}); // nobody may be left to take its fault
    signal.throwIfAborted();
    let giveUp = () => {};
    const ended = new Promise<never>((_, reject) => {
      giveUp = () => reject(signal.reason);
      signal.addEventListener("abort", giveUp, { once: true });
    });
    try {
      return await Promise.race([shared, ended]);
    } finally {
      signal.removeEventListener("abort", giveUp);
    }
  }
}
