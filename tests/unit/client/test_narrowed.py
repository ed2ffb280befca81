"""Another policy or shape for one call: trust of its own, out of evidence that is at hand."""

from typing import Any

import confide
import httpx2
import pytest
from confide import relay as relay_module
from confide_attestation.errors import AppraisalRejected
from confide_protocol import labels
from confide_protocol.errors import LocalStateError, PolicyError

from tests.fakes.peer import Wire, a_peer
from tests.unit.client.test_openai import MESSAGES, answer_plainly, client, options, wire

__all__ = ["client", "options", "wire"]  # fixtures


def test_a_shape_for_one_call(wire: Wire, client: confide.OpenAI) -> None:
    """with_options(shape=…) seals in that shape, under a policy digest of its own, without fetching again."""
    answer_plainly(wire)
    client.chat.completions.create(model="test", messages=MESSAGES)
    assert wire.peer.fields[labels.FIELD_SHAPE] == labels.SHAPE_NONE
    policy = wire.peer.fields[labels.FIELD_POLICY]
    other = client.with_options(shape="bucketed")
    wire.peer.shape = "bucketed"
    try:
        other.chat.completions.create(model="test", messages=MESSAGES)
    finally:
        wire.peer.shape = "none"
    assert wire.peer.fields[labels.FIELD_SHAPE] == labels.SHAPE_BUCKETED
    assert wire.peer.fields[labels.FIELD_POLICY] != policy
    assert len(wire.fetched) == 1
    assert other.last_receipt.claims.shape == "bucketed"
    assert client.last_receipt is not None
    assert client.last_receipt.claims.shape == "none"
    assert client.with_options(shape="bucketed").relay is other.relay
    assert client.with_options(shape="none").relay is client.relay


def test_a_stricter_policy_for_one_call(wire: Wire, client: confide.OpenAI) -> None:
    """Evidence at hand is judged anew; what does not fit is refused, and the client's own trust stays."""
    answer_plainly(wire)
    client.chat.completions.create(model="test", messages=MESSAGES)
    policy = a_peer().policy
    stricter = policy.model_copy(update={"manifest": policy.manifest.model_copy(update={"digests": ("00" * 32,)})})
    with pytest.raises(AppraisalRejected, match="manifest"):
        client.with_options(policy=stricter).chat.completions.create(model="test", messages=MESSAGES)
    assert client.chat.completions.create(model="test", messages=MESSAGES)


def test_terms_of_a_request(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transport takes them as an extension, and knows no others."""
    relay = a_peer().relay()
    monkeypatch.setattr(relay_module, "fetch_evidence", wire.fetch)
    with httpx2.Client(transport=confide.verified_transport("http://gateway.test", relay=relay)) as http:
        terms: dict[str, Any] = {"confide": {"shape": "none"}}
        assert http.post("http://gateway.test/v1/x", json={}, extensions=terms).status_code == 200
        for wrong in ({"dialect": "x"}, "none"):
            with pytest.raises(LocalStateError, match="policy"):
                http.post("http://gateway.test/v1/x", json={}, extensions={"confide": wrong})
        with pytest.raises(PolicyError, match="bucketed"):
            http.post("http://gateway.test/v1/x", json={}, extensions={"confide": {"shape": "round"}})
