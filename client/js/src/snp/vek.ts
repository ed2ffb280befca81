/** Read AMD's certificates: VCEK and VLEK extensions; makes no trust claim. Source: AMD 57230, 58369. */

import { fromLatin1, type Bytes } from "../bytes.js";
import { DerError } from "../der.js";
import { EvidenceMalformed } from "../errors.js";
import { parseCertificate, parseRevocationList, type Certificate, type RevocationList } from "../x509.js";
import { PRODUCTS, TCB_LAYOUT, type Product, type Signer } from "./abi.js";

const MAX_CERTIFICATE_BYTES = 16 * 1024;
const MAX_CRL_BYTES = 256 * 1024;
const AMD = "1.3.6.1.4.1.3704.1";
const OID_PRODUCT = `${AMD}.2`;
const OID_HWID = `${AMD}.4`;
const OID_CSP_ID = `${AMD}.5`;
const OID_SPL: Readonly<Record<string, string>> = {
  bl: `${AMD}.3.1`,
  tee: `${AMD}.3.2`,
  snp: `${AMD}.3.3`,
  ucode: `${AMD}.3.8`,
  fmc: `${AMD}.3.9`,
};
const SIGNERS: ReadonlyMap<string, Signer> = new Map([["SEV-VCEK", "VCEK"], ["SEV-VLEK", "VLEK"]]);

/** What a VCEK or VLEK says of the chip, firmware or cloud that it speaks for. */
export interface VekExtensions {
  product: Product;
  signer: Signer;
  tcb: Readonly<Record<string, number>>;
  hwid: Bytes | undefined;
  cspId: string | undefined;
  key: CryptoKey;
}

/** Load one DER certificate whose key can be used. Throws EvidenceMalformed with `check`. */
export async function loadCertificate(data: Bytes, check: string): Promise<Certificate> {
  if (data.length > MAX_CERTIFICATE_BYTES) {
    throw new EvidenceMalformed(`a certificate of ${data.length} bytes is too large`, check);
  }
  try {
    const certificate = parseCertificate(data);
    if (certificate.key.kind === "p384") await importP384(certificate.spki);
    return certificate;
  } catch (fault) {
    if (fault instanceof DerError || fault instanceof DOMException) {
      throw new EvidenceMalformed("not a DER certificate", check);
    }
    throw fault;
  }
}

/** Load one DER list. Throws EvidenceMalformed. */
export function loadCrl(data: Bytes): RevocationList {
  if (data.length > MAX_CRL_BYTES) {
    throw new EvidenceMalformed(`a revocation list of ${data.length} bytes is too large`, "crl_format");
  }
  try {
    return parseRevocationList(data);
  } catch (fault) {
    if (fault instanceof DerError) throw new EvidenceMalformed("not a DER revocation list", "crl_format");
    throw fault;
  }
}

/** Read the key and extensions of a VCEK or VLEK. Throws EvidenceMalformed with check `vek_extensions`. */
export async function parseVek(certificate: Certificate): Promise<VekExtensions> {
  const wrong = (detail: string) => new EvidenceMalformed(detail, "vek_extensions");
  if (certificate.key.kind !== "p384") throw wrong("the key is not on P-384");
  const values = certificate.extensions;
  const signer = SIGNERS.get(certificate.commonName);
  if (signer === undefined) throw wrong("the subject is neither SEV-VCEK nor SEV-VLEK");
  const product = readProduct(values.get(OID_PRODUCT));
  const [hwid, cspId] = [values.get(OID_HWID), values.get(OID_CSP_ID)];
  if (signer === "VCEK" && cspId !== undefined) throw wrong("a VCEK names a cloud");
  if (signer === "VLEK" && (hwid !== undefined || cspId === undefined)) throw wrong("a VLEK names a chip, or no cloud");
  return {
    product,
    signer,
    tcb: Object.fromEntries(Object.keys(TCB_LAYOUT[product]).map((part) => [part, readSpl(values.get(OID_SPL[part]!), part)])),
    hwid,
    cspId: cspId === undefined ? undefined : readIa5(cspId),
    key: await importP384(certificate.spki),
  };
}

function importP384(spki: Bytes): Promise<CryptoKey> {
  return crypto.subtle.importKey("spki", spki, { name: "ECDSA", namedCurve: "P-384" }, false, ["verify"]);
}

/** Read "Milan-B0", "Genoa", "Turin": stepping is not part of the product. */
function readProduct(value: Bytes | undefined): Product {
  const name = value === undefined ? undefined : readIa5(value).split("-")[0];
  const product = PRODUCTS.find((each) => each === name);
  if (product === undefined) throw new EvidenceMalformed("the product is absent or unknown", "vek_extensions");
  return product;
}

function readIa5(value: Bytes): string {
  const text = fromLatin1(value.subarray(2));
  if (value[0] !== 0x16 || value[1] !== value.length - 2 || !/^[ -~]*$/.test(text)) {
    throw new EvidenceMalformed("an extension is not an IA5String", "vek_extensions");
  }
  return text;
}

/** Read a security patch level: a DER INTEGER of one byte's range, in its shortest form. */
function readSpl(value: Bytes | undefined, part: string): number {
  const [tag, length, first, second] = value ?? [];
  if (value?.length === 3 && tag === 2 && length === 1 && first! < 0x80) return first!;
  if (value?.length === 4 && tag === 2 && length === 2 && first === 0 && second! >= 0x80) return second!;
  throw new EvidenceMalformed(`the patch level of ${part} is absent or not a small integer`, "vek_extensions");
}
