/** The way to an enclave: fetch its evidence through the gateway, verify once for all callers, renew in time. */

import { mediaType } from "./answer.js";
import type { Fields } from "./bhttp.js";
import { equal, hex, join, type Bytes } from "./bytes.js";
import {
  ConfideError, ConfigError, LocalStateError, NotConfide, PolicyError, RelayRefused, RelayUnreachable, TooLarge,
} from "./errors.js"; // prettier-ignore
import { MAX_BUNDLE_BYTES } from "./evidence.js";
import type { Exchange, Receipt } from "./exchange.js";
import { MEDIA_EVIDENCE, MEDIA_PROBLEM, PATH_EVIDENCE } from "./labels.js";
import type { PolicyMemory } from "./memory.js";
import type { AppraisalPolicy } from "./policy/policy.js";
import type { AttestedKeyset } from "./result.js";
import { ClientSession, MAX_ANSWER_BYTES, type Call } from "./session.js";

const RENEW_RETRY_S = 60;
/** What whatever stands before a gateway may answer while that is away. */
const AWAY = [429, 502, 503, 504];

/** What a peer can cost. */
export interface Limits {
  evidenceTimeoutMs: number;
  /** How long the gateway may be silent: until an answer's head, and between its chunks. */
  silenceTimeoutMs: number;
  /** How long a call outlives a gateway or a node that is away; 0: not at all. */
  recoverMs: number;
  /** With its head it fits the 2 MiB bucket. */
  maxRequestBytes: number;
  /** With the session's own fields it fits the enclave's 32 KiB. */
  maxHeadBytes: number;
  maxAnswerBytes: number;
}

export const LIMITS: Limits = {
  evidenceTimeoutMs: 30_000,
  silenceTimeoutMs: 600_000,
  recoverMs: 30_000,
  maxRequestBytes: (2 << 20) - (64 << 10),
  maxHeadBytes: 28 << 10,
  maxAnswerBytes: MAX_ANSWER_BYTES,
};

/** What every outer request has: nothing of the application, no cookies, no redirects. */
export const OUTER: RequestInit = {
  redirect: "manual",
  credentials: "omit",
  cache: "no-store",
  referrerPolicy: "no-referrer",
};

export interface RelayOptions {
  gateway: string;
  policy: AppraisalPolicy;
  apiKey?: string | undefined;
  allowSimulated?: boolean | undefined;
  memory: PolicyMemory;
  limits?: Partial<Limits> | undefined;
  fetch?: typeof fetch | undefined;
  /** Seconds since 1970. */
  clock?: (() => number) | undefined;
}

/** One gateway, one policy, one trust state, for any number of calls at a time. */
export class Relay {
  readonly url: string;
  readonly limits: Limits;
  readonly fetch: typeof fetch;
  readonly session: ClientSession;
  lastReceipt: Receipt | undefined;
  readonly #memory: PolicyMemory;
  readonly #authorization: string | undefined;
  readonly #clock: () => number;
  #flight: { number: number; outcome: Promise<AttestedKeyset> } | undefined;
  #flights = 0;
  #landed = 0;
  #nextRenewalS = 0;

