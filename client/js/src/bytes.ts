/** Bytes and their texts. */

const HEX = Array.from({ length: 256 }, (_, value) => value.toString(16).padStart(2, "0"));

/** Bytes that may be handed to WebCrypto. */
export type Bytes = Uint8Array<ArrayBuffer>;

export const EMPTY: Bytes = new Uint8Array(0);
const TEXT = new TextEncoder();
const STRICT_UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export function utf8(text: string): Bytes {
  return TEXT.encode(text);
}

/** Decode UTF-8; throws TypeError for bytes that are none. */
export function fromUtf8(data: Uint8Array): string {
  return STRICT_UTF8.decode(data);
}

/** Encode text whose characters are all below U+0100. */
export function latin1(text: string): Bytes {
  const data = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) data[at] = text.charCodeAt(at);
  return data;
}

export function fromLatin1(data: Uint8Array): string {
  let text = "";
  for (const value of data) text += String.fromCharCode(value);
  return text;
}

export function concat(...parts: Uint8Array[]): Bytes {
  return join(parts);
}

/** Concatenate any number of parts. */
export function join(parts: readonly Uint8Array[]): Bytes {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

export function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((value, at) => value === b[at]);
}

/** Say whether every byte is zero; also of no bytes at all. */
export function isZero(data: Uint8Array): boolean {
  return data.every((value) => value === 0);
}

export function hex(data: Uint8Array): string {
  let text = "";
  for (const value of data) text += HEX[value];
  return text;
}

/** Read lower-case or upper-case hex; throws RangeError for anything else. */
export function fromHex(text: string): Bytes {
  if (text.length % 2 || !/^[0-9a-fA-F]*$/.test(text)) throw new RangeError("not hex");
  return Uint8Array.from({ length: text.length / 2 }, (_, at) => parseInt(text.slice(2 * at, 2 * at + 2), 16));
}

/** Encode an unsigned integer, big-endian. */
export function uintBe(value: number, size: number): Bytes {
  const out = new Uint8Array(size);
  for (let at = size - 1, left = value; at >= 0; at--, left = Math.floor(left / 256)) out[at] = left % 256;
  return out;
}

/** Read an unsigned integer of at most 6 bytes, big-endian. */
export function readBe(data: Uint8Array): number {
  return data.reduce((value, each) => value * 256 + each, 0);
}

export function base64url(data: Uint8Array): string {
  return btoa(fromLatin1(data)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/** Read unpadded base64url in its one form, or undefined. */
export function fromBase64url(text: string): Bytes | undefined {
  if (!/^[A-Za-z0-9_-]*$/.test(text) || text.length % 4 === 1) return undefined;
  const data = latin1(atob(text.replaceAll("-", "+").replaceAll("_", "/")));
  return base64url(data) === text ? data : undefined;
}

/** Read the only PEM block of an ASCII file. */
export function fromPem(text: string): Bytes {
  return latin1(atob(text.replace(/-----[A-Z ]+-----/g, "").replace(/\s/g, "")));
}
