/** Strict DER (X.690): definite, shortest lengths and nothing after. Makes no trust claim. */

import { fromLatin1, readBe, type Bytes } from "./bytes.js";

export const BOOLEAN = 0x01;
export const INTEGER = 0x02;
export const BIT_STRING = 0x03;
export const OCTET_STRING = 0x04;
export const OID = 0x06;
export const UTC_TIME = 0x17;
export const GENERALIZED_TIME = 0x18;
export const SEQUENCE = 0x30;
export const SET = 0x31;
const MAX_TIME_BYTES = 15;

/** Bytes that are not DER of the expected form. */
export class DerError extends Error {}

/** One value: `whole` with its tag and length, `content` without. */
export interface Tlv {
  tag: number;
  whole: Bytes;
  content: Bytes;
}

/** Takes the values of one level in order. */
export class DerReader {
  readonly #data: Bytes;
  #at = 0;

  constructor(data: Bytes) {
    this.#data = data;
  }

  get done(): boolean {
    return this.#at === this.#data.length;
  }

  /** The next value's tag, or undefined at the end. */
  get tag(): number | undefined {
    return this.#data[this.#at];
  }

  /** Take the next value, which must be of `tag` if one is given. */
  take(tag?: number): Tlv {
    const start = this.#at;
    const found = this.#byte();
    if ((found & 0x1f) === 0x1f) throw new DerError("a long tag");
    if (tag !== undefined && found !== tag) throw new DerError("another tag is expected");
    const length = this.#length();
    const from = this.#at;
    if (length > this.#data.length - from) throw new DerError("cut short");
    this.#at += length;
    return { tag: found, whole: this.#data.slice(start, this.#at), content: this.#data.slice(from, this.#at) };
  }

  /** Take the next value if it is of `tag`. */
  maybe(tag: number): Tlv | undefined {
    return this.tag === tag ? this.take() : undefined;
  }

  within(tag: number): DerReader {
    return new DerReader(this.take(tag).content);
  }

  /** Throws DerError if anything is left. */
  end(): void {
    if (!this.done) throw new DerError("more than is expected");
  }

  #byte(): number {
    const value = this.#data[this.#at++];
    if (value === undefined) throw new DerError("cut short");
    return value;
  }

  #length(): number {
    const first = this.#byte();
    if (first < 0x80) return first;
    const size = first & 0x7f;
    if (size < 1 || size > 4) throw new DerError("an indefinite or excessive length");
    let length = 0;
    for (let each = 0; each < size; each++) length = length * 256 + this.#byte();
    if (length < 0x80 || length < 256 ** (size - 1)) throw new DerError("a length is not in its shortest form");
    return length;
  }
}

/** Read all of `data` as one value of `tag`. */
export function readOnly(data: Bytes, tag: number): DerReader {
  const reader = new DerReader(data);
  const inner = reader.within(tag);
  reader.end();
  return inner;
}

/** Check an INTEGER's content for its shortest form and return it. */
export function integerContent(tlv: Tlv): Bytes {
  const [first, second] = tlv.content;
  const padded = second !== undefined && ((first === 0 && second < 0x80) || (first === 0xff && second >= 0x80));
  if (first === undefined || padded) throw new DerError("an integer is not in its shortest form");
  return tlv.content;
}

export function boolContent(tlv: Tlv): boolean {
  const [value] = tlv.content;
  if (tlv.content.length !== 1 || (value !== 0 && value !== 0xff)) throw new DerError("not a boolean");
  return value === 0xff;
}

/** Read a BIT STRING whose bits fill whole bytes. */
export function wholeBytes(tlv: Tlv): Bytes {
  if (tlv.content[0] !== 0) throw new DerError("a bit string that is not whole bytes");
  return tlv.content.slice(1);
}

/** Read a BIT STRING of flags; bit 0 is the first. */
export function flags(tlv: Tlv): (bit: number) => boolean {
  const [unused = 8, ...bytes] = tlv.content;
  const last = bytes.at(-1) ?? 0;
  if (unused > 7 || (bytes.length === 0 && unused) || last & ((1 << unused) - 1)) throw new DerError("not flags");
  return (bit) => Boolean(((bytes[bit >> 3] ?? 0) >> (7 - (bit & 7))) & 1);
}

/** Read an object identifier as dotted text. */
export function oidText(tlv: Tlv): string {
  const arcs: number[] = [];
  let value = 0;
  let fresh = true;
  for (const byte of tlv.content) {
    if ((fresh && byte === 0x80) || value > 2 ** 45) throw new DerError("not an object identifier");
    value = value * 128 + (byte & 0x7f);
    fresh = byte < 0x80;
    if (fresh) {
      if (arcs.length === 0) arcs.push(Math.min(Math.floor(value / 40), 2), value - 40 * Math.min(Math.floor(value / 40), 2));
      else arcs.push(value);
      value = 0;
    }
  }
  if (!fresh || arcs.length === 0) throw new DerError("not an object identifier");
  return arcs.join(".");
}

/** Read a UTCTime or GeneralizedTime of RFC 5280's form as Unix seconds. */
export function time(reader: DerReader): number {
  const tlv = reader.take();
  const digits = fromLatin1(tlv.content.subarray(0, MAX_TIME_BYTES + 1));
  const long = tlv.tag === GENERALIZED_TIME;
  const match = (long ? /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/ : /^(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/).exec(digits);
  if ((!long && tlv.tag !== UTC_TIME) || match === null) throw new DerError("not a time");
  const [year, month, day, hour, minute, second] = match.slice(1).map(Number) as [number, number, number, number, number, number];
  const full = long ? year : year + (year < 50 ? 2000 : 1900);
  const moment = new Date(Date.UTC(full, month - 1, day, hour, minute, second));
  const same = moment.getUTCMonth() === month - 1 && moment.getUTCDate() === day && hour < 24 && minute < 60 && second < 60;
  if (!same) throw new DerError("not a time");
  return moment.getTime() / 1000;
}

/** Read a small unsigned number, such as a version. */
export function smallInteger(tlv: Tlv): number {
  const content = integerContent(tlv);
  if (content.length > 4 || content[0]! >= 0x80) throw new DerError("not a small number");
  return readBe(content);
}
