"""One sealed exchange: open, check, answer, shape, seal, sign (SPEC 7).

The boundary is the first request chunk that authenticates. Before it every fault raises, and the caller answers in
clear with a constant; after it every outcome, refusals included, is sealed and carries a receipt.
"""

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import UTC
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Final

from confide_protocol import labels
from confide_protocol.bhttp import Content, Decoder, Event, RequestHead, ResponseHead, Trailers
from confide_protocol.errors import ConfideError, EngineError, LocalStateError, Malformed, ProtocolError
from confide_protocol.hpke import Suite
from confide_protocol.keyset import Manifest
from confide_protocol.ohttp import RequestOpener, ResponseSealer, response_nonce_bytes
from confide_protocol.receipt import ReceiptClaims, sign_receipt
from confide_protocol.shape import ResponseShaper, Shape, shape_named
from confide_protocol.transcript import ResponseTranscript, TranscriptDigests, request_commitment

from confide_enclave.api import Answer, Api, ApiRequest, Record, refuse
from confide_enclave.api.answer import error_body, event
from confide_enclave.deadlines import Deadlines
from confide_enclave.errors import Refusal
from confide_enclave.keys import Clock, Generation, KeysetHolder, Random, fresh

Reply = Callable[[bytes], Awaitable[None]]
_HEX_32: Final = re.compile(r"[0-9a-f]{64}")


class SealedRequest:
    """Opens one request as its bytes come. `head` and `body` mean nothing before `finish` returned."""

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.head: RequestHead | None = None
        self.body = bytearray()
        self.enc_digest = b""
        self.crossed = False
        self._opener = RequestOpener(generation.suites)
        self._decoder = Decoder()

    def push(self, data: bytes) -> None:
        """Take the next bytes. Raises: ProtocolError; `crossed` tells on which side of the boundary."""
        try:
            plaintexts = self._opener.push(data)
        finally:
            self._cross()
        for plaintext in plaintexts:
            self._take(self._decoder.push(plaintext))

    def finish(self) -> None:
        """Demand the authenticated end. Raises: ProtocolError."""
        plaintexts = self._opener.finish()
        self._cross()
        for plaintext in plaintexts:
            self._take(self._decoder.push(plaintext))
        self._take(self._decoder.finish())
        if self.head is None:
            raise Malformed("a request without a head")

    def response_sealer(self, random: Random) -> ResponseSealer:
        return self._opener.response_sealer(fresh(random, response_nonce_bytes(self.suite.aead)))

    @property
    def suite(self) -> Suite:
        """The suite that the request was sealed with. Raises: LocalStateError before its header was read."""
        if self._opener.suite is None:
            raise LocalStateError
        return self._opener.suite

    def _cross(self) -> None:
        """Pass the boundary once: the replay check stands between the first chunk and everything else."""
        if self._opener.authenticated and not self.crossed:
            self.enc_digest = self._opener.enc_digest or b""
            self.generation.admit(self.enc_digest)
            self.crossed = True

    def _take(self, events: list[Event]) -> None:
        for each in events:
            if isinstance(each, RequestHead):
                self.head = each
            elif isinstance(each, Content):
                self.body += each.data
            elif isinstance(each, ResponseHead) or (isinstance(each, Trailers) and each.fields):
                raise Malformed("a request has no status and no trailers")


