/** Receipts: CWT/EAT claims, signed with Ed25519 and ML-DSA-65 by the keyset that was sealed to (SPEC 9). */

import { equal, hex, type Bytes } from "./bytes.js";
import { decode, hasExactly } from "./cbor.js";
import { MAX_RECEIPT_BYTES, parseCoseSign, toBeSigned, type CoseSign } from "./cose.js";
import { Malformed, ReceiptInvalid } from "./errors.js";
import { isAbsentOr, isBool, isDigest, isInt, isOneOf, isText, isTime, type Test } from "./fields.js";
import { sha256 } from "./hash.js";
import type { Keyset } from "./keyset.js";
import { DIALECT_CHUNKED_OHTTP, DIALECT_EHBP, EAT_PROFILE_RECEIPT, KEYSET_GRACE_S } from "./labels.js";
import { ed25519Holds, mlDsa65Holds } from "./signature.js";
import type { TranscriptDigests } from "./transcript.js";

const EAT_PROFILE = 265;
const ALG_EDDSA = -8;
const ALG_ML_DSA_65 = -49;
const KID_BYTES = 8;
const MAX_SAMPLING_ENTRIES = 64;

/** What the enclave says of one exchange; `client_asserted` alone is what it was told. */
export interface ReceiptClaims {
  keyset_digest: Bytes;
  /** Null in a refusal that names no statement of a live keyset. */
  statement_digest: Bytes | null;
  manifest_digest: Bytes;
  request_commitment: Bytes;
  response_commitment: Bytes;
  transcript_root: Bytes;
  chunk_count: number;
  message_count: number;
  enc_digest: Bytes;
  model: string;
  outcome: "complete" | "refused" | "aborted";
  status: number;
  /** Floats are decimal text. */
  sampling: ReadonlyMap<string, string | number | bigint>;
  seed: number | bigint | null;
  engine_mode: string;
  dialect: string;
  suite: string;
  shape: string;
  /** Token counts are bucketed where the shape is. */
  prompt_tokens: number;
  completion_tokens: number;
  issued_unix_s: number;
  simulated: boolean;
  client_asserted: ReadonlyMap<string, Bytes>;
}

const isName = isText(1, 256);
const isSetting = isInt(-(2n ** 63n), 2n ** 64n);
const isSampling: Test = (value) =>
  value instanceof Map &&
  value.size <= MAX_SAMPLING_ENTRIES &&
  [...value].every(([name, setting]) => isName(name) && (isName(setting) || isSetting(setting)));
const isAsserted: Test = (value) =>
  value instanceof Map && [...value].every(([name, digest]) => ["nonce", "policy"].includes(name) && isDigest(digest));

/** Each claim's label and the test of its value. 6 is CWT's iat; the others are private to our eat_profile. */
const CLAIMS: Readonly<Record<keyof ReceiptClaims, readonly [number, Test]>> = {
  keyset_digest: [-66001, isDigest],
  statement_digest: [-66002, isAbsentOr(isDigest)],
  manifest_digest: [-66003, isDigest],
  request_commitment: [-66004, isDigest],
  response_commitment: [-66005, isDigest],
  transcript_root: [-66006, isDigest],
  chunk_count: [-66007, isInt(0, 2 ** 32)],
  message_count: [-66008, isInt(0, 2 ** 32)],
  enc_digest: [-66009, isDigest],
  model: [-66010, isName],
  outcome: [-66011, isOneOf("complete", "refused", "aborted")],
  status: [-66012, isInt(200, 600)],
  sampling: [-66013, isSampling],
  seed: [-66014, isAbsentOr(isSetting)],
  engine_mode: [-66015, isName],
  suite: [-66017, isName],
  shape: [-66018, isName],
  prompt_tokens: [-66019, isInt(0, 2 ** 40)],
  completion_tokens: [-66020, isInt(0, 2 ** 40)],
  issued_unix_s: [6, isTime],
  simulated: [-66021, isBool],
  client_asserted: [-66022, isAsserted],
  dialect: [-66016, isName],
};
const LABELS = [EAT_PROFILE, ...Object.values(CLAIMS).map(([label]) => label)];

/** Parse a receipt's payload; makes no trust claim. Throws Malformed, naming the claim. */
export function parseClaims(payload: Uint8Array): ReceiptClaims {
  const tree = claimMap(payload);
  if (tree.get(EAT_PROFILE) !== EAT_PROFILE_RECEIPT) throw new Malformed("eat_profile is another");
  const claims: Record<string, unknown> = {};
  for (const [name, [label, isValid]] of Object.entries(CLAIMS)) {
    if (!isValid(tree.get(label))) throw new Malformed(`${name} is not of its type or range`);
    claims[name] = tree.get(label);
  }
  if (claims.statement_digest === null && claims.outcome !== "refused" && claims.dialect !== DIALECT_EHBP) {
    throw new Malformed("statement_digest is absent but nothing was refused");
  }
  return claims as unknown as ReceiptClaims;
}

function claimMap(payload: Uint8Array): ReadonlyMap<unknown, unknown> {
  const tree = decode(payload, MAX_RECEIPT_BYTES);
  if (!(tree instanceof Map) || !hasExactly(tree, LABELS)) {
    throw new Malformed("a receipt's claims are not exactly the known ones");
  }
  return tree;
}

