/**
 * Authenticate a report: its form, its agreement with the signer's certificate, its signature. Source: AMD 56860.
 *
 * Does not check: the certificates (`chain`), claims against a policy (`validate`), the binding to a keyset.
 */

import { concat, equal, isZero, type Bytes } from "../bytes.js";
import { EvidenceMalformed } from "../errors.js";
import type { Ledger } from "../ledger.js";
import { decodeTcb, parseReport, POLICY, productOfCpuid, REPORT_BYTES, SIGNING_KEYS, tcbReserved } from "./abi.js";
import type { Product, SnpReport } from "./abi.js";
import type { Chain } from "./chain.js";
import type { SnpCheck } from "./ids.js";
import type { VekExtensions } from "./vek.js";

/**
 * Judge a report's form, its signature and its agreement with the signer's certificate.
 *
 * Returns the report if it could be read at all: that is no verdict, the ledger holds it.
 */
export async function verifyReport(
  ledger: Ledger<SnpCheck>,
  data: Bytes,
  chain: Chain | undefined,
): Promise<SnpReport | undefined> {
  let report: SnpReport;
  try {
    report = parseReport(data);
  } catch (fault) {
    if (!(fault instanceof EvidenceMalformed)) throw fault;
    if (fault.check === "report_version") ledger.expect("report_size", true, `${REPORT_BYTES} bytes`, "");
    ledger.fail(fault.check as SnpCheck, fault.message);
    return undefined;
  }
  ledger.expect("report_size", true, `${REPORT_BYTES} bytes`, "");
  ledger.expect("report_version", true, `version ${report.version}`, "");
  checkForm(ledger, report);
  const vek = chain?.vek;
  const product = productOf(report, vek);
  checkProduct(ledger, report, vek, product);
  const tcbs = [report.currentTcb, report.reportedTcb, report.committedTcb, report.launchTcb];
  const reserved = product === undefined ? [] : tcbs.map((tcb) => tcbReserved(tcb, product));
  const zero = isZero(concat(report.reserved, ...reserved));
  ledger.expect("report_reserved", zero, "reserved fields are zero", "a reserved field is not zero");
  if (vek !== undefined) {
    checkSigner(ledger, report, vek, product);
    ledger.expect(
      "report_sig",
      await signatureHolds(report, vek.key),
      `signed by the ${vek.signer}'s key (ECDSA P-384, SHA-384)`,
      `the signature does not verify under the ${vek.signer}'s key`,
    );
  }
  return report;
}

/** Name the report's product: by CPUID from version 3, by the certificate in version 2. */
export function productOf(report: SnpReport, vek: VekExtensions | undefined): Product | undefined {
  return report.cpuid === undefined ? vek?.product : productOfCpuid(report.cpuid);
}

function checkForm(ledger: Ledger<SnpCheck>, report: SnpReport): void {
  const { signatureAlgo: algo, signingKey: key, policy } = report;
  const signer = SIGNING_KEYS[key];
  ledger.expect("sig_algo", algo === 1, "ECDSA P-384 with SHA-384", `${algo} is not 1, ECDSA P-384 with SHA-384`);
  const padded = isZero(report.signaturePadding);
  ledger.expect("sig_padding", padded, "the padding is zero", "the signature's padding is not zero");
  const unsigned = key === 7 ? "no key signed this report" : `signing key ${key} is unknown`;
  ledger.expect("signing_key", signer !== undefined, `signed by a ${signer}`, unsigned);
  ledger.expect("debug", !(policy & POLICY.debug), "debugging is off", "the host may debug this guest");
  const unmovable = !(policy & POLICY.migrateMa);
  ledger.expect("migrate_ma", unmovable, "no migration agent", "a migration agent may move this guest");
  ledger.expect("policy_mbo", Boolean(policy & POLICY.mustBeOne), "bit 17 is one", "bit 17 is not one");
  ledger.expect("policy_mbz", !(policy & POLICY.mustBeZero), "bits 26 to 63 are zero", "a bit from 26 on is set");
}

function checkProduct(
  ledger: Ledger<SnpCheck>,
  report: SnpReport,
  vek: VekExtensions | undefined,
  product: Product | undefined,
): void {
  if (report.cpuid === undefined) {
    ledger.expect("unknown_cpuid", true, "a version 2 report has no CPUID; the certificate decides", "");
  } else {
    const [family, model, stepping] = report.cpuid.map((each) => `0x${each.toString(16)}`);
    const name = `family ${family}, model ${model}, stepping ${stepping}`;
    ledger.expect("unknown_cpuid", product !== undefined, name, `${name} is no product known here`);
  }
  if (product !== undefined && vek !== undefined) {
    ledger.expect(
      "product_mismatch",
      product === vek.product,
      `report and certificate are of ${product}`,
      `the report is of ${product}, the certificate of ${vek.product}`,
    );
  }
}

function checkSigner(
  ledger: Ledger<SnpCheck>,
  report: SnpReport,
  vek: VekExtensions,
  product: Product | undefined,
): void {
  const named = SIGNING_KEYS[report.signingKey];
  if (named !== undefined) {
    ledger.expect(
      "signing_key_mismatch",
      named === vek.signer,
      `report and certificate name a ${named}`,
      `the report names a ${named}, the certificate is a ${vek.signer}`,
    );
  }
  if (product !== undefined) {
    const reported = Object.entries(decodeTcb(report.reportedTcb, product));
    const wrong = reported
      .filter(([part, level]) => vek.tcb[part] !== level)
      .map(([part, level]) => `${part}: certificate ${vek.tcb[part] ?? "none"}, report ${level}`);
    const shown = reported.map(([part, level]) => `${part} ${level}`).join(", ");
    ledger.expect("tcb_mismatch", wrong.length === 0, `both say ${shown}`, wrong.join("; "));
  }
  if (vek.signer === "VLEK") {
    for (const id of ["chip_id_masked", "hwid_missing", "hwid_mismatch"] as const) {
      ledger.expect(id, true, `a VLEK speaks for a cloud (${vek.cspId}), not for a chip`, "");
    }
    return;
  }
  const masked = report.chipKeyMasked || isZero(report.chipId);
  ledger.expect("chip_id_masked", !masked, "the chip is named", "the host hides the chip's id or key");
  const { hwid } = vek;
  ledger.expect("hwid_missing", hwid !== undefined, "the certificate names a chip", "the VCEK names no chip");
  if (hwid === undefined || masked) return;
  const size = vek.product === "Turin" ? 8 : 64;
  const padded = new Uint8Array(64);
  padded.set(hwid.slice(0, 64));
  ledger.expect(
    "hwid_mismatch",
    hwid.length === size && equal(report.chipId, padded),
    "report and certificate name the same chip",
    "report and certificate name different chips",
  );
}

async function signatureHolds(report: SnpReport, key: CryptoKey): Promise<boolean> {
  try {
    return await crypto.subtle.verify({ name: "ECDSA", hash: "SHA-384" }, key, report.signature, report.signed);
  } catch {
    return false; // a runtime that throws for numbers out of range
  }
}
