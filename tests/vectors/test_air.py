"""Attested Inference Receipt v1: every published vector gets its verdict at its layer."""

import json
from typing import Any

import pytest
from confide_protocol.audit.air import AirPolicy, check_air, verify_air
from confide_protocol.errors import ReceiptInvalid

from tests.shared import shared_path

VALID = ("v1-nitro-no-nonce", "v1-tdx-with-nonce")
# Vector -> (layer of the error, a word of its text).
INVALID = {
    "v1-wrong-alg": ("alg", "alg"),
    "v1-wrong-key": ("signature", "signature"),
    "v1-zero-model-hash": ("claims", "model_hash"),
    "v1-bad-measurement-length": ("claims", "measurement"),
    "v1-model-hash-mismatch": ("policy", "model_hash"),
    "v1-nonce-mismatch": ("policy", "nonce"),
    "v1-platform-mismatch": ("policy", "platform"),
    "v1-stale-iat": ("policy", "iat"),
}
LAYER_NUMBER = {"parse": 1, "alg": 1, "signature": 2, "claims": 3, "policy": 4}
ISSUED_UNIX_S = 1740500000
READ_UNIX_S = ISSUED_UNIX_S + 400 * 86_400


def load(folder: str, name: str) -> dict[str, Any]:
    return json.loads(shared_path("vectors", "air-v1", "vectors", folder, f"{name}.json").read_text())


def read(vector: dict[str, Any]) -> None:
    key = bytes.fromhex(vector.get("wrong_public_key_hex") or vector["public_key_hex"])
    demanded = vector.get("verify_policy", {})
    policy = AirPolicy(
        nonce=bytes.fromhex(demanded["expected_nonce_hex"]) if "expected_nonce_hex" in demanded else None,
        model_hash=(
            bytes.fromhex(demanded["expected_model_hash_hex"]) if "expected_model_hash_hex" in demanded else None
        ),
        platform=demanded.get("expected_platform"),
        max_age_s=demanded.get("max_age_secs"),
    )
    check_air(verify_air(bytes.fromhex(vector["receipt_hex"]), key), policy, now_unix_s=READ_UNIX_S)


def test_no_vector_is_left_out() -> None:
    """Every file of the published set is named here."""
    root = shared_path("vectors", "air-v1", "vectors")
    assert {path.stem for path in root.glob("valid/*.json")} == set(VALID)
    assert {path.stem for path in root.glob("invalid/*.json")} == set(INVALID)


@pytest.mark.parametrize("name", VALID)
def test_a_valid_receipt_is_read(name: str) -> None:
    """A valid receipt verifies and its claims are those that the vector lists."""
    vector = load("valid", name)
    claims = verify_air(bytes.fromhex(vector["receipt_hex"]), bytes.fromhex(vector["public_key_hex"]))
    listed = vector["claims"]
    for claim in ("model_id", "model_version", "policy_version", "sequence_number", "execution_time_ms"):
        assert getattr(claims, claim) == listed[claim]
    for claim in ("model_hash", "request_hash", "response_hash", "attestation_doc_hash", "cti"):
        assert getattr(claims, claim).hex() == listed[f"{claim}_hex"]
    registers = listed["enclave_measurements"]
    assert (claims.issuer, claims.issued_unix_s) == (listed["iss"], listed["iat"])
    assert (claims.memory_peak_mb, claims.security_mode) == (listed["memory_peak_mb"], listed["security_mode"])
    assert (claims.nonce.hex() if claims.nonce else None) == listed.get("eat_nonce_hex")
    assert claims.platform == registers["measurement_type"]
    for register in ("pcr0", "pcr1", "pcr2"):
        assert claims.measurements[register] == bytes.fromhex(registers[f"{register}_hex"])


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_receipt_fails_at_its_layer(name: str) -> None:
    """An invalid receipt is refused by the layer that the vector names."""
    vector = load("invalid", name)
    layer, word = INVALID[name]
    with pytest.raises(ReceiptInvalid, match=word) as caught:
        read(vector)
    assert caught.value.part == layer
    assert LAYER_NUMBER[layer] == vector["expected_failure"]["layer"]
