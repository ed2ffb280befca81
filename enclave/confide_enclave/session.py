"""One sealed exchange: open, check, answer, shape, seal, sign (SPEC 6).

The boundary is the first request chunk that authenticates. Before it every fault raises, and the caller answers in
clear with a constant; after it every outcome, refusals included, is sealed and carries a receipt.
"""

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import astuple, dataclass, field
from email.utils import formatdate, parsedate_to_datetime
from typing import Final

from confide_protocol import labels
from confide_protocol.bhttp import Content, Decoder, Event, RequestHead, ResponseHead, Trailers
from confide_protocol.errors import ConfideError, EngineError, Malformed, ProtocolError
from confide_protocol.hpke import REQUIRED
from confide_protocol.keyset import Manifest
from confide_protocol.ohttp import RequestOpener, ResponseSealer, response_nonce_bytes
from confide_protocol.receipt import ReceiptClaims, sign_receipt
from confide_protocol.shape import ResponseShaper, Shape, shape_named
from confide_protocol.transcript import ResponseTranscript, request_commitment

from confide_enclave.api import Answer, Api, ApiRequest, refuse
from confide_enclave.api.answer import error_body, event
from confide_enclave.claims import make_claims
from confide_enclave.deadlines import Deadlines
from confide_enclave.errors import Refusal
from confide_enclave.keys import Clock, Generation, KeysetHolder, Random, fresh

Reply = Callable[[bytes], Awaitable[None]]
_HEX_32: Final = re.compile(r"[0-9a-f]{64}")
_FIELDS: Final = (
    labels.FIELD_DATE, labels.FIELD_NONCE, labels.FIELD_EVIDENCE, labels.FIELD_POLICY, labels.FIELD_SHAPE,
    labels.FIELD_SALT, labels.FIELD_CACHE_KEY,
)  # fmt: skip


class SealedRequest:
    """Opens one request as its bytes come. `head` and `body` mean nothing before `finish` returned."""

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.head: RequestHead | None = None
        self.body = bytearray()
        self.enc_digest, self.suite, self.crossed = b"", REQUIRED, False
        self._opener = RequestOpener(generation.suites)
        self._decoder = Decoder()

    def push(self, data: bytes) -> None:
        """Take the next bytes. Raises: ProtocolError; `crossed` tells on which side of the boundary."""
        self._open(lambda: self._opener.push(data))

    def finish(self) -> None:
        """Demand the authenticated end. Raises: ProtocolError."""
        self._open(self._opener.finish)
        self._take(self._decoder.finish())
        if self.head is None:
            raise Malformed("a request without a head")

    def response_sealer(self, random: Random) -> ResponseSealer:
        return self._opener.response_sealer(fresh(random, response_nonce_bytes(self.suite.aead)))

    def _open(self, step: Callable[[], list[bytes]]) -> None:
        try:
            plaintexts = step()
        finally:
            self._cross()
        for plaintext in plaintexts:
            self._take(self._decoder.push(plaintext))

    def _cross(self) -> None:
        """Pass the boundary once: the replay check stands between the first chunk and everything else."""
        enc_digest, suite = self._opener.enc_digest, self._opener.suite
        if self._opener.authenticated and not self.crossed and enc_digest is not None and suite is not None:
            self.generation.admit(enc_digest)
            self.enc_digest, self.suite, self.crossed = enc_digest, suite, True

    def _take(self, events: list[Event]) -> None:
        for each in events:
            if isinstance(each, RequestHead):
                self.head = each
            elif isinstance(each, Content):
                self.body += each.data
            elif isinstance(each, (ResponseHead, Trailers)):
                raise Malformed("a request has no status and no trailers")


