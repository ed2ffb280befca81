/** Tests of the values that statements and claims hold: what is not exactly right is malformed. */

import { asTree, decode, type Tree } from "./cbor.js";
import { Malformed } from "./errors.js";
import { DIGEST_BYTES } from "./labels.js";

export type Test = (value: unknown) => boolean;
export type Tests = Readonly<Record<string, Test>>;

export function isBytes(least: number, most = least): Test {
  return (value) => value instanceof Uint8Array && value.length >= least && value.length <= most;
}

/** An integer from `low` to below `high`, as number or bigint. */
export function isInt(low: number | bigint, high: number | bigint): Test {
  return (value) => isInteger(value) && value >= low && value < high;
}

export function isText(least: number, most: number): Test {
  return (value) => {
    if (typeof value !== "string") return false;
    const length = [...value].length;
    return length >= least && length <= most;
  };
}

export function isOneOf(...names: string[]): Test {
  return (value) => typeof value === "string" && names.includes(value);
}

export function isAbsentOr(isValid: Test): Test {
  return (value) => value === null || value === undefined || isValid(value);
}

export const isBool: Test = (value) => typeof value === "boolean";
export const isInteger = (value: unknown): value is number | bigint =>
  typeof value === "bigint" || Number.isSafeInteger(value);
export const isDigest: Test = isBytes(DIGEST_BYTES);
/** Until the year 10000: all of them can be shown. */
export const isTime: Test = isInt(0, 253_402_300_800);

/** Decode a closed map of one purpose and return its other fields. Throws Malformed. */
export function readStatement(data: Uint8Array, purpose: string, tests: Tests, optional: Tests = {}): Tree {
  const tree = asTree(decode(data));
  const named = tree?.get("purpose") === purpose;
  tree?.delete("purpose");
  const present = Object.entries(optional).filter(([name]) => tree?.has(name));
  const known = { ...tests, ...Object.fromEntries(present) };
  if (tree === undefined || !named || tree.size !== Object.keys(known).length) {
    throw new Malformed(`not a ${purpose} statement`);
  }
  checkFields(tree, known);
  return tree;
}

/** Throws Malformed, naming the first field whose value is not of its type or range. */
export function checkFields(tree: Tree, tests: Tests): void {
  for (const [name, isValid] of Object.entries(tests)) {
    if (!isValid(tree.get(name))) throw new Malformed(`${name} is not of its type or range`);
  }
}
