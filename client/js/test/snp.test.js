// Real SEV-SNP reports get their known verdicts at their pinned times, and no part of them can be changed.
import assert from "node:assert/strict";
import { test } from "node:test";

import { judgeSnp } from "../dist/snp/judge.js";
import { parseVek } from "../dist/snp/vek.js";
import { load, loadJson, needs } from "./shared.js";

const NAMES = [
  "genoa_v3_vcek_ms", "milan_v2_vcek_debug_gosev", "milan_v2_vcek_trustee", "milan_v3_vcek_ms",
  "milan_v3_vlek_aws_trustee", "reject_bad_vcek_trustee", "reject_foreign_vcek_gce", "turin_v5_vcek_ms",
];

function evidence(name) {
  const file = (part) => load("evidence", "snp", name, part);
  const expected = loadJson("evidence", "snp", name, "expected.json");
  return { report: file("report.bin"), given: { vek: file("vek.der"), ask: file("ask.der"), ark: file("ark.der") }, expected };
}

const failed = (part) => part.checks.filter((check) => check.outcome === "FAIL").map((check) => check.id);

for (const name of NAMES) {
  test(`${name}: its verdict, with its own chain and with the packaged one`, needs("evidence", "snp", name), async () => {
    const { report, given, expected } = evidence(name);
    for (const endorsements of [given, { vek: given.vek }]) {
      const part = await judgeSnp(report, endorsements, expected.now);
      const [verdict, reason] = expected.verdict.split(" ");
      assert.equal(part.holds, verdict === "ACCEPT", failed(part).join());
      if (verdict === "ACCEPT") {
        for (const field of ["product", "report_version", "signer", "vmpl", "measurement", "report_data", "chip_id"]) {
          assert.equal(part.claims.cpu0[field], expected[field]);
        }
      } else {
        assert.ok(failed(part).includes(reason.split(":")[0]), failed(part).join());
      }
    }
  });
}

test("lists: current, out of its window, of another product", needs("evidence", "snp", "roots"), async () => {
  const crl = (product) => load("evidence", "snp", "roots", `crl_${product}.der`);
  for (const [name, product, now, reasons] of [
    ["milan_v3_vcek_ms", "milan", undefined, []],
    ["milan_v3_vcek_ms", "milan", 1_780_000_000, ["crl_expired"]],
    ["genoa_v3_vcek_ms", "genoa", undefined, ["crl_expired"]],
    ["milan_v3_vcek_ms", "genoa", undefined, ["crl_sig", "crl_expired"]],
  ]) {
    const { report, given, expected } = evidence(name);
    const part = await judgeSnp(report, { ...given, crl: crl(product) }, now ?? expected.now);
    assert.deepEqual(failed(part), reasons);
  }
});

test("one bit of each byte of a report", needs("evidence", "snp", "turin_v5_vcek_ms"), async () => {
  const { report, given, expected } = evidence("turin_v5_vcek_ms");
  for (let at = 0; at < report.length; at += 3) {
    const changed = report.slice();
    changed[at] ^= 1 << at % 8;
    assert.equal((await judgeSnp(changed, given, expected.now)).holds, false, `byte ${at}`);
  }
});

test("without endorsements, and without a report", async () => {
  assert.deepEqual(failed(await judgeSnp(new Uint8Array(0), undefined, 0)), ["vek_format", "report_size"]);
});

test("a certificate's name is looked up among ours alone", async () => {
  for (const commonName of ["constructor", "toString", "__proto__", "ARK-Milan"]) {
    const certificate = { commonName, key: { kind: "p384" }, extensions: new Map() };
    await assert.rejects(parseVek(certificate), { check: "vek_extensions", message: /neither SEV-VCEK nor SEV-VLEK/ });
  }
});
