"""The sealed header fields that bind a request to what its client verified."""

from email.utils import formatdate

import pytest
from confide_protocol import labels

from tests.unit.enclave.support import CHAT, NOW, Node, Sealed

pytestmark = pytest.mark.anyio

HEX = "ab" * 32
REFUSED = [
    ({labels.FIELD_DATE: None}, "bad_header", "date"),
    ({labels.FIELD_DATE: "yesterday"}, "bad_header", "date"),
    ({labels.FIELD_DATE: formatdate(NOW)}, "bad_header", "date"),
    ({labels.FIELD_DATE: formatdate(NOW, usegmt=True).lower()}, "bad_header", "date"),
    ({labels.FIELD_DATE: formatdate(NOW - 61, usegmt=True)}, "date_skew", "date"),
    ({labels.FIELD_DATE: formatdate(NOW + 61, usegmt=True)}, "date_skew", "date"),
    ({labels.FIELD_NONCE: None}, "bad_header", labels.FIELD_NONCE),
    ({labels.FIELD_NONCE: "00" * 32}, "bad_header", labels.FIELD_NONCE),
    ({labels.FIELD_NONCE: HEX[:-2]}, "bad_header", labels.FIELD_NONCE),
    ({labels.FIELD_NONCE: HEX.upper()}, "bad_header", labels.FIELD_NONCE),
    ({labels.FIELD_EVIDENCE: None}, "bad_header", labels.FIELD_EVIDENCE),
    ({labels.FIELD_EVIDENCE: HEX}, "unknown_evidence", labels.FIELD_EVIDENCE),
    ({labels.FIELD_POLICY: None}, "bad_header", labels.FIELD_POLICY),
    ({labels.FIELD_SHAPE: None}, "bad_header", labels.FIELD_SHAPE),
    ({labels.FIELD_SHAPE: "constant"}, "unknown_shape", labels.FIELD_SHAPE),
    ({labels.FIELD_SALT: None}, "bad_header", labels.FIELD_SALT),
    ({labels.FIELD_SALT: "00" * 32}, "bad_header", labels.FIELD_SALT),
    ({labels.FIELD_CACHE_KEY: "short"}, "bad_header", labels.FIELD_CACHE_KEY),
    ({labels.FIELD_CACHE_KEY: ""}, "bad_header", labels.FIELD_CACHE_KEY),
]


@pytest.mark.parametrize(("fields", "code", "name"), REFUSED)
async def test_a_field_that_does_not_hold_is_refused_sealed(fields, code, name):
    """Each refusal has its code, names its field, is signed, and reaches no engine."""
    node = Node()
    sealed = Sealed(node, await node.statement_digest(), CHAT, fields=fields)
    opened = sealed.open(await sealed.send(node))
    assert opened.json["error"]["code"] == code
    assert opened.json["error"]["param"] == name
    assert opened.claims.outcome == "refused"
    assert opened.claims.shape == "bucketed"
    assert opened.claims.message_count == 0
    assert not node.engine.requests


@pytest.mark.parametrize("skew_s", [-60, 0, 60])
async def test_a_date_within_a_minute_is_accepted(skew_s):
    """The tolerance is inclusive on both sides."""
    node = Node()
    fields = {labels.FIELD_DATE: formatdate(NOW + skew_s, usegmt=True)}
    sealed = Sealed(node, await node.statement_digest(), CHAT, fields=fields)
    assert sealed.open(await sealed.send(node)).status == 200


async def test_a_repeated_field_counts_as_absent():
    """Two values leave open which one the client meant."""
    node = Node()
    sealed = Sealed(node, await node.statement_digest(), CHAT)
    sealed.message = sealed.message.replace(b"\x0dconfide-nonce", b"\x0dconfide-shape", 1)
    opened = sealed.open(await sealed.send(node))
    assert opened.json["error"]["param"] == labels.FIELD_NONCE


async def test_a_shape_outside_the_manifest_is_refused_not_lowered():
    """An enclave that offers only `bucketed` refuses `none` and answers in `bucketed`."""
    node = Node(shapes=["bucketed"])
    sealed = Sealed(node, await node.statement_digest(), CHAT, shape="none")
    opened = sealed.open(await sealed.send(node))
    assert opened.json["error"]["code"] == "unknown_shape"
    assert opened.claims.shape == "bucketed"


async def test_evidence_of_the_previous_keyset_does_not_serve_the_next():
    """A statement counts only for the keyset that it binds."""
    node = Node()
    old = await node.statement_digest()
    node.clock.now += 24 * 3600
    sealed = Sealed(node, old, CHAT)
    opened = sealed.open(await sealed.send(node))
    assert opened.json["error"]["code"] == "unknown_evidence"
    assert opened.claims.statement_digest is None


async def test_the_previous_keyset_is_served_within_its_grace_and_then_no_more():
    """A client that sealed to the keyset before is answered for five minutes, under that keyset's own keys."""
    node = Node()
    statement = await node.statement_digest()
    sealed, late = Sealed(node, statement, CHAT), Sealed(node, statement, CHAT)
    node.clock.now = node.keyset.not_after_unix_s - 300
    assert node.keyset.digest != sealed.keyset.digest
    fresh = formatdate(node.clock(), usegmt=True)
    assert len(fresh) == len(formatdate(NOW, usegmt=True))
    sealed.message = sealed.message.replace(formatdate(NOW, usegmt=True).encode(), fresh.encode())
    assert sealed.open(await sealed.send(node)).status == 200
    node.clock.now += 300
    answer = await late.send(node)
    assert (answer.status, answer.body) == (400, labels.PROBLEMS[400])


async def test_another_authority_is_refused():
    """A request that was meant for another service is not answered as if it were ours."""
    node = Node()
    sealed = Sealed(node, await node.statement_digest(), CHAT, authority="other.invalid")
    assert sealed.open(await sealed.send(node)).json["error"]["code"] == "misdirected"


async def test_the_cache_tenant_comes_from_the_sealed_key_alone():
    """Same key, same salt; another key or none, another salt; the gateway's account changes nothing."""
    node = Node()
    statement = await node.statement_digest()
    for fields in ({}, {}, {labels.FIELD_CACHE_KEY: HEX}, *[{labels.FIELD_CACHE_KEY: None}] * 2):
        sealed = Sealed(node, statement, CHAT, fields=fields)
        sealed.open(await sealed.send(node))
    assert [request.cache_lasts for request in node.engine.requests] == [True, True, True, False, False]
    same, again, other, none, neither = (request.cache_salt for request in node.engine.requests)
    assert same == again
    assert len({same, other, none, neither}) == 4
    assert same != bytes.fromhex("cd" * 32)
