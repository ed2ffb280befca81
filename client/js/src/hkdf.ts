/** HKDF-SHA256 (RFC 5869) and its labelled forms (RFC 9180 section 4). */

import { expand, extract } from "@noble/hashes/hkdf.js";
import { sha256 } from "@noble/hashes/sha2.js";

import { concat, uintBe, utf8, type Bytes } from "./bytes.js";

const VERSION = utf8("HPKE-v1");

export function hkdfExtract(salt: Uint8Array, keyMaterial: Uint8Array): Bytes {
  return extract(sha256, keyMaterial, salt) as Bytes;
}

/** Expand to `length` bytes, at most 8,160. */
export function hkdfExpand(key: Uint8Array, info: Uint8Array, length: number): Bytes {
  return expand(sha256, key, info, length) as Bytes;
}

export function labeledExtract(suiteId: Uint8Array, salt: Uint8Array, label: string, keyMaterial: Uint8Array): Bytes {
  return hkdfExtract(salt, concat(VERSION, suiteId, utf8(label), keyMaterial));
}

export function labeledExpand(
  suiteId: Uint8Array,
  key: Uint8Array,
  label: string,
  info: Uint8Array,
  length: number,
): Bytes {
  return hkdfExpand(key, concat(uintBe(length, 2), VERSION, suiteId, utf8(label), info), length);
}
