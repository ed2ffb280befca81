/** One sealed request and its answer: nothing that ends an answer is shown before its receipt has verified. */

import { AnswerText, mediaType } from "./answer.js";
import { ResponseDecoder, type Event, type Fields } from "./bhttp.js";
import { EMPTY, fromBase64url, hex, join, type Bytes } from "./bytes.js";
import { EngineError, Malformed, ReceiptInvalid, RelayRefused, TooLarge } from "./errors.js";
import { sha256 } from "./hash.js";
import { FIELD_RECEIPT, MEDIA_REQUEST, MEDIA_RESPONSE, PATH_OHTTP } from "./labels.js";
import { expectedModel } from "./naming.js";
import type { RequestSealer, ResponseOpener } from "./ohttp.js";
import type { AppraisalPolicy } from "./policy/policy.js";
import { checkReceipt, verifyReceipt, type ReceiptClaims } from "./receipt.js";
import type { Call, Verified } from "./session.js";
import { EventSplitter } from "./sse.js";
import { requestCommitment, ResponseTranscript } from "./transcript.js";

/** The plain words of an exchange and the salt that ties them to its receipt: for an auditor, on purpose. */
export interface Disclosure {
  readonly method: string;
  readonly path: string;
  readonly requestBody: Bytes;
  readonly status: number;
  readonly contentType: string;
  readonly response: readonly Bytes[];
  readonly salt: Bytes;
}

/** A receipt that was verified against the exchange it came with. `encoded` is the COSE_Sign, for keeping. */
export interface Receipt {
  readonly encoded: Bytes;
  readonly claims: ReceiptClaims;
  readonly verified: Verified;
  readonly disclosure: Disclosure;
}

interface Sealed {
  call: Call;
  verified: Verified;
  policy: AppraisalPolicy;
  maxAnswerBytes: number;
  sealer: RequestSealer;
  sealed: Bytes;
}

/** One exchange. `push` and `finish` are awaited one after another; after any error it is spent. */
export class Exchange {
  static readonly headerFields: Readonly<Record<string, string>> = {
    "content-type": MEDIA_REQUEST,
    accept: MEDIA_RESPONSE,
    incremental: "?1",
  };
  readonly keysetDigest: Bytes;
  readonly path: string;
  readonly body: Bytes;
  head: { status: number; fields: Fields } | undefined;
  /** Set once the answer has ended well. */
  receipt: Receipt | undefined;

  readonly #call: Call;
  readonly #verified: Verified;
  readonly #policy: AppraisalPolicy;
  readonly #encDigest: Bytes;
  readonly #opener: ResponseOpener;
  readonly #decoder = new ResponseDecoder();
  readonly #splitter = new EventSplitter();
  readonly #transcript: ResponseTranscript;
  readonly #answer = new AnswerText();
  #parts: Bytes[] = [];
  #room: number;
  #withheld = 0; // how many of the last parts are not shown yet
  #trailers: Fields = [];
  #ended = false;

  constructor({ call, verified, policy, maxAnswerBytes, sealer, sealed }: Sealed) {
    this.keysetDigest = verified.keyset.keyset.digest;
    this.path = PATH_OHTTP + hex(this.keysetDigest);
    this.body = sealed;
    this.#call = call;
    this.#verified = verified;
    this.#policy = policy;
    this.#encDigest = sha256(sealer.enc);
    this.#opener = sealer.responseOpener();
    this.#transcript = new ResponseTranscript(call.salt);
    this.#room = maxAnswerBytes;
  }

  /** Take the outer head. Throws RelayRefused for everything that is not a sealed answer. */
  answered(status: number, contentType: string): void {
    if (status !== 200 || mediaType(contentType) !== MEDIA_RESPONSE) throw new RelayRefused(status);
  }

  get streamed(): boolean {
    return this.head !== undefined && mediaType(this.#contentType) === "text/event-stream";
  }

  get #contentType(): string {
    return this.head?.fields.find(([name]) => name === "content-type")?.[1] ?? "";
  }

