"""Which nodes are routed to: only those whose own evidence passed, for as long as it passes."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from confide_protocol import labels

from tests.fakes import upstream as fake
from tests.fakes.gateway import Running, ask, post, running
from tests.fakes.node import AttestedNode, attested_upstream, make_keyset
from tests.fakes.upstream import FakeUpstream

pytestmark = pytest.mark.anyio
FAST = "[appraisal]\ninterval_s = 0.2\nretry_s = 0.1\nhealth_interval_s = 0.1\n"


@contextlib.asynccontextmanager
async def over(
    folder: Path, *nodes: AttestedNode, tables: str = FAST
) -> AsyncIterator[tuple[Running, list[FakeUpstream]]]:
    async with contextlib.AsyncExitStack() as stack:
        upstreams = [await stack.enter_async_context(attested_upstream(node)) for node in nodes]
        gateway = await stack.enter_async_context(running(folder, [up.url for up in upstreams], "", tables))
        yield gateway, upstreams


async def until(condition, within_s: float = 3.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what it waits for happens in a log or at a peer
            await asyncio.sleep(0.02)


def refusals(gateway: Running) -> list[dict]:
    return [event for event in gateway.events if event["event"] == "node_refused"]


LIES = {
    "swapped keyset": (AttestedNode(served_keyset=make_keyset()), "keyset_digest"),
    "yesterday's evidence": (AttestedNode(fixed_nonce=os.urandom(32)), "nonce"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_node_whose_evidence_fails_is_never_routed_to(tmp_path: Path, lie: str) -> None:
    """Not ready, no relay of anything, and the log names the checks that failed."""
    node, check = LIES[lie]
    async with over(tmp_path, node) as (gateway, (upstream,)):
        await until(lambda: refusals(gateway))
        assert (await ask(gateway.port, "GET", "/readyz", key=None)).status == 503
        for keyset in (node.keyset, node.served_keyset or node.keyset):
            assert (await post(gateway.port, labels.PATH_OHTTP + keyset.digest.hex(), b"x")).status == 503
        assert (await ask(gateway.port, "GET", labels.PATH_KEYS)).status == 503
        assert (await ask(gateway.port, "GET", f"/evidence?nonce={'ab' * 32}")).status == 503
        assert not upstream.sealed()
        assert check in refusals(gateway)[0]["checks"]


@pytest.mark.parametrize("body", [b"", b"\xff" * 100, b"\xa0"])
async def test_a_node_whose_evidence_cannot_be_read_is_never_routed_to(tmp_path: Path, body: bytes) -> None:
    """Bytes that are no bundle refuse the node like a failed check."""
    node = AttestedNode(raw=body)
    async with over(tmp_path, node) as (gateway, _):
        await until(lambda: refusals(gateway))
        assert refusals(gateway)[0]["checks"] == ["format"]
        assert (await ask(gateway.port, "GET", "/readyz", key=None)).status == 503


async def test_endless_evidence_is_given_up(tmp_path: Path) -> None:
    """A node that serves more than a bundle may hold gives no evidence."""

    async def endless(call: fake.Call) -> None:
        await call.start(200, labels.MEDIA_EVIDENCE)
        while True:
            await call.chunk(b"x" * 65536)

    async with (
        FakeUpstream(fake.echo, {labels.PATH_EVIDENCE: endless}) as upstream,
        running(tmp_path, [upstream.url], "", FAST) as gateway,
    ):
        await until(lambda: any(event["event"] == "node_no_evidence" for event in gateway.events))


async def test_a_node_that_turns_bad_leaves_the_rotation(tmp_path: Path) -> None:
    """Evidence that passed once does not keep a node in: the next appraisal that fails takes it out."""
    node = AttestedNode()
    async with over(tmp_path, node) as (gateway, (upstream,)):
        await gateway.ready()
        assert (await post(gateway.port, node.path, b"x")).status == 200
        node.served_keyset = make_keyset()
        await until(lambda: refusals(gateway))
        assert (await post(gateway.port, node.path, b"x")).status == 503
        assert len(upstream.sealed()) == 1
        node.served_keyset = None
        await gateway.ready()
        assert (await post(gateway.port, node.path, b"x")).status == 200


async def test_a_node_whose_engine_is_loading_is_not_routed_to(tmp_path: Path) -> None:
    """Its evidence passes all the while; another that is there gets the requests, and it comes back by itself."""
    node, other = AttestedNode(), AttestedNode()
    other.keyset = node.keyset  # so that only being there tells them apart
    async with over(tmp_path, node, other) as (gateway, (upstream, second)):
        await until(lambda: len([each for each in gateway.events if each["event"] == "node_accepted"]) == 2)
        for each, routed in ((node, second), (other, upstream)):
            each.ready_status = 503
            await until(lambda: gateway.events[-1]["event"] == "node_not_ready")
            before = len(routed.sealed())
            for _ in range(4):
                assert (await post(gateway.port, node.path, b"x")).status == 200
            assert len(routed.sealed()) == before + 4
            each.ready_status = 200
            await until(lambda: gateway.events[-1]["event"] == "node_ready")
        node.ready_status = other.ready_status = 503
        await until(lambda: [each["event"] for each in gateway.events][-2:] == ["node_not_ready"] * 2)
        assert (await post(gateway.port, node.path, b"x")).status == 503
        assert (await ask(gateway.port, "GET", "/readyz", key=None)).status == 503
        told = len(gateway.events)
        await asyncio.sleep(0.5)  # judged again meanwhile, which is no news and does not bring it back
        assert not [each for each in gateway.events[told:] if each["event"].startswith("node_")]
        assert (await post(gateway.port, node.path, b"x")).status == 503
        node.ready_status = 200
        await gateway.ready()
        assert (await post(gateway.port, node.path, b"x")).status == 200


@pytest.mark.parametrize("status", [401, 404, 500, 503])
async def test_a_node_that_does_not_say_that_it_is_ready_is_never_routed_to(tmp_path: Path, status: int) -> None:
    """Whatever it says instead, from the start and steadily: told once, and not judged more often than others."""
    node = AttestedNode(ready_status=status)
    calm = "[appraisal]\ninterval_s = 60\nretry_s = 0.1\nhealth_interval_s = 0.1\n"
    async with over(tmp_path, node, tables=calm) as (gateway, (upstream,)):
        await until(lambda: gateway.events and gateway.events[-1]["event"] == "node_not_ready")
        for _ in range(10):
            assert (await post(gateway.port, node.path, b"x")).status == 503
            await asyncio.sleep(0.03)
        assert not upstream.sealed()
        assert [each["event"] for each in gateway.events if each["event"].startswith("node_")] == ["node_not_ready"]
        assert len([each for each in upstream.seen if each.path.startswith(labels.PATH_EVIDENCE)]) <= 2
        node.ready_status = 200
        await gateway.ready()
        assert (await post(gateway.port, node.path, b"x")).status == 200


async def test_a_node_is_asked_anew_once_it_was_out(tmp_path: Path) -> None:
    """That it was ready before its evidence failed says nothing of it afterwards."""
    node = AttestedNode()
    async with over(tmp_path, node) as (gateway, (upstream,)):
        await gateway.ready()
        node.served_keyset = make_keyset()
        await until(lambda: refusals(gateway))
        node.served_keyset, node.ready_status = None, 503
        await until(lambda: gateway.events[-1]["event"] == "node_not_ready")
        assert "node_accepted" not in [each["event"] for each in gateway.events[-2:]]
        assert (await post(gateway.port, node.path, b"x")).status == 503
        assert not upstream.sealed()


async def test_a_node_that_is_not_ready_is_not_gone(tmp_path: Path) -> None:
    """Its evidence is there for those who ask about its keyset; a sealed request does not reach it."""
    node, other = AttestedNode(ready_status=503), AttestedNode()
    async with over(tmp_path, node, other) as (gateway, (upstream, _)):
        await gateway.ready()
        await until(lambda: "node_not_ready" in [each["event"] for each in gateway.events])
        named = await ask(gateway.port, "GET", f"/evidence?nonce={'ab' * 32}&keyset={node.keyset.digest.hex()}")
        assert (named.status, node.keyset.encoded in named.body) == (200, True)
        unnamed = await ask(gateway.port, "GET", f"/evidence?nonce={'ab' * 32}")
        assert other.keyset.encoded in unnamed.body
        assert (await post(gateway.port, node.path, b"x")).status == 400
        assert not upstream.sealed()


async def test_a_rotated_keyset_is_found_and_the_previous_one_still_routes(tmp_path: Path) -> None:
    """A keyset that nobody is known to hold makes the gateway ask at once; both ways lead to the node."""
    node = AttestedNode()
    slow = "[appraisal]\ninterval_s = 60\n"
    async with over(tmp_path, node, tables=slow) as (gateway, (upstream,)):
        await gateway.ready()
        before = node.path
        node.keyset = make_keyset()
        await asyncio.sleep(1.05)
        assert (await post(gateway.port, node.path, b"x")).status == 200
        assert (await post(gateway.port, before, b"x")).status == 200
        asked = len(upstream.seen)
        for _ in range(5):
            unknown = await post(gateway.port, labels.PATH_OHTTP + "ab" * 32, b"x")
            assert (unknown.status, unknown.body) == (400, labels.PROBLEMS[400])
        assert len(upstream.seen) == asked


async def test_no_answer_keeps_a_node_until_its_appraisal_is_too_old(tmp_path: Path) -> None:
    """A node too busy to show evidence stays for `max_age_s` and not longer."""
    node = AttestedNode()
    async with over(tmp_path, node, tables=FAST + "max_age_s = 0.8\n") as (gateway, _):
        await gateway.ready()
        node.evidence_status = 429
        await asyncio.sleep(0.4)
        assert (await post(gateway.port, node.path, b"x")).status == 200
        await asyncio.sleep(0.8)
        assert (await post(gateway.port, node.path, b"x")).status == 503


async def test_a_node_full_of_our_own_exchanges_stays(tmp_path: Path) -> None:
    """Neither probe nor appraisal finds a free place; that is no reason to leave the rotation."""
    node = AttestedNode()
    async with over(tmp_path, node, tables=FAST + "[limits]\nnode_exchanges = 1\n") as (gateway, (upstream,)):
        await gateway.ready()
        upstream.behaviour = fake.paced([b"x"], 0.8)
        stream = asyncio.create_task(post(gateway.port, node.path, b"x"))
        await asyncio.sleep(0.6)
        assert (await ask(gateway.port, "GET", "/readyz", key=None)).status == 200
        assert (await post(gateway.port, node.path, b"x")).status == 503
        assert (await stream).whole
        assert {event["event"] for event in gateway.events} <= {"node_accepted", "node_no_evidence"}


async def test_what_stays_as_it_is_is_logged_once(tmp_path: Path) -> None:
    """A node that goes on failing does not fill the log."""
    async with over(tmp_path, AttestedNode(raw=b"")) as (gateway, (upstream,)):
        await until(lambda: len(upstream.seen) > 3)
        assert len(refusals(gateway)) == 1


async def test_a_keyset_s_end_is_the_end_of_its_node(tmp_path: Path) -> None:
    """A node is not routed to past its keyset's not-after, whatever else holds."""
    node = AttestedNode(keyset=make_keyset(lifetime_s=2))
    async with over(tmp_path, node) as (gateway, _):
        await gateway.ready()
        await asyncio.sleep(2.1)
        assert (await ask(gateway.port, "GET", "/readyz", key=None)).status == 503


