"""What a gateway says of a keyset that no verified node holds: "gone" lets a call be run anew, so it is sure."""

import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from confide_protocol import labels

from tests.fakes import upstream as fake
from tests.fakes.gateway import Running, ask, post, running
from tests.fakes.node import AttestedNode, attested_upstream, make_keyset
from tests.fakes.upstream import FakeUpstream

pytestmark = pytest.mark.anyio
TABLES = "[appraisal]\nretry_s = 0.1\n[limits]\nconnect_s = 0.3\nevidence_s = 0.4\n"
LOST = "ab" * 32
GONE, UNSURE = 400, 503


@contextlib.asynccontextmanager
async def beside_a_good_node(folder: Path, url: str) -> AsyncIterator[Running]:
    async with attested_upstream(AttestedNode()) as good, running(folder, [good.url, url], "", TABLES) as gateway:
        await gateway.ready()
        yield gateway


async def said_of(gateway: Running, digest_hex: str) -> int:
    asked = f"{labels.PATH_EVIDENCE}?nonce={os.urandom(32).hex()}&keyset={digest_hex}"
    return (await ask(gateway.port, "GET", asked)).status


async def test_what_every_node_denies_is_gone(tmp_path: Path) -> None:
    """Two processes that were asked just now say that they never made it."""
    async with attested_upstream(AttestedNode()) as other, beside_a_good_node(tmp_path, other.url) as gateway:
        assert await said_of(gateway, LOST) == GONE


async def test_a_process_that_is_not_there_is_gone(tmp_path: Path) -> None:
    """Nothing listens where it was: what it had begun died with it."""
    async with beside_a_good_node(tmp_path, "http://127.0.0.1:1") as gateway:
        assert await said_of(gateway, LOST) == GONE


async def test_a_process_that_died_just_now_is_gone(tmp_path: Path) -> None:
    """It was verified a moment ago; the question finds out."""
    node = AttestedNode()
    async with attested_upstream(node) as upstream, beside_a_good_node(tmp_path, upstream.url) as gateway:
        digest_hex = node.keyset.digest.hex()
        assert await said_of(gateway, digest_hex) == 200
        await upstream.stop()
        # It may be believed to be there, or a broken connection be all that is known of it, but not for long.
        for _ in range(5):
            if (said := await said_of(gateway, digest_hex)) == GONE:
                break
            assert said in (502, UNSURE)
        assert said == GONE


async def test_a_process_that_was_replaced_unseen_is_gone(tmp_path: Path) -> None:
    """Another one answers where it was, before the gateway looked again: its evidence is no answer."""
    node, calm = AttestedNode(), "[appraisal]\nhealth_interval_s = 60\n"
    async with attested_upstream(node) as upstream, running(tmp_path, [upstream.url], "", calm) as gateway:
        await gateway.ready()
        old = node.keyset.digest.hex()
        assert await said_of(gateway, old) == 200
        await upstream.stop()
        node.keyset, node.made = make_keyset(), []
        await upstream.start()
        assert await said_of(gateway, old) == GONE
        assert await said_of(gateway, node.keyset.digest.hex()) == 200
        assert (await post(gateway.port, node.path, b"x")).status == 200


async def test_a_process_that_was_replaced_by_one_that_does_not_tell_may_be_at_work(tmp_path: Path) -> None:
    """What tells nothing denies nothing: its evidence passes, which the client judges, and nobody says gone."""
    node = AttestedNode()
    async with attested_upstream(node) as upstream, beside_a_good_node(tmp_path, upstream.url) as gateway:
        digest_hex = node.keyset.digest.hex()
        assert await said_of(gateway, digest_hex) == 200
        node.told = ""
        assert await said_of(gateway, digest_hex) == 200
        assert await said_of(gateway, LOST) == UNSURE