@dataclass(frozen=True)
class InnerHeaders:
    """The header fields that bind a request; a field that is absent, repeated or malformed is None."""

    date_unix_s: float | None
    nonce: bytes | None
    statement_digest: bytes | None
    policy_digest: bytes | None
    shape: str | None
    salt: bytes | None = field(repr=False)
    cache_key: bytes | None = field(repr=False)
    cache_key_is_bad: bool

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

        cache_key = secret(labels.FIELD_CACHE_KEY)
        return cls(
            date_unix_s=_http_date(one(labels.FIELD_DATE)),
            nonce=secret(labels.FIELD_NONCE),
            statement_digest=secret(labels.FIELD_EVIDENCE),
            policy_digest=secret(labels.FIELD_POLICY),
            shape=one(labels.FIELD_SHAPE),
            salt=secret(labels.FIELD_SALT),
            cache_key=cache_key,
            cache_key_is_bad=cache_key is None and any(name == labels.FIELD_CACHE_KEY for name, _ in fields),
        )

    def check(self, generation: Generation, shapes: tuple[str, ...], now_unix_s: float) -> None:
        """Raises: Refusal naming the first field that does not hold."""
        present = {
            labels.FIELD_DATE: self.date_unix_s is not None,
            labels.FIELD_NONCE: self.nonce is not None,
            labels.FIELD_EVIDENCE: self.statement_digest is not None,
            labels.FIELD_POLICY: self.policy_digest is not None,
            labels.FIELD_SHAPE: self.shape is not None,
            labels.FIELD_SALT: self.salt is not None,
            labels.FIELD_CACHE_KEY: not self.cache_key_is_bad,
        }
        for name, holds in present.items():
            if not holds:
                raise Refusal(
                    400, f"The sealed header '{name}' is absent or malformed.", code="bad_header", param=name
                )
        if abs(now_unix_s - (self.date_unix_s or 0)) > labels.DATE_TOLERANCE_S:
            raise Refusal(400, "The request's date is off by more than a minute.", code="date_skew", param="date")
        if not generation.issued(self.statement_digest or b""):
            raise Refusal(
                409,
                "The evidence was not issued for this keyset.",
                code="unknown_evidence",
                param=labels.FIELD_EVIDENCE,
            )
        if self.shape not in shapes:
            raise Refusal(400, "The shape is not offered here.", code="unknown_shape", param=labels.FIELD_SHAPE)


