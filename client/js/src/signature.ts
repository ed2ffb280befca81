/** Verify signatures of receipts: false for whatever does not verify, keys and signatures of another form included. */

import { ed25519 } from "@noble/curves/ed25519.js";
import { ml_dsa65 } from "@noble/post-quantum/ml-dsa.js";

// zip215 off: the strict rules of RFC 8032, as everywhere else that receipts are verified.
export function ed25519Holds(signature: Uint8Array, message: Uint8Array, key: Uint8Array): boolean {
  return holds(() => ed25519.verify(signature, message, key, { zip215: false }));
}

/** ML-DSA-65 with the empty context. */
export function mlDsa65Holds(signature: Uint8Array, message: Uint8Array, key: Uint8Array): boolean {
  return holds(() => ml_dsa65.verify(signature, message, key));
}

function holds(verify: () => boolean): boolean {
  try {
    return verify();
  } catch {
    return false; // noble throws for keys and signatures of another length or form
  }
}