/**
 * Verify both signatures under `keyset` and that the claims speak of it; the order is fixed: parse, alg, signature,
 * claims. Does not check: that the keyset was attested, any exchange (`checkReceipt`), the time against a clock.
 *
 * Throws ReceiptInvalid, whose `part` names the layer.
 */
export function verifyReceipt(data: Uint8Array, keyset: Keyset): ReceiptClaims {
  let receipt: CoseSign;
  try {
    receipt = parseCoseSign(data);
    claimMap(receipt.payload);
  } catch (fault) {
    throw new ReceiptInvalid(`the receipt cannot be read: ${(fault as Error).message}`, "parse");
  }
  const keys = [
    [ALG_EDDSA, keyset.receiptEd25519, ed25519Holds],
    [ALG_ML_DSA_65, keyset.receiptMlDsa65, mlDsa65Holds],
  ] as const;
  const found = receipt.signatures;
  if (found.length !== 2 || !keys.every(([alg, key], at) => found[at]!.alg === alg && equal(found[at]!.kid, keyId(key)))) {
    throw new ReceiptInvalid("the receipt needs exactly EdDSA, then ML-DSA-65, by the keyset's keys", "alg");
  }
  for (const [at, [, key, holds]] of keys.entries()) {
    const { signature, protected: header } = found[at]!;
    if (!holds(signature, toBeSigned(header, receipt.payload), key)) {
      throw new ReceiptInvalid("a signature does not verify", "signature");
    }
  }
  let claims: ReceiptClaims;
  try {
    claims = parseClaims(receipt.payload);
  } catch (fault) {
    throw new ReceiptInvalid(`a signed claim is wrong: ${(fault as Error).message}`, "claims");
  }
  for (const [name, value] of Object.entries(keysetClaims(keyset))) {
    if (!same(claims[name as keyof ReceiptClaims], value)) {
      throw new ReceiptInvalid(`${name} is not that of the keyset`, "claims");
    }
  }
  const issued = claims.issued_unix_s;
  if (issued < keyset.notBeforeUnixS || issued > keyset.notAfterUnixS + KEYSET_GRACE_S) {
    throw new ReceiptInvalid("issued_unix_s is outside the keyset's life", "claims");
  }
  return claims;
}

/** What the client itself knows of an exchange. */
export interface ExpectedExchange {
  keyset: Keyset;
  statementDigest: Uint8Array;
  policyDigest: Uint8Array;
  nonce: Uint8Array;
  encDigest: Uint8Array;
  requestCommitment: Uint8Array;
  response: TranscriptDigests;
  shape: string;
  suite: string;
  status: number;
  model: string;
}

/**
 * Check verified claims against one exchange. A refusal may name no statement.
 *
 * Throws ReceiptInvalid, `part` being the first claim that differs. Does not check: signatures, outcome, sampling.
 */
export function checkReceipt(claims: ReceiptClaims, expected: ExpectedExchange): void {
  const unnamed = claims.outcome === "refused" && claims.statement_digest === null;
  const wanted: Record<string, unknown> = {
    ...keysetClaims(expected.keyset),
    dialect: DIALECT_CHUNKED_OHTTP,
    suite: expected.suite,
    shape: expected.shape,
    enc_digest: expected.encDigest,
    statement_digest: unnamed ? null : expected.statementDigest,
    "client_asserted.nonce": expected.nonce,
    "client_asserted.policy": expected.policyDigest,
    request_commitment: expected.requestCommitment,
    model: expected.model,
    status: expected.status,
    response_commitment: expected.response.commitment,
    message_count: expected.response.messageCount,
    chunk_count: expected.response.chunkCount,
    transcript_root: expected.response.root,
  };
  for (const [name, value] of Object.entries(wanted)) {
    const asserted = name.startsWith("client_asserted.") ? name.slice("client_asserted.".length) : undefined;
    const spoken = asserted ? claims.client_asserted.get(asserted) : claims[name as keyof ReceiptClaims];
    if (!same(spoken, value)) {
      throw new ReceiptInvalid(`the receipt speaks of another exchange: ${name} differs`, name);
    }
  }
}

/** Name a public key: the first 8 bytes of its SHA-256. A hint that must fit, never an identity. */
export function keyId(publicKey: Uint8Array): Bytes {
  return sha256(publicKey).slice(0, KID_BYTES);
}

function keysetClaims(keyset: Keyset): Partial<Record<keyof ReceiptClaims, unknown>> {
  return {
    keyset_digest: keyset.digest,
    manifest_digest: keyset.manifestDigest,
    simulated: keyset.simulated,
  };
}

function same(a: unknown, b: unknown): boolean {
  return a instanceof Uint8Array && b instanceof Uint8Array ? equal(a, b) : a === b;
}

/** Render claims as JSON shows them: digests as hex, integers beyond 2^53 as text. */
export function claimsAsJson(claims: ReceiptClaims): Record<string, unknown> {
  return JSON.parse(
    JSON.stringify(claims, (_, value: unknown) => {
      if (value instanceof Map) return Object.fromEntries(value);
      if (value instanceof Uint8Array) return hex(value);
      return typeof value === "bigint" ? value.toString() : value;
    }),
  ) as Record<string, unknown>;
}
