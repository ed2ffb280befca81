"""One client's trust and one sealed exchange. Sans-IO: bytes, time and randomness are arguments (SPEC 6).

    session = ClientSession(policy, floor=0, allow_simulated=False, random=os.urandom)
    session.verify(bundle, nonce, now)                 # or AppraisalRejected
    exchange = session.seal(session.call("POST", path, fields, body), now)
    ... send exchange.header_fields and exchange.body to exchange.path ...
    exchange.answered(status, content_type)            # or RelayRefused
    for event in exchange.push(data): ...              # as bytes arrive
    for event in exchange.finish(): ...                # or the answer was not whole

Nothing can be sealed but to a keyset that passed `appraise`; no answer is whole before `finish` returned.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

from confide_attestation.appraise import appraise
from confide_attestation.errors import AppraisalRejected
from confide_attestation.evidence import parse_bundle
from confide_attestation.policy import AppraisalPolicy
from confide_attestation.result import AttestationResult, AttestedKeyset
from confide_protocol import bhttp, keyconfig, labels
from confide_protocol.errors import (
    EngineError,
    LocalStateError,
    Malformed,
    ReceiptInvalid,
    RelayRefused,
    TooLarge,
)
from confide_protocol.hpke import HKDF_SHA256, suite_named
from confide_protocol.ohttp import RequestSealer
from confide_protocol.receipt import ExpectedExchange, ReceiptClaims, check_receipt, verify_receipt
from confide_protocol.shape import shape_named
from confide_protocol.sse import EventSplitter
from confide_protocol.transcript import ResponseTranscript, request_commitment

from confide.answer import AnswerText, is_events, is_json, media_type
from confide.naming import expected_model
from confide.views import receipt_dict

MAX_ANSWER_BYTES = 64 << 20
RENEW_BEFORE_S = 600
SECRET_BYTES = 32
# The transport's own business, or nobody's: these fields of the application's request are not carried inside.
UNCARRIED = frozenset((
    "accept-encoding", "authorization", "connection", "content-length", "cookie", "date", "expect", "host",
    "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
))  # fmt: skip

Fields = tuple[tuple[str, str], ...]
Random = Callable[[int], bytes]


def fresh(random: Random) -> bytes:
    """Draw 32 random bytes; a generator that gives zeros has failed, and nothing may be built on it."""
    drawn = random(SECRET_BYTES)
    if len(drawn) != SECRET_BYTES or not any(drawn):
        raise LocalStateError("the random number generator failed")
    return drawn


@dataclass(frozen=True)
class Call:
    """One request as the application meant it. Sealed again after a stale key, it keeps its nonce and salt."""

    method: str
    path: str = field(repr=False)
    fields: Fields = field(repr=False)
    body: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    salt: bytes = field(repr=False)


@dataclass(frozen=True)
class Disclosure:
    """The plain words of an exchange and the salt that ties them to its receipt: for an auditor, on purpose."""

    method: str
    path: str = field(repr=False)
    request_body: bytes = field(repr=False)
    status: int
    content_type: str
    response: tuple[bytes, ...] = field(repr=False)
    salt: bytes = field(repr=False)


@dataclass(frozen=True)
class Verified:
    """An appraisal that passed, with the evidence as it was served and the nonce that it answers."""

    result: AttestationResult
    keyset: AttestedKeyset
    bundle: bytes = field(repr=False)
    nonce: bytes = field(repr=False)


@dataclass(frozen=True)
class Receipt:
    """A receipt that was verified against the exchange it came with. `encoded` is the COSE_Sign, for keeping."""

    encoded: bytes = field(repr=False)
    claims: ReceiptClaims
    verified: Verified = field(repr=False)
    disclosure: Disclosure = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the claims as JSON's types, for showing: no word of the exchange is among them."""
        return receipt_dict(self.claims)


