/**
 * Confide: OpenAI's API over an enclave that was verified before the first byte, with a signed receipt back.
 *
 *     const confide = await connect({ baseURL: "https://gateway", apiKey, policy: await readFile("policy.toml", "utf8") });
 *     const client = new OpenAI(confide.openai);
 */

import { defaultMemory } from "#memory";

import { ConfigError, PolicyError } from "./errors.js";
import type { Receipt } from "./exchange.js";
import { sealedFetch } from "./fetch.js";
import type { PolicyMemory } from "./memory.js";
import { loadPolicy, type AppraisalPolicy } from "./policy/policy.js";
import { Relay, type Limits } from "./relay.js";
import type { AttestationResult } from "./result.js";

export interface ConnectOptions {
  /** The gateway, with or without `/v1`. */
  baseURL: string;
  apiKey?: string;
  /** A policy that you trust: the text of its file, or what `loadPolicy` made of it. Never from the gateway. */
  policy: string | AppraisalPolicy;
  /** The second of the two switches for simulated hardware; the policy is the first. */
  allowSimulated?: boolean;
  /** Where the highest serial of each policy is kept; by default Node's user state folder, or localStorage. */
  memory?: PolicyMemory;
  limits?: Partial<Limits>;
  /** What carries sealed bytes; by default the runtime's own `fetch`. */
  fetch?: typeof fetch;
}

/** A gateway whose enclave was verified. */
export class Confide {
  /** As the runtime's own, but sealed: give it to any client that takes a `fetch`. */
  readonly fetch: typeof fetch;
  readonly #relay: Relay;
  readonly #apiKey: string;

  /** @internal Made by `connect` alone. */
  constructor(relay: Relay, apiKey: string) {
    this.#relay = relay;
    this.#apiKey = apiKey;
    this.fetch = sealedFetch(relay);
  }

  get baseURL(): string {
    return `${this.#relay.url}/v1`;
  }

  /** What `new OpenAI(…)` takes. Its own retries are off: what may be sent again, `fetch` has sent again. */
  get openai(): { baseURL: string; apiKey: string; fetch: typeof fetch; maxRetries: number } {
    return { baseURL: this.baseURL, apiKey: this.#apiKey, fetch: this.fetch, maxRetries: 0 };
  }

  /** The latest appraisal that passed: every check, for a UI. */
  get attestation(): AttestationResult {
    return this.#relay.session.verified!.result;
  }

  /** The verified receipt of the answer that ended last, over all calls of this client. */
  get lastReceipt(): Receipt | undefined {
    return this.#relay.lastReceipt;
  }

  get policy(): AppraisalPolicy {
    return this.#relay.session.policy;
  }

  /** Fetch and appraise fresh evidence now. */
  async verify(): Promise<AttestationResult> {
    await this.#relay.verify();
    return this.attestation;
  }
}

/**
 * Verify the enclave behind a gateway; nothing but a nonce and the API key is sent before it has passed.
 *
 * Throws PolicyError, ConfigError, CannotJudge (nothing was sent), RelayUnreachable, RelayRefused, EvidenceMalformed,
 * AppraisalRejected.
 */
export async function connect(options: ConnectOptions): Promise<Confide> {
  if (globalThis.crypto?.subtle === undefined) {
    throw new ConfigError("runtime", "crypto.subtle", "is missing; serve the page over https or from localhost");
  }
  const relay = await Relay.open({
    ...options,
    gateway: options.baseURL,
    policy: readPolicy(options.policy),
    memory: options.memory ?? defaultMemory(),
  });
  await relay.ready();
  return new Confide(relay, options.apiKey ?? "");
}

function readPolicy(policy: string | AppraisalPolicy | undefined): AppraisalPolicy {
  if (policy === undefined || policy === "") {
    const remedy = "no release has published one yet; pass the text of a local file that you trust";
    throw new PolicyError("policy", "policy", remedy);
  }
  return typeof policy === "string" ? loadPolicy(policy) : policy;
}

export { auditFile } from "./audit.js";
export { appraise, type Circumstances } from "./appraise.js";
export * from "./errors.js";
export { parseBundle, type EvidenceBundle } from "./evidence.js";
export type { Disclosure, Exchange, Receipt } from "./exchange.js";
export { exchangeOf } from "./fetch.js";
export { parseKeyset, parseManifest, type Keyset, type Manifest } from "./keyset.js";
export { forgetful, type PolicyMemory } from "./memory.js";
export { loadPolicy, type AppraisalPolicy } from "./policy/policy.js";
export { claimsAsJson, verifyReceipt, type ReceiptClaims } from "./receipt.js";
export type { Limits } from "./relay.js";
export type { AttestationResult, AttestedKeyset, Check, Outcome } from "./result.js";
export { receiptLink, trustChain, type Link, type LinkState } from "./trust.js";