async def test_one_bad_node_does_not_stop_the_others(tmp_path: Path) -> None:
    """Of a good, a lying and an absent node, the good one serves."""
    good, liar = AttestedNode(), AttestedNode(served_keyset=make_keyset())
    async with (
        attested_upstream(good) as up,
        attested_upstream(liar) as down,
        running(tmp_path, [down.url, "http://127.0.0.1:1", up.url], "", FAST) as gateway,
    ):
        await gateway.ready()
        for _ in range(4):
            assert (await ask(gateway.port, "GET", labels.PATH_KEYS)).body == good.keyset.ohttp_keys
        metrics = (await ask(gateway.port, "GET", "/metrics", key=None)).body.decode()
        assert f'confide_gateway_node_routable{{node="127.0.0.1:{up.port}"}} 1.0' in metrics
        assert f'confide_gateway_node_routable{{node="127.0.0.1:{down.port}"}} 0.0' in metrics
        assert 'outcome="unreachable"' in metrics


async def test_evidence_is_relayed_unread_from_a_node_that_holds_the_keyset(tmp_path: Path) -> None:
    """`nonce` goes through to the node, `keyset` chooses it and stays here."""
    first, second = AttestedNode(), AttestedNode()
    async with over(tmp_path, first, second) as (gateway, upstreams):
        await gateway.ready()
        await until(lambda: sum(event["event"] == "node_accepted" for event in gateway.events) == 2)
        nonce = os.urandom(32)
        for node, upstream in zip((first, second), upstreams, strict=True):
            digest = node.keyset.digest.hex()
            reply = await ask(gateway.port, "GET", f"/evidence?keyset={digest}&nonce={nonce.hex()}")
            assert (reply.status, reply.headers["content-type"]) == (200, labels.MEDIA_EVIDENCE)
            assert node.keyset.encoded in reply.body
            assert f"/evidence?nonce={nonce.hex()}" in [seen.path for seen in upstream.seen]
        unknown = await ask(gateway.port, "GET", f"/evidence?nonce={nonce.hex()}&keyset={'ab' * 32}")
        assert unknown.status == 400


async def test_the_node_with_least_in_flight_is_chosen(tmp_path: Path) -> None:
    """Where any node will do, one that is idle answers rather than one that is busy."""
    first, second = AttestedNode(), AttestedNode()
    async with over(tmp_path, first, second) as (gateway, upstreams):
        await until(lambda: sum(event["event"] == "node_accepted" for event in gateway.events) == 2)
        upstreams[0].behaviour = fake.stall
        busy = [asyncio.create_task(post(gateway.port, first.path, b"x")) for _ in range(2)]
        await asyncio.sleep(0.1)
        for _ in range(3):
            assert (await ask(gateway.port, "GET", labels.PATH_KEYS)).body == second.keyset.ohttp_keys
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
