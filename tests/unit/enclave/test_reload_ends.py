"""What a reload does with an engine that gave up, and with a request that has no end."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confide_enclave import serving
from confide_enclave.app import EnclaveApp, Reply
from confide_enclave.serving import RETRY_AFTER_S
from confide_protocol import labels

from tests.fakes.engine import ScriptedEngine
from tests.unit.enclave.support import SECRET
from tests.unit.enclave.test_reload import Reloading, file_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Reloading]:
    return lambda *names: Reloading(tmp_path, *names)


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c")])
async def test_an_engine_that_gave_up_is_loaded_again(
    start: Callable[..., Reloading], monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    """By the same file too; the others stay as they are."""
    node = start("a", "b")
    dead = node.source.engines[1]
    monkeypatch.setattr(ScriptedEngine, "failed", property(lambda engine: engine is dead))
    assert await node.write(file_of(*names)) == ["reload.draining", "reload.done"]
    assert node.names[:3] == [("a", False), ("b", True), ("b", False)]
    assert (await node.ask("b")).status == 200
    assert await node.write(file_of(*names)) == ["reload.unchanged"]


async def cut(node: Reloading) -> tuple[list[Any], asyncio.Task[None]]:
    """Begin an upload that has no end, and exchange the model; return what was sent, and what became of it."""
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    path = labels.PATH_OHTTP + node.keyset.digest.hex()
    headers = [(b"authorization", b"Bearer " + SECRET), (b"content-type", labels.MEDIA_REQUEST.encode())]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    call = asyncio.create_task(node.app(scope, receive, send))
    await asyncio.sleep(0.01)
    assert await node.write(file_of("b")) == ["reload.draining", "reload.done"]
    return sent, call


async def test_what_is_cut_before_its_head_is_told_to_come_again(
    start: Callable[..., Reloading], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload that is stuck gets the answer that all get who come amid a change."""
    monkeypatch.setattr(serving, "SEAL_MARGIN_S", 0.1)
    sent, call = await cut(start("a"))
    assert call.exception() is None
    assert sent[0]["status"] == 503
    assert (b"retry-after", b"%d" % RETRY_AFTER_S) in sent[0]["headers"]
    assert sent[1]["body"] == labels.PROBLEMS[503]


async def test_an_answer_that_was_begun_is_cut(
    start: Callable[..., Reloading], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing follows its head: the peer sees that the end is missing."""

    async def stall(_: EnclaveApp, scope: Any, receive: Any, reply: Reply) -> None:
        await reply.sealed(b"x")
        await receive()

    monkeypatch.setattr(serving, "SEAL_MARGIN_S", 0.1)
    monkeypatch.setattr(EnclaveApp, "_serve", stall)
    sent, call = await cut(start("a"))
    assert call.cancelled()
    assert [(each["type"], each.get("more_body")) for each in sent] == [
        ("http.response.start", None),
        ("http.response.body", True),
    ]
