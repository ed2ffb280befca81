"""Every label, media type, header name and size of the wire, on one screen. SPEC names the same strings."""

from typing import Final

# --- Oblivious HTTP (RFC 9458, draft-ietf-ohai-chunked-ohttp-08)
MEDIA_REQUEST: Final = "message/ohttp-chunked-req"
MEDIA_RESPONSE: Final = "message/ohttp-chunked-res"
MEDIA_KEYS: Final = "application/ohttp-keys"
MEDIA_EVIDENCE: Final = "application/confide-evidence+cbor"
MEDIA_PROBLEM: Final = "application/problem+json"
REQUEST_INFO: Final = b"message/bhttp chunked request"
RESPONSE_EXPORT: Final = b"message/bhttp chunked response"
FINAL_AAD: Final = b"final"
CHUNK_PLAINTEXT_BYTES: Final = 16_384

# --- Paths
PATH_EVIDENCE: Final = "/evidence"
PATH_KEYS: Final = "/.well-known/ohttp-gateway"
PATH_OHTTP: Final = "/ohttp/"  # + keyset digest, hex: a routing hint, never a decision
PATH_HEALTH: Final = "/healthz"
PATH_READY: Final = "/readyz"
PATH_EHBP_KEYS: Final = "/.well-known/hpke-keys"  # where EHBP's clients look
PATH_API: Final = "/v1/"  # what EHBP leaves in clear: the path, and every header field

# --- Domain separation of everything that is hashed, signed or exported
PURPOSE_KEYSET: Final = "confide.keyset.v1"
PURPOSE_MANIFEST: Final = "confide.manifest.v1"
PURPOSE_REPORT_DATA: Final = "confide.report_data.v1"
PURPOSE_BUNDLE: Final = "confide.evidence.v1"
PURPOSE_ENDORSEMENTS: Final = "confide.endorsements.v1"
PURPOSE_GPU_EVIDENCE: Final = "confide.gpu_evidence.v1"
PURPOSE_POLICY: Final = "confide.policy.v1"
PURPOSE_RESULT: Final = "confide.result.v1"
EAT_PROFILE_RECEIPT: Final = "tag:confide,2026:receipt#1"
DIALECT_CHUNKED_OHTTP: Final = "ohttp-chunked-08"
DIALECT_EHBP: Final = "ehbp (not promised: bound path and headers, end of message, post-quantum)"
LABEL_GPU_NONCE: Final = b"confide.gpu.v1"
LABEL_NONCE_LEAF: Final = b"confide.nonce.leaf.v1"
LABEL_NONCE_NODE: Final = b"confide.nonce.node.v1"
LABEL_TRANSCRIPT_LEAF: Final = b"confide.transcript.leaf.v1"
LABEL_TRANSCRIPT_NODE: Final = b"confide.transcript.node.v1"
SALT_REQUEST: Final = b"confide.salt.request.v1"
SALT_RESPONSE: Final = b"confide.salt.response.v1"
SALT_MESSAGE: Final = b"confide.salt.message.v1"
SALT_CHUNK: Final = b"confide.salt.chunk.v1"

# --- Header fields inside the seal (values: lower-case hex of 32 bytes, but date and shape)
FIELD_DATE: Final = "date"
FIELD_NONCE: Final = "confide-nonce"
FIELD_EVIDENCE: Final = "confide-evidence"
FIELD_POLICY: Final = "confide-policy"
FIELD_SHAPE: Final = "confide-shape"
FIELD_SALT: Final = "confide-salt"
FIELD_CACHE_KEY: Final = "confide-cache-key"
# --- Trailer field of every sealed response: base64url, no padding, of the COSE receipt
FIELD_RECEIPT: Final = "confide-receipt"
# --- Clear header from gateway to enclave: whom fairness counts, nothing else
FIELD_ACCOUNT: Final = "confide-account"
# --- Clear header from enclave to gateway, on evidence: every keyset this process made, the latest first
FIELD_KEYSETS: Final = "confide-keysets"
# --- Clear header fields of EHBP, request and response: 32 bytes in lower-case hex
FIELD_EHBP_KEY: Final = "ehbp-encapsulated-key"
FIELD_EHBP_NONCE: Final = "ehbp-response-nonce"
FIELD_KEYSET: Final = "confide-keyset"  # whose key a gateway shows

INNER_SCHEME: Final = "https"
INNER_AUTHORITY: Final = "enclave.invalid"
SHAPE_NONE: Final = "none"
SHAPE_BUCKETED: Final = "bucketed"
DATE_TOLERANCE_S: Final = 60
KEYSET_LIFETIME_MAX_S: Final = 24 * 3600
KEYSET_GRACE_S: Final = 300
DIGEST_BYTES: Final = 32

# --- Clear answers are constant bytes per status: they say nothing of what went wrong inside
PROBLEMS: Final[dict[int, bytes]] = {
    400: b'{"type":"about:blank","status":400,"title":"Bad Request"}',
    401: b'{"type":"about:blank","status":401,"title":"Unauthorized"}',
    404: b'{"type":"about:blank","status":404,"title":"Not Found"}',
    405: b'{"type":"about:blank","status":405,"title":"Method Not Allowed"}',
    408: b'{"type":"about:blank","status":408,"title":"Request Timeout"}',
    409: b'{"type":"about:blank","status":409,"title":"Conflict"}',
    413: b'{"type":"about:blank","status":413,"title":"Content Too Large"}',
    415: b'{"type":"about:blank","status":415,"title":"Unsupported Media Type"}',
    422: b'{"type":"urn:ietf:params:ehbp:error:key-config","status":422,"title":"Key Configuration Mismatch"}',
    429: b'{"type":"about:blank","status":429,"title":"Too Many Requests"}',
    502: b'{"type":"about:blank","status":502,"title":"Bad Gateway"}',
    503: b'{"type":"about:blank","status":503,"title":"Service Unavailable"}',
    504: b'{"type":"about:blank","status":504,"title":"Gateway Timeout"}',
}
