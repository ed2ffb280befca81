"""One exchange in one file, judged offline: evidence, policy, receipt and, where disclosed, the words.

The file is deterministic CBOR:
    {purpose: "confide.audit.v1", stated_unix_s: int, evidence: bytes (as `/evidence` served it), nonce: bytes,
     policy: bytes (TOML), receipt: bytes (COSE_Sign),
     exchange: null | {method, path, request: bytes, status: int, content_type, response: [bytes], salt: bytes},
     parts: [[kind, index, salt, content, [sibling, ...]], ...]}
`exchange` is the disclosure: without it the receipt still proves that an attested enclave signed commitments to
some request and answer, but not to which. Who has a file with it can read the conversation. `parts` are single
messages or chunks of an answer, shown without the rest of it (`disclose`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from confide_attestation.appraise import appraise
from confide_attestation.evidence import parse_bundle
from confide_attestation.policy import AppraisalPolicy, load_policy
from confide_attestation.result import AttestationResult, Check, Outcome
from confide_protocol import cbor, labels
from confide_protocol.audit.disclosure import DisclosedPart, disclose_part, verify_part
from confide_protocol.errors import LocalStateError, Malformed, ProtocolError, ReceiptInvalid
from confide_protocol.fields import is_digest, is_time
from confide_protocol.keyset import Manifest
from confide_protocol.receipt import ReceiptClaims, verify_receipt
from confide_protocol.transcript import PartKind, ResponseTranscript, TranscriptDigests, request_commitment

from confide.answer import AnswerText, is_events, is_json
from confide.session import Disclosure, Receipt

PURPOSE_AUDIT: Final = "confide.audit.v1"
MAX_AUDIT_BYTES = 96 << 20
_FIELDS = {"purpose", "stated_unix_s", "evidence", "nonce", "policy", "receipt", "exchange", "parts"}
MAX_PARTS = 1024
MAX_PATH = 64
_EXCHANGE = {"method", "path", "request", "status", "content_type", "response", "salt"}

Rerunner = Callable[[Manifest, ReceiptClaims, Disclosure], Iterable[Check]]


@dataclass(frozen=True)
class AuditFile:
    """Everything that a later judge needs; nothing in it is trusted, the time it states included."""

    stated_unix_s: int
    evidence: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    policy: bytes = field(repr=False)
    receipt: bytes = field(repr=False)
    exchange: Disclosure | None = field(default=None, repr=False)
    parts: tuple[DisclosedPart, ...] = field(default=(), repr=False)

    @property
    def encoded(self) -> bytes:
        said = self.exchange
        return cbor.encode(
            {
                "purpose": PURPOSE_AUDIT,
                "stated_unix_s": self.stated_unix_s,
                "evidence": self.evidence,
                "nonce": self.nonce,
                "policy": self.policy,
                "receipt": self.receipt,
                "exchange": None
                if said is None
                else {
                    "method": said.method,
                    "path": said.path,
                    "request": said.request_body,
                    "status": said.status,
                    "content_type": said.content_type,
                    "response": list(said.response),
                    "salt": said.salt,
                },
                "parts": [[p.kind, p.index, p.salt, p.content, list(p.path)] for p in self.parts],
            }
        )


def audit_file(receipt: Receipt, policy: bytes, *, disclose: bool) -> AuditFile:
    """Gather a verified exchange as of the receipt's own time; `policy`: the file that the client demanded."""
    verified, said = receipt.verified, receipt.disclosure if disclose else None
    return AuditFile(receipt.claims.issued_unix_s, verified.bundle, verified.nonce, policy, receipt.encoded, said)


