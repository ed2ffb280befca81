/**
 * Authenticate AMD's certificates: the chain from a pinned ARK to the VCEK or VLEK, and revocation.
 *
 * Source: AMD 57230 (VCEK, KDS, CRL), 58369 (VLEK), RFC 5280. Does not check anything of a report (`verify`), the age
 * of the revocation list (`validate`).
 */

import { equal, hex, type Bytes } from "../bytes.js";
import { EvidenceMalformed } from "../errors.js";
import type { SnpEndorsements } from "../evidence.js";
import { sha256 } from "../hash.js";
import type { Ledger } from "../ledger.js";
import { isSignedBy, type Certificate, type RevocationList } from "../x509.js";
import { PRODUCTS, type Product } from "./abi.js";
import type { SnpCheck } from "./ids.js";
import { packagedArk, packagedIssuer } from "./roots.js";
import { loadCertificate, loadCrl, parseVek, type VekExtensions } from "./vek.js";

const MAX_RSA_BITS = 4096;

/** The ARKs that are trusted, by SHA-256 of their DER in hex, and the least size of an issuer's RSA key. */
export interface SnpRoots {
  arkSha256: Readonly<Record<Product, string>>;
  minRsaBits: number;
  name: string;
}

function forEach<T>(of: (product: Product) => T): Record<Product, T> {
  return Object.fromEntries(PRODUCTS.map((product) => [product, of(product)])) as Record<Product, T>;
}

/** AMD's own, packaged with this code. */
export const AMD_ROOTS: SnpRoots = {
  arkSha256: forEach((product) => hex(sha256(packagedArk(product)))),
  minRsaBits: 4096,
  name: "AMD's packaged ARK",
};

/** The one ARK of simulated hardware that a policy pins; with "none" nothing of AMD's is trusted. */
export function simulatedRoots(arkSha256: string): SnpRoots {
  const name = "the policy's SIMULATED ARK";
  return { arkSha256: forEach(() => (arkSha256 === "none" ? "" : arkSha256)), minRsaBits: 2048, name };
}

/** The judged certificates. `vek` is absent if its extensions could not be read; `crl` if none was given. */
export interface Chain {
  vek: VekExtensions | undefined;
  crl: RevocationList | undefined;
  notAfterUnixS: number;
}

/** Judge ARK, ASK (or ASVK), VCEK (or VLEK) and the list; undefined if a certificate cannot be read at all. */
export async function verifyChain(
  ledger: Ledger<SnpCheck>,
  endorsements: SnpEndorsements,
  roots: SnpRoots,
  nowUnixS: number,
): Promise<Chain | undefined> {
  const vek = await load(ledger, "vek_format", endorsements.vek);
  if (vek === undefined) return undefined;
  let extensions: VekExtensions | undefined;
  try {
    extensions = await parseVek(vek);
    ledger.expect("vek_extensions", true, `a ${extensions.signer} of ${extensions.product}`, "");
  } catch (fault) {
    ledger.fail("vek_extensions", malformed(fault));
  }
  const ask = await issuer(ledger, "ask_format", endorsements.ask, extensions);
  const ark = await issuer(ledger, "ark_format", endorsements.ark, extensions);
  if (ask === undefined || ark === undefined) return undefined;
  const faults = roleFaults(vek, ask, ark, extensions);
  ledger.expect("chain_roles", !faults, "ARK, ASK and VEK have their names and roles", faults);
  await checkSignatures(ledger, roots, extensions, vek, ask, ark);
  const limits = [
    checkWindow(ledger, "ark_validity", ark, nowUnixS),
    checkWindow(ledger, "ask_validity", ask, nowUnixS),
    checkWindow(ledger, "vek_validity", vek, nowUnixS),
  ];
  const crl = await checkRevocation(ledger, endorsements.crl, ask, ark, roots, nowUnixS);
  if (crl?.nextUpdateUnixS !== undefined) limits.push(crl.nextUpdateUnixS);
  return { vek: extensions, crl, notAfterUnixS: Math.min(...limits) };
}

async function load(ledger: Ledger<SnpCheck>, id: SnpCheck, data: Bytes): Promise<Certificate | undefined> {
  try {
    const certificate = await loadCertificate(data, id);
    ledger.expect(id, true, "a DER certificate", "");
    return certificate;
  } catch (fault) {
    ledger.fail(id, malformed(fault));
    return undefined;
  }
}

