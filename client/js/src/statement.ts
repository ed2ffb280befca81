/** What the hardware signs: the report-data statement, and the tree of coalesced nonces (SPEC 4). */

import type { Bytes } from "./bytes.js";
import { asTree, decode } from "./cbor.js";
import { Malformed } from "./errors.js";
import { checkFields, isDigest, isTime, type Tests } from "./fields.js";
import { sha256, sha512 } from "./hash.js";
import { LABEL_NONCE_LEAF, LABEL_NONCE_NODE, PURPOSE_REPORT_DATA } from "./labels.js";

export const MAX_NONCE_PATH = 16;
const FIELDS: Tests = {
  keyset_digest: isDigest,
  not_after: isTime,
  nonce: isDigest,
  epoch: isDigest,
  gpu_evidence_digest: isDigest,
};

/** Binds one keyset (and the GPUs' evidence) to a nonce or an epoch; exactly one of the two is there. */
export interface ReportDataStatement {
  keysetDigest: Bytes;
  notAfterUnixS: number;
  nonce: Bytes | undefined;
  epoch: Bytes | undefined;
  gpuEvidenceDigest: Bytes | undefined;
  /** SHA-256: the name by which `confide-evidence` calls this statement. */
  digest: Bytes;
  /** SHA-512: the 64 bytes that the CPU's report carries. */
  reportData: Bytes;
}

/** Parse a report-data statement; makes no trust claim. Throws Malformed. */
export function parseStatement(data: Uint8Array): ReportDataStatement {
  const tree = asTree(decode(data));
  if (tree?.get("purpose") !== PURPOSE_REPORT_DATA) throw new Malformed("not a report-data statement");
  tree.delete("purpose");
  const known = [...tree.keys()].every((name) => Object.hasOwn(FIELDS, name));
  const needed = tree.has("keyset_digest") && tree.has("not_after");
  if (!known || !needed || tree.has("nonce") === tree.has("epoch")) {
    throw new Malformed("a report-data statement needs exactly its fields, and a nonce or an epoch");
  }
  checkFields(tree, Object.fromEntries(Object.entries(FIELDS).filter(([name]) => tree.has(name))));
  return {
    keysetDigest: tree.get("keyset_digest") as Bytes,
    notAfterUnixS: tree.get("not_after") as number,
    nonce: tree.get("nonce") as Bytes | undefined,
    epoch: tree.get("epoch") as Bytes | undefined,
    gpuEvidenceDigest: tree.get("gpu_evidence_digest") as Bytes | undefined,
    digest: sha256(data),
    reportData: sha512(data),
  };
}

/** The way from one caller's nonce to the statement's: (sibling is on the left, sibling hash) upwards. */
export type NoncePath = readonly (readonly [boolean, Uint8Array])[];

/** Recompute the statement's nonce. A lone nonce is hashed too: no raw client bytes reach a report. */
export function nonceRoot(path: NoncePath, nonce: Uint8Array): Bytes {
  let node = sha256(LABEL_NONCE_LEAF, nonce);
  for (const [siblingIsLeft, sibling] of path) {
    node = siblingIsLeft ? sha256(LABEL_NONCE_NODE, sibling, node) : sha256(LABEL_NONCE_NODE, node, sibling);
  }
  return node;
}
