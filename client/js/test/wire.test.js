// The wire's parts alone: one encoding each, cut anywhere, strict where the Python side is.
import assert from "node:assert/strict";
import { test } from "node:test";

import { AnswerText } from "../dist/answer.js";
import { encodeRequest, ResponseDecoder } from "../dist/bhttp.js";
import { base64url, concat, fromBase64url, fromHex as raw, hex, utf8 } from "../dist/bytes.js";
import { decode, encode } from "../dist/cbor.js";
import { padRequest } from "../dist/shape.js";
import { EventSplitter } from "../dist/sse.js";
import { parseStatement } from "../dist/statement.js";
import { saltedLeaf, treeRoot } from "../dist/transcript.js";
import { encodeVarint, readVarint } from "../dist/varint.js";

const text = (data) => new TextDecoder().decode(data);

test("CBOR: deterministic encodings go both ways", () => {
  for (const [value, bytes] of [
    [0, "00"], [23, "17"], [24, "1818"], [-1, "20"], [2n ** 64n - 1n, "1bffffffffffffffff"],
    [-(2n ** 64n), "3bffffffffffffffff"], [2n ** 53n, "1b0020000000000000"], ["ü", "62c3bc"], [raw("0102"), "420102"],
    [[1, [2]], "82018102"], [true, "f5"], [null, "f6"],
    [new Map([[10, 1], [-1, 2], ["z", 3], ["aa", 4]]), "a40a012002617a0362616104"],
  ]) {
    assert.equal(hex(encode(value)), bytes);
    assert.equal(hex(encode(decode(raw(bytes)))), bytes);
  }
});

test("CBOR: any other encoding is refused", () => {
  for (const bytes of [
    "", "1817", "190001", "f90000", "fb3ff0000000000000", "f7", "e0", "c000", "d9d9f700", "9f01ff", "5f4101ff",
    "a2616101616102", "a2616201616102", "a2200a0a01", "0000", "62c328", "63eda080", "a1f500", "a1410100", "8201",
    "c249010000000000000000", `${"81".repeat(70)}00`,
  ]) {
    assert.throws(() => decode(raw(bytes)), { code: "malformed" }, bytes);
  }
  for (const value of [1.5, NaN, -0, undefined, 2n ** 64n, new Date(), Symbol.iterator, "\ud800", new Map([[1.5, 1]])]) {
    assert.throws(() => encode(value), TypeError);
  }
});

test("statements: closed, to the names that every object has too", () => {
  const digest = new Uint8Array(32).fill(1);
  const fields = { purpose: "confide.report_data.v1", keyset_digest: digest, not_after: 2_000_000_000, nonce: digest };
  assert.equal(parseStatement(encode(fields)).notAfterUnixS, 2_000_000_000);
  for (const name of ["toString", "constructor", "__proto__", "hasOwnProperty", "other"]) {
    const more = encode(new Map([...Object.entries(fields), [name, digest]]));
    assert.throws(() => parseStatement(more), { code: "malformed" }, name);
  }
});

test("varints: fewest bytes out, any of the four sizes in", () => {
  for (const [value, bytes] of [[0, "00"], [63, "3f"], [64, "4040"], [16384, "80004000"], [2 ** 30, "c000000040000000"]]) {
    assert.equal(hex(encodeVarint(value)), bytes);
    assert.deepEqual(readVarint(raw(bytes)), [value, bytes.length / 2]);
  }
  assert.deepEqual(readVarint(raw("c000000000000025")), [37, 8]);
  assert.equal(readVarint(raw("c0000000")), undefined);
  assert.throws(() => readVarint(raw("ffffffffffffffff")), { code: "malformed" });
});

const HEAD = "0340c80c636f6e74656e742d747970650a746578742f706c61696e00";

test("binary HTTP: a response, cut anywhere", () => {
  const message = raw(`${HEAD}0268690121000178017900${"00".repeat(9)}`);
  const expected = [
    { type: "head", status: 200, fields: [["content-type", "text/plain"]] },
    "hi!",
    { type: "trailers", fields: [["x", "y"]] },
    { type: "end" },
  ];
  for (let size = 1; size <= message.length; size++) {
    const decoder = new ResponseDecoder();
    const events = [];
    for (let at = 0; at < message.length; at += size) events.push(...decoder.push(message.slice(at, at + size)));
    events.push(...decoder.finish());
    const words = events.filter((event) => event.type === "content").map((event) => text(event.data)).join("");
    const shown = events.filter((event) => event.type !== "content");
    assert.deepEqual([shown[0], words, ...shown.slice(1)], expected);
    assert.throws(() => decoder.finish(), { code: "local_state" });
  }
});

test("binary HTTP: what breaks it is named", () => {
  const fault = (bytes) => {
    const decoder = new ResponseDecoder();
    decoder.push(raw(bytes));
    decoder.finish();
  };
  for (const [bytes, code] of [
    ["02", "malformed"], ["04", "malformed"], ["034064", "truncated"], ["030a", "malformed"],
    ["0340c8", undefined], ["0340c80158", "truncated"], ["0340c80158017900", "malformed"],
    ["0340c801780220790000", "malformed"], ["0340c800036869", "truncated"], ["0340c800000001", "malformed"],
    ["0340c84fff", "truncated"], ["0340c8800fffff", "too_large"], ["0140c88000ffff", "too_large"],
  ]) {
    if (code === undefined) fault(bytes);
    else assert.throws(() => fault(bytes), { code }, bytes);
  }
});

