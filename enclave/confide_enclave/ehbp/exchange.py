"""One EHBP exchange: open, answer by the same API, seal, sign (SPEC 11).

The boundary is the first frame that authenticates: before it every fault raises, after it all is sealed, with the
status alone in clear. The receipt travels inside the seal, where readers who know nothing of it pass over it.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from confide_protocol import labels
from confide_protocol.errors import DecryptionFailed, ProtocolError, Replayed, UnknownKey
from confide_protocol.transcript import ResponseTranscript, request_commitment

from confide_enclave.api import Answer, ApiRequest, refuse
from confide_enclave.claims import make_claims
from confide_enclave.ehbp.filler import Filler
from confide_enclave.ehbp.wire import RESPONSE_NONCE_BYTES, SUITE, RequestOpener, ResponseSealer
from confide_enclave.keys import Generation, fresh
from confide_enclave.session import Reply, Session

Begin = Callable[[int, str, bytes], Awaitable[None]]
MEMBER: Final = b"confide"


class StaleKey(ProtocolError):
    """No live key opens the first frame: the client is to fetch the key anew."""

    code = "stale_key"
    http_status = 422
    reason = "the request is sealed to a key that is not held here"


class ForeignRequest:
    """Opens one request as its bytes come. `body` means nothing before `finish` returned."""

    def __init__(self, generations: tuple[Generation, ...], path: str, enc: bytes, max_bytes: int) -> None:
        held = [(each, each.ehbp) for each in generations if each.ehbp is not None]
        self.path, self.enc_digest = path, hashlib.sha256(enc).digest()
        self.body = bytearray()
        self.generation: Generation | None = None
        self._generations = [generation for generation, _ in held]
        self._opener = RequestOpener([key for _, key in held], enc, max_bytes)

    def push(self, data: bytes) -> None:
        """Take the next bytes. Raises: ProtocolError; `generation` tells on which side of the boundary."""
        try:
            plaintexts = self._opener.push(data)
        except DecryptionFailed:
            if self._opener.opened_by is None:
                raise StaleKey from None
            raise
        finally:
            self._cross()
        for plaintext in plaintexts:
            self.body += plaintext

    def finish(self) -> None:
        """Take the end of the body, which nothing authenticates. Raises: ProtocolError."""
        self._opener.finish()

    def response_sealer(self, nonce: bytes) -> ResponseSealer:
        return self._opener.response_sealer(nonce)

    def _cross(self) -> None:
        """Pass the boundary once: the replay check stands between the first frame and everything else."""
        if self.generation is None and self._opener.opened_by is not None:
            generation = self._generations[self._opener.opened_by]
            try:
                generation.admit(self.enc_digest)
            except Replayed:
                # Not 409: the libraries above EHBP's clients ask again after one, and would seal the call anew.
                raise UnknownKey from None
            self.generation = generation


@dataclass(frozen=True)
class Foreign:
    """Serves EHBP's exchanges beside those of `session`, by the same API, limits and keysets."""

    session: Session
    max_frame_bytes: int = field(kw_only=True)

    async def run(
        self, path: str, enc: bytes, body: AsyncIterator[bytes], account: str, begin: Begin, reply: Reply
    ) -> None:
        """Read one request from `body`, `begin` the answer, and `reply` with its frames.

        Raises: ProtocolError before the boundary, and then nothing was sent. Cancelling it stops the engine.
        """
        session = self.session
        request = ForeignRequest(session.holder.live, path, enc, self.max_frame_bytes)
        fault: ProtocolError | None = None
        try:
            async for data in body:
                request.push(data)
            request.finish()
        except ProtocolError as error:
            if request.generation is None:
                raise
            fault = error
            request.body.clear()  # of what did not come whole the receipt says nothing
        generation = request.generation
        assert generation is not None  # noqa: S101 - `finish` demands a frame
        deadline_s = session.deadline_s(generation)
        if fault is None:
            answer = await self._ask("POST", path, bytes(request.body), account, deadline_s)
        else:
            answer = refuse(fault)
        try:
            await self._seal(request, generation, answer, deadline_s, begin, reply)
        finally:
            if answer.rest is not None:
                await answer.rest.aclose()

    async def clear(self, path: str, account: str) -> Answer:
        """Answer a GET, which EHBP leaves in clear: what the API says to one is public."""
        deadline_s = asyncio.get_running_loop().time() + self.session.answer_timeout_s
        return await self._ask("GET", path, b"", account, deadline_s)

    async def _ask(self, method: str, path: str, body: bytes, account: str, deadline_s: float) -> Answer:
        session = self.session
        # Nobody's salt: header fields are not bound, so none of them may open a cache.
        salt, shape = session.holder.tenant_salt(None), session.shape_for(None)
        call = ApiRequest(method, path, body, shape.flush_tokens, salt, account)
        try:
            async with session.deadlines.until(deadline_s):
                return await session.api.answer(call)
        except Exception as error:  # noqa: BLE001 - whatever fails past the boundary is answered sealed
            return refuse(session.presentable(error))

    async def _seal(
        self,
        request: ForeignRequest,
        generation: Generation,
        answer: Answer,
        deadline_s: float,
        begin: Begin,
        reply: Reply,
    ) -> None:
        session, shape = self.session, self.session.shape_for(None)
        filler = Filler(shape, streams=answer.rest is not None)
        salt = fresh(session.random)
        sealer = request.response_sealer(fresh(session.random, RESPONSE_NONCE_BYTES))
        transcript = ResponseTranscript(salt)
        transcript.head(answer.status, answer.content_type)
        await begin(answer.status, answer.content_type, sealer.nonce)
        batch: tuple[bytes, ...] | None = answer.first
        while batch is not None:
            for each in batch:
                transcript.chunk(each)
            if answer.rest is None:
                break
            await reply(sealer.seal(filler.flush(b"".join(batch))))
            batch = await session.next_batch(answer, deadline_s)
        claims = make_claims(
            generation,
            session.manifest,
            answer,
            transcript.finish([message.encode() for message in answer.record.messages]),
            enc_digest=request.enc_digest,
            statement_digest=None,
            client_asserted={},
            request_commitment=request_commitment(salt, "POST", request.path, bytes(request.body)),
            suite=SUITE,
            shape=shape,
            issued_unix_s=int(session.clock()),
            dialect=labels.DIALECT_EHBP,
        )
        said = member(await session.sign(generation, claims), salt)
        if answer.rest is None:
            rest = with_member(b"".join(answer.first), said)
        else:
            rest = b": " + MEMBER + b" " + said + b"\n\n"
        await reply(b"".join(map(sealer.seal, filler.finish(rest))))


def member(receipt: str, salt: bytes) -> bytes:
    """The receipt and the root of its salts, in JSON, as both kinds of answer carry them."""
    return json.dumps({"receipt": receipt, "salt": salt.hex()}, separators=(",", ":")).encode()


def with_member(body: bytes, said: bytes) -> bytes:
    """Make `said` the last member of an answer's JSON object, which has others."""
    assert body.startswith(b"{") and body.endswith(b"}")  # noqa: S101, PT018 - of our own making
    return b'%b,"%b":%b}' % (body[:-1], MEMBER, said)
