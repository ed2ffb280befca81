/** The one tree of errors, with the codes of the Python client. A message never holds peer bytes, keys or prompts. */

import type { AttestationResult } from "./result.js";

export class ConfideError extends Error {
  /** Stable and meant for machines. */
  readonly code: string = "error";
  /** A hint for whoever must answer a request. */
  readonly httpStatus: number = 500;

  constructor(detail = "something went wrong") {
    super(detail);
    this.name = new.target.name;
  }
}

/** The peer's bytes break SPEC. */
export class ProtocolError extends ConfideError {
  override readonly code: string = "protocol";
  override readonly httpStatus: number = 400;
}

export class Malformed extends ProtocolError {
  override readonly code = "malformed";
  constructor(detail = "the message is malformed") {
    super(detail);
  }
}

/** One message for every cause: which cryptographic step failed is nobody's business. */
export class DecryptionFailed extends ProtocolError {
  override readonly code = "decryption_failed";
  constructor() {
    super("the message could not be opened");
  }
}

export class UnknownKey extends ProtocolError {
  override readonly code = "unknown_key";
}

export class Truncated extends ProtocolError {
  override readonly code = "truncated";
  constructor(detail = "the stream ended before its authenticated end") {
    super(detail);
  }
}

export class TooLarge extends ProtocolError {
  override readonly code = "too_large";
  override readonly httpStatus = 413;
  constructor(detail = "the message is larger than the limit") {
    super(detail);
  }
}

/** What a status that a gateway gave in clear most often means. It is unauthenticated: a hint and no more. */
const REMEDIES: Readonly<Record<number, string>> = {
  400: "it was not opened; the enclave's keys may just have changed, or this machine's clock be wrong; try again",
  401: "no API key was given, or the gateway does not know it: apiKey",
  403: "something in front of the gateway forbids it; check apiKey and the URL",
  404: "the URL is wrong, or something before the gateway answered",
  413: "the gateway takes no request as large as this; send less",
  429: "the account has reached its limit; wait, or ask the operator for more",
  502: "the enclave behind the gateway is gone; try again",
  503: "no enclave is ready behind the gateway; try again in a while",
};

function said(status: number): string {
  const answered = `the gateway answered ${status} in clear, unauthenticated`;
  return status in REMEDIES ? `${answered}: ${REMEDIES[status]}` : answered;
}

/** The gateway answered in clear. `status` is unauthenticated; its body is never shown. */
export class RelayRefused extends ProtocolError {
  override readonly code: string = "relay_refused";
  override readonly httpStatus = 502;
  readonly status: number;
  constructor(status: number, detail = said(status)) {
    super(detail);
    this.status = status;
  }
}

/** The gateway refuses, in clear, once sealed bytes left: it may say so and have had them run all the same. */
export class RefusedAfterSending extends RelayRefused {}

/** Whoever listens at the URL does not serve evidence: most often a plain OpenAI server. */
export class NotConfide extends RelayRefused {
  override readonly code = "not_confide";
}

export class RelayUnreachable extends ConfideError {
  override readonly code: string = "relay_unreachable";
  override readonly httpStatus: number = 503;
}

/** The way broke after the request was sent and before any answer: an enclave may have run it, or may not. */
export class OutcomeUnknown extends RelayUnreachable {
  override readonly code = "outcome_unknown";
  override readonly httpStatus = 502;
  constructor(why = "the connection broke before the answer began") {
    super(
      `${why}, and an enclave may have run the request: it was not sent again; ask again if running it twice does no harm`,
    );
  }
}

/** Our own caller misused an object (order of calls, reuse). Never sent to a peer. */
export class LocalStateError extends ConfideError {
  override readonly code = "local_state";
}

/** A setting of the user is unreadable or wrong: names the file, the field and the remedy. */
export class ConfigError extends ConfideError {
  override readonly code: string = "config";
  readonly file: string;
  readonly field: string;
  readonly remedy: string;
  constructor(file: string, field: string, remedy: string) {
    super(`${file}: ${field}: ${remedy}`);
    this.file = file;
    this.field = field;
    this.remedy = remedy;
  }
}

/** The appraisal policy is absent, unreadable, incomplete, expired or rolled back. */
export class PolicyError extends ConfigError {
  override readonly code = "policy";
}

/** A receipt does not verify, or speaks of another exchange; `part` is the layer or claim that failed. */
export class ReceiptInvalid extends ConfideError {
  override readonly code = "receipt_invalid";
  override readonly httpStatus = 502;
  readonly part: string;
  constructor(detail: string, part = "receipt") {
    super(detail);
    this.part = part;
  }
}

/** The enclave's engine could not answer. */
export class EngineError extends ConfideError {
  override readonly code = "engine";
}

export class AttestationError extends ConfideError {
  override readonly code: string = "attestation";
  override readonly httpStatus = 502;
}

/** Bytes of evidence or endorsements are not what they claim to be; `check` is a check's id where one applies. */
export class EvidenceMalformed extends AttestationError {
  override readonly code = "evidence_malformed";
  readonly check: string;
  constructor(detail = "the evidence is malformed", check = "format") {
    super(detail);
    this.check = check;
  }
}

const SIMULATED = "pass allowSimulated: true only for a try: it protects nothing";

/** The appraisal failed; `result` carries every check. */
export class AppraisalRejected extends AttestationError {
  override readonly code = "appraisal_rejected";
  readonly result: AttestationResult;
  constructor(result: AttestationResult) {
    const said = result.failed.map(({ id, detail }) => `${id}: ${detail}${id === "simulated" ? `: ${SIMULATED}` : ""}`);
    super("refused: " + said.join("; "));
    this.result = result;
  }
}

/** The policy demands evidence of a kind that this package has no verifier for. The one code that Python has not. */
export class CannotJudge extends AttestationError {
  override readonly code = "cannot_judge";
  readonly kind: string;
  constructor(kind: string) {
    super(`this client cannot judge ${kind} evidence; use the Python client, or \`confide proxy\` beside this one`);
    this.kind = kind;
  }
}

/** Find our own error in what an HTTP library made of it (openai's APIConnectionError carries it as its cause). */
export function faultOf(error: unknown): ConfideError | undefined {
  for (let at = error, depth = 0; at instanceof Error && depth < 8; at = at.cause, depth++) {
    if (at instanceof ConfideError) return at;
  }
  return undefined;
}