async def test_a_node_that_says_so_and_otherwise_may_be_at_work(tmp_path: Path) -> None:
    """To the gateway it names the keyset, to its clients another: each is asked once more, and no longer."""
    node, other = AttestedNode(), make_keyset().digest.hex()
    nonce = os.urandom(32).hex()

    async def two_tongued(call: fake.Call) -> None:
        node.told = other if nonce in call.seen.path else None
        await node.serve_evidence(call)

    async with attested_upstream(node) as upstream, beside_a_good_node(tmp_path, upstream.url) as gateway:
        upstream.routes[labels.PATH_EVIDENCE] = two_tongued
        digest_hex = node.keyset.digest.hex()
        assert await said_of(gateway, digest_hex) == 200
        asked = f"{labels.PATH_EVIDENCE}?nonce={nonce}&keyset={digest_hex}"
        assert (await ask(gateway.port, "GET", asked)).status == UNSURE
        assert len([each for each in upstream.seen if each.path.startswith(asked.partition("&")[0])]) == 2


async def test_a_silent_node_may_be_at_work(tmp_path: Path) -> None:
    """It takes the question and does not answer."""
    async with FakeUpstream(fake.stall) as silent, beside_a_good_node(tmp_path, silent.url) as gateway:
        assert await said_of(gateway, LOST) == UNSURE


async def test_a_host_that_cannot_be_reached_may_be_at_work(tmp_path: Path) -> None:
    """No answer to the connection, not even a refusal: a network that is cut looks like that."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as waiting:
        for _ in range(3):
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        async with beside_a_good_node(tmp_path, f"http://127.0.0.1:{full.getsockname()[1]}") as gateway:
            assert await said_of(gateway, LOST) == UNSURE


async def test_a_broken_answer_says_nothing(tmp_path: Path) -> None:
    """It closes the connection instead of answering."""
    async with FakeUpstream(fake.drop_after([])) as broken, beside_a_good_node(tmp_path, broken.url) as gateway:
        assert await said_of(gateway, LOST) == UNSURE


TOLD = {
    "nothing": "",
    "not hex": "zz" * 32,
    "upper case": "AB" * 32,
    "cut": "ab" * 31,
    "an empty one": f"{'cd' * 32},",
    "too many": ",".join(["cd" * 32] * 17),
}


@pytest.mark.parametrize("told", TOLD)
async def test_a_node_that_does_not_tell_its_keysets_may_be_at_work(tmp_path: Path, told: str) -> None:
    """What is not told as it should be counts as not told; the node is verified, and routed to, all the same."""
    node = AttestedNode(told=TOLD[told])
    async with attested_upstream(node) as upstream, beside_a_good_node(tmp_path, upstream.url) as gateway:
        assert await said_of(gateway, LOST) == UNSURE
        assert (await post(gateway.port, node.path, b"x")).status == 200


async def test_a_refused_node_may_be_at_work(tmp_path: Path) -> None:
    """Its evidence does not pass any more, yet it says that it made the keyset. Others it did not make."""
    node = AttestedNode(raw=b"")
    async with attested_upstream(node) as upstream, beside_a_good_node(tmp_path, upstream.url) as gateway:
        assert await said_of(gateway, node.keyset.digest.hex()) == UNSURE
        assert await said_of(gateway, LOST) == GONE


async def test_a_gateway_that_starts_learns_of_keysets_before_it(tmp_path: Path) -> None:
    """The node rotated before: what is sealed to its older keysets still finds it, which then judges by itself."""
    older = [make_keyset().digest.hex() for _ in range(2)]
    node = AttestedNode(made=list(older))
    async with attested_upstream(node) as upstream, beside_a_good_node(tmp_path, upstream.url) as gateway:
        for digest_hex in (node.keyset.digest.hex(), *older):
            assert await said_of(gateway, digest_hex) == 200
            assert (await post(gateway.port, labels.PATH_OHTTP + digest_hex, b"x")).status == 200
        assert len(upstream.sealed()) == 3


async def test_the_answer_is_of_a_question_asked_after_the_client_s(tmp_path: Path) -> None:
    """A keyset made since the gateway last asked is not taken for one that nobody made."""
    node = AttestedNode()
    async with attested_upstream(node) as upstream, beside_a_good_node(tmp_path, upstream.url) as gateway:
        assert await said_of(gateway, LOST) == GONE
        node.keyset = make_keyset()
        assert await said_of(gateway, node.keyset.digest.hex()) == 200
