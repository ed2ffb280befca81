/** Salted commitments to one exchange and the Merkle tree over its parts (SPEC 9.3, 9.4). */

import { concat, EMPTY, uintBe, utf8, type Bytes } from "./bytes.js";
import { encode } from "./cbor.js";
import { LocalStateError } from "./errors.js";
import { hmacSha256, sha256, startHmac } from "./hash.js";
import {
  LABEL_TRANSCRIPT_LEAF,
  LABEL_TRANSCRIPT_NODE,
  SALT_CHUNK,
  SALT_MESSAGE,
  SALT_REQUEST,
  SALT_RESPONSE,
} from "./labels.js";

export type PartKind = "message" | "chunk";
const KINDS = { message: [utf8("m"), SALT_MESSAGE], chunk: [utf8("c"), SALT_CHUNK] } as const;

/** Derive one part's salt from `confide-salt`: HMAC-SHA256(salt, label || u32be(index)). */
export function deriveSalt(salt: Uint8Array, label: Uint8Array, index = 0): Bytes {
  if (salt.length !== 32) throw new LocalStateError("a salt is 32 bytes");
  return hmacSha256(salt, label, uintBe(index, 4));
}

/** Commit to the inner request before padding. */
export function requestCommitment(salt: Uint8Array, method: string, path: string, body: Uint8Array): Bytes {
  return hmacSha256(deriveSalt(salt, SALT_REQUEST), encode([method, path]), body);
}

/** What a receipt says of a response. */
export interface TranscriptDigests {
  commitment: Bytes;
  root: Bytes;
  chunkCount: number;
  messageCount: number;
}

/** Commit to a response piece by piece: `head`, then `chunk`s, then `finish` once. */
export class ResponseTranscript {
  readonly #salt: Uint8Array;
  readonly #mac;
  readonly #chunks: Bytes[] = [];
  #state: "new" | "open" | "done" = "new";

  constructor(salt: Uint8Array) {
    this.#salt = salt;
    this.#mac = startHmac(deriveSalt(salt, SALT_RESPONSE));
  }

  head(status: number, contentType: string): void {
    this.#step("new", "open");
    this.#mac.update(encode([status, contentType]));
  }

  /** Take one SSE event with its blank line, or the whole plain body; an empty piece counts for nothing. */
  chunk(data: Uint8Array): void {
    this.#step("open", "open");
    if (data.length === 0) return;
    this.#mac.update(data);
    this.#chunks.push(saltedLeaf(this.#salt, "chunk", this.#chunks.length, data));
  }

  /** Close over the UTF-8 text of each choice's message, in the order of the choices. */
  finish(messages: readonly Uint8Array[] = []): TranscriptDigests {
    this.#step("open", "done");
    const said = messages.map((text, index) => saltedLeaf(this.#salt, "message", index, text));
    return {
      commitment: this.#mac.digest(),
      root: treeRoot([...said, ...this.#chunks]),
      chunkCount: this.#chunks.length,
      messageCount: said.length,
    };
  }

  #step(expected: string, after: "open" | "done"): void {
    if (this.#state !== expected) throw new LocalStateError("a transcript takes one head, then chunks, then one finish");
    this.#state = after;
  }
}

export function saltedLeaf(salt: Uint8Array, kind: PartKind, index: number, content: Uint8Array): Bytes {
  const [mark, label] = KINDS[kind];
  return sha256(LABEL_TRANSCRIPT_LEAF, mark, hmacSha256(deriveSalt(salt, label, index), content));
}

/** Hash RFC 6962's tree: a level's odd node goes up as it is. No leaves: the bare node label. */
export function treeRoot(leaves: readonly Bytes[]): Bytes {
  if (leaves.length === 0) return nodeHash(EMPTY, EMPTY);
  let level = leaves;
  while (level.length > 1) {
    const above: Bytes[] = [];
    for (let at = 0; at < level.length; at += 2) {
      const right = level[at + 1];
      above.push(right === undefined ? level[at]! : nodeHash(level[at]!, right));
    }
    level = above;
  }
  return level[0]!;
}

function nodeHash(left: Uint8Array, right: Uint8Array): Bytes {
  return sha256(concat(LABEL_TRANSCRIPT_NODE, left, right));
}