def parse_audit_file(data: bytes) -> AuditFile:
    """Parse an audit file; makes no trust claim. Raises: Malformed."""
    tree = cbor.decode(data, max_bytes=MAX_AUDIT_BYTES)
    if not isinstance(tree, dict) or set(tree) != _FIELDS or tree["purpose"] != PURPOSE_AUDIT:
        raise Malformed("not an audit file")
    stated = tree["stated_unix_s"]
    if not is_time(stated):
        raise Malformed("an audit file's stated_unix_s is not a time")
    if not all(isinstance(tree[name], bytes) for name in ("evidence", "nonce", "policy", "receipt")):
        raise Malformed("a part of an audit file is not bytes")
    return AuditFile(
        stated,
        tree["evidence"],
        tree["nonce"],
        tree["policy"],
        tree["receipt"],
        _exchange(tree["exchange"]),
        _parts(tree["parts"]),
    )


def disclose(file: AuditFile, kind: PartKind, index: int) -> AuditFile:
    """Return the file with one message or chunk of the answer in place of all words.

    Raises: LocalStateError where the file has no words, or no such part.
    """
    said = file.exchange
    if said is None:
        raise LocalStateError("the file discloses no words, so no part of them can be taken out")
    digests, text = transcribe(said)
    parts = text.messages if kind == "message" else said.response
    if not 0 <= index < len(parts):
        raise LocalStateError(f"the answer has {len(parts)} {kind}(s), counted from 0")
    part = disclose_part(said.salt, digests, kind, index, parts[index])
    return replace(file, exchange=None, parts=(*file.parts, part))


def _exchange(tree: Any) -> Disclosure | None:  # noqa: ANN401
    if tree is None:
        return None
    kinds = {"method": str, "path": str, "request": bytes, "content_type": str, "response": list, "salt": bytes}
    if (
        not isinstance(tree, dict)
        or set(tree) != _EXCHANGE
        or not all(isinstance(tree[name], kind) for name, kind in kinds.items())
        or type(tree["status"]) is not int
        or len(tree["salt"]) != labels.DIGEST_BYTES
        or not all(isinstance(part, bytes) for part in tree["response"])
    ):
        raise Malformed("an audit file's exchange is malformed")
    return Disclosure(
        tree["method"],
        tree["path"],
        tree["request"],
        tree["status"],
        tree["content_type"],
        tuple(tree["response"]),
        tree["salt"],
    )


def _parts(tree: Any) -> tuple[DisclosedPart, ...]:  # noqa: ANN401
    if not isinstance(tree, list) or len(tree) > MAX_PARTS:
        raise Malformed("an audit file's parts are not a list, or too many")
    parts = []
    for item in tree:
        match item:
            case [
                "message" | "chunk" as kind,
                int() as index,
                bytes() as salt,
                bytes() as content,
                list() as path,
            ] if type(index) is int and len(path) <= MAX_PATH and all(map(is_digest, (salt, *path))):
                parts.append(DisclosedPart(kind, index, salt, content, tuple(path)))
            case _:
                raise Malformed("a part in an audit file is malformed")
    return tuple(parts)


@dataclass(frozen=True)
class AuditResult:
    """The evidence's appraisal, then the receipt's checks. `claims` is None unless the receipt verified."""

    attestation: AttestationResult
    checks: tuple[Check, ...]
    claims: ReceiptClaims | None

    @property
    def holds(self) -> bool:
        return self.attestation.keyset is not None and not any(c.outcome is Outcome.FAIL for c in self.checks)


