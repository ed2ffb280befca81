"""Which model a receipt has to name: a function of manifest, outcome and request."""

import json
from dataclasses import replace

import pytest
from confide.naming import expected_model
from confide_protocol.errors import ReceiptInvalid
from confide_protocol.keyset import Manifest, ServedModel
from confide_protocol.receipt import ReceiptClaims
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.node import MANIFEST
from tests.fakes.peer import Peer, differing
from tests.fakes.receipts import CLAIMS

SECOND = ServedModel("second", bytes(32), bytes(32), {"mode": "exact"})
TWO = replace(MANIFEST, more_models=(SECOND,))


def named(body: bytes, manifest: Manifest = TWO, outcome: str = "complete") -> str:
    claims: ReceiptClaims = replace(CLAIMS, outcome=outcome)
    return expected_model(manifest, claims, body)


@pytest.mark.parametrize("outcome", ["complete", "aborted"])
def test_what_was_asked_for_has_to_answer(outcome: str) -> None:
    """The first or a further one, by the request's own word."""
    assert named(b'{"model": "second"}', outcome=outcome) == "second"
    assert named(json.dumps({"model": MANIFEST.model}).encode(), outcome=outcome) == MANIFEST.model


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"[]", b'"second"', b"[" * 100_000, b'{"model": 2}', b'{"model": "encoder"}', b"{}"],
)
def test_what_names_no_model_of_the_manifest_is_the_firsts(body: bytes) -> None:
    """A list of models, an encoder's vectors, and whatever is no request at all."""
    assert named(body) == MANIFEST.model


def test_a_refusal_is_the_firsts() -> None:
    """No model answered."""
    assert named(b'{"model": "second"}', outcome="refused") == MANIFEST.model


@pytest.mark.parametrize("asked", ["second", "test"])
def test_an_answer_of_another_model_is_refused(asked: str) -> None:
    """The enclave signs which one answered; a receipt that names the other is of no answer to this request."""
    peer = Peer(more_models=(SECOND,))
    for signed in ("second", "test"):
        exchange = peer.exchange(json.dumps({"model": asked, "stream": True}).encode())
        chunks = peer.stream(exchange, "a", claims=differing(model=signed))
        for chunk in chunks:
            exchange.push(chunk)
        if signed == asked:
            exchange.finish()
            assert exchange.receipt is not None
            assert exchange.receipt.claims.model == asked
        else:
            with pytest.raises(ReceiptInvalid, match="model differs"):
                exchange.finish()


@given(st.text())
def test_with_one_model_it_is_that_one(name: str) -> None:
    """Whatever was asked for."""
    assert named(json.dumps({"model": name}).encode(), MANIFEST) == MANIFEST.model
