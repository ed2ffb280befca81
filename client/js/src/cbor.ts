/** Deterministic CBOR (RFC 8949 section 4.2.1): one value, one encoding. Tags are never interpreted. */

import * as cborg from "cborg";

import { equal, type Bytes } from "./bytes.js";
import { Malformed } from "./errors.js";

export const MAX_CBOR_BYTES = 1 << 20;
const MAX_DEPTH = 64;
const MIN = -(2n ** 64n);
const MAX = 2n ** 64n - 1n;

/** Maps have integer or text keys; integers beyond 2^53 are bigint. A plain object encodes as a map of text. */
export type Value =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | readonly Value[]
  | ReadonlyMap<string | number, Value>
  | { readonly [name: string]: Value };

export type Tree = Map<string, unknown>;

/** Encode plain values. Throws TypeError for floats, tags, integers over 64 bits and other keys. */
export function encode(value: Value): Bytes {
  return cborg.encode(ordered(value, 0), cborg.rfc8949EncodeOptions) as Bytes;
}

/** Decode exactly one deterministically encoded value: whatever encodes otherwise again is refused. */
export function decode(data: Uint8Array, maxBytes = MAX_CBOR_BYTES): unknown {
  if (data.length > maxBytes) throw new Malformed("a CBOR item is larger than its limit");
  let value: unknown;
  let canonical: boolean;
  try {
    value = cborg.decode(data, {
      useMaps: true,
      rejectDuplicateMapKeys: true,
      allowIndefinite: false,
      allowUndefined: false,
      allowInfinity: false,
      allowNaN: false,
      strict: true,
    });
    canonical = equal(encode(value as Value), data);
  } catch {
    throw new Malformed("not well-formed CBOR");
  }
  if (!canonical) throw new Malformed("CBOR is not in its deterministic encoding");
  return value;
}

/** Decode a map with text keys, or undefined for any other value. */
export function asTree(value: unknown): Tree | undefined {
  return value instanceof Map && [...value.keys()].every((key) => typeof key === "string") ? value : undefined;
}

/** Say whether a map has exactly these keys. */
export function hasExactly(tree: ReadonlyMap<unknown, unknown>, names: readonly unknown[]): boolean {
  return tree.size === names.length && names.every((name) => tree.has(name));
}

function ordered(value: Value, depth: number): unknown {
  if (depth > MAX_DEPTH) throw new TypeError("nested too deep");
  if (value === null || typeof value === "boolean") return value;
  if (typeof value === "string") {
    if (!value.isWellFormed()) throw new TypeError("a lone surrogate is no text");
    return value;
  }
  if (typeof value === "number" || typeof value === "bigint") return integer(value);
  if (value instanceof Uint8Array) return value;
  if (Array.isArray(value)) return value.map((each: Value) => ordered(each, depth + 1));
  const entries = value instanceof Map ? [...value] : isPlain(value) ? Object.entries(value) : undefined;
  if (entries === undefined) throw new TypeError("only plain values have a deterministic encoding here");
  return new Map(entries.map(([key, each]) => [mapKey(key), ordered(each as Value, depth + 1)]));
}

function mapKey(key: unknown): unknown {
  if (typeof key !== "string" && typeof key !== "number") throw new TypeError("map keys are integers or text");
  return ordered(key, 0);
}

function integer(value: number | bigint): number | bigint {
  if (typeof value === "number" && Number.isSafeInteger(value) && !Object.is(value, -0)) return value;
  if (typeof value === "bigint" && value >= MIN && value <= MAX) {
    const short = Number(value);
    return Number.isSafeInteger(short) ? short : value;
  }
  throw new TypeError("only integers of at most 64 bits have a deterministic encoding here");
}

function isPlain(value: object): value is Record<string, unknown> {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}
