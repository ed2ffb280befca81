/**
 * Read X.509 certificates and lists (RFC 5280) as far as AMD's use them; makes no trust claim.
 *
 * A reader of our own: what is needed is small, and the libraries for it accept BER and bring ten packages along.
 */

import { equal, fromLatin1, fromUtf8, hex, type Bytes } from "./bytes.js";
import * as der from "./der.js";
import { DerReader, readOnly } from "./der.js";

const OID_COMMON_NAME = "2.5.4.3";
const OID_BASIC_CONSTRAINTS = "2.5.29.19";
const OID_KEY_USAGE = "2.5.29.15";
const OID_RSA = "1.2.840.113549.1.1.1";
const OID_EC = "1.2.840.10045.2.1";
const OID_P384 = "1.3.132.0.34";
const OID_RSASSA_PSS = "1.2.840.113549.1.1.10";
const KEY_CERT_SIGN = 5;
/** PrintableString and IA5String by their tags, with what may stand in them; UTF8String is decoded. */
const TEXTS: Readonly<Record<number, RegExp>> = { 0x13: /^[A-Za-z0-9 '()+,./:=?-]*$/, 0x16: /^[\x00-\x7f]*$/ };
const UTF8_STRING = 0x0c;
const NULL = 0x05;

/** Something signed: the exact bytes, how, and by whom its issuer is named. */
export interface Signed {
  der: Bytes;
  tbs: Bytes;
  signature: Bytes;
  /** The algorithm beside the signature is the one inside what is signed, and it is RSASSA-PSS. */
  isPss: boolean;
  issuer: Bytes;
}

export interface Certificate extends Signed {
  serial: string;
  subject: Bytes;
  /** The only common name, or nothing if there is none or more than one. */
  commonName: string;
  notBeforeUnixS: number;
  notAfterUnixS: number;
  extensions: ReadonlyMap<string, Bytes>;
  isAuthority: boolean;
  spki: Bytes;
  key: { kind: "rsa"; bits: number } | { kind: "p384" } | { kind: "other" };
}

export interface RevocationList extends Signed {
  thisUpdateUnixS: number;
  nextUpdateUnixS: number | undefined;
  revoked: ReadonlySet<string>;
}

/** Parse one DER certificate. Throws DerError. */
export function parseCertificate(data: Bytes): Certificate {
  const { tbs, signed, algorithm } = openSigned(data);
  const version = tbs.maybe(0xa0);
  const number = version === undefined ? 0 : der.smallInteger(lone(version.content, der.INTEGER));
  if (number > 2) throw new der.DerError("an unknown version");
  const serial = hex(der.integerContent(tbs.take(der.INTEGER)));
  const inner = tbs.take(der.SEQUENCE);
  const issuer = tbs.take(der.SEQUENCE);
  const validity = tbs.within(der.SEQUENCE);
  const notBeforeUnixS = der.time(validity);
  const notAfterUnixS = der.time(validity);
  validity.end();
  const subject = tbs.take(der.SEQUENCE);
  const spki = tbs.take(der.SEQUENCE);
  tbs.maybe(0x81);
  tbs.maybe(0x82);
  const extended = tbs.maybe(0xa3);
  tbs.end();
  const extensions = extended === undefined ? new Map<string, Bytes>() : parseExtensions(extended.content);
  commonNames(issuer.content);
  const names = commonNames(subject.content);
  return {
    ...signed,
    isPss: isPss(algorithm, inner),
    issuer: issuer.whole,
    serial,
    subject: subject.whole,
    commonName: names.length === 1 ? names[0]! : "",
    notBeforeUnixS,
    notAfterUnixS,
    extensions,
    isAuthority: isAuthority(extensions),
    spki: spki.whole,
    key: parseKey(spki.content),
  };
}

/** Parse one DER revocation list. Throws DerError. */
export function parseRevocationList(data: Bytes): RevocationList {
  const { tbs, signed, algorithm } = openSigned(data);
  if (tbs.tag === der.INTEGER && der.smallInteger(tbs.take()) !== 1) throw new der.DerError("an unknown version");
  const inner = tbs.take(der.SEQUENCE);
  const issuer = tbs.take(der.SEQUENCE);
  commonNames(issuer.content);
  const thisUpdateUnixS = der.time(tbs);
  const dated = tbs.tag === der.UTC_TIME || tbs.tag === der.GENERALIZED_TIME;
  const nextUpdateUnixS = dated ? der.time(tbs) : undefined;
  const revoked = new Set<string>();
  const entries = tbs.maybe(der.SEQUENCE);
  for (const list = new DerReader(entries?.content ?? new Uint8Array(0)); !list.done; ) {
    const entry = list.within(der.SEQUENCE);
    revoked.add(hex(der.integerContent(entry.take(der.INTEGER))));
    der.time(entry);
    entry.maybe(der.SEQUENCE);
    entry.end();
  }
  const extended = tbs.maybe(0xa0);
  if (extended !== undefined) parseExtensions(extended.content);
  tbs.end();
  return {
    ...signed,
    isPss: isPss(algorithm, inner),
    issuer: issuer.whole,
    thisUpdateUnixS,
    nextUpdateUnixS,
    revoked,
  };
}

/** Check RSASSA-PSS with SHA-384 and a 48-byte salt, AMD's only form, by an RSA key of enough bits. */
export async function isSignedBy(item: Signed, issuer: Certificate, minBits: number, maxBits: number): Promise<boolean> {
  const { key } = issuer;
  if (key.kind !== "rsa" || key.bits < minBits || key.bits > maxBits) return false;
  if (item.signature.length !== key.bits / 8 || !item.isPss) return false;
  try {
    const algorithm = { name: "RSA-PSS", hash: "SHA-384" };
    const imported = await crypto.subtle.importKey("spki", issuer.spki, algorithm, false, ["verify"]);
    return await crypto.subtle.verify({ name: "RSA-PSS", saltLength: 48 }, imported, item.signature, item.tbs);
  } catch {
    return false;
  }
}

function openSigned(data: Bytes) {
  const outer = readOnly(data, der.SEQUENCE);
  const tbs = outer.take(der.SEQUENCE);
  const algorithm = outer.take(der.SEQUENCE);
  const signature = der.wholeBytes(outer.take(der.BIT_STRING));
  outer.end();
  return { tbs: new DerReader(tbs.content), signed: { der: data, tbs: tbs.whole, signature }, algorithm };
}

function isPss(algorithm: der.Tlv, inner: der.Tlv): boolean {
  const kinds = [algorithm, inner].map(signatureAlgorithm);
  return kinds[0] === OID_RSASSA_PSS && equal(algorithm.whole, inner.whole);
}

/** Read an AlgorithmIdentifier's kind; of RSASSA-PSS the parameters as well, whatever they say (RFC 4055 3.1). */
function signatureAlgorithm(tlv: der.Tlv): string {
  const reader = new DerReader(tlv.content);
  const oid = der.oidText(reader.take(der.OID));
  if (oid !== OID_RSASSA_PSS) return oid;
  const parameters = reader.within(der.SEQUENCE);
  reader.end();
  const hash = parameters.maybe(0xa0);
  if (hash !== undefined) hashAlgorithm(new DerReader(hash.content));
  const mask = parameters.maybe(0xa1);
  if (mask !== undefined) {
    const inside = readOnly(mask.content, der.SEQUENCE);
    der.oidText(inside.take(der.OID));
    hashAlgorithm(inside);
  }
  for (const tag of [0xa2, 0xa3]) {
    const number = parameters.maybe(tag);
    if (number !== undefined) der.smallInteger(lone(number.content, der.INTEGER));
  }
  parameters.end();
  return oid;
}

function hashAlgorithm(reader: DerReader): void {
  const inside = reader.within(der.SEQUENCE);
  reader.end();
  der.oidText(inside.take(der.OID));
  const none = inside.maybe(NULL);
  if (none !== undefined && none.content.length) throw new der.DerError("parameters of a hash");
  inside.end();
}

function lone(content: Bytes, tag: number): der.Tlv {
  const reader = new DerReader(content);
  const tlv = reader.take(tag);
  reader.end();
  return tlv;
}

function commonNames(content: Bytes): string[] {
  const names: string[] = [];
  for (const sets = new DerReader(content); !sets.done; ) {
    for (const set = sets.within(der.SET); !set.done; ) {
      const pair = set.within(der.SEQUENCE);
      const oid = der.oidText(pair.take(der.OID));
      const value = pair.take();
      pair.end();
      const text = textOf(value);
      if (oid === OID_COMMON_NAME) names.push(text);
    }
  }
  return names;
}

function textOf(value: der.Tlv): string {
  const text = fromLatin1(value.content);
  if (TEXTS[value.tag]?.test(text)) return text;
  try {
    if (value.tag === UTF8_STRING) return fromUtf8(value.content);
  } catch {
    // falls through
  }
  throw new der.DerError("a name is no text");
}

function parseExtensions(content: Bytes): Map<string, Bytes> {
  const values = new Map<string, Bytes>();
  for (const list = readOnly(content, der.SEQUENCE); !list.done; ) {
    const extension = list.within(der.SEQUENCE);
    const oid = der.oidText(extension.take(der.OID));
    // DER: a default (not critical) is never written.
    const critical = extension.maybe(der.BOOLEAN);
    if ((critical !== undefined && !der.boolContent(critical)) || values.has(oid)) {
      throw new der.DerError("an extension is there twice, or says what goes without saying");
    }
    values.set(oid, extension.take(der.OCTET_STRING).content);
    extension.end();
  }
  return values;
}

function isAuthority(extensions: ReadonlyMap<string, Bytes>): boolean {
  const [constraints, usage] = [extensions.get(OID_BASIC_CONSTRAINTS), extensions.get(OID_KEY_USAGE)];
  let ca = false;
  if (constraints !== undefined) {
    const reader = readOnly(constraints, der.SEQUENCE);
    const said = reader.maybe(der.BOOLEAN);
    ca = said !== undefined && der.boolContent(said);
    const depth = reader.maybe(der.INTEGER);
    if (depth !== undefined) der.smallInteger(depth);
    reader.end();
  }
  const mayIssue = usage !== undefined && der.flags(lone(usage, der.BIT_STRING))(KEY_CERT_SIGN);
  return ca && mayIssue;
}

function parseKey(content: Bytes): Certificate["key"] {
  const spki = new DerReader(content);
  const algorithm = spki.within(der.SEQUENCE);
  const oid = der.oidText(algorithm.take(der.OID));
  const key = der.wholeBytes(spki.take(der.BIT_STRING));
  spki.end();
  if (oid === OID_RSA) {
    const numbers = readOnly(key, der.SEQUENCE);
    const modulus = der.integerContent(numbers.take(der.INTEGER));
    der.integerContent(numbers.take(der.INTEGER));
    numbers.end();
    const positive = modulus[0] === 0 ? modulus.subarray(1) : modulus;
    return { kind: "rsa", bits: 8 * positive.length - Math.clz32(positive[0] ?? 0) + 24 };
  }
  if (oid === OID_EC && algorithm.tag === der.OID && der.oidText(algorithm.take()) === OID_P384) return { kind: "p384" };
  return { kind: "other" };
}
