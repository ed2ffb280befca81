/** HPKE (RFC 9180), base mode with HKDF-SHA256: contexts that seal, open and export. AES-GCM is WebCrypto's. */

import { concat, EMPTY, uintBe, type Bytes } from "./bytes.js";
import { DecryptionFailed, LocalStateError, Malformed } from "./errors.js";
import { labeledExpand, labeledExtract } from "./hkdf.js";
import { encapsulate, KEM_X25519, KEM_X_WING, type Ephemeral, type KemId, type PrivateKey } from "./xwing.js";

export const HKDF_SHA256 = 0x0001;
export const AES_128_GCM = 0x0001;
export const AES_256_GCM = 0x0002;
export type AeadId = typeof AES_128_GCM | typeof AES_256_GCM;
export const NONCE_BYTES = 12;
export const TAG_BYTES = 16;
const EXPAND_MAX_BYTES = 255 * 32;
const HPKE = Uint8Array.of(0x48, 0x50, 0x4b, 0x45);

export function keyBytes(aead: AeadId): number {
  return aead === AES_128_GCM ? 16 : 32;
}

/** A KEM and an AEAD; the KDF is always HKDF-SHA256. */
export interface Suite {
  kem: KemId;
  aead: AeadId;
}

export const REQUIRED: Suite = { kem: KEM_X_WING, aead: AES_256_GCM };

export function encodeSuite(suite: Suite): Bytes {
  return concat(uintBe(suite.kem, 2), uintBe(HKDF_SHA256, 2), uintBe(suite.aead, 2));
}

/** Name a suite as policies and receipts write it. */
export function suiteName(suite: Suite): string {
  const kem = suite.kem === KEM_X25519 ? "x25519" : "mlkem768-x25519";
  return `${kem}/hkdf-sha256/aes-${suite.aead === AES_128_GCM ? 128 : 256}-gcm`;
}

/** Find a suite by its name; an unknown one is refused, never replaced. */
export function suiteNamed(name: string): Suite {
  for (const kem of [KEM_X25519, KEM_X_WING] as const) {
    for (const aead of [AES_128_GCM, AES_256_GCM] as const) {
      if (suiteName({ kem, aead }) === name) return { kem, aead };
    }
  }
  throw new Malformed("the suite is not known");
}

/** One direction of authenticated encryption: the nonce is base XOR counter, and messages go one after another. */
export class AeadSequence {
  readonly #key: Promise<CryptoKey>;
  readonly #base: Bytes;
  #count = 0;

  constructor(key: Bytes, baseNonce: Bytes) {
    this.#key = crypto.subtle.importKey("raw", key, "AES-GCM", false, ["encrypt", "decrypt"]);
    this.#base = baseNonce;
  }

  async seal(aad: Bytes, plaintext: Bytes): Promise<Bytes> {
    const parameters = this.#parameters(this.#count++, aad);
    return new Uint8Array(await crypto.subtle.encrypt(parameters, await this.#key, plaintext));
  }

  /** Open the next message; several may be under way. After a DecryptionFailed the sequence is spent. */
  async open(aad: Bytes, ciphertext: Bytes): Promise<Bytes> {
    const parameters = this.#parameters(this.#count++, aad);
    const key = await this.#key;
    try {
      return new Uint8Array(await crypto.subtle.decrypt(parameters, key, ciphertext));
    } catch {
      throw new DecryptionFailed();
    }
  }

  #parameters(count: number, aad: Bytes): AesGcmParams {
    if (!Number.isSafeInteger(count)) throw new LocalStateError("the sequence is used up");
    const counter = uintBe(count, NONCE_BYTES);
    return { name: "AES-GCM", iv: this.#base.map((value, at) => value ^ counter[at]!), additionalData: aad };
  }
}

/** A context of either side: one sequence, and secrets to export. */
export class Context extends AeadSequence {
  /** Derive a secret that both sides know. */
  readonly export: (context: Uint8Array, length: number) => Bytes;

  constructor(suite: Suite, sharedSecret: Uint8Array, info: Uint8Array) {
    const id = concat(HPKE, encodeSuite(suite));
    const context = concat(
      Uint8Array.of(0),
      labeledExtract(id, EMPTY, "psk_id_hash", EMPTY),
      labeledExtract(id, EMPTY, "info_hash", info),
    );
    const secret = labeledExtract(id, sharedSecret, "secret", EMPTY);
    const exporter = labeledExpand(id, secret, "exp", context, 32);
    super(
      labeledExpand(id, secret, "key", context, keyBytes(suite.aead)),
      labeledExpand(id, secret, "base_nonce", context, NONCE_BYTES),
    );
    this.export = (exporterContext, length) => {
      if (length < 0 || length > EXPAND_MAX_BYTES) throw new LocalStateError("an export is at most 8,160 bytes");
      return labeledExpand(id, exporter, "sec", exporterContext, length);
    };
  }
}

/** SetupBaseS: the `enc` to send, and the context. */
export async function setupBaseSender(
  suite: Suite,
  publicKey: Uint8Array,
  info: Uint8Array,
  ephemeral?: Ephemeral,
): Promise<{ enc: Bytes; context: Context }> {
  const { secret, enc } = await encapsulate(suite.kem, publicKey, ephemeral);
  return { enc, context: new Context(suite, secret, info) };
}

/** SetupBaseR. Whether the sender encapsulated to this key shows only when the first message opens. */
export function setupBaseRecipient(suite: Suite, key: PrivateKey, enc: Uint8Array, info: Uint8Array): Context {
  if (key.kem !== suite.kem) throw new LocalStateError("the private key is of another KEM than the suite");
  return new Context(suite, key.decapsulate(enc), info);
}
