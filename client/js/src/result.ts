/** The outcome of an appraisal: every check with its reason, and the keyset if all that is required holds. */

import type { Bytes } from "./bytes.js";
import type { Keyset, Manifest } from "./keyset.js";

export type Outcome = "PASS" | "FAIL" | "SKIP";

/** One step of an appraisal. `id` is shared by SPEC, every client and the vectors; `detail` is for a person. */
export interface Check {
  readonly id: string;
  readonly outcome: Outcome;
  readonly detail: string;
}

/** A keyset that passed an appraisal: the only thing that a client can seal to. Only `appraise` makes one. */
export interface AttestedKeyset {
  readonly keyset: Keyset;
  readonly manifest: Manifest;
  readonly statementDigest: Bytes;
  readonly policyDigest: Bytes;
  readonly resultDigest: Bytes;
  readonly validUntilUnixS: number;
}

export type Claims = Readonly<Record<string, string | number | bigint | boolean>>;

/** All checks in order, the claims that were read after their signature held, and what follows from them. */
export interface AttestationResult {
  readonly verdict: "accepted" | "refused";
  readonly checks: readonly Check[];
  readonly failed: readonly Check[];
  readonly claims: Readonly<Record<string, Claims>>;
  readonly simulated: boolean;
  readonly policyId: string;
  readonly policyDigest: Bytes;
  readonly judgedAtUnixS: number;
  /** Undefined unless the verdict is "accepted". */
  readonly keyset: AttestedKeyset | undefined;
}

/** One part of the evidence, judged. `bound` is what the hardware signed, undefined unless its signatures hold. */
export interface Part {
  readonly checks: readonly Check[];
  readonly holds: boolean;
  readonly claims: Readonly<Record<string, Claims>>;
  readonly bound: Bytes | undefined;
  readonly notAfterUnixS: number | undefined;
  /** False if an input is not a file of its kind at all. */
  readonly readable: boolean;
}
