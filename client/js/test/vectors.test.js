// Published vectors: X-Wing, HPKE, chunked OHTTP, and Wycheproof for every primitive that judges a peer's bytes.
import assert from "node:assert/strict";
import { test } from "node:test";

import { x25519 } from "@noble/curves/ed25519.js";
import { ml_kem768 } from "@noble/post-quantum/ml-kem.js";

import { ResponseDecoder } from "../dist/bhttp.js";
import { concat, EMPTY, fromHex as raw, hex } from "../dist/bytes.js";
import { hkdfExpand, hkdfExtract } from "../dist/hkdf.js";
import { AeadSequence, encodeSuite, setupBaseRecipient, setupBaseSender } from "../dist/hpke.js";
import { parseKeyConfigs } from "../dist/keyconfig.js";
import { requestInfo, RequestSealer, responseKeys } from "../dist/ohttp.js";
import { ed25519Holds, mlDsa65Holds } from "../dist/signature.js";
import { encapsulate, KEM_X25519, KEM_X_WING, native, PrivateKey } from "../dist/xwing.js";
import { loadJson, needs, wycheproof } from "./shared.js";

const FOREIGN = { kem: KEM_X25519, aead: 1 };

test("X-Wing: keys, ciphertexts and secrets, both halves", needs("vectors", "xwing"), async () => {
  const vectors = loadJson("vectors", "xwing", "test-vectors.json");
  assert.equal(vectors.length, 3);
  for (const vector of vectors) {
    const key = PrivateKey.generate(KEM_X_WING, raw(vector.seed));
    assert.equal(hex(key.public), vector.pk);
    assert.equal(hex(key.decapsulate(raw(vector.ct))), vector.ss);
    const seed = raw(vector.eseed);
    const made = await encapsulate(KEM_X_WING, key.public, { mlKem: seed.slice(0, 32), x25519: seed.slice(32) });
    assert.deepEqual([hex(made.enc), hex(made.secret)], [vector.ct, vector.ss]);
  }
});

test("X-Wing: what this runtime does by itself opens as well", async (t) => {
  t.diagnostic(`native: ${JSON.stringify(await native())}`);
  const key = PrivateKey.generate(KEM_X_WING, crypto.getRandomValues(new Uint8Array(32)));
  for (const ephemeral of [undefined, { x25519: crypto.getRandomValues(new Uint8Array(32)) }]) {
    const { enc, secret } = await encapsulate(KEM_X_WING, key.public, ephemeral);
    assert.equal(hex(key.decapsulate(enc)), hex(secret));
  }
});

test("X-Wing: bad keys and bad randomness are refused", async () => {
  const key = PrivateKey.generate(KEM_X_WING, new Uint8Array(32).fill(7));
  const lowOrder = concat(key.public.slice(0, 1184), new Uint8Array(32));
  const modulus = concat(new Uint8Array(1184).fill(0xff), key.public.slice(1184));
  for (const bad of [key.public.slice(1), lowOrder, modulus]) {
    await assert.rejects(encapsulate(KEM_X_WING, bad), { code: "malformed" });
  }
  await assert.rejects(encapsulate(KEM_X_WING, key.public, { x25519: new Uint8Array(32) }), { code: "local_state" });
});

test("HPKE: RFC 9180, base mode with AES-GCM", needs("vectors", "hpke"), async () => {
  const vectors = loadJson("vectors", "hpke", "rfc9180-test-vectors.json").filter(
    ({ mode, kem_id, kdf_id, aead_id }) => mode === 0 && kem_id === KEM_X25519 && kdf_id === 1 && [1, 2].includes(aead_id),
  );
  assert.equal(vectors.length, 2);
  for (const vector of vectors) {
    const suite = { kem: KEM_X25519, aead: vector.aead_id };
    const key = PrivateKey.generate(KEM_X25519, raw(vector.ikmR));
    assert.equal(hex(key.public), vector.pkRm);
    const { enc, context } = await setupBaseSender(suite, key.public, raw(vector.info), { x25519: raw(vector.skEm) });
    assert.equal(hex(enc), vector.enc);
    const recipient = setupBaseRecipient(suite, key, enc, raw(vector.info));
    for (const { aad, pt, ct } of vector.encryptions) {
      assert.equal(hex(await context.seal(raw(aad), raw(pt))), ct);
      assert.equal(hex(await recipient.open(raw(aad), raw(ct))), pt);
    }
    for (const { exporter_context, L, exported_value } of vector.exports) {
      assert.equal(hex(context.export(raw(exporter_context), L)), exported_value);
    }
  }
});

test("HPKE: draft-ietf-hpke-pq, the KEM's part", needs("vectors", "hpke-pq"), async () => {
  const vectors = loadJson("vectors", "hpke-pq", "test-vectors.json").filter((each) => each.kem_id === KEM_X_WING);
  assert.equal(vectors.length, 2);
  for (const vector of vectors) {
    const key = PrivateKey.generate(KEM_X_WING, raw(vector.skRm));
    assert.equal(hex(key.public), vector.pkRm);
    assert.equal(hex(key.decapsulate(raw(vector.enc))), vector.shared_secret);
    const random = raw(vector.ikmE);
    const made = await encapsulate(KEM_X_WING, key.public, { mlKem: random.slice(0, 32), x25519: random.slice(32) });
    assert.deepEqual([hex(made.enc), hex(made.secret)], [vector.enc, vector.shared_secret]);
  }
});

