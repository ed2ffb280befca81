"""EHBP: the published derivation and sealed response, byte for byte, and an opened one."""

import json
from typing import Any

from confide_enclave.ehbp.wire import SUITE, ResponseSealer, derive_response
from confide_protocol import hpke

from tests.fakes.ehbp import frames_of
from tests.shared import shared_path
from tests.vectors.conftest import Tally
from tests.vectors.test_hpke import raw


def load(name: str) -> dict[str, Any]:
    vector: dict[str, Any] = json.loads(shared_path("vectors", "ehbp", name).read_text())
    return vector


def material(vector: dict[str, Any]) -> tuple[bytes, bytes, bytes]:
    return raw(vector, "exportedSecret"), raw(vector, "requestEnc"), raw(vector, "responseNonce")


def test_the_response_keys(tally: Tally) -> None:
    """Key and base nonce follow from secret, enc and nonce."""
    vector = load("derive.json")
    assert derive_response(*material(vector)) == (raw(vector, "derivedKey"), raw(vector, "derivedNonceBase"))
    tally("ehbp/derive.json", None)


def test_a_sealed_response(tally: Tally) -> None:
    """The sealer gives the published bytes; they open to the published plaintext."""
    vector = load("response-decryption.json")
    sealed = raw(vector, "encryptedResponse")
    assert ResponseSealer(*material(vector)).seal(raw(vector, "plaintext")) == sealed
    (only,) = frames_of(sealed)
    opener = hpke.Opener(SUITE.aead, *derive_response(*material(vector)))
    assert opener.open(b"", only[4:]) == raw(vector, "plaintext")
    tally("ehbp/response-decryption.json", None)