class ClientSession:
    """What one client trusts: a policy, its floor, and the latest appraisal that passed."""

    def __init__(
        self,
        policy: AppraisalPolicy,
        *,
        floor: int,
        allow_simulated: bool,
        random: Random,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        self.policy = policy
        self.max_answer_bytes = max_answer_bytes
        self.verified: Verified | None = None
        self._floor, self._allow_simulated, self._random = floor, allow_simulated, random
        self._suite, self._shape = suite_named(policy.suite), shape_named(policy.shape)
        self._cache_key = fresh(random)

    def challenge(self) -> bytes:
        """Draw the nonce that the next evidence must answer."""
        return fresh(self._random)

    def verify(
        self, bundle: bytes, nonce: bytes, now_unix_s: int, *, accepted: Callable[[], None] = lambda: None
    ) -> AttestedKeyset:
        """Appraise evidence fetched with `nonce`; what passed before stays in force if this does not pass.

        `accepted` is called between the appraisal and the first use of what passed; if it raises, nothing passed.

        Raises: EvidenceMalformed, AppraisalRejected.
        """
        evidence, endorsements = parse_bundle(bundle)
        result = appraise(
            evidence,
            endorsements,
            self.policy,
            now_unix_s=now_unix_s,
            floor=self._floor,
            nonce=nonce,
            allow_simulated=self._allow_simulated,
        )
        if result.keyset is None:
            raise AppraisalRejected(result)
        accepted()
        self.verified = Verified(result, result.keyset, bundle, nonce)
        return result.keyset

    def attested(self, now_unix_s: int) -> AttestedKeyset | None:
        """Return the keyset that may be sealed to at this time, if there is one."""
        verified = self._valid(now_unix_s)
        return verified.keyset if verified else None

    def _valid(self, now_unix_s: int) -> Verified | None:
        verified = self.verified
        return verified if verified and now_unix_s < verified.keyset.valid_until_unix_s else None

    def renewal_due(self, now_unix_s: int) -> bool:
        keyset = self.attested(now_unix_s)
        return keyset is None or now_unix_s >= keyset.valid_until_unix_s - RENEW_BEFORE_S

    def call(self, method: str, path: str, fields: Iterable[tuple[str, str]], body: bytes) -> Call:
        """Take a request as an HTTP library gives it. Raises: LocalStateError for what cannot be sealed."""
        if method == "CONNECT":
            raise LocalStateError("a tunnel cannot be sealed")
        carried = []
        for name, value in ((name.lower(), value) for name, value in fields):
            if name.startswith("confide-"):
                raise LocalStateError("header fields named confide-* are the session's own")
            if name == "upgrade":
                raise LocalStateError("an upgraded connection cannot be sealed")
            if name not in UNCARRIED:
                carried.append((name, value))
        return Call(method, path, tuple(carried), body, fresh(self._random), fresh(self._random))

    def cache_key(self, caller: str) -> bytes:
        """Return the key under which the enclave may remember prompts: one for each caller."""
        return hmac.digest(self._cache_key, caller.encode(), "sha256") if caller else self._cache_key

    def seal(self, call: Call, now_unix_s: int, caller: str = "") -> "Exchange":
        """Seal a call to the attested keyset. Raises: LocalStateError when there is none (or none any more)."""
        verified = self._valid(now_unix_s)
        if verified is None:
            raise LocalStateError("nothing is sealed before the enclave has been verified")
        attested = verified.keyset
        configs = keyconfig.parse_key_configs(attested.keyset.ohttp_keys)
        config = keyconfig.choose(configs, self._suite.kem, HKDF_SHA256, self._suite.aead)
        sealer = RequestSealer(config, self._suite, fresh(self._random))
        own = {
            labels.FIELD_DATE: formatdate(now_unix_s, usegmt=True),
            labels.FIELD_NONCE: call.nonce.hex(),
            labels.FIELD_EVIDENCE: attested.statement_digest.hex(),
            labels.FIELD_POLICY: attested.policy_digest.hex(),
            labels.FIELD_SHAPE: self.policy.shape,
            labels.FIELD_SALT: call.salt.hex(),
            labels.FIELD_CACHE_KEY: self.cache_key(caller).hex(),
        }
        head = bhttp.RequestHead(
            call.method, labels.INNER_SCHEME, labels.INNER_AUTHORITY, call.path, (*own.items(), *call.fields)
        )
        message = bhttp.encode_head(head) + bhttp.encode_content(call.body) + bhttp.encode_end()
        sealed = sealer.header + sealer.seal(self._shape.pad_request(message), final=True)
        return Exchange(call, verified, self, sealer, sealed)


class Exchange:
    """One sealed request and its answer. After any error it is spent."""

    header_fields: Fields = (
        ("content-type", labels.MEDIA_REQUEST),
        ("accept", labels.MEDIA_RESPONSE),
        ("incremental", "?1"),
    )

    def __init__(
        self, call: Call, verified: Verified, session: ClientSession, sealer: RequestSealer, sealed: bytes
    ) -> None:
        self.keyset_digest = verified.keyset.keyset.digest
        self.path = labels.PATH_OHTTP + self.keyset_digest.hex()
        self.body = sealed
        self.head: bhttp.ResponseHead | None = None
        self.streamed = False
        self.receipt: Receipt | None = None
        self._call, self._verified, self._policy = call, verified, session.policy
        self._enc_digest = hashlib.sha256(sealer.enc).digest()
        self._opener = sealer.response_opener()
        self._decoder = bhttp.Decoder()
        self._splitter = EventSplitter()
        self._transcript = ResponseTranscript(call.salt)
        self._answer = AnswerText()
        self._parts: list[bytes] = []
        self._room = session.max_answer_bytes
        self._withheld = 0  # how many of the last parts are not shown yet
        self._trailers: Fields | None = None
        self._content_type, self._ended = "", False

    def answered(self, status: int, content_type: str) -> None:
        """Take the outer head. Raises: RelayRefused for everything that is not a sealed answer."""
        if status != 200 or media_type(content_type) != labels.MEDIA_RESPONSE:
            raise RelayRefused(status)

    def push(self, data: bytes) -> list[bytes]:
        """Take sealed bytes as they came; return the whole events that may be shown already.

        A plain body, and a stream's last event ([DONE]) with what follows it, are shown by `finish` alone.
        Raises: DecryptionFailed, Malformed, TooLarge.
        """
        return self._open(self._opener.push(data))

    def finish(self) -> list[bytes]:
        """Take the end of the sealed bytes; verify that the answer is whole and signed; return what was withheld.

        Raises: Truncated, DecryptionFailed, Malformed, ReceiptInvalid; EngineError when the enclave says, signed,
        that it broke the answer off.
        """
        shown = self._open(self._opener.finish())
        for event in self._decoder.finish():
            shown += self._take(event)
        if self.head is None or not self._ended:
            raise Malformed("the sealed message has no end")
        if self._splitter.finish():
            raise Malformed("the stream ends within an event")
        if not self.streamed:
            body = b"".join(self._parts)
            self._parts = [body] if body else []
            self._withheld = len(self._parts)
            self._transcript.chunk(body)
            if is_json(self._content_type):
                self._answer.body(body)
        self.receipt = self._verified_receipt(self.head)
        if self.receipt.claims.outcome != "complete" and self.head.status < 400:
            raise EngineError("the enclave broke the answer off, and signed that it did")
        return shown + self._parts[len(self._parts) - self._withheld :]

    def _open(self, plaintexts: list[bytes]) -> list[bytes]:
        shown: list[bytes] = []
        for plaintext in plaintexts:
            self._room -= len(plaintext)
            if self._room < 0:
                raise TooLarge("the answer is larger than its limit")
            for event in self._decoder.push(plaintext):
                shown += self._take(event)
        return shown

    def _take(self, event: bhttp.Event) -> list[bytes]:
        match event:
            case bhttp.Content() if self.streamed:
                return [part for part in self._splitter.push(event.data) if self._show(part)]
            case bhttp.Content():
                self._parts.append(event.data)
            case bhttp.ResponseHead():
                self.head = event
                self._content_type = next((value for name, value in event.fields if name == "content-type"), "")
                self.streamed = is_events(self._content_type)
                self._transcript.head(event.status, self._content_type)
            case bhttp.Trailers():
                self._trailers = event.fields
            case bhttp.EndOfMessage():
                self._ended = True
            case _:
                raise Malformed("the sealed message is not a response")
        return []

    def _show(self, event: bytes) -> bool:
        """Record one event; the one at which applications stop reading waits for the receipt."""
        self._transcript.chunk(event)
        self._answer.event(event)
        self._parts.append(event)
        if self._answer.ended or self._withheld:
            self._withheld += 1
        return not self._withheld

    def _verified_receipt(self, head: bhttp.ResponseHead) -> Receipt:
        encoded = _receipt_field(self._trailers or ())
        call, attested, policy = self._call, self._verified.keyset, self._policy
        claims = verify_receipt(encoded, attested.keyset)
        check_receipt(
            claims,
            ExpectedExchange(
                keyset=attested.keyset,
                statement_digest=attested.statement_digest,
                policy_digest=attested.policy_digest,
                nonce=call.nonce,
                enc_digest=self._enc_digest,
                request_commitment=request_commitment(call.salt, call.method, call.path, call.body),
                response=self._transcript.finish(self._answer.messages),
                shape=policy.shape,
                suite=policy.suite,
                status=head.status,
                model=expected_model(attested.manifest, claims, call.body),
            ),
        )
        disclosure = Disclosure(
            call.method, call.path, call.body, head.status, self._content_type, tuple(self._parts), call.salt
        )
        return Receipt(encoded, claims, self._verified, disclosure)


def _receipt_field(trailers: Fields) -> bytes:
    values = [value for name, value in trailers if name == labels.FIELD_RECEIPT]
    if len(values) != 1:
        raise ReceiptInvalid("the answer does not carry exactly one receipt")
    try:
        text = values[0].encode("ascii")
        data = base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise ReceiptInvalid("the receipt is not base64url", part="parse") from None
    if base64.urlsafe_b64encode(data).rstrip(b"=") != text:
        raise ReceiptInvalid("the receipt is not base64url", part="parse")
    return data