@dataclass(frozen=True)
class InnerHeaders:
    """The header fields that bind a request; one that is absent, repeated or malformed is None.

    `cache_key` may be absent: it is empty then.
    """

    date_unix_s: float | None
    nonce: bytes | None
    statement_digest: bytes | None
    policy_digest: bytes | None
    shape: str | None
    salt: bytes | None = field(repr=False)
    cache_key: bytes | None = field(repr=False)

    @classmethod
    def read(cls, head: RequestHead | None) -> "InnerHeaders":
        fields = head.fields if head is not None else ()

        def one(name: str) -> str | None:
            values = [value for each, value in fields if each == name]
            return values[0] if len(values) == 1 else None

        def secret(name: str) -> bytes | None:
            value = one(name)
            # All zeros is what a failed random number generator gives.
            return bytes.fromhex(value) if value and _HEX_32.fullmatch(value) and value.strip("0") else None

        return cls(
            date_unix_s=_http_date(one(labels.FIELD_DATE)),
            nonce=secret(labels.FIELD_NONCE),
            statement_digest=secret(labels.FIELD_EVIDENCE),
            policy_digest=secret(labels.FIELD_POLICY),
            shape=one(labels.FIELD_SHAPE),
            salt=secret(labels.FIELD_SALT),
            cache_key=secret(labels.FIELD_CACHE_KEY) if labels.FIELD_CACHE_KEY in dict(fields) else b"",
        )

    def check(self, generation: Generation, shapes: tuple[str, ...], now_unix_s: float) -> None:
        """Raises: Refusal naming the first field that does not hold."""
        for name, value in zip(_FIELDS, astuple(self), strict=True):
            if value is None:
                raise _refused("bad_header", name, f"The sealed header '{name}' is absent or malformed.")
        if abs(now_unix_s - (self.date_unix_s or 0)) > labels.DATE_TOLERANCE_S:
            raise _refused("date_skew", labels.FIELD_DATE, "The request's date is off by more than a minute.")
        if not generation.issued(self.statement_digest or b""):
            raise _refused(
                "unknown_evidence", labels.FIELD_EVIDENCE, "The evidence was not issued for this keyset."
            )
        if self.shape not in shapes:
            raise _refused("unknown_shape", labels.FIELD_SHAPE, "The shape is not offered here.")


