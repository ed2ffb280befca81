/** Evidence as it travels: untrusted bytes in named places, nothing judged (SPEC 4.4, 4.5). */

import type { Bytes } from "./bytes.js";
import { asTree, decode, hasExactly, type Tree } from "./cbor.js";
import { EvidenceMalformed, ProtocolError } from "./errors.js";
import { DIGEST_BYTES, PURPOSE_BUNDLE } from "./labels.js";
import { MAX_NONCE_PATH, type NoncePath } from "./statement.js";

export const MAX_BUNDLE_BYTES = 4 << 20;
const MAX_PART_BYTES = 1 << 20;
const MAX_GPUS = 32;
const MAX_EVENT_LOGS = 8;
const MAX_RIMS = 64;
const MAX_OCSP_ANSWERS = 512;
const EVENT_LOG_KINDS: readonly unknown[] = ["ccel", "dstack"];
const CPU_KINDS = ["sev-snp", "tdx", "azure-sev-snp", "azure-tdx"] as const;

export type CpuKind = (typeof CPU_KINDS)[number];

/** The CPU's report or quote. `hasMore`: there is a part that evidence of this kind does not have. */
export interface CpuEvidence {
  kind: CpuKind;
  report: Bytes;
  hasMore: boolean;
}

/** AMD's certificates and list as DER; `ask`, `ark` and `crl` may be absent. */
export interface SnpEndorsements {
  vek: Bytes;
  ask?: Bytes;
  ark?: Bytes;
  crl?: Bytes;
}

/**
 * What an enclave shows of itself. All of it is untrusted until `appraise` has judged it.
 *
 * Of what this package cannot judge (GPUs, event logs, vTPMs, Intel's and NVIDIA's documents) the form alone is read.
 */
export interface EvidenceBundle {
  keyset: Bytes;
  manifest: Bytes;
  statement: Bytes;
  noncePath: NoncePath;
  cpu: CpuEvidence;
  gpuCount: number;
  eventLogs: readonly string[];
  snp: SnpEndorsements | undefined;
}

/** Parse a bundle; makes no trust claim. Throws EvidenceMalformed. */
export function parseBundle(data: Uint8Array): EvidenceBundle {
  let value: unknown;
  try {
    value = decode(data, MAX_BUNDLE_BYTES);
  } catch (fault) {
    if (fault instanceof ProtocolError) throw new EvidenceMalformed(`evidence bundle: ${fault.message}`);
    throw fault;
  }
  const tree = keys(value, "purpose", "keyset", "manifest", "statement", "nonce_path", "cpu", "gpus", "event_logs", "endorsements");
  if (tree.get("purpose") !== PURPOSE_BUNDLE) throw new EvidenceMalformed("evidence bundle: wrong purpose");
  const gpus = list(tree.get("gpus"), MAX_GPUS);
  for (const gpu of gpus) {
    const parts = keys(gpu, "architecture", "report", "certificate_chain");
    text(parts.get("architecture"));
    bytes(parts.get("report"));
    bytes(parts.get("certificate_chain"));
  }
  return {
    keyset: bytes(tree.get("keyset")),
    manifest: bytes(tree.get("manifest")),
    statement: bytes(tree.get("statement")),
    noncePath: noncePath(tree.get("nonce_path")),
    cpu: cpu(tree.get("cpu")),
    gpuCount: gpus.length,
    eventLogs: list(tree.get("event_logs"), MAX_EVENT_LOGS).map(eventLog),
    snp: endorsements(tree.get("endorsements")),
  };
}

