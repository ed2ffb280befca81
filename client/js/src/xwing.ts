/**
 * KEMs: MLKEM768-X25519 (0x647a, X-Wing) and DHKEM(X25519) (0x0020).
 *
 * Each half runs in WebCrypto where the runtime has it, else in noble's pure implementation.
 */

import { x25519 } from "@noble/curves/ed25519.js";
import { sha3_256, shake256 } from "@noble/hashes/sha3.js";
import { ml_kem768 } from "@noble/post-quantum/ml-kem.js";
import { ml_kem768 as nativeMlKem } from "@noble/post-quantum/webcrypto.js";

import { concat, EMPTY, isZero, utf8, type Bytes } from "./bytes.js";
import { DecryptionFailed, LocalStateError, Malformed } from "./errors.js";
import { labeledExpand, labeledExtract } from "./hkdf.js";

export const KEM_X25519 = 0x0020;
export const KEM_X_WING = 0x647a;
export type KemId = typeof KEM_X25519 | typeof KEM_X_WING;

const X25519_BYTES = 32;
const ML_KEM_CIPHERTEXT_BYTES = 1088;
const ML_KEM_PUBLIC_BYTES = 1184;
const XWING_LABEL = utf8("\\.//^\\");
const DHKEM_ID = concat(utf8("KEM"), Uint8Array.of(0x00, 0x20));

export function publicKeyBytes(kem: KemId): number {
  return kem === KEM_X25519 ? X25519_BYTES : ML_KEM_PUBLIC_BYTES + X25519_BYTES;
}

export function encBytes(kem: KemId): number {
  return kem === KEM_X25519 ? X25519_BYTES : ML_KEM_CIPHERTEXT_BYTES + X25519_BYTES;
}

/** Randomness given from outside, for published vectors; without it each half draws its own. */
export interface Ephemeral {
  x25519: Uint8Array;
  mlKem?: Uint8Array;
}

export interface Encapsulated {
  secret: Bytes;
  enc: Bytes;
}

/** What this runtime does natively; asked once. */
export interface Native {
  x25519: boolean;
  mlKem: boolean;
}

let asked: Promise<Native> | undefined;

export function native(): Promise<Native> {
  asked ??= Promise.all([hasX25519(), nativeMlKem.isSupported()]).then(([dh, kem]) => ({ x25519: dh, mlKem: kem }));
  return asked;
}

async function hasX25519(): Promise<boolean> {
  const basePoint = Uint8Array.of(9, ...new Uint8Array(31));
  return exchangeNatively(basePoint).then(
    () => true,
    () => false,
  );
}

/** Make (shared secret, enc) for a public key. Throws Malformed for a key that is none. */
export async function encapsulate(kem: KemId, publicKey: Uint8Array, ephemeral?: Ephemeral): Promise<Encapsulated> {
  if (publicKey.length !== publicKeyBytes(kem)) throw new Malformed("the public key has the wrong length");
  const theirs = publicKey.slice(-X25519_BYTES);
  try {
    const { dh, sent } = await exchange(theirs, ephemeral?.x25519);
    if (kem === KEM_X25519) return { secret: dhkemSecret(dh, sent, theirs), enc: sent };
    const half = publicKey.slice(0, ML_KEM_PUBLIC_BYTES);
    const { sharedSecret, cipherText } = await encapsulateMlKem(half, ephemeral?.mlKem);
    return { secret: xwingSecret(sharedSecret, dh, sent, theirs), enc: concat(cipherText, sent) };
  } catch (fault) {
    if (fault instanceof LocalStateError) throw fault;
    throw new Malformed("the public key is not valid");
  }
}

async function exchange(theirs: Bytes, secret?: Uint8Array): Promise<{ dh: Uint8Array; sent: Bytes }> {
  if (secret === undefined && (await native()).x25519) return exchangeNatively(theirs);
  const scalar = secret ?? x25519.utils.randomSecretKey();
  checkRandom(scalar);
  return { dh: x25519.getSharedSecret(scalar, theirs), sent: x25519.getPublicKey(scalar) as Bytes };
}