@dataclass(frozen=True)
class Session:
    """Serves the sealed exchanges of one enclave. `signer` runs the slow signatures off the event loop."""

    holder: KeysetHolder
    manifest: Manifest
    api: Api
    answer_timeout_s: float
    clock: Clock
    random: Random
    signer: Executor
    report: Callable[[Exception], None]
    deadlines: Deadlines

    async def run(self, generation: Generation, body: AsyncIterator[bytes], account: str, reply: Reply) -> None:
        """Read one sealed request from `body` and `reply` with the sealed response's bytes.

        Raises: ProtocolError before the boundary, and then nothing was sent. Cancelling it stops the engine.
        """
        request = SealedRequest(generation)
        fault: ProtocolError | None = None
        try:
            async for data in body:
                request.push(data)
            request.finish()
        except ProtocolError as error:
            if not request.crossed:
                raise
            fault = error
        headers = InnerHeaders.read(request.head)
        shape = self.shape_for(headers.shape)
        deadline_s = self.deadline_s(generation)
        if fault is not None or request.head is None:
            answer = refuse(fault or Malformed())
        else:
            answer = await self._ask(request, request.head, headers, shape, account, deadline_s)
        try:
            await self._seal(request, headers, shape, answer, deadline_s, reply)
        finally:
            if answer.rest is not None:
                await answer.rest.aclose()

    async def _ask(
        self,
        request: SealedRequest,
        head: RequestHead,
        headers: InnerHeaders,
        shape: Shape,
        account: str,
        deadline_s: float,
    ) -> Answer:
        """Check the headers, then let the API answer: the one place where engine and cache are touched."""
        try:
            headers.check(request.generation, self.manifest.shapes, self.clock())
            _check_target(head)
            salt = self.holder.tenant_salt(headers.cache_key or None)
            body, lasts = bytes(request.body), bool(headers.cache_key)
            call = ApiRequest(head.method, head.path, body, shape.flush_tokens, salt, account, cache_lasts=lasts)
            async with self.deadlines.until(deadline_s):
                return await self.api.answer(call)
        except Exception as error:  # noqa: BLE001 - whatever fails past the boundary is answered sealed
            return refuse(self.presentable(error))

    async def _seal(
        self,
        request: SealedRequest,
        headers: InnerHeaders,
        shape: Shape,
        answer: Answer,
        deadline_s: float,
        reply: Reply,
    ) -> None:
        salt = headers.salt or fresh(self.random)
        transcript = ResponseTranscript(salt)
        transcript.head(answer.status, answer.content_type)
        shaper = ResponseShaper(shape, ResponseHead(answer.status, (("content-type", answer.content_type),)))
        sealer = request.response_sealer(self.random)
        sealed = [sealer.prefix]
        batch: tuple[bytes, ...] | None = answer.first
        while batch is not None:
            for each in batch:
                transcript.chunk(each)
                shaper.content(each)
            sealed += [sealer.seal(plaintext) for plaintext in shaper.flush()]
            if sealed:
                await reply(b"".join(sealed))
            sealed = []
            batch = await self.next_batch(answer, deadline_s)
        method, path = (request.head.method, request.head.path) if request.head else ("", "")
        claims = make_claims(
            request.generation,
            self.manifest,
            answer,
            transcript.finish([message.encode() for message in answer.record.messages]),
            enc_digest=request.enc_digest,
            statement_digest=headers.statement_digest,
            client_asserted={"nonce": headers.nonce, "policy": headers.policy_digest},
            request_commitment=request_commitment(salt, method, path, bytes(request.body)),
            suite=request.suite,
            shape=shape,
            issued_unix_s=int(self.clock()),
        )
        receipt = await self.sign(request.generation, claims)
        *before, last = shaper.finish(((labels.FIELD_RECEIPT, receipt),))
        await reply(b"".join([*map(sealer.seal, before), sealer.seal(last, final=True)]))

    def deadline_s(self, generation: Generation) -> float:
        """When an answer has to end, on the loop's clock: a receipt of later than that is accepted by nobody."""
        rest_s = generation.keyset.not_after_unix_s + labels.KEYSET_GRACE_S - self.clock()
        return asyncio.get_running_loop().time() + min(self.answer_timeout_s, rest_s)

    async def sign(self, generation: Generation, claims: ReceiptClaims) -> str:
        """Sign a receipt off the event loop; return it as base64url without padding."""
        keys = generation.receipt_ed25519, generation.receipt_ml_dsa_65
        receipt = await asyncio.get_running_loop().run_in_executor(self.signer, sign_receipt, claims, *keys)
        return base64.urlsafe_b64encode(receipt).rstrip(b"=").decode()

    async def next_batch(self, answer: Answer, deadline_s: float) -> tuple[bytes, ...] | None:
        """Return the next batch, or the error event that ends an aborted stream, or None at the end."""
        if answer.rest is None:
            return None
        try:
            async with self.deadlines.until(deadline_s):
                return await anext(answer.rest, None)
        except Exception as error:  # noqa: BLE001 - whatever fails past the boundary is answered sealed
            answer.record.outcome = "aborted"
            return (event(error_body(self.presentable(error))),)

    def presentable(self, error: Exception) -> ConfideError:
        """Turn a failure into one that may be told to the client; what nobody foresaw is reported first."""
        if isinstance(error, (Refusal, EngineError, ProtocolError)):
            return error
        if isinstance(error, TimeoutError) and self.deadlines.stopping:
            message = "The enclave is shutting down, or exchanging its models."
            return Refusal(503, message, code="shutting_down", kind="server_error")
        if isinstance(error, TimeoutError):
            return Refusal(504, "The answer took too long.", code="timeout", kind="server_error")
        self.report(error)
        return EngineError()

    def shape_for(self, wanted: str | None) -> Shape:
        """The shape that was asked for, or the most hiding one on offer where none or a wrong one was."""
        offered = self.manifest.shapes
        hiding = labels.SHAPE_BUCKETED if labels.SHAPE_BUCKETED in offered else offered[0]
        return shape_named(wanted if wanted is not None and wanted in offered else hiding)


def _refused(code: str, field_name: str, message: str) -> Refusal:
    return Refusal(400, message, code=code, param=field_name)


def _check_target(head: RequestHead) -> None:
    if (head.scheme, head.authority) != (labels.INNER_SCHEME, labels.INNER_AUTHORITY):
        raise Refusal(421, "The request is meant for another authority.", code="misdirected")


def _http_date(value: str | None) -> float | None:
    """Read an IMF-fixdate (RFC 9110 section 5.6.7), and no other of the forms that mail knows."""
    try:
        date_unix_s = parsedate_to_datetime(value or "").timestamp()
        return date_unix_s if formatdate(date_unix_s, usegmt=True) == value else None
    except (ValueError, TypeError, OverflowError):
        return None
