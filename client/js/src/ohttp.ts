/**
 * Chunked Oblivious HTTP, draft-ietf-ohai-chunked-ohttp-08: the client's side of both directions.
 *
 * The last chunk has length 0, the AAD "final", and runs to the end of the stream, so a cut stream never looks whole.
 */

import { concat, EMPTY, isZero, join, uintBe, type Bytes } from "./bytes.js";
import { LocalStateError, Malformed, Truncated } from "./errors.js";
import { hkdfExpand, hkdfExtract } from "./hkdf.js";
import { AeadSequence, encodeSuite, keyBytes, NONCE_BYTES, setupBaseSender, TAG_BYTES } from "./hpke.js";
import type { AeadId, Suite } from "./hpke.js";
import { offers, type KeyConfig } from "./keyconfig.js";
import { CHUNK_PLAINTEXT_BYTES, FINAL_AAD, REQUEST_INFO, RESPONSE_EXPORT } from "./labels.js";
import { encodeVarint, readVarint } from "./varint.js";
import type { Ephemeral } from "./xwing.js";

const SEALED_MAX = CHUNK_PLAINTEXT_BYTES + TAG_BYTES;

/** max(Nn, Nk): the length of a response's nonce. */
export function responseNonceBytes(aead: AeadId): number {
  return Math.max(NONCE_BYTES, keyBytes(aead));
}

export function requestInfo(header: Uint8Array): Bytes {
  return concat(REQUEST_INFO, Uint8Array.of(0), header);
}

/** The client's side of a request. Send `header` first, then what `seal` returns. */
export class RequestSealer {
  readonly header: Bytes;
  readonly enc: Bytes;
  readonly #suite: Suite;
  readonly #secret: Bytes;
  #sealer: AeadSequence | undefined;

  private constructor(header: Bytes, enc: Bytes, suite: Suite, secret: Bytes, sealer: AeadSequence) {
    this.header = concat(header, enc);
    this.enc = enc;
    this.#suite = suite;
    this.#secret = secret;
    this.#sealer = sealer;
  }

  static async to(config: KeyConfig, suite: Suite, ephemeral?: Ephemeral): Promise<RequestSealer> {
    if (!offers(config, suite)) {
      throw new LocalStateError("the key configuration is not of the suite that is asked for");
    }
    const header = concat(uintBe(config.keyId, 1), encodeSuite(suite));
    const { enc, context } = await setupBaseSender(suite, config.publicKey, requestInfo(header), ephemeral);
    const secret = context.export(RESPONSE_EXPORT, responseNonceBytes(suite.aead));
    return new RequestSealer(header, enc, suite, secret, context);
  }

  /** Seal plaintext, cut into chunks of at most 16,384 bytes. After the final chunk nothing can be sealed. */
  async seal(plaintext: Bytes, final = false): Promise<Bytes> {
    const sealer = this.#sealer;
    if (sealer === undefined) throw new LocalStateError("the final chunk is sealed already");
    if (final) this.#sealer = undefined;
    const out: Uint8Array[] = [];
    let at = 0;
    while (plaintext.length - at > (final ? CHUNK_PLAINTEXT_BYTES : 0)) {
      const sealed = await sealer.seal(EMPTY, plaintext.slice(at, at + CHUNK_PLAINTEXT_BYTES));
      out.push(encodeVarint(sealed.length), sealed);
      at += CHUNK_PLAINTEXT_BYTES;
    }
    if (final) out.push(Uint8Array.of(0), await sealer.seal(FINAL_AAD, plaintext.slice(at)));
    return join(out);
  }

