/** The highest serial of each policy that this user ever accepted: no older one is accepted again. */

import { ConfigError } from "./errors.js";

/** Where serials are remembered. What cannot be read throws ConfigError: it is never an empty memory. */
export interface PolicyMemory {
  /** Return the least serial that may be accepted for this id; 0 where none was seen. */
  floor(policyId: string): number | Promise<number>;
  remember(policyId: string, serial: number): void | Promise<void>;
}

/** A memory that lasts as long as this object: for tests, and for a server that is given its policy anew each time. */
export function forgetful(): PolicyMemory {
  const serials = new Map<string, number>();
  return {
    floor: (id) => serials.get(id) ?? 0,
    remember: (id, serial) => void serials.set(id, Math.max(serial, serials.get(id) ?? 0)),
  };
}

/** Read the form that every Confide client writes. Throws ConfigError naming `place`. */
export function parseSerials(text: string, place: string): Record<string, number> {
  let tree: unknown;
  try {
    tree = JSON.parse(text);
  } catch {
    tree = undefined;
  }
  const { version, serials } = (tree ?? {}) as { version?: unknown; serials?: unknown };
  const isMemory = version === 1 && typeof serials === "object" && serials !== null && !Array.isArray(serials);
  if (!isMemory || !Object.values(serials).every((each) => Number.isSafeInteger(each) && (each as number) >= 0)) {
    const remedy = "is not a policy memory; restore it, or remove it to trust the next policy anew";
    throw new ConfigError(place, "policy memory", remedy);
  }
  return serials as Record<string, number>;
}

/** Return the serial of one policy, whose id may be any word, `constructor` too. */
export function serialIn(serials: Readonly<Record<string, number>>, id: string): number {
  return Object.hasOwn(serials, id) ? serials[id]! : 0;
}

export function serialsText(serials: Readonly<Record<string, number>>): string {
  const sorted = Object.fromEntries(Object.entries(serials).sort(([a], [b]) => (a < b ? -1 : 1)));
  return JSON.stringify({ version: 1, serials: sorted }, null, 1);
}