test("chunked OHTTP: the draft's exchange, byte for byte", needs("vectors", "ohttp"), async () => {
  const vector = loadJson("vectors", "ohttp", "chunked-ohttp-appendix.verified.json");
  const encoded = raw(vector.keyConfig);
  const [config] = parseKeyConfigs(concat(Uint8Array.of(0, encoded.length), encoded));
  const client = await RequestSealer.to(config, FOREIGN, { x25519: raw(vector.skE) });
  const sealed = [client.header];
  for (const chunk of vector.requestChunks) sealed.push(await client.seal(raw(chunk.plaintext), chunk.final));
  assert.equal(hex(concat(...sealed)), vector.encapsulatedRequest);

  const answer = raw(vector.encapsulatedResponse);
  for (const size of [1, 7, answer.length]) {
    const opener = client.responseOpener();
    const opened = [];
    for (let at = 0; at < answer.length; at += size) {
      for await (const plaintext of opener.push(answer.slice(at, at + size))) opened.push(plaintext);
    }
    opened.push(await opener.finish());
    assert.deepEqual(opened.map(hex), vector.responseChunks.map((chunk) => chunk.plaintext));
    const decoder = new ResponseDecoder();
    const events = [...opened.flatMap((data) => decoder.push(data)), ...decoder.finish()];
    assert.deepEqual(events, [{ type: "head", status: 200, fields: [] }, { type: "end" }]);
  }
  for (let end = 0; end < answer.length; end++) {
    const opener = client.responseOpener();
    const cut = (async () => {
      for await (const _ of opener.push(answer.slice(0, end)));
      await opener.finish();
    })();
    await assert.rejects(cut, (fault) => ["truncated", "decryption_failed"].includes(fault.code), `cut at ${end}`);
  }
});

test("RFC 9458 Appendix A: what the chunked form shares with it", needs("vectors", "ohttp"), async () => {
  const vector = loadJson("vectors", "ohttp", "rfc9458-appendix-a.verified.json");
  const request = raw(vector.encapsulatedRequest);
  const context = setupBaseRecipient(FOREIGN, PrivateKey.fromRaw(raw(vector.skR)), request.slice(7, 39), raw(vector.requestInfo));
  assert.equal(hex(await context.open(EMPTY, request.slice(39))), vector.request);
  assert.equal(hex(encodeSuite(FOREIGN)), "002000010001");
  assert.equal(requestInfo(request.slice(0, 7)).length, "message/bhttp chunked request".length + 8);
  const secret = raw(vector.secret);
  const nonce = raw(vector.responseNonce);
  assert.equal(hex(hkdfExtract(concat(raw(vector.enc), nonce), secret)), vector.prk);
  assert.equal(hex(hkdfExpand(raw(vector.prk), new TextEncoder().encode("key"), 16)), vector.aeadKey);
  const opener = new AeadSequence(...responseKeys(1, secret, raw(vector.enc), nonce));
  assert.equal(hex(await opener.open(EMPTY, raw(vector.encapsulatedResponse).slice(16))), vector.response);
});

test("Wycheproof: Ed25519, strict", needs("vectors", "wycheproof"), () => {
  for (const { sig, msg, result, group, tcId } of wycheproof("ed25519_test.json")) {
    assert.equal(ed25519Holds(raw(sig), raw(msg), raw(group.publicKey.pk)), result === "valid", `case ${tcId}`);
  }
});

test("Wycheproof: ML-DSA-65", needs("vectors", "wycheproof"), (t) => {
  let contexts = 0;
  for (const { sig, msg, ctx, result, group, tcId } of wycheproof("mldsa_65_verify_test.json")) {
    if (ctx) {
      contexts++; // receipts have the empty one
      continue;
    }
    assert.equal(mlDsa65Holds(raw(sig), raw(msg), raw(group.publicKey)), result === "valid", `case ${tcId}`);
  }
  t.diagnostic(`${contexts} cases with a context do not apply`);
});

test("Wycheproof: ML-KEM-768", needs("vectors", "wycheproof"), () => {
  for (const { m, ek, c, K, result, tcId } of wycheproof("mlkem_768_encaps_test.json")) {
    if (result === "invalid") assert.throws(() => ml_kem768.encapsulate(raw(ek), raw(m)), `case ${tcId}`);
    else {
      const { cipherText, sharedSecret } = ml_kem768.encapsulate(raw(ek), raw(m));
      assert.deepEqual([hex(cipherText), hex(sharedSecret)], [c, K]);
    }
  }
});

test("Wycheproof: X25519, low orders refused", needs("vectors", "wycheproof"), () => {
  for (const { public: theirs, private: own, shared, tcId } of wycheproof("x25519_test.json")) {
    if (/^0+$/.test(shared)) assert.throws(() => x25519.getSharedSecret(raw(own), raw(theirs)), `case ${tcId}`);
    else assert.equal(hex(x25519.getSharedSecret(raw(own), raw(theirs))), shared, `case ${tcId}`);
  }
});

test("Wycheproof: RSASSA-PSS of this runtime", needs("vectors", "wycheproof"), async () => {
  const { subtle } = crypto;
  for (const { sig, msg, result, group, tcId } of wycheproof("rsa_pss_4096_sha384_mgf1_48_test.json")) {
    const algorithm = { name: "RSA-PSS", hash: "SHA-384" };
    const key = await subtle.importKey("spki", raw(group.publicKeyDer), algorithm, false, ["verify"]);
    const holds = await subtle.verify({ name: "RSA-PSS", saltLength: 48 }, key, raw(sig), raw(msg));
    assert.equal(holds, result === "valid", `case ${tcId}`);
  }
});
