/** OHTTP key configurations (RFC 9458 section 3). */

import { readBe } from "./bytes.js";
import { Malformed, UnknownKey } from "./errors.js";
import { HKDF_SHA256, type Suite } from "./hpke.js";
import { publicKeyBytes, KEM_X25519, KEM_X_WING } from "./xwing.js";

/** One public key and its (KDF, AEAD) pairs; of an unknown KEM nothing but its id is read. */
export interface KeyConfig {
  keyId: number;
  kemId: number;
  publicKey: Uint8Array;
  symmetric: readonly (readonly [number, number])[];
}

/** Parse `application/ohttp-keys`; makes no trust claim. Throws Malformed, also for none or a doubled key id. */
export function parseKeyConfigs(data: Uint8Array): KeyConfig[] {
  const configs: KeyConfig[] = [];
  for (let at = 0; at < data.length; ) {
    const end = at + 2 + readBe(data.subarray(at, at + 2));
    if (at + 2 > data.length || end > data.length) throw new Malformed("a key configuration is cut short");
    configs.push(parse(data.subarray(at + 2, end)));
    at = end;
  }
  if (configs.length === 0 || new Set(configs.map((each) => each.keyId)).size !== configs.length) {
    throw new Malformed("the key configurations are none, or share a key id");
  }
  return configs;
}

export function offers(config: KeyConfig, suite: Suite): boolean {
  const { kem, aead } = suite;
  return config.kemId === kem && config.symmetric.some((pair) => pair[0] === HKDF_SHA256 && pair[1] === aead);
}

/** Return the first configuration of this very suite: the caller chooses, never the server's order. */
export function chooseConfig(configs: readonly KeyConfig[], suite: Suite): KeyConfig {
  const found = configs.find((config) => offers(config, suite));
  if (found === undefined) throw new UnknownKey("the peer offers no key of the suite that is asked for");
  return found;
}

function parse(data: Uint8Array): KeyConfig {
  if (data.length < 3) throw new Malformed("a key configuration is cut short");
  const keyId = data[0]!;
  const kemId = readBe(data.subarray(1, 3));
  if (kemId !== KEM_X25519 && kemId !== KEM_X_WING) {
    return { keyId, kemId, publicKey: data.slice(3), symmetric: [] };
  }
  const end = 3 + publicKeyBytes(kemId);
  const pairs = data.subarray(end + 2);
  const length = data.subarray(end, end + 2);
  if (length.length < 2 || readBe(length) !== pairs.length || pairs.length === 0 || pairs.length % 4) {
    throw new Malformed("a key configuration's symmetric suites are not a list of pairs");
  }
  const symmetric: [number, number][] = [];
  for (let at = 0; at < pairs.length; at += 4) {
    symmetric.push([readBe(pairs.subarray(at, at + 2)), readBe(pairs.subarray(at + 2, at + 4))]);
  }
  return { keyId, kemId, publicKey: data.slice(3, end), symmetric };
}
