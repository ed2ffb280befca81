"""Tokens of NVIDIA's service: only ES384 by a published key, for our nonce, in time, whole and good."""

import json
from typing import Any

import pytest
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.nvidia.ids import NRAS_CHECKS
from confide_attestation.nvidia.nras import verify_nras
from confide_attestation.result import AttestationResult, Outcome, Verdict

from tests.fakes.nras import KID, NONCE, NOW, Nras, b64url, device_claims, jwk


@pytest.fixture(scope="module")
def service() -> Nras:
    return Nras()


def judge(service: Nras, tokens: bytes, jwks: bytes | None = None, now: int = NOW) -> AttestationResult:
    return verify_nras(tokens, jwks or service.jwks, now_unix_s=now, nonce=NONCE)


def failed(result: AttestationResult) -> list[str]:
    assert result.verdict is not Verdict.AUTHENTIC
    return [check.id for check in result.failed]


@pytest.mark.parametrize("version", ["2.0", "3.0"])
def test_good_answer_is_authentic(service: Nras, version: str) -> None:
    """GPUs and switches together, in both versions of claims, with their claims by device."""
    devices = {
        "GPU-0": device_claims(version=version),
        "GPU-1": device_claims(ueid="2", version=version),
        "SWITCH-0": device_claims("switch", "3", version),
    }
    result = judge(service, service.bundle(devices, **{"x-nvidia-ver": version}))
    assert [check.outcome for check in result.checks] == [Outcome.PASS] * len(NRAS_CHECKS)
    assert result.verdict is Verdict.AUTHENTIC
    assert set(result.claims) == {"nras", "gpu0", "gpu1", "switch0"}
    assert result.claims["gpu1"]["measres"] == "success"


@pytest.mark.parametrize(
    ("replaced", "check"),
    [
        ({"iss": "https://nras.attestation-stg.nvidia.com"}, "nras_issuer"),
        ({"iss": None}, "nras_issuer"),
        ({"exp": NOW}, "nras_expired"),
        ({"exp": None}, "nras_expired"),
        ({"exp": True}, "nras_expired"),
        ({"exp": NOW + 400 * 86_400}, "nras_expired"),
        ({"iat": None}, "nras_expired"),
        ({"nbf": NOW + 3600}, "nras_not_before"),
        ({"nbf": None}, "nras_not_before"),
        ({"iat": NOW + 3600}, "nras_not_before"),
        ({"eat_nonce": "00" * 32}, "nras_nonce"),
        ({"eat_nonce": None}, "nras_nonce"),
        ({"x-nvidia-ver": "9.0"}, "nras_version"),
        ({"sub": "other"}, "nras_version"),
        ({"submods": {}}, "nras_submods"),
        ({"submods": {"GPU-0": ["DIGEST", ["SHA-256", "00" * 32]]}}, "nras_submods"),
        ({"x-nvidia-error-details": {"code": 4010}}, "nras_error"),
        ({"x-nvidia-overall-att-result": False}, "nras_overall"),
        ({"x-nvidia-overall-att-result": 1}, "nras_overall"),
        ({"x-nvidia-overall-att-result": None}, "nras_overall"),
    ],
)
def test_overall_token_is_refused_for_its_reason(service: Nras, replaced: dict[str, Any], check: str) -> None:
    """Each claim of the overall token, replaced or left out."""
    assert check in failed(judge(service, service.bundle(**replaced)))


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("measres", "fail"),
        ("measres", None),
        ("secboot", False),
        ("secboot", 1),
        ("dbgstat", "enabled"),
        ("x-nvidia-gpu-arch-check", None),
        ("x-nvidia-gpu-attestation-report-signature-verified", False),
        ("x-nvidia-gpu-driver-rim-fetched", "true"),
        ("x-nvidia-gpu-vbios-rim-cert-chain", {"x-nvidia-cert-status": "valid"}),
        ("x-nvidia-gpu-attestation-report-cert-chain", {"x-nvidia-cert-status": "revoked"}),
        ("x-nvidia-gpu-vbios-index-no-conflict", False),
        ("x-nvidia-gpu-driver-rim-version-match", False),
    ],
)
def test_device_claim_is_refused(service: Nras, claim: str, value: object) -> None:
    """The overall result is true, but a device's claim is not: absent means false."""
    claims = {**device_claims(), claim: value}
    if value is None:
        del claims[claim]
    result = judge(service, service.bundle({"GPU-0": claims}))
    assert failed(result) == ["nras_device_claims"]
    assert claim in result.failed[0].detail


def test_each_device_token_counts(service: Nras) -> None:
    """A device's own nonce, time, issuer and error count as the overall token's do."""
    for claims, check in (
        ({"eat_nonce": "11" * 32}, "nras_nonce"),
        ({"exp": NOW - 1}, "nras_expired"),
        ({"iss": "me"}, "nras_issuer"),
        ({"x-nvidia-error-details": {"code": 4010}}, "nras_error"),
    ):
        tokens = service.bundle({"GPU-0": device_claims(), "GPU-1": {**device_claims(ueid="2"), **claims}})
        assert check in failed(judge(service, tokens))
    twice = service.bundle({"GPU-0": device_claims(), "GPU-1": device_claims()})
    assert failed(judge(service, twice)) == ["nras_duplicate_device"]