test("binary HTTP: a request that HTTP forbids is never encoded", () => {
  const good = { method: "POST", scheme: "https", authority: "enclave.invalid", path: "/v1/x?y", fields: [["a", "b"]] };
  const encoded = encodeRequest(good, utf8("hi"));
  assert.equal(hex(encoded.slice(0, 6)), "0204504f5354");
  assert.equal(hex(encoded.slice(-9)), "0161016200026869".concat("0000").slice(-18));
  for (const bad of [
    { method: "GET X" }, { path: "v1" }, { path: "/a b" }, { fields: [["A", "b"]] }, { fields: [["a", "b\r\nc: d"]] },
    { fields: [["a", " b"]] }, { fields: [["a", "\u{20ac}"]] }, { fields: [[":path", "/"]] },
  ]) {
    assert.throws(() => encodeRequest({ ...good, ...bad }, utf8("")), { code: "local_state" }, JSON.stringify(bad));
  }
});

test("shapes: buckets, and a request that fits none", () => {
  assert.equal(padRequest("none", raw("01")).length, 1);
  for (const [size, bucket] of [[0, 1024], [1024, 1024], [1025, 2048], [16 << 20, 16 << 20]]) {
    assert.equal(padRequest("bucketed", new Uint8Array(size)).length, bucket);
  }
  assert.throws(() => padRequest("bucketed", new Uint8Array((16 << 20) + 1)), { code: "too_large" });
  assert.throws(() => padRequest("constant", raw("01")), { code: "malformed" });
});

test("events: whole ones, without filler, cut anywhere", () => {
  const stream = utf8('data: {"a":1}\n\n:    \ndata: b\n: in between\ndata: c\n\n\n\ndata: [DONE]\n\n');
  for (let size = 1; size <= stream.length; size++) {
    const splitter = new EventSplitter();
    const events = [];
    for (let at = 0; at < stream.length; at += size) events.push(...splitter.push(stream.slice(at, at + size)));
    assert.deepEqual(events.map(text), ['data: {"a":1}\n\n', "data: b\ndata: c\n\n", "data: [DONE]\n\n"]);
    assert.equal(splitter.finish(), false);
  }
  const cut = new EventSplitter();
  cut.push(utf8("data: x\n"));
  assert.equal(cut.finish(), true);
  const crumbs = new EventSplitter();
  for (let at = 0; at < 200_000; at++) assert.deepEqual(crumbs.push(utf8("x")), []);
  assert.equal(crumbs.push(utf8("\n\n"))[0].length, 200_002);
  const huge = new EventSplitter();
  assert.throws(() => huge.push(new Uint8Array((4 << 20) + 1)), { code: "too_large" });
});

test("answers: reasoning, words and calls, as the receipt commits to them", () => {
  const answer = new AnswerText();
  const event = (choices) => answer.event(utf8(`data: ${JSON.stringify({ choices })}\n\n`));
  event([{ index: 1, delta: { content: "two" } }]);
  event([{ index: 0, delta: { reasoning_content: "hm" } }]);
  event([{ index: 0, delta: { content: "one" } }]);
  event([{ index: 0, delta: { tool_calls: [{ index: 0, function: { name: 'f"', arguments: '{"x"' } }] } }]);
  event([{ index: 0, delta: { tool_calls: [{ index: 0, function: { arguments: ":1}" } }] } }]);
  assert.equal(answer.ended, false);
  answer.event(utf8("data: [DONE]\n\n"));
  assert.equal(answer.ended, true);
  assert.deepEqual(answer.messages.map(text), [
    '<think>hm</think>one<tool_call>{"name": "f\\"", "arguments": {"x":1}}</tool_call>',
    "two",
  ]);
  const response = new AnswerText();
  const output = [{ type: "reasoning", content: [{ text: "a" }] }, { type: "message", content: [{ text: "b" }, { text: "c" }] }];
  response.event(utf8(`event: response.completed\ndata: ${JSON.stringify({ type: "response.completed", response: { object: "response", output } })}\n\n`));
  assert.deepEqual([response.ended, ...response.messages.map(text)], [true, "<think>a</think>bc"]);
});

test("transcripts: RFC 9162's tree, odd nodes rise", () => {
  const salt = new Uint8Array(32).fill(1);
  const leaves = [0, 1, 2].map((index) => saltedLeaf(salt, "chunk", index, utf8("x")));
  assert.notEqual(hex(leaves[0]), hex(leaves[1]));
  assert.equal(hex(treeRoot(leaves)), hex(treeRoot([treeRoot(leaves.slice(0, 2)), leaves[2]])));
  assert.equal(treeRoot([]).length, 32);
});

test("base64url: one form alone", () => {
  assert.equal(base64url(concat(raw("fbff"))), "-_8");
  assert.deepEqual(fromBase64url("-_8"), raw("fbff"));
  for (const bad of ["-_9", "-_8=", "+/8", "A", "A B"]) assert.equal(fromBase64url(bad), undefined, bad);
});
