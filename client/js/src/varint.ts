/** QUIC variable-length integers (RFC 9000 section 16), as OHTTP and binary HTTP count with. */

import { readBe, uintBe, type Bytes } from "./bytes.js";
import { LocalStateError, Malformed } from "./errors.js";

const SIZES = [
  [2 ** 6, 1],
  [2 ** 14, 2],
  [2 ** 30, 4],
  [Number.MAX_SAFE_INTEGER, 8],
] as const;

/** Encode in the fewest bytes (1, 2, 4 or 8). */
export function encodeVarint(value: number): Bytes {
  const place = SIZES.findIndex(([limit]) => value >= 0 && value < limit);
  if (place < 0) throw new LocalStateError("a variable-length integer holds 0 to 2**53-1 here");
  const out = uintBe(value, SIZES[place]![1]);
  out[0]! |= place << 6;
  return out;
}

/** Read the integer that starts at `at`: [value, where it ends], or undefined while bytes are missing. */
export function readVarint(data: Uint8Array, at = 0): [number, number] | undefined {
  if (at >= data.length) return undefined;
  const first = data[at]!;
  const end = at + (1 << (first >> 6));
  if (end > data.length) return undefined;
  const digits = data.slice(at, end);
  digits[0]! &= 0x3f;
  // What is longer than 2^53 is longer than any limit, and no number here could hold it.
  if (digits.length === 8 && readBe(digits.subarray(0, 2)) > 0x1f) throw new Malformed("a length is out of bounds");
  return [readBe(digits), end];
}
