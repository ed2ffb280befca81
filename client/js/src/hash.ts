/** Hashes: synchronous, because transcripts hash piece by piece, which WebCrypto cannot. */

import { hmac } from "@noble/hashes/hmac.js";
import { sha256 as nobleSha256, sha512 as nobleSha512 } from "@noble/hashes/sha2.js";

import { concat, type Bytes } from "./bytes.js";

export function sha256(...parts: Uint8Array[]): Bytes {
  return nobleSha256(concat(...parts)) as Bytes;
}

export function sha512(...parts: Uint8Array[]): Bytes {
  return nobleSha512(concat(...parts)) as Bytes;
}

export function hmacSha256(key: Uint8Array, ...parts: Uint8Array[]): Bytes {
  return hmac(nobleSha256, key, concat(...parts)) as Bytes;
}

/** An HMAC over bytes that come piece by piece. */
export function startHmac(key: Uint8Array): { update(data: Uint8Array): void; digest(): Bytes } {
  const mac = hmac.create(nobleSha256, key);
  return { update: (data) => void mac.update(data), digest: () => mac.digest() as Bytes };
}