/** Load the certificate that was given, else the packaged one of the VEK's product and kind. */
async function issuer(
  ledger: Ledger<SnpCheck>,
  id: "ask_format" | "ark_format",
  given: Bytes | undefined,
  vek: VekExtensions | undefined,
): Promise<Certificate | undefined> {
  if (given !== undefined) return load(ledger, id, given);
  if (vek === undefined) return undefined;
  ledger.expect(id, true, `packaged, of ${vek.product}`, "");
  const packaged = id === "ark_format" ? packagedArk(vek.product) : packagedIssuer(vek.product, vek.signer);
  return loadCertificate(packaged, id);
}

/** Name what is wrong with the names and roles of a chain; nothing if all is well. */
function roleFaults(vek: Certificate, ask: Certificate, ark: Certificate, speaksFor: VekExtensions | undefined): string {
  const faults: string[] = [];
  if (speaksFor !== undefined) {
    const { signer, product } = speaksFor;
    if (ask.commonName !== (signer === "VLEK" ? "SEV-VLEK-" : "SEV-") + product) {
      faults.push(`the issuer of a ${signer} of ${product} has another name`);
    }
    if (ark.commonName !== `ARK-${product}`) faults.push(`the ARK is not that of ${product}`);
  }
  if (!equal(vek.issuer, ask.subject) || !equal(ask.issuer, ark.subject) || !equal(ark.issuer, ark.subject)) {
    faults.push("issuer and subject names do not link up");
  }
  if (!ask.isAuthority || !ark.isAuthority) faults.push("ASK or ARK may not issue certificates");
  return faults.join("; ");
}

async function checkSignatures(
  ledger: Ledger<SnpCheck>,
  roots: SnpRoots,
  extensions: VekExtensions | undefined,
  vek: Certificate,
  ask: Certificate,
  ark: Certificate,
): Promise<void> {
  const digest = hex(sha256(ark.der));
  const pins = extensions === undefined ? Object.values(roots.arkSha256) : [roots.arkSha256[extensions.product]];
  const short = `SHA-256 ${digest.slice(0, 16)}…`;
  ledger.expect("ark_pin", pins.includes(digest), `${roots.name}, ${short}`, `the ARK (${short}) is not ${roots.name}`);
  const signed = [
    ["ark_sig", ark, ark, "itself"],
    ["ask_sig", ask, ark, "the ARK"],
    ["vek_sig", vek, ask, "the ASK"],
  ] as const;
  for (const [id, certificate, by, name] of signed) {
    ledger.expect(
      id,
      await isSignedBy(certificate, by, roots.minRsaBits, MAX_RSA_BITS),
      `signed by ${name} (RSASSA-PSS, SHA-384)`,
      `the signature does not verify under the key of ${name}`,
    );
  }
}

function checkWindow(ledger: Ledger<SnpCheck>, id: SnpCheck, certificate: Certificate, nowUnixS: number): number {
  const { notBeforeUnixS: start, notAfterUnixS: end } = certificate;
  ledger.expect(
    id,
    start <= nowUnixS && nowUnixS <= end,
    `valid until ${day(end)}`,
    `valid from ${day(start)} to ${day(end)}, not at the time of judgement`,
  );
  return end;
}

/** Judge AMD's list if there is one; `checkCrl` judges whether there must be one. */
async function checkRevocation(
  ledger: Ledger<SnpCheck>,
  data: Bytes | undefined,
  ask: Certificate,
  ark: Certificate,
  roots: SnpRoots,
  nowUnixS: number,
): Promise<RevocationList | undefined> {
  if (data === undefined) return undefined;
  let crl: RevocationList;
  try {
    crl = loadCrl(data);
  } catch (fault) {
    ledger.fail("crl_format", malformed(fault));
    return undefined;
  }
  ledger.expect("crl_format", true, "a DER revocation list", "");
  const signed = equal(crl.issuer, ark.subject) && (await isSignedBy(crl, ark, roots.minRsaBits, MAX_RSA_BITS));
  ledger.expect("crl_sig", signed, "signed by the ARK", "not signed by the ARK");
  const { thisUpdateUnixS: start, nextUpdateUnixS: end } = crl;
  const issued = end === undefined ? "names no next update" : `issued ${day(start)}, next update ${day(end)}`;
  const current = end !== undefined && start <= nowUnixS && nowUnixS <= end;
  ledger.expect("crl_expired", current, issued, end === undefined ? issued : `${issued}: not current at the time of judgement`);
  ledger.expect(
    "ask_revoked",
    !crl.revoked.has(ask.serial),
    "the ASK is not on the list (every VCEK has serial 0: a VCEK itself cannot be listed)",
    "the ASK is revoked",
  );
  return crl;
}

export function day(unixS: number): string {
  return new Date(unixS * 1000).toISOString().slice(0, 10);
}

function malformed(fault: unknown): string {
  if (fault instanceof EvidenceMalformed) return fault.message;
  throw fault;
}
