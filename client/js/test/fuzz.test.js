// For arbitrary bytes parsers throw typed errors and nothing else, and judges throw nothing at all.
import assert from "node:assert/strict";
import { test } from "node:test";

import { ResponseDecoder } from "../dist/bhttp.js";
import { equal } from "../dist/bytes.js";
import { decode, encode } from "../dist/cbor.js";
import { parseCoseSign } from "../dist/cose.js";
import { ConfideError } from "../dist/errors.js";
import { parseBundle } from "../dist/evidence.js";
import { parseKeyConfigs } from "../dist/keyconfig.js";
import { parseKeyset, parseManifest } from "../dist/keyset.js";
import { loadPolicy } from "../dist/policy/policy.js";
import { parseClaims } from "../dist/receipt.js";
import { judgeSnp } from "../dist/snp/judge.js";
import { packagedArk } from "../dist/snp/roots.js";
import { parseStatement } from "../dist/statement.js";
import { load, loadJson, needs } from "./shared.js";

const ROUNDS = 3000;

/** Numbers that are the same in every run. */
function mulberry(seed) {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

function mutated(data, random) {
  const changed = data.slice(0, random(8) ? data.length : random(data.length + 1));
  for (let times = 1 + random(3); times && changed.length; times--) changed[random(changed.length)] = random(256);
  return changed;
}

const digest = new Uint8Array(32);
const bundle = encode({
  purpose: "confide.evidence.v1", keyset: digest, manifest: digest, statement: digest, nonce_path: [[true, digest]],
  cpu: { kind: "sev-snp", report: digest, vtpm: null }, gpus: [], event_logs: [], endorsements: { snp: { vek: digest } },
});
const statement = encode({ purpose: "confide.report_data.v1", keyset_digest: digest, not_after: 1, nonce: digest });
const keyset = encode({
  purpose: "confide.keyset.v1", ohttp_keys: digest, receipt_keys: { ed25519: digest, ml_dsa_65: new Uint8Array(1952) },
  usage_key: digest, manifest_digest: digest, not_before: 1, not_after: 2, simulated: false,
});
const manifest = encode({
  purpose: "confide.manifest.v1", release: "r", model: "m", weights_digest: digest, tokenizer_digest: digest,
  engine: { a: 1 }, shapes: ["none"], platform: "p",
  more_models: [{ model: "n", weights_digest: digest, tokenizer_digest: digest, engine: { a: 1 } }],
});
const signature = [encode(new Map([[1, -8], [4, digest.slice(0, 8)]])), {}, digest];
const cose = new Uint8Array([0xd8, 0x62, ...encode([encode(new Map([[3, 61]])), {}, encode(new Map([[6, 1]])), [signature]])]);
const http = new Uint8Array([3, 0x40, 0xc8, 1, 0x61, 1, 0x62, 0, 2, 0x68, 0x69, 0, 1, 0x78, 1, 0x79, 0, 0, 0]);
const decoded = (data) => {
  const decoder = new ResponseDecoder();
  decoder.push(data);
  decoder.finish();
};

for (const [name, parse, good, holds = true] of [
  ["decode", decode, bundle],
  ["parseBundle", parseBundle, bundle],
  ["parseStatement", parseStatement, statement],
  ["parseKeyset", parseKeyset, keyset],
  ["parseManifest", parseManifest, manifest],
  ["parseCoseSign", parseCoseSign, cose],
  ["parseClaims", parseClaims, encode(new Map([[265, "x"], [6, 1]])), false],
  ["parseKeyConfigs", parseKeyConfigs, new Uint8Array([0, 41, 1, 0, 32, ...digest, 0, 4, 0, 1, 0, 2])],
  ["ResponseDecoder", decoded, http],
  ["loadPolicy", (data) => loadPolicy(String.fromCharCode(...data)), new TextEncoder().encode('id = "a"\nserial = 1\n[x]\ny = []'), false],
]) {
  test(`${name}: typed errors alone`, () => {
    if (holds) parse(good);
    const random = mulberry(7);
    for (let round = 0; round < ROUNDS; round++) {
      const data = mutated(good, random);
      try {
        parse(data);
      } catch (fault) {
        assert.ok(fault instanceof ConfideError && fault.code !== "error", `${fault?.stack}`);
      }
    }
  });
}

test("judgeSnp: never throws, whatever the certificates, and never accepts them", needs("evidence", "snp", "genoa_v3_vcek_ms"), async () => {
  const file = (part) => load("evidence", "snp", "genoa_v3_vcek_ms", part);
  const { now } = loadJson("evidence", "snp", "genoa_v3_vcek_ms", "expected.json");
  const good = { vek: file("vek.der"), ask: file("ask.der"), ark: packagedArk("Genoa") };
  const report = file("report.bin");
  assert.equal((await judgeSnp(report, good, now)).holds, true);
  const list = load("evidence", "snp", "roots", "crl_genoa.der");
  const random = mulberry(11);
  for (let round = 0; round < 300; round++) {
    const part = ["vek", "ask", "ark", "crl"][round % 4];
    const before = good[part] ?? list;
    const changed = mutated(before, random);
    const judged = await judgeSnp(report, { ...good, [part]: changed }, now);
    if (!equal(changed, before)) assert.equal(judged.holds, false, `round ${round}`);
  }
});
