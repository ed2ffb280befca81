/** Parse attestation reports; makes no trust claim. Source: AMD 56860, "ATTESTATION_REPORT Structure", versions 2 to 5. */

import { concat, type Bytes } from "../bytes.js";
import { EvidenceMalformed } from "../errors.js";

export const REPORT_BYTES = 1184;
const SIGNED_BYTES = 0x2a0;
const COMPONENT_BYTES = 48;

/** A line of processors that shares one ARK. Bergamo and Siena belong to Genoa. */
export type Product = "Milan" | "Genoa" | "Turin";
export type Signer = "VCEK" | "VLEK";
export const PRODUCTS: readonly Product[] = ["Milan", "Genoa", "Turin"];
export const SIGNING_KEYS: readonly (Signer | undefined)[] = ["VCEK", "VLEK"];

const ZEN3_ZEN4_TCB = { bl: 0, tee: 1, snp: 6, ucode: 7 };
/** The byte of each component: the layout changed with Turin, so it is chosen by product, never guessed. */
export const TCB_LAYOUT: Readonly<Record<Product, Readonly<Record<string, number>>>> = {
  Milan: ZEN3_ZEN4_TCB,
  Genoa: ZEN3_ZEN4_TCB,
  Turin: { fmc: 0, bl: 1, tee: 2, snp: 3, ucode: 7 },
};

/** Guest policy, bits 16 and up. */
export const POLICY = {
  smt: 1n << 16n,
  mustBeOne: 1n << 17n,
  migrateMa: 1n << 18n,
  debug: 1n << 19n,
  singleSocket: 1n << 20n,
  cxl: 1n << 21n,
  memAes256Xts: 1n << 22n,
  raplDisabled: 1n << 23n,
  ciphertextHiding: 1n << 24n,
  pageSwapDisabled: 1n << 25n,
  mustBeZero: ~((1n << 26n) - 1n),
} as const;
export const ALIAS_CHECK_COMPLETE = 1n << 5n;

/** Firmware version: major, minor, build, in the order in which versions compare. */
export type Firmware = readonly [number, number, number];

/** The report's fields as they lie; nothing is judged. TCBs are raw: their layout depends on the product. */
export interface SnpReport {
  signed: Bytes;
  version: number;
  guestSvn: number;
  policy: bigint;
  familyId: Bytes;
  imageId: Bytes;
  vmpl: number;
  signatureAlgo: number;
  platformInfo: bigint;
  chipKeyMasked: boolean;
  signingKey: number;
  reportData: Bytes;
  measurement: Bytes;
  hostData: Bytes;
  idKeyDigest: Bytes;
  authorKeyDigest: Bytes;
  reportId: Bytes;
  reportIdMa: Bytes;
  cpuid: readonly [number, number, number] | undefined;
  chipId: Bytes;
  currentTcb: Bytes;
  reportedTcb: Bytes;
  committedTcb: Bytes;
  launchTcb: Bytes;
  currentFirmware: Firmware;
  committedFirmware: Firmware;
  launchMitVector: bigint | undefined;
  currentMitVector: bigint | undefined;
  /** r and s, each 48 bytes big-endian, as WebCrypto takes them. */
  signature: Bytes;
  signaturePadding: Bytes;
  reserved: Bytes;
}

/**
 * Parse a report of a known version. Does not check any field's value, reserved bytes, the signature.
 *
 * Throws EvidenceMalformed with check `report_size` or `report_version`.
 */
export function parseReport(data: Bytes): SnpReport {
  if (data.length !== REPORT_BYTES) {
    throw new EvidenceMalformed(`a report has ${REPORT_BYTES} bytes, this input has ${data.length}`, "report_size");
  }
  const view = new DataView(data.buffer, data.byteOffset);
  const u32 = (at: number) => view.getUint32(at, true);
  const u64 = (at: number) => view.getBigUint64(at, true);
  const version = u32(0);
  if (version < 2 || version > 5) {
    throw new EvidenceMalformed(`version ${version} is unknown; 2 to 5 are known`, "report_version");
  }
  const flags = u32(0x48);
  const reserved = [Uint8Array.of(flags >>> 5 ? 1 : 0), data.slice(0x4c, 0x50), data.slice(0x18b, 0x1a0)];
  reserved.push(data.slice(0x1eb, 0x1ec), data.slice(0x1ef, 0x1f0), data.slice(0x208, SIGNED_BYTES));
  if (version < 3) reserved.push(data.slice(0x188, 0x18b));
  if (version < 5) reserved.push(data.slice(0x1f8, 0x208));
  const [r, s] = [data.slice(0x2a0, 0x2e8), data.slice(0x2e8, 0x330)];
  const bigEndian = (component: Bytes) => component.slice(0, COMPONENT_BYTES).reverse();
  return {
    signed: data.slice(0, SIGNED_BYTES),
    version,
    guestSvn: u32(0x4),
    policy: u64(0x8),
    familyId: data.slice(0x10, 0x20),
    imageId: data.slice(0x20, 0x30),
    vmpl: u32(0x30),
    signatureAlgo: u32(0x34),
    currentTcb: data.slice(0x38, 0x40),
    platformInfo: u64(0x40),
    chipKeyMasked: Boolean(flags & 2),
    signingKey: (flags >> 2) & 7,
    reportData: data.slice(0x50, 0x90),
    measurement: data.slice(0x90, 0xc0),
    hostData: data.slice(0xc0, 0xe0),
    idKeyDigest: data.slice(0xe0, 0x110),
    authorKeyDigest: data.slice(0x110, 0x140),
    reportId: data.slice(0x140, 0x160),
    reportIdMa: data.slice(0x160, 0x180),
    reportedTcb: data.slice(0x180, 0x188),
    cpuid: version >= 3 ? [data[0x188]!, data[0x189]!, data[0x18a]!] : undefined,
    chipId: data.slice(0x1a0, 0x1e0),
    committedTcb: data.slice(0x1e0, 0x1e8),
    currentFirmware: [data[0x1ea]!, data[0x1e9]!, data[0x1e8]!],
    committedFirmware: [data[0x1ee]!, data[0x1ed]!, data[0x1ec]!],
    launchTcb: data.slice(0x1f0, 0x1f8),
    launchMitVector: version >= 5 ? u64(0x1f8) : undefined,
    currentMitVector: version >= 5 ? u64(0x200) : undefined,
    signature: concat(bigEndian(r), bigEndian(s)),
    signaturePadding: concat(r.slice(COMPONENT_BYTES), s.slice(COMPONENT_BYTES), data.slice(0x330)),
    reserved: concat(...reserved),
  };
}

/** Name the product of a CPUID (family, model, stepping), or undefined if it is unknown. */
export function productOfCpuid([family, model]: readonly [number, number, number]): Product | undefined {
  if (family === 0x19 && model < 0x10) return "Milan";
  if (family === 0x19 && (model < 0x20 || (model >= 0xa0 && model < 0xb0))) return "Genoa";
  if (family === 0x1a && model < 0x20) return "Turin";
  return undefined;
}

/** Read the components of a TCB version by the product's layout. */
export function decodeTcb(raw: Bytes, product: Product): Record<string, number> {
  return Object.fromEntries(Object.entries(TCB_LAYOUT[product]).map(([name, at]) => [name, raw[at]!]));
}

/** Return the bytes of a TCB version that the product's layout leaves unused. */
export function tcbReserved(raw: Bytes, product: Product): Bytes {
  const used = Object.values(TCB_LAYOUT[product]);
  return raw.filter((_, at) => !used.includes(at));
}

export function firmwareText(firmware: Firmware): string {
  return firmware.join(".");
}
