// Several models of one enclave: how the manifest names them, and which one a receipt has to name.
import assert from "node:assert/strict";
import { test } from "node:test";

import { utf8 } from "../dist/bytes.js";
import { encode } from "../dist/cbor.js";
import { Malformed } from "../dist/errors.js";
import { parseManifest } from "../dist/keyset.js";
import { expectedModel } from "../dist/naming.js";

const digest = new Uint8Array(32);
const model = (name) => ({ model: name, weights_digest: digest, tokenizer_digest: digest, engine: { mode: "fast" } });
const manifest = (more) => encode({
  purpose: "confide.manifest.v1", release: "r", ...model("first"), shapes: ["none"], platform: "p", ...more,
});

test("a manifest lists its models, the first one first", () => {
  assert.deepEqual(parseManifest(manifest()).models.map((each) => each.model), ["first"]);
  const parsed = parseManifest(manifest({ more_models: [model("second"), model("third")] }));
  assert.deepEqual(parsed.models.map((each) => each.model), ["first", "second", "third"]);
  assert.equal(parsed.model, "first");
  assert.equal(parsed.models[1].engine.get("mode"), "fast");
});

for (const more of [
  [], {}, ["second"], [{}], [{ ...model("second"), release: "r" }], [model("")], [{ ...model("second"), engine: { a: [1] } }],
  [model("second"), model("second")], [model("first")], Array.from({ length: 16 }, (_, n) => model(`m${n}`)),
]) {
  test(`no list of models: ${JSON.stringify(more).slice(0, 60)}`, () => {
    assert.throws(() => parseManifest(manifest({ more_models: more })), Malformed);
  });
}

test("what was asked for has to have answered", () => {
  const two = parseManifest(manifest({ more_models: [model("second")] }));
  const named = (body, outcome = "complete", which = two) => expectedModel(which, { outcome }, utf8(body));
  assert.equal(named('{"model": "second"}'), "second");
  assert.equal(named('{"model": "second"}', "aborted"), "second");
  assert.equal(named('{"model": "second"}', "refused"), "first");
  assert.equal(named('{"model": "second"}', "complete", parseManifest(manifest())), "first");
  for (const body of ["", "{", "[]", "null", '"second"', '{"model": 2}', '{"model": "encoder"}', "{}", '\ufeff{"model": "second"}']) {
    assert.equal(named(body), "first", body);
  }
});
