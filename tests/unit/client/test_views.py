"""What a user is shown: everything as JSON's types, and no word of an exchange."""

import json

import pytest
from confide.views import Attestation
from confide_attestation.errors import AppraisalRejected

from tests.fakes.peer import a_peer
from tests.fakes.scene import NOW


def test_an_attestation_is_shown_whole() -> None:
    """Every check with its outcome and reason, what holds until when, and what is not shown."""
    session = a_peer().session()
    assert session.verified is not None
    shown = Attestation(session.verified.result)
    tree = json.loads(json.dumps(shown.as_dict()))
    assert tree["accepted"] is shown.accepted is True
    assert tree["simulated"] is shown.simulated is True
    assert tree["valid_until"] == shown.valid_until_unix_s > NOW
    assert tree["model"] == shown.model
    assert tree["models"] == [shown.model] == list(shown.models)
    assert sum(len(each["checks"]) for each in tree["sections"]) == len(shown.checks)
    assert all(each["passed"] for each in tree["sections"])
    assert tree["not_shown"]
    assert tree["keyset_sha256"] == session.verified.keyset.keyset.digest.hex()
    assert shown.summary.startswith("accepted (SIMULATED HARDWARE)")
    assert repr(shown) == f"<Attestation {shown.summary}>"
    assert "SIMULATED" in shown.as_html("a test")


def test_a_refusal_is_shown_too() -> None:
    """What failed is named; nothing is said of keys or a model."""
    with pytest.raises(AppraisalRejected) as caught:
        a_peer().session(allow_simulated=False)
    shown = Attestation(caught.value.result)
    tree = json.loads(json.dumps(shown.as_dict()))
    assert (tree["accepted"], tree["model"], tree["keyset_sha256"], tree["valid_until"]) == (
        False,
        None,
        None,
        None,
    )
    assert any(not each["passed"] for each in tree["sections"])
    assert shown.failed
    assert tree["models"] == []


def test_a_receipt_is_shown_without_words() -> None:
    """Digests and counts; the prompt and the answer stay out."""
    peer = a_peer()
    exchange = peer.exchange(b'{"prompt":"secret-words"}')
    for chunk in peer.stream(exchange, "quiet", "answer"):
        exchange.push(chunk)
    exchange.finish()
    assert exchange.receipt is not None
    text = json.dumps(exchange.receipt.as_dict())
    assert not {"secret", "quiet"} & {word for word in ("secret", "quiet") if word in text}
    tree = json.loads(text)
    assert (tree["verified"], tree["outcome"], tree["messages"]) == (True, "complete", 1)
    assert all(len(value) == 64 for name, value in tree.items() if name.endswith("_sha256") and value)
