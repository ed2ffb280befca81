"""Looking for the node of a keyset that none is known to hold: nobody waits for a silent one more than need be."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from confide_protocol import labels

from tests.fakes import upstream as fake
from tests.fakes.gateway import SEALED, Running, ask, post, request, running
from tests.fakes.node import AttestedNode, attested_upstream, make_keyset
from tests.fakes.upstream import FakeUpstream

pytestmark = pytest.mark.anyio
TABLES = "[appraisal]\nretry_s = 0.1\n[limits]\nevidence_s = 3\nsearch_s = 0.4\n"
LOST = "ab" * 32


@contextlib.asynccontextmanager
async def beside_a_silent_node(folder: Path, node: AttestedNode, tables: str = TABLES) -> AsyncIterator[Running]:
    """Run a gateway over a silent node and a good one, which was appraised more than a second ago."""
    async with (
        FakeUpstream(fake.stall) as silent,
        attested_upstream(node) as good,
        running(folder, [silent.url, good.url], "", tables) as gateway,
    ):
        await gateway.ready()
        await asyncio.sleep(1.1)
        yield gateway


def about(digest_hex: str) -> str:
    return f"{labels.PATH_EVIDENCE}?nonce={os.urandom(32).hex()}&keyset={digest_hex}"


async def test_a_silent_node_does_not_delay_what_another_holds(tmp_path: Path) -> None:
    """A healthy node rotated just now: calls to its new keyset, and questions about it, are answered at once."""
    node = AttestedNode()
    async with beside_a_silent_node(tmp_path, node) as gateway:
        node.keyset = make_keyset()
        began = time.monotonic()
        assert (await post(gateway.port, node.path, b"x")).status == 200
        assert time.monotonic() - began < 0.4
        node.keyset = make_keyset()
        began = time.monotonic()
        assert (await ask(gateway.port, "GET", about(node.keyset.digest.hex()))).status == 200
        assert time.monotonic() - began < 1.5  # a second of which nodes are left in peace


async def test_a_call_waits_for_silent_nodes_no_longer_than_its_limit(tmp_path: Path) -> None:
    """Then 400, as where all deny: whoever has no doubt seals anew. Whether it is gone is not known."""
    async with beside_a_silent_node(tmp_path, AttestedNode()) as gateway:
        began = time.monotonic()
        assert (await post(gateway.port, labels.PATH_OHTTP + LOST, b"x")).status == 400
        assert 0.4 <= time.monotonic() - began < 1
        assert (await ask(gateway.port, "GET", about(LOST))).status == 503


async def test_the_limit_says_nothing_where_no_node_is_ready(tmp_path: Path) -> None:
    """503: the same bytes may come again."""
    async with FakeUpstream(fake.stall) as silent, running(tmp_path, [silent.url], "", TABLES) as gateway:
        began = time.monotonic()
        assert (await post(gateway.port, labels.PATH_OHTTP + LOST, b"x")).status == 503
        assert time.monotonic() - began < 1


async def test_an_appraisal_goes_on_when_nobody_waits_for_it_any_more(tmp_path: Path) -> None:
    """Slower than a call may wait, it still brings its node back, and is made once for all who asked."""
    node, other = AttestedNode(), AttestedNode()
    calm = "[appraisal]\nretry_s = 60\n[limits]\nsearch_s = 0.2\n"
    async with (
        attested_upstream(node) as upstream,
        attested_upstream(other) as second,
        running(tmp_path, [upstream.url, second.url], "", calm) as gateway,
    ):
        await gateway.ready()
        await asyncio.sleep(1.1)
        node.keyset = make_keyset()

        async def slowly(call: fake.Call) -> None:
            await asyncio.sleep(0.5)
            await node.serve_evidence(call)

        upstream.routes[labels.PATH_EVIDENCE] = slowly
        asked = len(upstream.seen)
        for reply in await asyncio.gather(*(post(gateway.port, node.path, b"x") for _ in range(4))):
            assert reply.status == 400
        await asyncio.sleep(0.6)
        assert (await post(gateway.port, node.path, b"x")).status == 200
        assert len([each for each in upstream.seen[asked:] if each.path.startswith(labels.PATH_EVIDENCE)]) == 1


@pytest.mark.parametrize(
    "asking",
    [request("POST", labels.PATH_OHTTP + LOST, b"x", headers=SEALED), request("GET", about(LOST))],
    ids=["call", "question"],
)
async def test_a_client_that_leaves_meanwhile_gives_its_place_back(tmp_path: Path, asking: bytes) -> None:
    """Its account's places are free long before the search is over; others ask, and are answered."""
    node = AttestedNode()
    async with beside_a_silent_node(tmp_path, node, TABLES.replace("0.4", "3")) as gateway:
        for _ in range(4):
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(asking)
            await writer.drain()
            await asyncio.sleep(0.15)
            writer.close()
        await asyncio.sleep(0.15)
        metrics = (await ask(gateway.port, "GET", "/metrics", key=None)).body
        assert b"confide_gateway_in_flight 0.0" in metrics
        assert b'account="test",status="499"} 4.0' in metrics
        assert (await post(gateway.port, node.path, b"x")).status == 200
        assert (await ask(gateway.port, "GET", about(node.keyset.digest.hex()))).status == 200


async def test_it_stops_amid_an_appraisal(tmp_path: Path) -> None:
    """The appraisal of a silent node ends with the gateway, and nothing is left of it."""
    async with beside_a_silent_node(tmp_path, AttestedNode()) as gateway:
        assert (await post(gateway.port, labels.PATH_OHTTP + LOST, b"x")).status == 400
        (first, _) = gateway.gateway._directory.nodes
        assert first.appraisal is not None
        assert not first.appraisal.done()
    assert first.appraisal.cancelled()
    assert not first.told
