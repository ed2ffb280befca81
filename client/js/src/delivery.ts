/**
 * What may be sent again, and when. One `Delivery` is one call on its way to the first byte of its answer.
 *
 * The rule, so that no call is executed twice; it is that of the Python client (SPEC 6.4, 6.6):
 *
 * 1. Nothing left this machine (no connection): the call may be tried again, as long as `limits.recoverMs` allows.
 * 2. The gateway says 503 (it passed nothing on), or the connection broke before an answer began: the *same sealed
 *    bytes* may be sent again. A node opens them at most once, whatever arrives twice: they stand in its single-use
 *    set. So may they, once, after a 400 when the gateway still reaches the key that they are sealed to.
 * 3. The call is sealed *anew* at most once, and only when the bytes sent before can no longer be opened and this
 *    machine's own way to the gateway never broke: the gateway says 400 to them (no node holds the key), or 502 (its
 *    way to the node broke) and, when first asked, that the node is gone, which it says only if it is sure (SPEC 6.6).
 *    What a node that died had begun died with it, unanswered. While the gateway cannot tell (503), it is asked again.
 * 4. Where an enclave may have opened the bytes, and its answer is lost: OutcomeUnknown. So says 409: these very bytes
 *    were opened before. Nothing is sent again.
 * 5. Once an answer has begun, nothing is sent again, whatever happens.
 *
 * A `fetch` hardly says whether bytes had left when it failed: every fault of it counts as a way that broke, but for
 * the few of which Node says that there was no connection. Nor does a browser's say that it sent them twice, as it may
 * where a connection that it used before broke.
 *
 * What ends a call tells the cases apart: OutcomeUnknown once an enclave may have run it, whatever came later;
 * RefusedAfterSending where sealed bytes left and an honest gateway had none opened; any other RelayRefused came before.
 */

import {
  ConfideError, NotConfide, OutcomeUnknown, RefusedAfterSending, RelayRefused, RelayUnreachable,
} from "./errors.js"; // prettier-ignore
import { Exchange } from "./exchange.js";
import { DATE_TOLERANCE_S } from "./labels.js";
import type { Patience } from "./patience.js";
import { faultName, OUTER, type Relay } from "./relay.js";
import type { Call } from "./session.js";

const FIRST_WAIT_MS = 50;
const MAX_WAIT_MS = 1000;
/** Sealed bytes older than this may be refused for their date. */
const STALE_BYTES_S = DATE_TOLERANCE_S - 15;
const AWAY = [502, 503, 504];
/** What an honest gateway says of bytes that it passed to no node whole, or that no node opened. */
const NOT_OPENED = [400, 401, 403, 404, 405, 408, 413, 415, 429, 503];
/** What Node's `fetch` has as its cause's code where there was never a connection. */
const UNCONNECTED = ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "UND_ERR_CONNECT_TIMEOUT"];

/** An exchange whose answer begins with this outer head. */
export interface Begun {
  exchange: Exchange;
  response: Response;
}

/** One call's tries. */
export class Delivery {
  readonly #relay: Relay;
  readonly #call: Call;
  readonly #authorization: string | undefined;
  readonly #patience: Patience;
  #exchange: Exchange | undefined;
  #sealedAtS = 0;
  #flights = 0; // of the relay, when these bytes were sealed, or kept for another try
  #sent = false; // whether sealed bytes may have left this machine
  #doubtful = false; // whether a node may have opened the last bytes
  #doubted = false; // or any
  #maybeDone = false; // whether an enclave that answers no more may have finished before it went
  #resealed = false;
  #repeated = false;
  #untilMs: number | undefined;
  #tries = 0;

  constructor(relay: Relay, call: Call, authorization: string | undefined, patience: Patience) {
    this.#relay = relay;
    this.#call = call;
    this.#authorization = authorization;
    this.#patience = patience;
  }

