/** Judge a report's claims against a policy; does not check any signature (`verify`). */

import { hex, type Bytes } from "../bytes.js";
import type { Ledger } from "../ledger.js";
import type { MinTcb, ProductRule, SnpPolicy } from "../policy/snp.js";
import type { RevocationList } from "../x509.js";
import { ALIAS_CHECK_COMPLETE, decodeTcb, firmwareText, POLICY } from "./abi.js";
import type { Product, Signer, SnpReport } from "./abi.js";
import { REVOCATION_CHECKS, type SnpCheck } from "./ids.js";

/** Judge everything in the report that the policy speaks of, but its report data. */
export function checkReport(
  ledger: Ledger<SnpCheck>,
  report: SnpReport,
  product: Product,
  signer: Signer,
  policy: SnpPolicy,
  nowUnixS: number,
): void {
  checkProduct(ledger, report, product, policy, nowUnixS);
  ledger.expect("signer", policy.signers.includes(signer), `a ${signer} is accepted`, `a ${signer} is not accepted`);
  ledger.pinned("measurement", hex(report.measurement), policy.measurements);
  ledger.pinned("host_data", hex(report.hostData), policy.host_data);
  ledger.pinned("id_key_digest", hex(report.idKeyDigest), policy.id_key_digests);
  ledger.pinned("author_key_digest", hex(report.authorKeyDigest), policy.author_key_digests);
  ledger.pinned("chip_id", hex(report.chipId), policy.chip_ids);
  const { vmpl } = report;
  ledger.expect("vmpl", policy.vmpl.includes(vmpl), `VMPL ${vmpl} is accepted`, `VMPL ${vmpl} is not accepted`);
  checkLevels(ledger, report, policy);
  checkGuestPolicy(ledger, report, policy);
  if (typeof policy.alias_check === "object") {
    ledger.waive("alias_check", policy.alias_check.waived);
  } else {
    ledger.expect(
      "alias_check",
      Boolean(report.platformInfo & ALIAS_CHECK_COMPLETE),
      "the firmware checked memory for aliases at boot",
      "the firmware did not check memory for aliases (BadRAM)",
    );
  }
  if (typeof policy.mit_vector === "object") {
    ledger.waive("mit_vector", policy.mit_vector.waived);
  } else {
    const lacking = BigInt(policy.mit_vector) & ~((report.launchMitVector ?? 0n) & (report.currentMitVector ?? 0n));
    ledger.expect(
      "mit_vector",
      lacking === 0n,
      "all demanded mitigations are in place",
      `mitigations 0x${lacking.toString(16)} are not in place; reports carry them from version 5 on`,
    );
  }
}

/** Judge whether revocation is known as freshly as the policy demands; `crl` is absent if none was given. */
export function checkCrl(
  ledger: Ledger<SnpCheck>,
  crl: RevocationList | undefined,
  policy: SnpPolicy,
  nowUnixS: number,
): void {
  if ("waived" in policy.crl) {
    const scope = crl === undefined ? [...REVOCATION_CHECKS, "crl_age" as const] : (["crl_age"] as const);
    for (const id of scope) ledger.waive(id, policy.crl.waived);
  } else if (crl === undefined) {
    const remedy = "fetch https://kdsintf.amd.com/vcek/v1/<product>/crl";
    ledger.fail("crl_age", `no revocation list was given, and the policy demands one; ${remedy}`);
  } else {
    const [age, most] = [nowUnixS - crl.thisUpdateUnixS, policy.crl.max_age_s];
    const accepted = `issued ${age} s ago, at most ${most} s are accepted`;
    ledger.expect("crl_age", age <= most, accepted, `issued ${age} s ago, more than the accepted ${most} s`);
  }
}

/** Return when the policy ceases to accept this: a list that gets too old, a least TCB that rises. */
export function policyEndsUnixS(
  report: SnpReport,
  product: Product,
  crl: RevocationList | undefined,
  policy: SnpPolicy,
  nowUnixS: number,
): number[] {
  const ends: number[] = [];
  if (crl !== undefined && !("waived" in policy.crl)) ends.push(crl.thisUpdateUnixS + policy.crl.max_age_s);
  const rule = ruleOf(policy, product);
  if (rule !== undefined && rule.rises !== "never") {
    const { at, min_tcb: least } = rule.rises;
    if (nowUnixS < at && below(report, product, least).length) ends.push(at);
  }
  return ends;
}

