/** The chain of trust as a person reads it: each link with its checks, from the policy to the receipt. For UIs. */

import type { ReceiptClaims } from "./receipt.js";
import type { AttestationResult, Check } from "./result.js";
import { SNP_CHAIN_CHECKS, SNP_CHECKS } from "./snp/ids.js";

export type LinkState = "holds" | "waived" | "refused" | "unreached";

export interface Link {
  readonly name: string;
  /** What this link vouches for, in one line. */
  readonly says: string;
  readonly state: LinkState;
  readonly checks: readonly Check[];
}

const NAMES: readonly (readonly [name: string, ids: readonly string[]])[] = [
  ["Your policy", ["policy_expired", "policy_serial", "simulated"]],
  ["AMD's keys", SNP_CHAIN_CHECKS],
  ["The machine", SNP_CHECKS.filter((id) => !SNP_CHAIN_CHECKS.includes(id))],
  ["Its answer to you", ["cpu_kind", "statement_format", "report_data", "statement_expired", "nonce"]],
  ["The keys you seal to", ["keyset_format", "keyset_digest", "keyset_validity", "keyset_kind", "suite", "shape"]],
  ["What it runs", ["manifest_format", "manifest_digest", "manifest", "platform", "gpu_evidence", "event_logs"]],
];

/** Cut a result into its links. Every check is in exactly one of them. */
export function trustChain(result: AttestationResult): Link[] {
  const links = NAMES.map(([name, ids]) => {
    const checks = result.checks.filter((check) => ids.includes(check.id));
    return { name, says: sayings(result)[name] ?? "", state: stateOf(checks), checks };
  });
  const shown = links.reduce((sum, link) => sum + link.checks.length, 0);
  if (shown !== result.checks.length) throw new Error("a check belongs to no link");
  return links;
}

/** The last link: a receipt that was verified against its exchange. */
export function receiptLink(claims: ReceiptClaims): Link {
  const pass = (id: string, detail: string): Check => ({ id, outcome: "PASS", detail });
  const { chunk_count: chunks, message_count: messages } = claims;
  return {
    name: "The receipt",
    says: `${claims.outcome}, ${claims.model}, ${claims.engine_mode} mode`,
    state: "holds",
    checks: [
      pass("signatures", "Ed25519 and ML-DSA-65, both by the keyset above"),
      pass("exchange", "your nonce, your policy, this sealed request and no other"),
      pass("words", `your request and this answer: ${messages} message(s), ${chunks} chunk(s), status ${claims.status}`),
    ],
  };
}

/** A check that was not reached refuses as well, but says nothing against its link. */
function stateOf(checks: readonly Check[]): LinkState {
  if (checks.some((check) => check.outcome === "FAIL")) return "refused";
  const skipped = checks.filter((check) => check.outcome === "SKIP");
  if (skipped.length === 0) return "holds";
  return skipped.every((check) => check.detail.startsWith("waived by the policy: ")) ? "waived" : "unreached";
}

function sayings(result: AttestationResult): Record<string, string> {
  const { cpu0, keyset } = result.claims;
  const manifest = result.keyset?.manifest;
  return {
    "Your policy": result.policyId,
    "AMD's keys": cpu0 ? `a ${cpu0.signer} of ${cpu0.product}${result.simulated ? ", SIMULATED" : ""}` : "not shown to hold",
    "The machine": cpu0 ? `measured ${String(cpu0.measurement).slice(0, 16)}…` : "nothing that it says is believed",
    "Its answer to you": freshness(result),
    "The keys you seal to": keyset ? `${String(keyset.digest).slice(0, 16)}…` : "none",
    "What it runs": manifest ? `${manifest.models.map(({ model }) => model).join(", ")}, ${manifest.release}` : "not shown to hold",
  };
}

function freshness({ checks }: AttestationResult): string {
  const nonce = checks.find((check) => check.id === "nonce");
  return nonce?.outcome === "FAIL" || nonce === undefined ? "not shown to be fresh" : nonce.detail;
}
