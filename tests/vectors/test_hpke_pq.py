"""draft-ietf-hpke-pq: the vectors of MLKEM768-X25519 pass, the others are counted with their reason.

`cryptography` takes no randomness for ML-KEM, so the sender's ML-KEM half cannot be replayed; its X25519 half is.
"""

import json
from typing import Any

from confide_protocol import hpke
from confide_protocol.hpke import AeadId, KemId, PrivateKey, Suite

from tests.shared import shared_path
from tests.vectors.conftest import Tally
from tests.vectors.test_hpke import raw, reason_not_applicable


def test_every_hpke_pq_vector(tally: Tally) -> None:
    """The recipient opens every encryption, derives every export and shared secret."""
    passed = 0
    for vector in json.loads(shared_path("vectors", "hpke-pq", "test-vectors.json").read_text()):
        reason = reason_not_applicable(vector)
        if vector["kem_id"] == KemId.X_WING:  # the KEM's part holds whatever KDF follows it
            check_kem(vector)
        if reason is None:
            check_recipient(vector)
            passed += 1
        tally("hpke-pq/test-vectors.json", reason)
    assert passed == 1


def check_kem(vector: dict[str, Any]) -> None:
    recipient_key = PrivateKey.generate(KemId.X_WING, raw(vector, "skRm"))
    assert recipient_key.public == raw(vector, "pkRm")
    assert recipient_key.decapsulate(raw(vector, "enc")) == raw(vector, "shared_secret")
    _, enc = hpke.encapsulate(KemId.X_WING, recipient_key.public, raw(vector, "ikmE")[32:])
    assert enc[1088:] == raw(vector, "enc")[1088:]


def check_recipient(vector: dict[str, Any]) -> None:
    suite = Suite(KemId(vector["kem_id"]), AeadId(vector["aead_id"]))
    assert b"HPKE" + suite.encoded == raw(vector, "suite_id")
    key, base_nonce, _ = hpke._key_schedule(suite, raw(vector, "shared_secret"), raw(vector, "info"))
    assert (key, base_nonce) == (raw(vector, "key"), raw(vector, "base_nonce"))
    recipient_key = PrivateKey.generate(suite.kem, raw(vector, "skRm"))
    recipient = hpke.setup_base_recipient(suite, recipient_key, raw(vector, "enc"), raw(vector, "info"))
    assert vector["encryptions"]
    for item in vector["encryptions"]:
        assert recipient.open(raw(item, "aad"), raw(item, "ct")) == raw(item, "pt")
    assert vector["exports"]
    for item in vector["exports"]:
        assert recipient.export(raw(item, "exporter_context"), item["L"]) == raw(item, "exported_value")