async function exchangeNatively(theirs: Bytes): Promise<{ dh: Bytes; sent: Bytes }> {
  const { subtle } = crypto;
  const own = (await subtle.generateKey("X25519", false, ["deriveBits"])) as CryptoKeyPair;
  const peer = await subtle.importKey("raw", theirs, "X25519", false, []);
  const dh = new Uint8Array(await subtle.deriveBits({ name: "X25519", public: peer }, own.privateKey, 256));
  if (isZero(dh)) throw new RangeError("a point of low order");
  return { dh, sent: new Uint8Array(await subtle.exportKey("raw", own.publicKey)) };
}

async function encapsulateMlKem(publicKey: Bytes, seed?: Uint8Array) {
  // Given randomness is for vectors: no runtime's own implementation takes any.
  if (seed === undefined && (await native()).mlKem) return nativeMlKem.encapsulate(publicKey);
  return ml_kem768.encapsulate(publicKey, seed);
}

/** A recipient's key pair: the enclave's side of the wire, here for vectors and tests. */
export class PrivateKey {
  readonly kem: KemId;
  readonly public: Bytes;
  readonly #x25519: Uint8Array;
  readonly #mlKem: Uint8Array | undefined;

  private constructor(kem: KemId, scalar: Uint8Array, mlKem?: { publicKey: Uint8Array; secretKey: Uint8Array }) {
    this.kem = kem;
    this.#x25519 = scalar;
    this.#mlKem = mlKem?.secretKey;
    this.public = concat(mlKem?.publicKey ?? EMPTY, x25519.getPublicKey(scalar));
  }

  /** Derive the key pair from 32 random bytes (X25519: DeriveKeyPair; X-Wing: its secret seed). */
  static generate(kem: KemId, seed: Uint8Array): PrivateKey {
    checkRandom(seed);
    if (kem === KEM_X25519) {
      const key = labeledExtract(DHKEM_ID, EMPTY, "dkp_prk", seed);
      return PrivateKey.fromRaw(labeledExpand(DHKEM_ID, key, "sk", EMPTY, X25519_BYTES));
    }
    const expanded = shake256(seed, { dkLen: 96 });
    return new PrivateKey(kem, expanded.slice(64), ml_kem768.keygen(expanded.slice(0, 64)));
  }

  /** Take an X25519 scalar as it is, without derivation. */
  static fromRaw(scalar: Uint8Array): PrivateKey {
    checkRandom(scalar);
    return new PrivateKey(KEM_X25519, scalar);
  }

  /** Recover the 32-byte shared secret. Throws DecryptionFailed. */
  decapsulate(enc: Uint8Array): Bytes {
    if (enc.length !== encBytes(this.kem)) throw new DecryptionFailed();
    const sent = enc.slice(-X25519_BYTES);
    const own = this.public.slice(-X25519_BYTES);
    let dh: Uint8Array;
    try {
      dh = x25519.getSharedSecret(this.#x25519, sent);
    } catch {
      throw new DecryptionFailed(); // a point of low order
    }
    if (this.#mlKem === undefined) return dhkemSecret(dh, sent, own);
    const shared = ml_kem768.decapsulate(enc.slice(0, ML_KEM_CIPHERTEXT_BYTES), this.#mlKem);
    return xwingSecret(shared, dh, sent, own);
  }
}

function dhkemSecret(dh: Uint8Array, sent: Uint8Array, theirs: Uint8Array): Bytes {
  const key = labeledExtract(DHKEM_ID, EMPTY, "eae_prk", dh);
  return labeledExpand(DHKEM_ID, key, "shared_secret", concat(sent, theirs), 32);
}

function xwingSecret(mlKem: Uint8Array, dh: Uint8Array, sent: Uint8Array, theirs: Uint8Array): Bytes {
  return sha3_256(concat(mlKem, dh, sent, theirs, XWING_LABEL)) as Bytes;
}

function checkRandom(randomness: Uint8Array): void {
  if (randomness.length !== 32 || isZero(randomness)) {
    throw new LocalStateError("expected 32 random bytes; the random source may be broken");
  }
}
