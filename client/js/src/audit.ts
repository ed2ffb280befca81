/** One exchange in one file, for `confide audit` or any other judge, offline (SPEC 10). */

import { utf8, type Bytes } from "./bytes.js";
import { encode } from "./cbor.js";
import type { Receipt } from "./exchange.js";
import { PURPOSE_AUDIT } from "./labels.js";
import type { AppraisalPolicy } from "./policy/policy.js";

/**
 * Gather a verified exchange as of the receipt's own time; `policy` is the one that the client demanded.
 *
 * With `disclose` the words are in it: who has the file can read the conversation. Without, the receipt still proves
 * that an attested enclave signed commitments to some request and answer, but not to which.
 */
export function auditFile(receipt: Receipt, policy: AppraisalPolicy, { disclose }: { disclose: boolean }): Bytes {
  const { disclosure: said, verified } = receipt;
  return encode({
    purpose: PURPOSE_AUDIT,
    stated_unix_s: receipt.claims.issued_unix_s,
    evidence: verified.bundle,
    nonce: verified.nonce,
    policy: utf8(policy.text),
    receipt: receipt.encoded,
    exchange: disclose
      ? {
          method: said.method,
          path: said.path,
          request: said.requestBody,
          status: said.status,
          content_type: said.contentType,
          response: said.response,
          salt: said.salt,
        }
      : null,
    parts: [],
  });
}