  /** Send the call until its answer begins. Throws ConfideError, or the caller's own abort. */
  async begin(): Promise<Begun> {
    try {
      for (;;) {
        const exchange = (this.#exchange ??= await this.#sealed());
        const response = await this.#send(exchange);
        if (response !== undefined && (await this.#begins(exchange, response))) return { exchange, response };
      }
    } catch (fault) {
      throw this.#final(fault);
    }
  }

  async #sealed(): Promise<Exchange> {
    await this.#patiently(() => this.#relay.ready(this.#authorization));
    this.#sealedAtS = this.#relay.nowS();
    this.#flights = this.#relay.flights;
    return this.#relay.seal(this.#call);
  }

  async #send(exchange: Exchange): Promise<Response | undefined> {
    const { signal } = this.#patience;
    signal.throwIfAborted();
    const before = this.#sent;
    this.#sent = true;
    try {
      const answer = this.#relay.fetch(this.#relay.url + exchange.path, {
        ...OUTER,
        method: "POST",
        headers: { ...Exchange.headerFields, ...this.#relay.authorize(this.#authorization) },
        body: exchange.body,
        signal,
      });
      return await this.#patience.forGateway(answer);
    } catch (fault) {
      if (isUnconnected(fault)) this.#sent = before;
      else this.#doubtful = this.#doubted = this.#maybeDone = true;
      signal.throwIfAborted();
      if (this.#doubtful && this.#old) throw new OutcomeUnknown();
      await this.#again(new RelayUnreachable(`the gateway cannot be reached (${faultName(fault)})`));
      if (!this.#sent) this.#exchange = undefined;
      return undefined;
    }
  }

  async #begins(exchange: Exchange, response: Response): Promise<boolean> {
    try {
      exchange.answered(response.status, response.headers.get("content-type") ?? "");
      return true;
    } catch (refusal) {
      response.body?.cancel().catch(() => {}); // not awaited: it may never say that it is done
      if (!(refusal instanceof RelayRefused)) throw refusal;
      await this.#refused(exchange, refusal);
      return false;
    }
  }

  async #refused(exchange: Exchange, refusal: RelayRefused): Promise<void> {
    if (refusal.status === 400) {
      const opened = this.#doubtful;
      await this.#patiently(() => (opened ? this.#settle(exchange, new OutcomeUnknown()) : this.#renew(exchange, refusal)));
    } else if (refusal.status === 502) {
      this.#doubtful = this.#doubted = true;
      await this.#again(refusal);
      await this.#patiently(() => this.#settle(exchange));
    } else if (refusal.status === 503 && !this.#old) {
      await this.#again(refusal);
    } else if (NOT_OPENED.includes(refusal.status)) {
      throw refusal;
    } else {
      const said = `the gateway answered ${refusal.status} in clear`;
      const why = refusal.status === 409 ? "these very bytes had been opened before" : said;
      throw Object.assign(new OutcomeUnknown(why), { cause: refusal });
    }
  }

  /**
   * Seal anew to the keyset of evidence asked for since; if that is the same one, repeat the bytes once.
   *
   * A gateway that has just started says 400 for a node that it only finds a moment later.
   */
  async #renew(exchange: Exchange, refusal: RelayRefused): Promise<void> {
    const { keysetDigest } = exchange;
    if (await this.#relay.replace(keysetDigest, this.#authorization, this.#flights)) this.#sealAnew(refusal);
    else if (this.#repeated) throw refusal;
    this.#repeated = true;
  }

  /**
   * Seal anew if the node that may have begun with the bytes is gone; else send them again, or throw `opened`.
   *
   * They are sent again once where they were refused with 400: it may have been the gateway's, as in `#renew`.
   * Where our own way broke, or the node outlived a break, it may have finished before it was gone.
   */
  async #settle(exchange: Exchange, opened?: ConfideError): Promise<void> {
    if (await this.#relay.holds(exchange.keysetDigest, this.#authorization)) {
      this.#maybeDone = true;
      if (opened !== undefined && this.#repeated) throw opened;
      this.#repeated ||= opened !== undefined;
      return;
    }
    const { keysetDigest } = exchange;
    if (this.#maybeDone || !(await this.#relay.replace(keysetDigest, this.#authorization))) throw new OutcomeUnknown();
    this.#sealAnew(new OutcomeUnknown());
  }

  #sealAnew(fault: ConfideError): void {
    if (this.#resealed) throw fault;
    this.#resealed = true;
    this.#doubtful = false;
    this.#exchange = undefined;
  }

  get #old(): boolean {
    return this.#relay.nowS() - this.#sealedAtS > STALE_BYTES_S;
  }

  /** Do a step, again while the gateway is away. First contact is not repeated: the URL may be wrong. */
  async #patiently<T>(step: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await this.#patience.unlessEnded(step());
      } catch (fault) {
        if (!isAway(fault) || this.#relay.session.verified === undefined) throw fault;
        await this.#again(fault);
      }
    }
  }

  /** Pause before another try; throws `fault` once the time is over. */
  async #again(fault: unknown): Promise<void> {
    const nowMs = performance.now();
    this.#untilMs ??= nowMs + this.#relay.limits.recoverMs;
    const pauseMs = Math.min(MAX_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#tries++) * (0.5 + Math.random() / 2);
    if (nowMs + pauseMs > this.#untilMs) throw fault;
    await this.#patience.pause(pauseMs);
    this.#flights = this.#relay.flights;
  }

  /** Return what ends the call: no later fault of ours may hide that an enclave may have run it. */
  #final(fault: unknown): unknown {
    if (!(fault instanceof ConfideError) || fault instanceof OutcomeUnknown) return fault;
    if (this.#doubted) {
      const silent = fault === this.#patience.signal.reason;
      return Object.assign(new OutcomeUnknown(silent ? fault.message : undefined), { cause: fault });
    }
    const refused = this.#sent && fault instanceof RelayRefused && !(fault instanceof NotConfide);
    return refused ? new RefusedAfterSending(fault.status, fault.message) : fault;
  }
}

function isUnconnected(fault: unknown): boolean {
  const cause = fault instanceof Error ? fault.cause : undefined;
  return cause instanceof Error && "code" in cause && UNCONNECTED.includes(String(cause.code));
}

function isAway(fault: unknown): boolean {
  if (fault instanceof OutcomeUnknown || fault instanceof NotConfide) return false;
  return fault instanceof RelayUnreachable || (fault instanceof RelayRefused && AWAY.includes(fault.status));
}
