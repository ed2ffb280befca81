/** Collect the outcomes of checks: each id once, every failure kept, nothing silently absent. */

import type { Check, Outcome } from "./result.js";

const MAX_DETAIL_CHARS = 500;

/** The outcomes so far. A SKIP counts only if it was waived by the policy. */
export class Ledger<Id extends string> {
  readonly #checks = new Map<Id, Check>();
  readonly #waived = new Set<Id>();

  /** Record PASS or FAIL and return whether the check holds. */
  expect(id: Id, holds: boolean, passed: string, failed: string): boolean {
    this.#record(id, holds ? "PASS" : "FAIL", holds ? passed : failed);
    return holds;
  }

  fail(id: Id, detail: string): void {
    this.#record(id, "FAIL", detail);
  }

  /** Record that a check was not made; such a check keeps an appraisal from being accepted. */
  skip(id: Id, reason: string): void {
    this.#record(id, "SKIP", reason);
  }

  /** Record that the policy waives a check, with its written reason. */
  waive(id: Id, reason: string): void {
    this.#record(id, "SKIP", `waived by the policy: ${reason}`);
    this.#waived.add(id);
  }

  /** Record whether `value` is one of those that the policy pins, or why it pins none. */
  pinned(id: Id, value: string, pins: readonly string[] | Waived): void {
    if ("waived" in pins) {
      this.waive(id, pins.waived);
      return;
    }
    const short = value.length <= 32 ? value : `${value.slice(0, 16)}…`;
    this.expect(id, pins.includes(value), `${short} is pinned`, `${short} is none of the ${pins.length} pinned values`);
  }

  passed(ids: readonly Id[]): boolean {
    return ids.every((id) => this.#checks.get(id)?.outcome === "PASS");
  }

  /** Say whether any of `ids` was made and failed. */
  failed(ids: readonly Id[]): boolean {
    return ids.some((id) => this.#checks.get(id)?.outcome === "FAIL");
  }

  /** Say whether every check of `scope` passed or was waived. */
  holds(scope: readonly Id[]): boolean {
    return scope.every((id) => this.#waived.has(id) || this.#checks.get(id)?.outcome === "PASS");
  }

  /** Return the checks of `scope` in order; those never made are SKIP. */
  close(scope: readonly Id[]): Check[] {
    const detail = "not reached: an earlier check failed";
    return scope.map((id) => this.#checks.get(id) ?? { id, outcome: "SKIP", detail });
  }

  #record(id: Id, outcome: Outcome, detail: string): void {
    if (this.#checks.has(id)) throw new Error(`${id} is judged twice`);
    this.#checks.set(id, { id, outcome, detail: readable(detail) });
  }
}

/** A check that is not made, and why. */
export interface Waived {
  readonly waived: string;
}

/** Return a detail as a page or log may show it: parts of it can be a peer's, of any form and length. */
function readable(detail: string): string {
  const characters = [...detail];
  const short = characters.length > MAX_DETAIL_CHARS ? [...characters.slice(0, MAX_DETAIL_CHARS - 1), "…"] : characters;
  return short.map((each) => (each !== " " && /[\p{C}\p{Z}]/u.test(each) ? "\u{fffd}" : each)).join("");
}

/** The consecutive ids of `list` from `first` to `last`, both included. */
export function span<Id extends string>(list: readonly Id[], first: Id, last: Id): Id[] {
  return list.slice(list.indexOf(first), list.indexOf(last) + 1);
}
