/**
 * One client's trust and its sealed calls. Bytes, time and randomness are arguments (SPEC 6).
 *
 * Nothing can be sealed but to a keyset that passed `appraise`; no answer is whole before `Exchange.finish` returned.
 */

import { appraise } from "./appraise.js";
import { encodeRequest, type Fields } from "./bhttp.js";
import { concat, hex, isZero, type Bytes } from "./bytes.js";
import { AppraisalRejected, LocalStateError } from "./errors.js";
import { parseBundle } from "./evidence.js";
import { Exchange } from "./exchange.js";
import { suiteNamed } from "./hpke.js";
import { chooseConfig, parseKeyConfigs } from "./keyconfig.js";
import * as labels from "./labels.js";
import { RequestSealer } from "./ohttp.js";
import type { AppraisalPolicy } from "./policy/policy.js";
import type { AttestationResult, AttestedKeyset } from "./result.js";
import { padRequest } from "./shape.js";

export const MAX_ANSWER_BYTES = 64 << 20;
const RENEW_BEFORE_S = 600;
const SECRET_BYTES = 32;
/** The transport's own business, or nobody's: these fields of the application's request are not carried inside. */
const UNCARRIED = new Set([
  "accept-encoding", "authorization", "connection", "content-length", "cookie", "date", "expect", "host",
  "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
]); // prettier-ignore

export type Random = (size: number) => Bytes;

export function systemRandom(size: number): Bytes {
  return crypto.getRandomValues(new Uint8Array(size));
}

/** Draw 32 random bytes; a generator that gives zeros has failed, and nothing may be built on it. */
function fresh(random: Random): Bytes {
  const drawn = random(SECRET_BYTES);
  if (drawn.length !== SECRET_BYTES || isZero(drawn)) throw new LocalStateError("the random number generator failed");
  return drawn;
}

/** One request as the application meant it. Sealed again after a stale key, it keeps its nonce and salt. */
export interface Call {
  readonly method: string;
  readonly path: string;
  readonly fields: Fields;
  readonly body: Bytes;
  readonly nonce: Bytes;
  readonly salt: Bytes;
}

/** An appraisal that passed, with the evidence as it was served and the nonce that it answers. */
export interface Verified {
  readonly result: AttestationResult;
  readonly keyset: AttestedKeyset;
  readonly bundle: Bytes;
  readonly nonce: Bytes;
}

export interface SessionOptions {
  floor: number;
  allowSimulated: boolean;
  random?: Random;
  maxAnswerBytes?: number;
}

/** What one client trusts: a policy, its floor, and the latest appraisal that passed. */
export class ClientSession {
  readonly policy: AppraisalPolicy;
  readonly maxAnswerBytes: number;
  verified: Verified | undefined;
  readonly #floor: number;
  readonly #allowSimulated: boolean;
  readonly #random: Random;
  readonly #cacheKey: Bytes;

  constructor(policy: AppraisalPolicy, options: SessionOptions) {
    this.policy = policy;
    this.maxAnswerBytes = options.maxAnswerBytes ?? MAX_ANSWER_BYTES;
    this.#floor = options.floor;
    this.#allowSimulated = options.allowSimulated;
    this.#random = options.random ?? systemRandom;
    this.#cacheKey = fresh(this.#random);
  }

  /** Draw the nonce that the next evidence must answer. */
  challenge(): Bytes {
    return fresh(this.#random);
  }

  /**
   * Appraise evidence fetched with `nonce`; what passed before stays in force if this does not pass.
   *
   * `accepted` is awaited between the appraisal and the first use of what passed; if it throws, nothing passed.
   * Throws EvidenceMalformed, AppraisalRejected.
   */
  async verify(
    bundle: Bytes,
    nonce: Bytes,
    nowUnixS: number,
    accepted: () => void | Promise<void> = () => {},
  ): Promise<AttestedKeyset> {
    const result = await appraise(parseBundle(bundle), this.policy, {
      nowUnixS,
      floor: this.#floor,
      nonce,
      allowSimulated: this.#allowSimulated,
    });
    if (result.keyset === undefined) throw new AppraisalRejected(result);
    await accepted();
    this.verified = { result, keyset: result.keyset, bundle, nonce };
    return result.keyset;
  }

  /** Return the keyset that may be sealed to at this time, if there is one. */
  attested(nowUnixS: number): AttestedKeyset | undefined {
    return this.#valid(nowUnixS)?.keyset;
  }

  renewalDue(nowUnixS: number): boolean {
    const keyset = this.attested(nowUnixS);
    return keyset === undefined || nowUnixS >= keyset.validUntilUnixS - RENEW_BEFORE_S;
  }

  /** Take a request as an HTTP library gives it. Throws LocalStateError for what cannot be sealed. */
  call(method: string, path: string, fields: Iterable<readonly [string, string]>, body: Bytes): Call {
    if (method === "CONNECT") throw new LocalStateError("a tunnel cannot be sealed");
    const carried: [string, string][] = [];
    for (const [given, value] of fields) {
      const name = given.toLowerCase();
      if (name.startsWith("confide-")) {
        throw new LocalStateError("header fields named confide-* are the session's own");
      }
      if (name === "upgrade") throw new LocalStateError("an upgraded connection cannot be sealed");
      if (!UNCARRIED.has(name)) carried.push([name, value]);
    }
    return { method, path, fields: carried, body, nonce: fresh(this.#random), salt: fresh(this.#random) };
  }

  /** Seal a call to the attested keyset. Throws LocalStateError when there is none (or none any more). */
  async seal(call: Call, nowUnixS: number): Promise<Exchange> {
    const verified = this.#valid(nowUnixS);
    if (verified === undefined) throw new LocalStateError("nothing is sealed before the enclave has been verified");
    const { keyset: attested } = verified;
    const { suite, shape } = this.policy.session;
    const config = chooseConfig(parseKeyConfigs(attested.keyset.ohttpKeys), suiteNamed(suite));
    const sealer = await RequestSealer.to(config, suiteNamed(suite));
    const own: Fields = [
      [labels.FIELD_DATE, new Date(nowUnixS * 1000).toUTCString()],
      [labels.FIELD_NONCE, hex(call.nonce)],
      [labels.FIELD_EVIDENCE, hex(attested.statementDigest)],
      [labels.FIELD_POLICY, hex(attested.policyDigest)],
      [labels.FIELD_SHAPE, shape],
      [labels.FIELD_SALT, hex(call.salt)],
      [labels.FIELD_CACHE_KEY, hex(this.#cacheKey)],
    ];
    const head = {
      method: call.method,
      scheme: labels.INNER_SCHEME,
      authority: labels.INNER_AUTHORITY,
      path: call.path,
      fields: [...own, ...call.fields],
    };
    const message = padRequest(shape, encodeRequest(head, call.body));
    const sealed = concat(sealer.header, await sealer.seal(message, true));
    return new Exchange({ call, verified, policy: this.policy, maxAnswerBytes: this.maxAnswerBytes, sealer, sealed });
  }

  #valid(nowUnixS: number): Verified | undefined {
    const { verified } = this;
    return verified !== undefined && nowUnixS < verified.keyset.validUntilUnixS ? verified : undefined;
  }
}