def test_tokens_added_removed_or_renamed_are_refused(service: Nras) -> None:
    """The overall token names exactly the device tokens that came with it."""
    head, devices = json.loads(service.bundle({"GPU-0": device_claims(), "GPU-1": device_claims(ueid="2")}))
    for changed in (
        {"GPU-0": devices["GPU-0"]},
        {**devices, "GPU-2": service.token(device_claims(ueid="3"))},
        {"GPU-0": devices["GPU-1"], "GPU-1": devices["GPU-0"]},
        {"GPU-5": devices["GPU-0"], "GPU-1": devices["GPU-1"]},
    ):
        assert failed(judge(service, json.dumps([head, changed]).encode())) == ["nras_submods"]


@pytest.mark.parametrize(
    ("header", "check"),
    [
        ({"kid": KID, "alg": "none"}, "nras_alg"),
        ({"kid": KID, "alg": "HS256"}, "nras_alg"),
        ({"kid": KID, "alg": "ES256"}, "nras_alg"),
        ({"kid": KID, "alg": "es384"}, "nras_alg"),
        ({"kid": KID}, "nras_alg"),
        ({"alg": "ES384"}, "nras_kid"),
        ({"kid": "other", "alg": "ES384"}, "nras_kid"),
        ({"kid": "../../keys", "alg": "ES384"}, "nras_kid"),
        ({"kid": [KID], "alg": "ES384"}, "nras_kid"),
        ({"kid": KID, "alg": "ES384", "crit": ["b64"], "b64": False}, "nras_header"),
        ({"kid": KID, "alg": "ES384", "jku": "https://evil.example"}, "nras_header"),
        ({"kid": KID, "alg": "ES384", "x5u": "https://evil.example"}, "nras_header"),
        ({"kid": KID, "alg": "ES384", "jwk": {}}, "nras_header"),
        ({"kid": KID, "alg": "ES384", "x5c": []}, "nras_header"),
    ],
)
def test_header_chooses_neither_key_nor_algorithm(service: Nras, header: dict[str, Any], check: str) -> None:
    """Confusion of algorithm and key is refused before a claim is shown."""
    result = judge(service, service.bundle(header=header))
    assert failed(result) == [check]
    assert result.claims == {}


def test_foreign_key_and_mixed_keys_are_refused(service: Nras) -> None:
    """Another key under the same kid, and two keys in one answer."""
    other = Nras()
    assert failed(judge(service, other.bundle())) == ["nras_sig"]
    second = Nras()
    tokens = {"GPU-0": second.token(device_claims(), {"kid": "second", "alg": "ES384"})}
    mixed = json.dumps([["JWT", service.token(service.overall(tokens))], tokens]).encode()
    jwks = json.dumps({"keys": [jwk(service.key), jwk(second.key, "second")]}).encode()
    assert failed(judge(service, mixed, jwks)) == ["nras_sig"]


def test_no_byte_of_a_token_can_be_changed(service: Nras) -> None:
    """Every thirteenth byte of the answer, flipped in its lowest bit."""
    tokens = service.bundle()
    for at in range(0, len(tokens), 13):
        changed = bytearray(tokens)
        changed[at] ^= 1
        assert judge(service, bytes(changed)).verdict is not Verdict.AUTHENTIC


def test_unreadable_inputs_say_so(service: Nras) -> None:
    """Neither tokens nor keys: UNREADABLE, and nothing raises."""
    good = service.bundle()
    head, devices = json.loads(good)
    twice = service.token('{"measres": "fail", "measres": "success"}')
    padded = head[1].rsplit(".", 1)[0] + "." + head[1].rsplit(".", 1)[1] + "=="
    for tokens in (
        b"", b"[]", b"{}", b"\xff", b"[" * 100_000, json.dumps([head]).encode(), json.dumps([head, {}]).encode(),
        json.dumps([["JWS", head[1]], devices]).encode(), json.dumps([head, {"GPU-0": twice}]).encode(),
        json.dumps([["JWT", padded], devices]).encode(), json.dumps([head, {"GPU-0": 1}]).encode(),
        good[:-1] + b', "GPU-0": "x"}]', json.dumps([["JWT", b64url(b"{}") * 2], devices]).encode(),
    ):  # fmt: skip
        assert judge(service, tokens).verdict is Verdict.UNREADABLE
    key = jwk(service.key)
    for keys in ([], [key, key], [{**key, "kid": None}], [{**key, "x": key["y"]}], [{**key, "x": "AA"}], ["x"]):
        assert judge(service, good, json.dumps({"keys": keys}).encode()).verdict is Verdict.UNREADABLE
    for unfit in ({**key, "kty": "oct", "k": "AA"}, {**key, "crv": "P-256"}, {**key, "alg": "HS256"}):
        assert failed(judge(service, good, json.dumps({"keys": [unfit]}).encode())) == ["nras_kid"]


def test_nonce_has_32_bytes(service: Nras) -> None:
    """A caller's short nonce is an error, not a verdict."""
    with pytest.raises(EvidenceMalformed):
        verify_nras(service.bundle(), service.jwks, now_unix_s=NOW, nonce=b"")
