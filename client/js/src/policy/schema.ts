/** The words that policy files are made of: closed, typed, without optional fields or empty lists. */

import { TomlDate } from "smol-toml";

/** What is wrong with a file: the field's place and the remedy. */
export type Fault = readonly [field: string, remedy: string];

/** Reads one value, or adds to `faults` why it cannot. What is returned after a fault is never used. */
export type Reader<T> = (value: unknown, field: string, faults: Fault[]) => T;

function fault<T>(faults: Fault[], field: string, remedy: string): T {
  faults.push([field, remedy]);
  return undefined as T;
}

export function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

/** A closed table: every field is there, and no other. */
export function table<T extends object>(fields: { [K in keyof T]: Reader<T[K]> }): Reader<T> {
  return (value, place, faults) => {
    if (!isTable(value)) return fault(faults, place || "file", "input should be a table");
    const at = (name: string) => (place ? `${place}.${name}` : name);
    const read: Record<string, unknown> = {};
    for (const [name, reader] of Object.entries(fields) as [string, Reader<unknown>][]) {
      if (!Object.hasOwn(value, name)) fault(faults, at(name), "is missing; set it");
      else read[name] = reader(value[name], at(name), faults);
    }
    for (const name of Object.keys(value)) {
      if (!Object.hasOwn(fields, name)) fault(faults, at(name), "is not a known setting; remove it or mend its spelling");
    }
    return read as T;
  };
}

export function text(pattern: RegExp, meaning: string): Reader<string> {
  return (value, field, faults) =>
    typeof value === "string" && pattern.test(value) ? value : fault(faults, field, `should be ${meaning}`);
}

/** Lower-case hex of so many bytes. */
export function hexOf(size: number): Reader<string> {
  return text(new RegExp(`^[0-9a-f]{${2 * size}}$`), `${2 * size} lower-case hexadecimal digits`);
}

/** An integer from `least` to `most`; beyond 2^53 it stays a bigint. */
export function integer(least: bigint, most: bigint): Reader<number | bigint> {
  return (value, field, faults) => {
    if (typeof value !== "bigint") return fault(faults, field, "should be an integer");
    if (value < least || value > most) return fault(faults, field, `should be from ${least} to ${most}`);
    return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  };
}

export const int = (least: number, most: number) => integer(BigInt(least), BigInt(most)) as Reader<number>;

export const bool: Reader<boolean> = (value, field, faults) =>
  typeof value === "boolean" ? value : fault(faults, field, "should be true or false");

export function oneOf<T extends string>(...words: T[]): Reader<T> {
  return (value, field, faults) =>
    words.find((word) => word === value) ?? fault(faults, field, `should be ${words.map((each) => `'${each}'`).join(" or ")}`);
}

export function listOf<T>(item: Reader<T>): Reader<T[]> {
  return (value, field, faults) => {
    if (!Array.isArray(value)) return fault(faults, field, "should be a list");
    if (value.length === 0) return fault(faults, field, "should have at least 1 item");
    return value.map((each, at) => item(each, `${field}.${at}`, faults));
  };
}

const reason: Reader<string> = (value, field, faults) => {
  const length = typeof value === "string" ? [...value].length : 0;
  return length >= 10 && length <= 400 ? (value as string) : fault(faults, field, "should be a reason of 10 to 400 characters");
};
export const written = reason;

const waived = table<{ waived: string }>({ waived: reason });

/** A demand, or `{ waived = "reason" }` in its place. */
export function waivable<T>(reader: Reader<T>): Reader<T | { waived: string }> {
  return (value, field, faults) =>
    isTable(value) && Object.hasOwn(value, "waived") ? waived(value, field, faults) : reader(value, field, faults);
}

/** A table of conditions, or one word. */
export function orWord<T, W extends string>(word: W, reader: Reader<T>): Reader<T | W> {
  return (value, field, faults) =>
    typeof value === "string" ? oneOf(word)(value, field, faults) : reader(value, field, faults);
}

/** A time with its offset; the policy's digest has it in Unix seconds, however it is written. */
export const moment: Reader<number> = (value, field, faults) => {
  const known = value instanceof TomlDate && value.isDateTime() && !value.isLocal();
  return known ? Math.floor(value.getTime() / 1000) : fault(faults, field, "should be a date and time with an offset, as 2027-01-01T00:00:00Z");
};