  responseOpener(): ResponseOpener {
    return new ResponseOpener(this.#suite.aead, this.#secret, this.enc);
  }
}

/** The key and base nonce of a response. */
export function responseKeys(aead: AeadId, secret: Bytes, enc: Bytes, nonce: Uint8Array): [Bytes, Bytes] {
  const key = hkdfExtract(concat(enc, nonce), secret);
  const label = (text: string) => Uint8Array.from(text, (each) => each.charCodeAt(0));
  return [hkdfExpand(key, label("key"), keyBytes(aead)), hkdfExpand(key, label("nonce"), NONCE_BYTES)];
}

/** The client's side of a response. Only a `finish` that returned says that nothing was cut off. */
export class ResponseOpener {
  readonly #aead: AeadId;
  readonly #secret: Bytes;
  readonly #enc: Bytes;
  #buffer: Bytes = EMPTY;
  #opener: AeadSequence | undefined;
  #inFinal = false;
  #usable = true;

  constructor(aead: AeadId, secret: Bytes, enc: Bytes) {
    this.#aead = aead;
    this.#secret = secret;
    this.#enc = enc;
  }

  /**
   * Take bytes as they came; yield the plaintexts of the non-final chunks that they complete.
   *
   * After any error it takes no more bytes. Throws Malformed, DecryptionFailed.
   */
  async *push(data: Uint8Array): AsyncGenerator<Bytes, void, undefined> {
    this.#begin();
    this.#buffer = this.#buffer.length ? concat(this.#buffer, data) : data.slice();
    this.#opener ??= this.#takeNonce();
    if (this.#opener !== undefined) {
      // WebCrypto works beside this thread: chunks that came together are opened together, and told in order.
      const { chunks, fault } = this.#wholeChunks();
      const opening = chunks.map((sealed) => this.#opener!.open(EMPTY, sealed));
      for (const each of opening) each.catch(() => {}); // the first that fails is told below
      for (const each of opening) yield await each;
      if (fault !== undefined) throw fault;
    }
    this.#usable = true;
  }

  /** Take the end of the stream; return the final chunk's plaintext. Throws Truncated, DecryptionFailed. */
  async finish(): Promise<Bytes> {
    this.#begin();
    if (this.#opener === undefined || !this.#inFinal || this.#buffer.length < TAG_BYTES) throw new Truncated();
    return this.#opener.open(FINAL_AAD, this.#buffer);
  }

  #begin(): void {
    if (!this.#usable) throw new LocalStateError("the stream has ended or failed");
    this.#usable = false;
  }

  #takeNonce(): AeadSequence | undefined {
    const size = responseNonceBytes(this.#aead);
    if (this.#buffer.length < size) return undefined;
    const nonce = this.#take(size);
    if (isZero(nonce)) throw new Malformed("the response nonce is all zero");
    return new AeadSequence(...responseKeys(this.#aead, this.#secret, this.#enc, nonce));
  }

  /** Take what is whole; what is wrong behind it counts only once that has opened. */
  #wholeChunks(): { chunks: Bytes[]; fault?: unknown } {
    const chunks: Bytes[] = [];
    try {
      for (let sealed = this.#nextChunk(); sealed !== undefined; sealed = this.#nextChunk()) chunks.push(sealed);
      return { chunks };
    } catch (fault) {
      return { chunks, fault };
    }
  }

  #nextChunk(): Bytes | undefined {
    if (!this.#inFinal) {
      const prefix = readVarint(this.#buffer);
      if (prefix === undefined) return undefined;
      const [length, start] = prefix;
      if (length > 0) {
        // No data, or more than we say we take: refused before any of it is kept.
        if (length <= TAG_BYTES || length > SEALED_MAX) throw new Malformed("a chunk is empty or over its limit");
        if (this.#buffer.length < start + length) return undefined;
        this.#take(start);
        return this.#take(length);
      }
      this.#take(start);
      this.#inFinal = true;
    }
    if (this.#buffer.length > SEALED_MAX) throw new Malformed("the final chunk is over its limit");
    return undefined;
  }

  #take(size: number): Bytes {
    const taken = this.#buffer.slice(0, size);
    this.#buffer = this.#buffer.subarray(size);
    return taken;
  }
}
