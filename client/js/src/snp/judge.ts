/**
 * Judge one SEV-SNP report: AMD's chain, the report, and its claims against a policy.
 *
 * The argument: (1) the chain from a pinned ARK to the chip's (or cloud's) key, and its revocation list; (2) the
 * report: form, agreement with the certificate, signature, neither debugging nor migration; (3) its claims against the
 * policy: product, firmware, image, guest policy.
 */

import { hex, type Bytes } from "../bytes.js";
import type { SnpEndorsements } from "../evidence.js";
import { Ledger } from "../ledger.js";
import type { SnpPolicy } from "../policy/snp.js";
import type { Claims, Part } from "../result.js";
import { ALIAS_CHECK_COMPLETE, decodeTcb, firmwareText, POLICY } from "./abi.js";
import type { Product, Signer, SnpReport } from "./abi.js";
import { AMD_ROOTS, verifyChain, type SnpRoots } from "./chain.js";
import {
  REVOCATION_CHECKS,
  SNP_CHAIN_CHECKS,
  SNP_CHECKS,
  SNP_FILES,
  SNP_POLICY_CHECKS,
  SNP_REPORT_CHECKS,
  SNP_SIGNATURES,
  type SnpCheck,
} from "./ids.js";
import { checkCrl, checkReport, policyEndsUnixS } from "./validate.js";
import { productOf, verifyReport } from "./verify.js";

/**
 * Judge a report by its endorsements, and by `policy` if there is one; never throws, whatever the bytes.
 *
 * Without a policy a Part that holds says that the report is authentic, and nothing more.
 */
export async function judgeSnp(
  report: Bytes,
  endorsements: SnpEndorsements | undefined,
  nowUnixS: number,
  policy?: SnpPolicy,
  roots: SnpRoots = AMD_ROOTS,
): Promise<Part> {
  const ledger = new Ledger<SnpCheck>();
  if (endorsements === undefined) ledger.fail("vek_format", "no VCEK or VLEK was given");
  const chain = endorsements && (await verifyChain(ledger, endorsements, roots, nowUnixS));
  const parsed = await verifyReport(ledger, report, chain);
  const crlGiven = endorsements?.crl !== undefined;
  let needed: readonly SnpCheck[] = SNP_CHECKS;
  if (policy === undefined) {
    for (const id of SNP_POLICY_CHECKS) ledger.skip(id, "no policy was given: NOT appraised");
    if (!crlGiven) for (const id of REVOCATION_CHECKS) ledger.skip(id, "no revocation list was given");
    needed = [...SNP_CHAIN_CHECKS, ...SNP_REPORT_CHECKS].filter((id) => crlGiven || !REVOCATION_CHECKS.includes(id));
  } else if (chain !== undefined && (chain.crl !== undefined || !crlGiven)) {
    checkCrl(ledger, chain.crl, policy, nowUnixS);
  }
  const readable = !ledger.failed(SNP_FILES);
  const vek = chain?.vek;
  // Nothing that an unsigned report says is measured against a policy, or shown.
  const product = parsed && vek && ledger.passed(SNP_SIGNATURES) ? productOf(parsed, vek) : undefined;
  if (chain === undefined || vek === undefined || parsed === undefined || product === undefined) {
    const checks = ledger.close(SNP_CHECKS);
    return { checks, holds: false, claims: {}, bound: undefined, notAfterUnixS: undefined, readable };
  }
  const ends = [chain.notAfterUnixS];
  if (policy !== undefined) {
    checkReport(ledger, parsed, product, vek.signer, policy, nowUnixS);
    ends.push(...policyEndsUnixS(parsed, product, chain.crl, policy, nowUnixS));
  }
  return {
    checks: ledger.close(SNP_CHECKS),
    holds: ledger.holds(needed),
    claims: { cpu0: reportClaims(parsed, product, vek.signer) },
    bound: parsed.reportData,
    notAfterUnixS: Math.min(...ends),
    readable,
  };
}

/** Name a report's fields for people. Call only for a report whose signatures hold. */
function reportClaims(report: SnpReport, product: Product, signer: Signer): Claims {
  const claims: Record<string, string | number | boolean> = {
    type: "sev-snp",
    product,
    report_version: report.version,
    signer,
    vmpl: report.vmpl,
    guest_svn: report.guestSvn,
    guest_policy: `0x${report.policy.toString(16)}`,
    debug: Boolean(report.policy & POLICY.debug),
    migrate_ma: Boolean(report.policy & POLICY.migrateMa),
    smt_allowed: Boolean(report.policy & POLICY.smt),
    single_socket: Boolean(report.policy & POLICY.singleSocket),
    ciphertext_hiding: Boolean(report.policy & POLICY.ciphertextHiding),
    platform_info: `0x${report.platformInfo.toString(16)}`,
    alias_check_complete: Boolean(report.platformInfo & ALIAS_CHECK_COMPLETE),
    firmware: firmwareText(report.currentFirmware),
    firmware_committed: firmwareText(report.committedFirmware),
  };
  const tcbs = {
    reported: report.reportedTcb,
    committed: report.committedTcb,
    current: report.currentTcb,
    launch: report.launchTcb,
  };
  for (const [name, tcb] of Object.entries(tcbs)) {
    for (const [part, level] of Object.entries(decodeTcb(tcb, product))) claims[`tcb_${name}_${part}`] = level;
  }
  const digests = {
    measurement: report.measurement,
    host_data: report.hostData,
    report_data: report.reportData,
    chip_id: report.chipId,
    family_id: report.familyId,
    image_id: report.imageId,
    id_key_digest: report.idKeyDigest,
    author_key_digest: report.authorKeyDigest,
    report_id: report.reportId,
    report_id_ma: report.reportIdMa,
  };
  for (const [name, value] of Object.entries(digests)) claims[name] = hex(value);
  if (report.currentMitVector !== undefined && report.launchMitVector !== undefined) {
    claims.mit_vector = `0x${report.currentMitVector.toString(16)}`;
    claims.mit_vector_launch = `0x${report.launchMitVector.toString(16)}`;
  }
  return claims;
}
