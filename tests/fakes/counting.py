"""A gateway that fails in every way before nodes that open each message once, and libraries that ask through it."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import httpx2
import pytest
from confide import relay as relay_module
from confide.errors import refused
from confide.fetch import Limits
from confide.transport import transports
from confide_protocol import labels
from confide_protocol.errors import DecryptionFailed

from tests.fakes.peer import Peer, Wire, said
from tests.fakes.scene import NOW

URL = "http://gateway.test/v1/chat/completions"
PROBLEM = labels.MEDIA_PROBLEM
WHOLE = b"".join(said("Par", "is."))
Step = Callable[["Counting", bytes], tuple[int, str, Any]]


class Counting(Wire):
    """A gateway before nodes that open each sealed message once, as SPEC 6.4 says; `script` says how it fails."""

    def __init__(self, module: Any, *script: Step) -> None:
        super().__init__(Peer(), module)
        self.script = list(script)
        self.opened: list[bytes] = []
        self.seen_bytes: list[bytes] = []
        self.gone: set[int] = set()
        self.asked = 0
        self.reply = self._next

    @property
    def executions(self) -> int:
        return len(self.opened)

    def _next(self, sealed: bytes) -> tuple[int, str, Any]:
        self.seen_bytes.append(sealed)
        step = self.script.pop(0) if self.script else honest
        return step(self, sealed)

    def fetch(self, url, nonce, authorization, limits, link, keyset=None) -> bytes:
        if keyset is not None:
            self.asked += 1
            held = self.peer.trusting.attested(NOW)
            if held is None or held.keyset.digest != keyset:
                raise refused(400)
        return super().fetch(url, nonce, authorization, limits, link, keyset)

    def run(self, sealed: bytes) -> list[bytes]:
        self.peer.open(sealed)
        self.opened.append(self.peer.enc_digest)
        return self.peer.answer(sealed, said("Par", "is."), messages=[b"Paris."])


def honest(wire: Counting, sealed: bytes) -> tuple[int, str, Any]:
    """Open what was not opened before; everything else is 400."""
    try:
        wire.peer.open(sealed)
    except DecryptionFailed:
        return 400, PROBLEM, []
    if wire.peer.enc_digest in wire.opened:
        return 400, PROBLEM, []
    return 200, labels.MEDIA_RESPONSE, wire.run(sealed)


def clear(status: int) -> Step:
    return lambda wire, sealed: (status, PROBLEM, [])


def raising(name: str, *, opened: bool = False) -> Step:
    """Fail in the network; with `opened` the node has run the request all the same."""

    def step(wire: Counting, sealed: bytes) -> tuple[int, str, Any]:
        if opened:
            wire.run(sealed)
        raise getattr(wire.module, name)("CANARY")

    return step


def broken_off(wire: Counting, sealed: bytes) -> tuple[int, str, Any]:
    """The gateway's way to the node breaks after the node has run the request."""
    wire.run(sealed)
    return 502, PROBLEM, []


def lost(then: Step) -> Step:
    """The node dies, with or without having begun; another one takes its place behind the gateway."""

    def step(wire: Counting, sealed: bytes) -> tuple[int, str, Any]:
        try:
            return then(wire, sealed)
        finally:
            wire.peer = Peer()

    return step


class Asking:
    """One library in one colour over a scripted gateway."""

    def __init__(
        self, library: str, monkeypatch: pytest.MonkeyPatch, *script: Step, recover_s: float = 5.0
    ) -> None:
        name, colour = library.split("-")
        self.module = {"httpx": httpx, "httpx2": httpx2}[name]
        self.wire = Counting(self.module, *script)
        monkeypatch.setattr(relay_module, "fetch_evidence", self.wire.fetch)
        monkeypatch.setattr("confide.transport._Sealed._pool", lambda *_: self.wire)
        monkeypatch.setattr("confide.delivery.FIRST_WAIT_S", 0.001)
        self.relay = self.wire.peer.relay(limits=Limits(recover_s=recover_s))
        self.asynchronous = colour == "async"
        self.transport = transports(self.module)[self.asynchronous]("http://gateway.test", relay=self.relay)

    def ask(self) -> bytes:
        return asyncio.run(self._ask_async()) if self.asynchronous else self._ask()

    def _ask(self) -> bytes:
        with self.module.Client(transport=self.transport) as client:
            return client.post(URL, json={"stream": True}).content

    async def _ask_async(self) -> bytes:
        async with self.module.AsyncClient(transport=self.transport) as client:
            return (await client.post(URL, json={"stream": True})).content
