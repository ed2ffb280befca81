/** Every label, media type, header name and size of the wire, as in SPEC and `confide_protocol/labels.py`. */

import { utf8 } from "./bytes.js";

export const MEDIA_REQUEST = "message/ohttp-chunked-req";
export const MEDIA_RESPONSE = "message/ohttp-chunked-res";
export const MEDIA_EVIDENCE = "application/confide-evidence+cbor";
export const MEDIA_PROBLEM = "application/problem+json";
export const REQUEST_INFO = utf8("message/bhttp chunked request");
export const RESPONSE_EXPORT = utf8("message/bhttp chunked response");
export const FINAL_AAD = utf8("final");
export const CHUNK_PLAINTEXT_BYTES = 16_384;

export const PATH_EVIDENCE = "/evidence";
/** Followed by the keyset digest in hex: a routing hint, never a decision. */
export const PATH_OHTTP = "/ohttp/";

export const PURPOSE_KEYSET = "confide.keyset.v1";
export const PURPOSE_MANIFEST = "confide.manifest.v1";
export const PURPOSE_REPORT_DATA = "confide.report_data.v1";
export const PURPOSE_BUNDLE = "confide.evidence.v1";
export const PURPOSE_POLICY = "confide.policy.v1";
export const PURPOSE_RESULT = "confide.result.v1";
export const PURPOSE_AUDIT = "confide.audit.v1";
export const EAT_PROFILE_RECEIPT = "tag:confide,2026:receipt#1";
export const DIALECT_CHUNKED_OHTTP = "ohttp-chunked-08";
export const DIALECT_EHBP = "ehbp (not promised: bound path and headers, end of message, post-quantum)";
export const LABEL_NONCE_LEAF = utf8("confide.nonce.leaf.v1");
export const LABEL_NONCE_NODE = utf8("confide.nonce.node.v1");
export const LABEL_TRANSCRIPT_LEAF = utf8("confide.transcript.leaf.v1");
export const LABEL_TRANSCRIPT_NODE = utf8("confide.transcript.node.v1");
export const SALT_REQUEST = utf8("confide.salt.request.v1");
export const SALT_RESPONSE = utf8("confide.salt.response.v1");
export const SALT_MESSAGE = utf8("confide.salt.message.v1");
export const SALT_CHUNK = utf8("confide.salt.chunk.v1");

export const FIELD_DATE = "date";
export const FIELD_NONCE = "confide-nonce";
export const FIELD_EVIDENCE = "confide-evidence";
export const FIELD_POLICY = "confide-policy";
export const FIELD_SHAPE = "confide-shape";
export const FIELD_SALT = "confide-salt";
export const FIELD_CACHE_KEY = "confide-cache-key";
export const FIELD_RECEIPT = "confide-receipt";

export const INNER_SCHEME = "https";
export const INNER_AUTHORITY = "enclave.invalid";
export const SHAPE_NONE = "none";
export const SHAPE_BUCKETED = "bucketed";
export const DATE_TOLERANCE_S = 60;
export const KEYSET_LIFETIME_MAX_S = 24 * 3600;
export const KEYSET_GRACE_S = 300;
export const DIGEST_BYTES = 32;
