/** The keyset statement and the manifest: what an enclave's evidence vouches for (SPEC 3). */

import type { Bytes } from "./bytes.js";
import { asTree, hasExactly, type Tree } from "./cbor.js";
import { Malformed } from "./errors.js";
import { checkFields, isBool, isBytes, isDigest, isInteger, isText, isTime, readStatement, type Tests } from "./fields.js";
import { sha256 } from "./hash.js";
import { KEYSET_LIFETIME_MAX_S, PURPOSE_KEYSET, PURPOSE_MANIFEST } from "./labels.js";

/** One generation of the enclave's public keys. `digest` names it. */
export interface Keyset {
  ohttpKeys: Bytes;
  receiptEd25519: Bytes;
  receiptMlDsa65: Bytes;
  usageEd25519: Bytes;
  manifestDigest: Bytes;
  notBeforeUnixS: number;
  notAfterUnixS: number;
  simulated: boolean;
  /** X25519; there only where the enclave answers EHBP as well. This package never seals to it. */
  ehbpKey: Bytes | undefined;
  digest: Bytes;
}

/** One model that answers, by the name that requests give it. */
export interface ServedModel {
  model: string;
  weightsDigest: Bytes;
  tokenizerDigest: Bytes;
  engine: ReadonlyMap<string, string | number | bigint | boolean>;
}

/**
 * What the enclave runs, pinned by a policy through its digest: a setting is public or it is ignored.
 *
 * It is its first model's entry itself; `models` are all of them.
 */
export interface Manifest extends ServedModel {
  release: string;
  shapes: readonly string[];
  platform: string;
  models: readonly ServedModel[];
  digest: Bytes;
}

const RECEIPT_KEYS: Tests = { ed25519: isBytes(32), ml_dsa_65: isBytes(1952) };
const KEYSET: Tests = {
  ohttp_keys: isBytes(1, 16 * 1024),
  receipt_keys: (value) => {
    const tree = asTree(value);
    return tree !== undefined && hasExactly(tree, Object.keys(RECEIPT_KEYS));
  },
  usage_key: isBytes(32),
  manifest_digest: isDigest,
  not_before: isTime,
  not_after: isTime,
  simulated: isBool,
};

const isName = isText(1, 256);
const isSetting = (value: unknown) => typeof value === "string" || typeof value === "boolean" || isInteger(value);
const MAX_MODELS = 16;
const MODEL: Tests = {
  model: isName,
  weights_digest: isDigest,
  tokenizer_digest: isDigest,
  engine: (value) => [...(asTree(value)?.values() ?? [undefined])].every(isSetting),
};
const MANIFEST: Tests = {
  ...MODEL,
  release: isName,
  shapes: (value) => Array.isArray(value) && value.length > 0 && value.every((each) => typeof each === "string"),
  platform: isName,
};

/** Parse a keyset statement; makes no trust claim. Does not check the times against a clock. Throws Malformed. */
export function parseKeyset(data: Uint8Array): Keyset {
  const tree = readStatement(data, PURPOSE_KEYSET, KEYSET, { ehbp_key: isBytes(32) });
  const keys = tree.get("receipt_keys") as Tree;
  checkFields(keys, RECEIPT_KEYS);
  const [start, end] = [tree.get("not_before") as number, tree.get("not_after") as number];
  if (end <= start || end - start > KEYSET_LIFETIME_MAX_S) {
    throw new Malformed("a keyset lives more than 24 h, or not at all");
  }
  return {
    ohttpKeys: tree.get("ohttp_keys") as Bytes,
    receiptEd25519: keys.get("ed25519") as Bytes,
    receiptMlDsa65: keys.get("ml_dsa_65") as Bytes,
    usageEd25519: tree.get("usage_key") as Bytes,
    manifestDigest: tree.get("manifest_digest") as Bytes,
    notBeforeUnixS: start,
    notAfterUnixS: end,
    simulated: tree.get("simulated") as boolean,
    ehbpKey: tree.get("ehbp_key") as Bytes | undefined,
    digest: sha256(data), // a deterministic encoding is the statement's only one
  };
}

/** Parse a manifest; makes no trust claim. Throws Malformed, for two models of one name too. */
export function parseManifest(data: Uint8Array): Manifest {
  const tree = readStatement(data, PURPOSE_MANIFEST, MANIFEST, { more_models: areModels });
  const first = servedModel(tree);
  const models = [first, ...((tree.get("more_models") as Tree[] | undefined) ?? []).map(servedModel)];
  if (new Set(models.map(({ model }) => model)).size !== models.length) throw new Malformed("two models have one name");
  return {
    ...first,
    release: tree.get("release") as string,
    shapes: tree.get("shapes") as string[],
    platform: tree.get("platform") as string,
    models,
    digest: sha256(data),
  };
}

function areModels(value: unknown): boolean {
  return (
    Array.isArray(value) &&
    value.length > 0 &&
    value.length < MAX_MODELS &&
    value.every((each) => {
      const tree = asTree(each);
      return (
        tree !== undefined &&
        hasExactly(tree, Object.keys(MODEL)) &&
        Object.entries(MODEL).every(([name, isValid]) => isValid(tree.get(name)))
      );
    })
  );
}

function servedModel(tree: Tree): ServedModel {
  return {
    model: tree.get("model") as string,
    weightsDigest: tree.get("weights_digest") as Bytes,
    tokenizerDigest: tree.get("tokenizer_digest") as Bytes,
    engine: tree.get("engine") as ServedModel["engine"],
  };
}
