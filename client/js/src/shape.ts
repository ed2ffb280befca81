/** Shapes: how much of a request's size an observer sees (SPEC 8). Responses come in the shape that was asked for. */

import type { Bytes } from "./bytes.js";
import { Malformed, TooLarge } from "./errors.js";
import { SHAPE_BUCKETED, SHAPE_NONE } from "./labels.js";

const LEAST_BUCKET_BYTES = 1 << 10;
const GREATEST_BUCKET_BYTES = 16 << 20;

/** Pad an encoded request with zero bytes to its shape's next bucket. Throws TooLarge, Malformed. */
export function padRequest(shape: string, message: Bytes): Bytes {
  if (shape === SHAPE_NONE) return message;
  if (shape !== SHAPE_BUCKETED) throw new Malformed("the shape is not known");
  for (let bucket = LEAST_BUCKET_BYTES; bucket <= GREATEST_BUCKET_BYTES; bucket *= 2) {
    if (message.length > bucket) continue;
    const padded = new Uint8Array(bucket);
    padded.set(message);
    return padded;
  }
  throw new TooLarge("the request is larger than the shape's greatest bucket");
}
