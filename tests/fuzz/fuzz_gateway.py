"""Fuzz what the gateway reads of peers: a node's answer, a client's query for evidence."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import cast

from confide_gateway.forward.own import Connection, Exchange, OwnPool
from confide_gateway.relay import evidence_query
from confide_gateway.settings import Limits


class _Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.gone = False

    def write(self, data: bytes) -> None:  # type: ignore[override]
        pass

    def is_closing(self) -> bool:
        return self.gone

    def abort(self) -> None:
        self.gone = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def answer(pieces: Iterable[bytes]) -> tuple[int, str, bytes, bool]:
    """Feed a node's bytes to one exchange; return status, content type, body, and whether it was whole."""
    loop = SimpleNamespace(time=lambda: 0.0)
    pool = SimpleNamespace(loop=loop, limits=Limits(), active=set(), idle=deque())
    connection = Connection(cast(OwnPool, pool))
    transport = _Transport()
    connection.connection_made(transport)
    exchange: Exchange = connection.start(b"")
    exchange.request_sent = True
    for piece in pieces:
        if transport.gone:
            break
        connection.data_received(piece)
    assert connection not in pool.active or not (exchange.complete or transport.gone)
    media = exchange.content_type if exchange.status else ""
    return exchange.status, media, b"".join(exchange._chunks), exchange.complete


def gateway_answer(data: bytes) -> None:
    """The first byte chooses how the rest is cut; the cut may change nothing."""
    piece, stream = (data[0] or 1, data[1:16_000]) if data else (1, b"")
    assert answer([stream]) == answer(stream[at : at + piece] for at in range(0, len(stream), piece))


def gateway_query(data: bytes) -> None:
    asked = evidence_query(data)
    assert asked is None or all(value is None or bytes.fromhex(value).hex() == value for value in asked)


TARGETS: dict[str, Callable[[bytes], None]] = {"gateway_answer": gateway_answer, "gateway_query": gateway_query}