  /**
   * Take sealed bytes as they came; return the whole events that may be shown already.
   *
   * A plain body, and a stream's last event ([DONE]) with what follows it, are shown by `finish` alone.
   * Throws DecryptionFailed, Malformed, TooLarge.
   */
  async push(data: Uint8Array): Promise<Bytes[]> {
    const shown: Bytes[] = [];
    for await (const plaintext of this.#opener.push(data)) shown.push(...this.#open(plaintext));
    return shown;
  }

  /**
   * Take the end of the sealed bytes; verify that the answer is whole and signed; return what was withheld.
   *
   * Throws Truncated, DecryptionFailed, Malformed, ReceiptInvalid; EngineError when the enclave says, signed, that it
   * broke the answer off.
   */
  async finish(): Promise<Bytes[]> {
    const shown = this.#open(await this.#opener.finish());
    for (const event of this.#decoder.finish()) shown.push(...this.#take(event));
    const { head } = this;
    if (head === undefined || !this.#ended) throw new Malformed("the sealed message has no end");
    if (this.#splitter.finish()) throw new Malformed("the stream ends within an event");
    if (!this.streamed) {
      const body = join(this.#parts);
      this.#parts = body.length ? [body] : [];
      this.#withheld = this.#parts.length;
      this.#transcript.chunk(body);
      if (mediaType(this.#contentType) === "application/json") this.#answer.body(body);
    }
    const receipt = this.#verifiedReceipt(head.status);
    this.receipt = receipt;
    if (receipt.claims.outcome !== "complete" && head.status < 400) {
      throw new EngineError("the enclave broke the answer off, and signed that it did");
    }
    return [...shown, ...this.#parts.slice(this.#parts.length - this.#withheld)];
  }

  #open(plaintext: Bytes): Bytes[] {
    this.#room -= plaintext.length;
    if (this.#room < 0) throw new TooLarge("the answer is larger than its limit");
    return plaintext.length ? this.#decoder.push(plaintext).flatMap((event) => this.#take(event)) : [];
  }

  #take(event: Event): Bytes[] {
    switch (event.type) {
      case "head":
        this.head = event;
        this.#transcript.head(event.status, this.#contentType);
        return [];
      case "content":
        if (this.streamed) return this.#splitter.push(event.data).filter((part) => this.#show(part));
        this.#parts.push(event.data);
        return [];
      case "trailers":
        this.#trailers = event.fields;
        return [];
      case "end":
        this.#ended = true;
        return [];
    }
  }

  /** Record one event; the one at which applications stop reading waits for the receipt. */
  #show(part: Bytes): boolean {
    this.#transcript.chunk(part);
    this.#answer.event(part);
    this.#parts.push(part);
    if (this.#answer.ended || this.#withheld) this.#withheld++;
    return this.#withheld === 0;
  }

  #verifiedReceipt(status: number): Receipt {
    const encoded = receiptField(this.#trailers);
    const call = this.#call;
    const { keyset, manifest, statementDigest, policyDigest } = this.#verified.keyset;
    const claims = verifyReceipt(encoded, keyset);
    checkReceipt(claims, {
      keyset,
      statementDigest,
      policyDigest,
      nonce: call.nonce,
      encDigest: this.#encDigest,
      requestCommitment: requestCommitment(call.salt, call.method, call.path, call.body),
      response: this.#transcript.finish(this.#answer.messages),
      shape: this.#policy.session.shape,
      suite: this.#policy.session.suite,
      status,
      model: expectedModel(manifest, claims, call.body),
    });
    const disclosure: Disclosure = {
      method: call.method,
      path: call.path,
      requestBody: call.body,
      status,
      contentType: this.#contentType,
      response: this.#parts,
      salt: call.salt,
    };
    return { encoded, claims, verified: this.#verified, disclosure };
  }
}

function receiptField(trailers: Fields): Bytes {
  const values = trailers.filter(([name]) => name === FIELD_RECEIPT).map(([, value]) => value);
  if (values.length !== 1) throw new ReceiptInvalid("the answer does not carry exactly one receipt");
  const data = fromBase64url(values[0]!) ?? EMPTY;
  if (data.length === 0) throw new ReceiptInvalid("the receipt is not base64url", "parse");
  return data;
}