  private constructor(options: RelayOptions, floor: number) {
    this.url = gatewayUrl(options.gateway);
    this.limits = { ...LIMITS, ...options.limits };
    this.fetch = options.fetch ?? globalThis.fetch.bind(globalThis);
    this.#memory = options.memory;
    this.#authorization = options.apiKey ? `Bearer ${options.apiKey}` : undefined;
    this.#clock = options.clock ?? (() => Date.now() / 1000);
    checkPolicy(options.policy, floor, this.#now());
    const { maxAnswerBytes } = this.limits;
    this.session = new ClientSession(options.policy, {
      floor,
      allowSimulated: options.allowSimulated ?? false,
      maxAnswerBytes,
    });
  }

  /** Throws PolicyError, ConfigError, before anything is sent. */
  static async open(options: RelayOptions): Promise<Relay> {
    return new Relay(options, await options.memory.floor(options.policy.id));
  }

  /** Seconds since 1970, as this relay's clock has them. */
  nowS(): number {
    return this.#clock();
  }

  #now(): number {
    return Math.floor(this.#clock());
  }

  /** Verify the enclave unless it is verified; start a renewal in the background when one is due. */
  async ready(authorization?: string): Promise<AttestedKeyset> {
    const now = this.#now();
    const attested = this.session.attested(now);
    if (attested === undefined) return this.#verifyUnless(() => true, authorization);
    if (this.session.renewalDue(now) && now >= this.#nextRenewalS && this.#flight === undefined) {
      this.#nextRenewalS = now + RENEW_RETRY_S;
      // What was verified stands until its own end; then the caller sees the fault.
      this.verify(authorization).catch(() => {});
    }
    return attested;
  }

  /** Fetch and appraise fresh evidence. Callers that come meanwhile share the one outcome. */
  verify(authorization?: string): Promise<AttestedKeyset> {
    return this.#verifyUnless(() => false, authorization);
  }

  /** The number of the verification that began last. */
  get flights(): number {
    return this.#flights;
  }

  /**
   * Say whether there is another keyset to seal to now, by a verification that began after the one numbered `since`.
   *
   * By default by one that begins from now on: what was verified before may be another key of a node that is lost.
   */
  async replace(stale: Bytes, authorization?: string, since = this.#flights): Promise<boolean> {
    const isOther = (each: AttestedKeyset) => !equal(each.keyset.digest, stale);
    const isNewer = (each: AttestedKeyset) => this.#landed > since && isOther(each);
    return isOther(await this.#verifyUnless(isNewer, authorization, since));
  }

  /**
   * Return the keyset in force if it suits (another caller may just have verified it), else verify.
   *
   * The outcome of a verification under way is shared, unless it is one of the first `since`.
   */
  async #verifyUnless(
    suits: (attested: AttestedKeyset) => boolean,
    authorization: string | undefined,
    since = 0,
  ): Promise<AttestedKeyset> {
    for (;;) {
      const attested = this.session.attested(this.#now());
      if (attested !== undefined && suits(attested)) return attested;
      const flight = this.#flight;
      if (flight === undefined) break;
      if (flight.number > since) return flight.outcome;
      await flight.outcome.catch(() => {}); // it is not ours
    }
    const number = ++this.#flights;
    const outcome = this.#verify(authorization);
    const flight = { number, outcome };
    this.#flight = flight;
    try {
      const attested = await outcome;
      this.#landed = number;
      return attested;
    } finally {
      if (this.#flight === flight) this.#flight = undefined;
    }
  }

  async #verify(authorization: string | undefined): Promise<AttestedKeyset> {
    const nonce = this.session.challenge();
    const bundle = await this.#fetchEvidence(nonce, authorization);
    const { id, serial } = this.session.policy;
    // A policy that cannot be remembered could be rolled back: nothing is trusted under it.
    return this.session.verify(bundle, nonce, this.#now(), () => this.#memory.remember(id, serial));
  }

  /**
   * Ask, unauthenticated, whether the gateway still reaches a node that holds the keyset.
   *
   * Throws RelayUnreachable, RelayRefused; with status 503 where the gateway cannot tell.
   */
  async holds(keysetDigest: Bytes, authorization?: string): Promise<boolean> {
    try {
      await this.#fetchEvidence(this.session.challenge(), authorization, keysetDigest);
    } catch (refusal) {
      if (refusal instanceof RelayRefused && refusal.status === 400 && !(refusal instanceof NotConfide)) return false;
      throw refusal;
    }
    return true;
  }

  /**
   * Ask the gateway for a bundle of evidence that answers `nonce`, unjudged.
   *
   * `keyset`: from the node that holds it, and from no other.
   */
  async #fetchEvidence(nonce: Bytes, authorization: string | undefined, keyset?: Bytes): Promise<Bytes> {
    const parts: Uint8Array[] = [];
    const named = keyset === undefined ? "" : `&keyset=${hex(keyset)}`;
    let size = 0;
    try {
      const response = await this.fetch(`${this.url}${PATH_EVIDENCE}?nonce=${hex(nonce)}${named}`, {
        ...OUTER,
        headers: { accept: MEDIA_EVIDENCE, ...this.authorize(authorization) },
        signal: AbortSignal.timeout(this.limits.evidenceTimeoutMs),
      });
      const media = mediaType(response.headers.get("content-type") ?? "");
      const refusal = this.#refusal(response.status, media, this.authorize(authorization).authorization !== undefined);
      if (refusal !== undefined) {
        response.body?.cancel().catch(() => {}); // not awaited: it may never say that it is done
        throw refusal;
      }
      for await (const part of chunksOf(response)) {
        size += part.length;
        if (size > MAX_BUNDLE_BYTES) throw new TooLarge("the evidence is larger than its limit");
        parts.push(part);
      }
    } catch (fault) {
      if (fault instanceof ConfideError) throw fault;
      const check = "check the URL, that it runs, and that it allows this page's origin, if this is a page";
      throw new RelayUnreachable(`the gateway at ${this.url} gave no evidence (${faultName(fault)}); ${check}`);
    }
    return join(parts);
  }

  /** Tell a refusal of our gateway's from a server that is none. */
  #refusal(status: number, media: string, keyed: boolean): RelayRefused | undefined {
    if (status === 200 && media === MEDIA_EVIDENCE) return undefined;
    const ours = AWAY.includes(status) || (media === MEDIA_PROBLEM && ![404, 405].includes(status));
    if (ours) return new RelayRefused(status);
    const why = "it is a plain OpenAI server or another's, or the URL is wrong; no prompt was sent to it, but";
    const key = "a nonce and the API key were: if that server is not yours, have the key revoked";
    const sent = keyed ? key : "a nonce was";
    return new NotConfide(status, `${this.url} serves no evidence (it answered ${status}): ${why} ${sent}`);
  }

  /** Take a request that would go to `url`. Throws LocalStateError for one that would leave unsealed, TooLarge. */
  call(method: string, url: URL, fields: Fields, body: Bytes): Call {
    const own = new URL(this.url);
    const prefix = own.pathname.replace(/\/$/, "");
    if (url.origin !== own.origin || !url.pathname.startsWith(`${prefix}/`) || url.username || url.password) {
      throw new LocalStateError("this fetch seals for its own gateway; a request to another place is refused");
    }
    if (body.length > this.limits.maxRequestBytes) {
      const limit = `${this.limits.maxRequestBytes} bytes`;
      throw new TooLarge(`the request is larger than the limit of ${limit}; see limits.maxRequestBytes`);
    }
    const call = this.session.call(method, url.pathname.slice(prefix.length) + url.search, fields, body);
    const head = call.fields.reduce((sum, [name, value]) => sum + name.length + value.length + 4, call.path.length);
    if (head > this.limits.maxHeadBytes) {
      throw new TooLarge("the request's head is larger than the limit; see limits.maxHeadBytes");
    }
    return call;
  }

  seal(call: Call): Promise<Exchange> {
    return this.session.seal(call, this.#now());
  }

  authorize(authorization: string | undefined): Record<string, string> {
    // Its own first: a library may have found a key that is none of the gateway's.
    const value = this.#authorization ?? authorization;
    return value === undefined ? {} : { authorization: value };
  }
}

/** Read a response's body as it comes, each read through `wait`; one that is left early is cancelled. */
export async function* chunksOf(
  response: Response,
  wait = <T>(step: Promise<T>): Promise<T> => step,
): AsyncGenerator<Uint8Array, void, undefined> {
  const reader = response.body?.getReader();
  if (reader === undefined) return;
  let ended = false;
  try {
    for (;;) {
      const { done, value } = await wait(reader.read());
      if (done) break;
      yield value;
    }
    ended = true;
  } finally {
    if (!ended) reader.cancel().catch(() => {}); // not awaited: it may never say that it is done
  }
}

/** Name a fault of the network without its text, which may quote what the gateway sent in clear. */
export function faultName(fault: unknown): string {
  if (!(fault instanceof Error)) return "unknown";
  // Node names a closed port, an unknown name or a certificate that it does not trust by a code; a browser nothing.
  const code: unknown = (fault.cause as { code?: unknown } | undefined)?.code;
  return typeof code === "string" && /^[A-Z0-9_]{1,64}$/.test(code) ? `${fault.name}, ${code}` : fault.name;
}

function checkPolicy(policy: AppraisalPolicy, floor: number, nowUnixS: number): void {
  if (policy.serial < floor) {
    const remedy = `is ${policy.serial}; serial ${floor} was accepted before: get the newer file`;
    throw new PolicyError(policy.id, "serial", remedy);
  }
  if (policy.not_after <= nowUnixS) {
    throw new PolicyError(policy.id, "not_after", "has passed; get a newer policy, or set this machine's clock");
  }
}

/** Return the gateway's URL without `/v1` and slashes at its end. Throws ConfigError. */
export function gatewayUrl(gateway: string): string {
  const remedy = "must be http://host[:port][/path] or https://…, without user or query";
  const url = URL.canParse(gateway) ? new URL(gateway) : undefined;
  const usable = url && ["http:", "https:"].includes(url.protocol) && url.hostname && url.port !== "0";
  if (!usable || /[?#]/.test(gateway) || url.username || url.password || gateway.includes("@")) {
    throw new ConfigError("gateway", "URL", remedy);
  }
  return url.origin + url.pathname.replace(/\/+$/, "").replace(/\/v1$/, "").replace(/\/+$/, "");
}