def audit(
    file: AuditFile,
    *,
    at_unix_s: int | None = None,
    policy: AppraisalPolicy | None = None,
    allow_simulated: bool = False,
    rerun: Rerunner | None = None,
) -> AuditResult:
    """Judge an audit file as of the time it states (or `at_unix_s`) by its own policy (or the auditor's).

    `rerun` is asked last, and only if the disclosed words are those of the receipt.

    Raises: EvidenceMalformed, PolicyError. Does not check: that the stated time is true (nothing in the file
    can show it), that the file's own policy is one that the auditor would accept.
    """
    evidence, endorsements = parse_bundle(file.evidence)
    demanded = policy or load_policy(file.policy, "the audit file's policy")
    attestation = appraise(
        evidence,
        endorsements,
        demanded,
        now_unix_s=file.stated_unix_s if at_unix_s is None else at_unix_s,
        floor=0,
        nonce=file.nonce,
        allow_simulated=allow_simulated,
    )
    checks: list[Check] = []
    claims = None
    if attestation.keyset is None:
        checks.append(Check("receipt", Outcome.SKIP, "no keyset was accepted, so there is none to verify it under"))
    else:
        try:
            claims = verify_receipt(file.receipt, attestation.keyset.keyset)
            checks.append(Check("receipt", Outcome.PASS, "both signatures are by the appraised keyset"))
        except ReceiptInvalid as fault:
            checks.append(Check("receipt", Outcome.FAIL, str(fault)))
    if claims is not None and attestation.keyset is not None:
        own = load_policy(file.policy, "the audit file's policy")
        asserted = claims.client_asserted
        checks += [
            _equal(
                "receipt_statement", claims.statement_digest, attestation.keyset.statement_digest, "the evidence"
            ),
            _equal("receipt_policy", asserted.get("policy"), own.digest, "the client's policy, in this file"),
            *_check_exchange(claims, file.exchange),
            *(_check_part(claims, part) for part in file.parts),
        ]
        if rerun is not None:
            checks += _rerun(rerun, attestation.keyset.manifest, claims, file.exchange, checks)
    checks.append(
        Check("time", Outcome.SKIP, "no log or time anchor: neither receipt nor file proves when this happened")
    )
    return AuditResult(attestation, tuple(checks), claims)


def _rerun(
    rerun: Rerunner, manifest: Manifest, claims: ReceiptClaims, said: Disclosure | None, before: list[Check]
) -> Iterable[Check]:
    if said is None:
        return [
            Check("rerun_answer", Outcome.FAIL, "the words are not disclosed, so there is nothing to run again")
        ]
    if any(check.outcome is Outcome.FAIL for check in before):
        return [Check("rerun_answer", Outcome.SKIP, "not re-run: what is above does not hold")]
    return rerun(manifest, claims, said)


def _check_exchange(claims: ReceiptClaims, said: Disclosure | None) -> list[Check]:
    if said is None:
        why = "not disclosed: the receipt binds to some words, this file does not say which"
        return [Check(name, Outcome.SKIP, why) for name in ("request", "response", "transcript")]
    try:
        digests, _ = transcribe(said)
        asked = request_commitment(said.salt, said.method, said.path, said.request_body)
    except ProtocolError as fault:
        return [Check("response", Outcome.FAIL, str(fault))]
    return [
        _equal("request", claims.request_commitment, asked, "the disclosed request"),
        _equal("response", claims.response_commitment, digests.commitment, "the disclosed answer"),
        _equal("transcript", claims.transcript_root, digests.root, "the disclosed messages and chunks"),
    ]


def transcribe(said: Disclosure) -> tuple[TranscriptDigests, AnswerText]:
    """Recompute what a receipt commits to, and the texts in it. Raises: ProtocolError."""
    transcript, text = ResponseTranscript(said.salt), AnswerText()
    transcript.head(said.status, said.content_type)
    for part in said.response:
        transcript.chunk(part)
        if is_events(said.content_type):
            text.event(part)
        elif is_json(said.content_type):
            text.body(part)
    return transcript.finish(text.messages), text


def _check_part(claims: ReceiptClaims, part: DisclosedPart) -> Check:
    what = f"{part.kind} {part.index}"
    counts = {"message_count": claims.message_count, "chunk_count": claims.chunk_count}
    try:
        verify_part(part, root=claims.transcript_root, **counts)
    except ReceiptInvalid as fault:
        return Check("part", Outcome.FAIL, f"{what}: {fault}")
    return Check("part", Outcome.PASS, f"{what} stands in the signed transcript")


def _equal(name: str, signed: object, found: object, what: str) -> Check:
    if signed == found:
        return Check(name, Outcome.PASS, f"the receipt speaks of {what}")
    return Check(name, Outcome.FAIL, f"the receipt does not speak of {what}")