function cpu(value: unknown): CpuEvidence {
  const tree = keys(value, "kind", "report", "vtpm");
  const kind = CPU_KINDS.find((each) => each === tree.get("kind"));
  if (kind === undefined) throw new EvidenceMalformed("evidence bundle: unknown kind of CPU evidence");
  const vtpm = tree.get("vtpm");
  let hasMore = false;
  if (vtpm !== null) {
    const parts = keys(vtpm, "quote", "signature", "pcrs", "td_quote");
    for (const part of parts.values()) bytes(part);
    hasMore = kind === "azure-sev-snp" ? bytes(parts.get("td_quote")).length > 0 : kind !== "azure-tdx";
  }
  return { kind, report: bytes(tree.get("report")), hasMore };
}

function eventLog(value: unknown): string {
  const tree = keys(value, "kind", "data");
  bytes(tree.get("data"));
  if (!EVENT_LOG_KINDS.includes(tree.get("kind"))) {
    throw new EvidenceMalformed("evidence bundle: an event log is of kind ccel or dstack");
  }
  return tree.get("kind") as string;
}

function endorsements(value: unknown): SnpEndorsements | undefined {
  const tree = asTree(value);
  if (tree === undefined || ![...tree.keys()].every((vendor) => ["snp", "tdx", "nvidia"].includes(vendor))) {
    throw new EvidenceMalformed("endorsements: of an unknown vendor");
  }
  if (tree.has("tdx")) bytes(keys(tree.get("tdx"), "collateral").get("collateral"));
  if (tree.has("nvidia")) checkNvidia(keys(tree.get("nvidia"), "rims", "ocsp"));
  if (!tree.has("snp")) return undefined;
  const parts = asTree(tree.get("snp"));
  if (!parts?.has("vek") || ![...parts.keys()].every((name) => ["vek", "ask", "ark", "crl"].includes(name))) {
    throw new EvidenceMalformed("endorsements: those of SEV-SNP need a vek and know ask, ark and crl");
  }
  return Object.fromEntries([...parts].map(([name, part]) => [name, bytes(part)])) as unknown as SnpEndorsements;
}

function checkNvidia(tree: Tree): void {
  for (const rim of list(tree.get("rims"), MAX_RIMS)) bytes(rim);
  const answers = tree.get("ocsp");
  for (const answer of answers === null ? [] : list(answers, MAX_OCSP_ANSWERS)) {
    if (!Array.isArray(answer) || answer.length !== 2) {
      throw new EvidenceMalformed("endorsements: an OCSP answer stands with the nonce that was asked, or null");
    }
    bytes(answer[0]);
    if (answer[1] !== null) bytes(answer[1]);
  }
}

function noncePath(value: unknown): NoncePath {
  return list(value, MAX_NONCE_PATH).map((step) => {
    if (!Array.isArray(step) || step.length !== 2 || typeof step[0] !== "boolean") {
      throw new EvidenceMalformed("evidence bundle: a step of the nonce path is malformed");
    }
    const sibling = bytes(step[1]);
    if (sibling.length !== DIGEST_BYTES) {
      throw new EvidenceMalformed("evidence bundle: a hash of the nonce path is not 32 bytes");
    }
    return [step[0], sibling] as const;
  });
}

function keys(value: unknown, ...names: string[]): Tree {
  const tree = asTree(value);
  if (tree === undefined || !hasExactly(tree, names)) {
    throw new EvidenceMalformed(`evidence bundle: needs exactly the fields ${names.sort().join(", ")}`);
  }
  return tree;
}

function list(value: unknown, limit: number): unknown[] {
  if (!Array.isArray(value) || value.length > limit) {
    throw new EvidenceMalformed(`evidence bundle: expected a list of at most ${limit}`);
  }
  return value;
}

function bytes(value: unknown): Bytes {
  if (!(value instanceof Uint8Array) || value.length > MAX_PART_BYTES) {
    throw new EvidenceMalformed(`evidence bundle: expected bytes, at most ${MAX_PART_BYTES}`);
  }
  return value as Bytes;
}

function text(value: unknown): string {
  if (typeof value !== "string" || [...value].length > 64) {
    throw new EvidenceMalformed("evidence bundle: expected a short text");
  }
  return value;
}