@dataclass(frozen=True)
class Session:
    """Serves the sealed exchanges of one enclave. `signer` runs the slow signatures off the event loop."""

    holder: KeysetHolder
    manifest: Manifest
    api: Api
    engine_mode: str
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
        deadline_s = asyncio.get_running_loop().time() + self.answer_timeout_s
        answer = await self._decide(request, headers, fault, account, deadline_s)
        try:
            await self._seal(request, headers, answer, deadline_s, reply)
        finally:
            if answer.rest is not None:
                await answer.rest.aclose()

    async def _decide(
        self,
        request: SealedRequest,
        headers: InnerHeaders,
        fault: ProtocolError | None,
        account: str,
        deadline_s: float,
    ) -> Answer:
        head = request.head
        try:
            if fault is not None or head is None:
                return refuse(fault or Malformed())
            headers.check(request.generation, self.manifest.shapes, self.clock())
            _check_target(head)
            call = ApiRequest(
                method=head.method,
                path=head.path,
                body=bytes(request.body),
                flush_tokens=self._shape(headers).flush_tokens,
                cache_salt=self.holder.tenant_salt(headers.cache_key),
                account=account,
            )
            async with self.deadlines.until(deadline_s):
                return await self.api.answer(call)
        except Exception as error:  # noqa: BLE001 - whatever fails past the boundary is answered sealed
            return refuse(self._presentable(error))

    async def _seal(
        self, request: SealedRequest, headers: InnerHeaders, answer: Answer, deadline_s: float, reply: Reply
    ) -> None:
        salt = headers.salt or fresh(self.random)
        transcript = ResponseTranscript(salt)
        transcript.head(answer.status, answer.content_type)
        shaper = ResponseShaper(
            self._shape(headers), ResponseHead(answer.status, (("content-type", answer.content_type),))
        )
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
            batch = await self._next(answer, deadline_s)
        digests = transcript.finish([message.encode() for message in answer.record.messages])
        claims = self._claims(request, headers, answer, salt, digests)
        receipt = await asyncio.get_running_loop().run_in_executor(
            self.signer,
            sign_receipt,
            claims,
            request.generation.receipt_ed25519,
            request.generation.receipt_ml_dsa_65,
        )
        text = base64.urlsafe_b64encode(receipt).rstrip(b"=").decode()
        *before, last = shaper.finish(((labels.FIELD_RECEIPT, text),))
        await reply(b"".join([*map(sealer.seal, before), sealer.seal(last, final=True)]))

    async def _next(self, answer: Answer, deadline_s: float) -> tuple[bytes, ...] | None:
        """Return the next batch, or the error event that ends an aborted stream, or None at the end."""
        if answer.rest is None:
            return None
        try:
            async with self.deadlines.until(deadline_s):
                return await anext(answer.rest, None)
        except Exception as error:  # noqa: BLE001 - whatever fails past the boundary is answered sealed
            answer.record.outcome = "aborted"
            return (event(error_body(self._presentable(error))),)

    def _presentable(self, error: Exception) -> ConfideError:
        """Turn a failure into one that may be told to the client; what nobody foresaw is reported first."""
        if isinstance(error, (Refusal, EngineError, ProtocolError)):
            return error
        if isinstance(error, TimeoutError) and self.deadlines.stopping:
            return Refusal(503, "The enclave is shutting down.", code="shutting_down", kind="server_error")
        if isinstance(error, TimeoutError):
            return Refusal(504, "The answer took too long.", code="timeout", kind="server_error")
        self.report(error)
        return EngineError()

    def _shape(self, headers: InnerHeaders) -> Shape:
        """The shape that was asked for, or the most hiding one on offer where none or a wrong one was."""
        offered = self.manifest.shapes
        hiding = labels.SHAPE_BUCKETED if labels.SHAPE_BUCKETED in offered else offered[0]
        return shape_named(headers.shape if headers.shape in offered and headers.shape else hiding)

    def _claims(
        self,
        request: SealedRequest,
        headers: InnerHeaders,
        answer: Answer,
        salt: bytes,
        digests: TranscriptDigests,
    ) -> ReceiptClaims:
        generation, record, shape = request.generation, answer.record, self._shape(headers)
        head, statement = request.head, headers.statement_digest
        asserted = {"nonce": headers.nonce, "policy": headers.policy_digest}
        return ReceiptClaims(
            keyset_digest=generation.digest,
            statement_digest=statement if statement and generation.issued(statement) else None,
            manifest_digest=generation.keyset.manifest_digest,
            request_commitment=request_commitment(
                salt, head.method if head else "", head.path if head else "", bytes(request.body)
            ),
            response_commitment=digests.commitment,
            transcript_root=digests.root,
            chunk_count=digests.chunk_count,
            message_count=digests.message_count,
            enc_digest=request.enc_digest,
            model=self.manifest.model,
            outcome=record.outcome,
            status=answer.status,
            sampling=_sampling(record),
            seed=record.sampling.seed if record.sampling else None,
            engine_mode=self.engine_mode,
            suite=request.suite.name,
            shape=shape.name,
            prompt_tokens=shape.bucket_tokens(record.prompt_tokens),
            completion_tokens=shape.bucket_tokens(record.completion_tokens),
            issued_unix_s=int(self.clock()),
            simulated=generation.keyset.simulated,
            client_asserted={name: value for name, value in asserted.items() if value is not None},
        )


def _check_target(head: RequestHead) -> None:
    if (head.scheme, head.authority) != (labels.INNER_SCHEME, labels.INNER_AUTHORITY):
        raise Refusal(421, "The request is meant for another authority.", code="misdirected")


def _http_date(value: str | None) -> float | None:
    try:
        date = parsedate_to_datetime(value or "")
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _sampling(record: Record) -> dict[str, str | int]:
    if record.sampling is None:
        return {}
    return {
        "temperature": f"{Decimal(repr(record.sampling.temperature)):f}",
        "top_p": f"{Decimal(repr(record.sampling.top_p)):f}",
        "max_tokens": record.sampling.max_tokens,
        "stop_count": len(record.sampling.stop),
    }
