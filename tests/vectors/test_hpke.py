"""RFC 9180: every published vector passes, or is counted under the reason why it does not apply."""

import hashlib
import json
from typing import Any

from confide_protocol import hpke
from confide_protocol.hpke import AeadId, KemId, PrivateKey, Suite

from tests.shared import shared_path
from tests.vectors.conftest import Tally

FULL = "rfc9180-test-vectors.json"
SUBSET = "rfc9180-filosottile-subset.json"
MODES = {0: "base", 1: "PSK", 2: "authenticated", 3: "authenticated PSK"}


def reason_not_applicable(vector: dict[str, Any]) -> str | None:
    """Name the first thing of a vector's suite that Confide deliberately has no code for."""
    if vector["mode"] != 0:
        return f"{MODES[vector['mode']]} mode is not implemented"
    if vector["kem_id"] not in list(KemId):
        return f"KEM {vector['kem_id']:#06x} is not implemented"
    if vector["kdf_id"] != hpke.HKDF_SHA256:
        return f"KDF {vector['kdf_id']:#06x} is not implemented"
    if vector["aead_id"] not in list(AeadId):
        return "the export-only AEAD is not implemented"
    return None


def raw(vector: dict[str, Any], name: str) -> bytes:
    return bytes.fromhex(vector[name])


def test_every_rfc_9180_vector(tally: Tally) -> None:
    """Key derivation, both contexts, every encryption and every export match the full file."""
    passed = 0
    for vector in json.loads(shared_path("vectors", "hpke", FULL).read_text()):
        reason = reason_not_applicable(vector)
        if reason is None:
            check_full(vector)
            passed += 1
        tally(f"hpke/{FULL}", reason)
    assert passed == 3


def check_full(vector: dict[str, Any]) -> None:
    suite = Suite(KemId(vector["kem_id"]), AeadId(vector["aead_id"]))
    recipient_key = PrivateKey.generate(suite.kem, raw(vector, "ikmR"))
    assert recipient_key.public == raw(vector, "pkRm") == PrivateKey.from_raw(raw(vector, "skRm")).public
    enc, sender = hpke.setup_base_sender(suite, recipient_key.public, raw(vector, "info"), raw(vector, "skEm"))
    assert enc == raw(vector, "enc")
    recipient = hpke.setup_base_recipient(suite, recipient_key, enc, raw(vector, "info"))
    assert vector["encryptions"]
    for item in vector["encryptions"]:
        assert sender.seal(raw(item, "aad"), raw(item, "pt")) == raw(item, "ct")
        assert recipient.open(raw(item, "aad"), raw(item, "ct")) == raw(item, "pt")
    assert vector["exports"]
    for item in vector["exports"]:
        for context in (sender, recipient):
            assert context.export(raw(item, "exporter_context"), item["L"]) == raw(item, "exported_value")


def test_every_vector_of_the_accumulated_subset(tally: Tally) -> None:
    """A thousand seals and a thousand exports with inputs from SHAKE128 hash to the published values."""
    passed = 0
    for vector in json.loads(shared_path("vectors", "hpke", SUBSET).read_text()):
        reason = reason_not_applicable(vector)
        if reason is None:
            check_accumulated(vector)
            passed += 1
        tally(f"hpke/{SUBSET}", reason)
    assert passed == 3


class Shake:
    """SHAKE128 of nothing, read as a stream."""

    def __init__(self) -> None:
        self._stream, self._at = hashlib.shake_128().digest(600_000), 0

    def read(self, size: int) -> bytes:
        self._at += size
        return self._stream[self._at - size : self._at]

    def draw(self) -> bytes:
        """Draw an input: one byte of length, then that many bytes."""
        return self.read(self.read(1)[0])


def check_accumulated(vector: dict[str, Any]) -> None:
    suite = Suite(KemId(vector["kem_id"]), AeadId(vector["aead_id"]))
    recipient_key = PrivateKey.generate(suite.kem, raw(vector, "ikmR"))
    assert recipient_key.public == raw(vector, "pkRm")
    ephemeral = PrivateKey.generate(suite.kem, raw(vector, "ikmE"))._x25519.private_bytes_raw()
    enc, sender = hpke.setup_base_sender(suite, recipient_key.public, raw(vector, "info"), ephemeral)
    assert enc == raw(vector, "enc")
    recipient = hpke.setup_base_recipient(suite, recipient_key, enc, raw(vector, "info"))
    source, sink = Shake(), hashlib.shake_128()
    for _ in range(1000):
        aad, plaintext = source.draw(), source.draw()
        sealed = sender.seal(aad, plaintext)
        assert recipient.open(aad, sealed) == plaintext
        sink.update(sealed)
    assert sink.digest(16) == raw(vector, "encryptions_accumulated")
    source, sink = Shake(), hashlib.shake_128()
    for length in range(1000):
        context = source.draw()
        value = sender.export(context, length)
        assert recipient.export(context, length) == value
        sink.update(value)
    assert sink.digest(16) == raw(vector, "exports_accumulated")
