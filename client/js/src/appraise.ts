/**
 * The decision: evidence in, every check with its reason out. Nothing else in this package decides.
 *
 * The argument, in the order of the result and of SPEC: (1) the policy itself; (2) the CPU's evidence, signatures up to
 * a pinned root, then claims; (3) from what the CPU signed to the keyset. A result is accepted iff every check passed or
 * is waived by the policy. It is the Python `appraise`, check for check, for the profiles of SEV-SNP.
 */

import { BINDING_CHECKS, checkBinding, type Binding, type BindingCheck, type Epochs } from "./binding.js";
import { EMPTY, hex } from "./bytes.js";
import { encode } from "./cbor.js";
import type { EvidenceBundle } from "./evidence.js";
import { sha256 } from "./hash.js";
import { PURPOSE_RESULT } from "./labels.js";
import { Ledger } from "./ledger.js";
import type { AppraisalPolicy } from "./policy/policy.js";
import type { AttestationResult, AttestedKeyset, Check, Claims } from "./result.js";
import { AMD_ROOTS, day, simulatedRoots } from "./snp/chain.js";
import { judgeSnp } from "./snp/judge.js";

const POLICY_CHECKS = ["policy_expired", "policy_serial", "simulated"] as const;
type PolicyCheck = (typeof POLICY_CHECKS)[number];

export interface Circumstances {
  nowUnixS: number;
  /** The least policy serial that the caller still accepts. */
  floor: number;
  /** The caller's own 32 bytes; undefined only where the policy does not demand them. */
  nonce: Uint8Array | undefined;
  epochs?: Epochs;
  /** The second of the two switches for simulated hardware. */
  allowSimulated?: boolean;
}

/** Judge an enclave's evidence; never throws for bad evidence, whatever its bytes. */
export async function appraise(
  evidence: EvidenceBundle,
  policy: AppraisalPolicy,
  { nowUnixS, floor, nonce, epochs = new Map(), allowSimulated = false }: Circumstances,
): Promise<AttestationResult> {
  const own = new Ledger<PolicyCheck>();
  checkPolicy(own, policy, nowUnixS, floor, allowSimulated);
  // Evidence of another kind is judged as if there were none: every check is listed, and refuses.
  const report = evidence.cpu.kind === "sev-snp" ? evidence.cpu.report : EMPTY;
  const roots = policy.simulated ? simulatedRoots(policy.simulated.amd_ark_sha256) : AMD_ROOTS;
  const cpu = await judgeSnp(report, evidence.snp, nowUnixS, policy.platform.snp, roots);
  const ledger = new Ledger<BindingCheck>();
  const binding = checkBinding(ledger, { evidence, bound: cpu.bound, policy, nowUnixS, nonce, epochs });

  const checks = [...own.close(POLICY_CHECKS), ...cpu.checks, ...ledger.close(BINDING_CHECKS)];
  const accepted = own.holds(POLICY_CHECKS) && cpu.holds && ledger.holds(BINDING_CHECKS);
  const claims: Record<string, Claims> = { ...cpu.claims };
  if (ledger.passed(["report_data", "keyset_digest"]) && binding.keyset !== undefined) {
    const { keyset } = binding;
    claims.keyset = {
      digest: hex(keyset.digest),
      manifest_digest: hex(keyset.manifestDigest),
      not_before: keyset.notBeforeUnixS,
      not_after: keyset.notAfterUnixS,
      simulated: keyset.simulated,
      ...(keyset.ehbpKey && { ehbp_key: hex(keyset.ehbpKey) }),
    };
  }
  const limits = [binding.notAfterUnixS, cpu.notAfterUnixS].filter((end) => end !== undefined);
  return {
    verdict: accepted ? "accepted" : "refused",
    checks,
    failed: checks.filter((check) => check.outcome === "FAIL"),
    claims,
    simulated: policy.kind === "simulated",
    policyId: policy.id,
    policyDigest: policy.digest,
    judgedAtUnixS: nowUnixS,
    keyset: accepted ? attested(binding, policy, limits, checks, nowUnixS) : undefined,
  };
}

/** Judge a policy before what it demands. */
function checkPolicy(
  ledger: Ledger<PolicyCheck>,
  policy: AppraisalPolicy,
  nowUnixS: number,
  floor: number,
  allowSimulated: boolean,
): void {
  const { id, serial, kind, not_after: end } = policy;
  ledger.expect("policy_expired", nowUnixS < end, `${id} is good until ${day(end)}`, `${id} expired on ${day(end)}`);
  ledger.expect("policy_serial", serial >= floor, `${serial}, at least ${floor}`, `${serial} is below ${floor}`);
  ledger.expect(
    "simulated",
    kind === "hardware" || allowSimulated,
    kind === "hardware" ? "real hardware is demanded" : "SIMULATED hardware is allowed by policy and caller",
    "the policy is of kind simulated, and the caller did not allow simulated hardware",
  );
}

/** Make the one thing that can be sealed to; call only when every check holds. */
function attested(
  { keyset, manifest, statement }: Binding,
  policy: AppraisalPolicy,
  limits: readonly number[],
  checks: readonly Check[],
  nowUnixS: number,
): AttestedKeyset {
  if (keyset === undefined || manifest === undefined || statement === undefined) throw new Error("their checks hold");
  const result = {
    purpose: PURPOSE_RESULT,
    policy: policy.digest,
    statement: statement.digest,
    judged_at: nowUnixS,
    checks: checks.map((check) => [check.id, check.outcome, check.detail]),
  };
  return {
    keyset,
    manifest,
    statementDigest: statement.digest,
    policyDigest: policy.digest,
    resultDigest: sha256(encode(result)),
    validUntilUnixS: Math.min(keyset.notAfterUnixS, statement.notAfterUnixS, policy.not_after, ...limits),
  };
}
