/** The envelope of a receipt: COSE_Sign with exactly the headers that ours have (RFC 9052 section 4.1). */

import { equal, type Bytes } from "./bytes.js";
import { decode, encode, hasExactly } from "./cbor.js";
import { Malformed } from "./errors.js";

export const MAX_RECEIPT_BYTES = 16 * 1024;
const TAG_COSE_SIGN = Uint8Array.of(0xd8, 0x62); // the encoding of tag 98
const HEADER_ALG = 1;
const HEADER_CONTENT_TYPE = 3;
const HEADER_KID = 4;
const CONTENT_TYPE_CWT = 61;
const BODY_PROTECTED = encode(new Map([[HEADER_CONTENT_TYPE, CONTENT_TYPE_CWT]]));

/** One of the signatures. `protected` is the exact header that it covers. */
export interface CoseSignature {
  alg: number;
  kid: Bytes;
  protected: Bytes;
  signature: Bytes;
}

export interface CoseSign {
  payload: Bytes;
  signatures: CoseSignature[];
}

/** Parse a COSE_Sign; makes no trust claim. Throws Malformed. */
export function parseCoseSign(data: Uint8Array): CoseSign {
  if (!equal(data.subarray(0, 2), TAG_COSE_SIGN)) throw new Malformed("a receipt is a tagged COSE_Sign");
  const message = decode(data.subarray(2), MAX_RECEIPT_BYTES);
  if (!Array.isArray(message) || message.length !== 4 || !isEmptyMap(message[1])) {
    throw new Malformed("not a COSE_Sign with an empty unprotected header");
  }
  const [header, , payload, signatures] = message as unknown[];
  if (!(header instanceof Uint8Array) || !(payload instanceof Uint8Array)) {
    throw new Malformed("not a COSE_Sign with an empty unprotected header");
  }
  if (!equal(header, BODY_PROTECTED) || !Array.isArray(signatures)) {
    throw new Malformed("a receipt's body header is not that of a CWT");
  }
  return { payload: payload as Bytes, signatures: signatures.map(parseSignature) };
}

/** The bytes that a signature covers. */
export function toBeSigned(protectedHeader: Uint8Array, payload: Uint8Array): Bytes {
  return encode(["Signature", BODY_PROTECTED, protectedHeader, new Uint8Array(0), payload]);
}

function parseSignature(item: unknown): CoseSignature {
  if (Array.isArray(item) && item.length === 3 && isEmptyMap(item[1])) {
    const [header, , signature] = item as unknown[];
    if (header instanceof Uint8Array && signature instanceof Uint8Array) {
      const parameters = decode(header);
      if (parameters instanceof Map && hasExactly(parameters, [HEADER_ALG, HEADER_KID])) {
        const alg: unknown = parameters.get(HEADER_ALG);
        const kid: unknown = parameters.get(HEADER_KID);
        if (typeof alg === "number" && kid instanceof Uint8Array) {
          return { alg, kid: kid as Bytes, protected: header as Bytes, signature: signature as Bytes };
        }
      }
    }
  }
  throw new Malformed("a COSE_Signature holds alg and kid, both protected, and nothing else");
}

function isEmptyMap(value: unknown): boolean {
  return value instanceof Map && value.size === 0;
}