function ruleOf(policy: SnpPolicy, product: Product): ProductRule | undefined {
  const rule = policy.products[product.toLowerCase() as "milan" | "genoa" | "turin"];
  return rule === "refused" ? undefined : rule;
}

function below(report: SnpReport, product: Product, least: MinTcb): string[] {
  const reported = decodeTcb(report.reportedTcb, product);
  return Object.entries(least)
    .filter(([part, level]) => reported[part]! < level)
    .map(([part, level]) => `${part} is ${reported[part]}, at least ${level} is demanded`);
}

function checkProduct(
  ledger: Ledger<SnpCheck>,
  report: SnpReport,
  product: Product,
  policy: SnpPolicy,
  nowUnixS: number,
): void {
  const rule = ruleOf(policy, product);
  ledger.expect("product_denied", rule !== undefined, `${product} is accepted`, `${product} is refused`);
  if (rule === undefined) return;
  const least = rule.rises === "never" || nowUnixS < rule.rises.at ? rule.min_tcb : rule.rises.min_tcb;
  const short = below(report, product, least);
  const shown = Object.entries(least).map(([part, level]) => `${part} ${level}`);
  ledger.expect(
    "min_tcb",
    short.length === 0,
    `reported TCB is at or above ${shown.join(", ")}`,
    `${short.join("; ")}; update the host's firmware`,
  );
}

function checkLevels(ledger: Ledger<SnpCheck>, report: SnpReport, policy: SnpPolicy): void {
  // Unused bytes of a TCB are zero (`report_reserved`), so bytes compare as components in every layout.
  const atMost = (low: Bytes, high: Bytes) => low.every((value, at) => value <= high[at]!);
  const { committedTcb: committed } = report;
  ledger.expect(
    "tcb_order",
    atMost(report.launchTcb, committed) && atMost(report.reportedTcb, committed) && atMost(committed, report.currentTcb),
    "launch and reported TCB are at most the committed one, that at most the current one",
    "launch or reported TCB is above the committed one, or that above the current one",
  );
  const firmware = report.committedFirmware;
  const least = policy.min_firmware.split(".").map(Number);
  const differs = firmware.findIndex((value, at) => value !== least[at]);
  const shown = firmwareText(firmware);
  ledger.expect(
    "min_abi",
    differs < 0 || firmware[differs]! > least[differs]!,
    `committed firmware ${shown} is at least ${least.join(".")}`,
    `committed firmware ${shown} is below ${least.join(".")}; update the host's firmware`,
  );
  const [svn, leastSvn] = [report.guestSvn, policy.min_guest_svn];
  const high = svn >= leastSvn;
  ledger.expect("min_guest_svn", high, `guest SVN ${svn} is at least ${leastSvn}`, `guest SVN ${svn} is below ${leastSvn}`);
}

function checkGuestPolicy(ledger: Ledger<SnpCheck>, report: SnpReport, policy: SnpPolicy): void {
  const guest = policy.guest_policy;
  const isSet = (bit: bigint) => Boolean(report.policy & bit);
  for (const [id, bit, allowed] of [
    ["smt", POLICY.smt, guest.allow_smt],
    ["cxl", POLICY.cxl, guest.allow_cxl],
  ] as const) {
    const passed = allowed ? "allowed by the policy" : "off";
    ledger.expect(id, allowed || !isSet(bit), passed, "the guest may run with it, and the policy does not allow that");
  }
  for (const [id, bit, required] of [
    ["single_socket", POLICY.singleSocket, guest.require_single_socket],
    ["mem_aes_256_xts", POLICY.memAes256Xts, guest.require_mem_aes_256_xts],
    ["rapl_disabled", POLICY.raplDisabled, guest.require_rapl_disabled],
    ["ciphertext_hiding", POLICY.ciphertextHiding, guest.require_ciphertext_hiding],
    ["page_swap_disabled", POLICY.pageSwapDisabled, guest.require_page_swap_disabled],
  ] as const) {
    const passed = isSet(bit) ? "on" : "not demanded by the policy";
    ledger.expect(id, isSet(bit) || !required, passed, "the guest was launched without it, and the policy demands it");
  }
}
