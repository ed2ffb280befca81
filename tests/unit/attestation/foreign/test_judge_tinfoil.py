"""Tinfoil's documents: what holds, every lie by its name, and what stays unsaid."""

import base64
import gzip
import hashlib
import json
from typing import Any

import pytest
from confide_attestation.foreign.ids import TINFOIL_CHECKS
from confide_attestation.foreign.judge_tinfoil import verify_tinfoil
from confide_attestation.foreign.tinfoil import parse_tinfoil
from confide_attestation.nvidia.evidence import NvidiaEndorsements
from confide_attestation.result import AttestationResult, Outcome, Verdict
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.fakes.provider import HPKE, NONCE, TINFOIL, TLS, Provider, failed, tinfoil_keys
from tests.shared import shared_path

OTHER = b"\x55" * 32
ENCODING, SPKI = Encoding.DER, PublicFormat.SubjectPublicKeyInfo


@pytest.fixture(scope="module")
def provider() -> Provider:
    return Provider()


def outcome(result: AttestationResult, check_id: str) -> Outcome:
    return next(check.outcome for check in result.checks if check.id == check_id)


def test_version_3_is_authentic_with_intels_answers_in_it(provider: Provider) -> None:
    """Quote, keys, GPU and nonce hold; both keys are claimed, no keyset is made."""
    result = provider.judge_tinfoil(provider.tinfoil())
    assert (result.verdict, result.keyset) == (Verdict.AUTHENTIC, None)
    ids = [check.id for check in result.checks]
    assert len(ids) == len(set(ids))
    assert ids[-len(TINFOIL_CHECKS) :] == [str(check_id) for check_id in TINFOIL_CHECKS]
    assert result.claims["provider"] == {"tls_fingerprint": TLS.hex(), "hpke_key": HPKE.hex()}
    assert "gpu0" in result.claims


@pytest.mark.parametrize(
    ("fields", "check_id"),
    [
        ({"nonce": OTHER}, "provider_challenge"),
        ({"hashes": (OTHER, OTHER)}, "provider_section_hashes"),
        ({"report_data": bytes(64)}, "provider_report_data"),
        ({"keys": tinfoil_keys()[:1]}, "provider_hpke_key"),
        ({"keys": tinfoil_keys()[1:]}, "provider_tls_key"),
    ],
)
def test_every_lie_is_refused_by_its_name(provider: Provider, fields: dict[str, Any], check_id: str) -> None:
    """Each part that is foreign, other than stated, or not there."""
    result = provider.judge_tinfoil(provider.tinfoil(**fields))
    assert result.verdict is Verdict.REFUSED
    assert check_id in failed(result)


def test_keys_of_another_document_are_refused(provider: Provider) -> None:
    """A section replaced after the quote was made fits neither its hash nor the report data; no key is claimed."""
    tree, other = provider.tinfoil(), provider.tinfoil(keys=[*tinfoil_keys(), {**tinfoil_keys()[0], "id": "x"}])
    for name, hashed in (("crypto_material", "crypto_material_hash"), ("device_evidence", "device_evidence_hash")):
        spliced = tree | {name: other[name]}
        found = provider.judge_tinfoil(spliced)
        assert {"provider_section_hashes", "provider_report_data"} <= failed(found)
        assert "provider" not in found.claims
        endorsed = tree["cpu_evidence"]["endorsed"] | {hashed: other["cpu_evidence"]["endorsed"][hashed]}
        spliced["cpu_evidence"] = tree["cpu_evidence"] | {"endorsed": endorsed}
        assert "provider_report_data" in failed(provider.judge_tinfoil(spliced))


def test_a_gpu_that_answers_another_nonce_is_refused(provider: Provider) -> None:
    """Though its evidence is hashed into the report data."""
    tree = provider.tinfoil(devices=[provider.tinfoil_gpu(OTHER)])
    assert "gpu_nonce" in failed(provider.judge_tinfoil(tree))
    result = provider.judge_tinfoil(provider.tinfoil(), nvidia=NvidiaEndorsements())
    assert "driver_rim_missing" in failed(result)
    broken = provider.tinfoil_gpu() | {"evidence": {"arch": "HOPPER"}}
    assert "provider_device_evidence" in failed(provider.judge_tinfoil(provider.tinfoil(devices=[broken])))


def test_devices_that_are_not_judged_are_said(provider: Provider) -> None:
    """None in it, left out by the caller, or of a form that is not known here."""
    strange = {**provider.tinfoil_gpu(), "id": "nvswitch0", "format": f"{TINFOIL}/format/nvswitch/v1"}
    for devices, options in (
        ([], {}),
        ([provider.tinfoil_gpu()], {"judge_gpus": False}),
        ([provider.tinfoil_gpu(), strange], {}),
    ):
        result = provider.judge_tinfoil(provider.tinfoil(devices=devices), **options)
        check = next(each for each in result.checks if each.id == "provider_device_evidence")
        assert (result.verdict, check.outcome) == (Verdict.AUTHENTIC, Outcome.SKIP)
        assert "NOT judged" in check.detail


def test_the_tls_key_is_compared_with_what_was_seen(provider: Provider) -> None:
    """Only if that is given."""
    assert provider.judge_tinfoil(provider.tinfoil(), tls_fingerprint=TLS).verdict is Verdict.AUTHENTIC
    assert failed(provider.judge_tinfoil(provider.tinfoil(), tls_fingerprint=OTHER)) == {"provider_tls_key"}


def test_version_2_answers_no_nonce(provider: Provider) -> None:
    """Authentic without a nonce, refused with one; the keys are the report data."""
    tree, options = provider.tinfoil_v2(), {"collateral_json": provider.intel.collateral()}
    result = provider.judge_tinfoil(tree, nonce=None, **options)
    assert result.verdict is Verdict.AUTHENTIC
    assert result.claims["provider"] == {"tls_fingerprint": TLS.hex(), "hpke_key": HPKE.hex()}
    assert failed(provider.judge_tinfoil(tree, nonce=NONCE, **options)) == {"provider_challenge"}
    zero = provider.tinfoil_v2(TLS + bytes(32))
    assert failed(provider.judge_tinfoil(zero, nonce=None, **options)) == {"provider_hpke_key"}


def test_version_2_on_real_amd_hardware() -> None:
    """A real report with its VCEK inside is authentic; another's VCEK is refused; none cannot be read."""
    at = shared_path("evidence", "snp", "genoa_v3_vcek_ms")
    tree = {
        "format": f"{TINFOIL}/predicate/sev-snp-guest/v2",
        "body": base64.b64encode(gzip.compress((at / "report.bin").read_bytes())).decode(),
        "vcek": base64.b64encode((at / "vek.der").read_bytes()).decode(),
    }

    def judged(document: dict[str, Any]) -> AttestationResult:
        parsed = parse_tinfoil(json.dumps(document).encode())
        return verify_tinfoil(parsed, NvidiaEndorsements(), now_unix_s=1_775_441_107)

    assert judged(tree).claims["cpu0"]["product"] == "Genoa"
    assert failed(judged(tree)) <= {"provider_report_data", "provider_hpke_key"}
    foreign = shared_path("evidence", "snp", "milan_v3_vcek_ms", "vek.der").read_bytes()
    assert judged(tree | {"vcek": base64.b64encode(foreign).decode()}).verdict is Verdict.REFUSED
    assert judged({name: tree[name] for name in ("format", "body")}).verdict is Verdict.UNREADABLE
    bundle = {"domain": "x", "enclaveAttestationReport": {**tree, "vcek": ""}, "vcek": tree["vcek"]}
    assert judged(bundle).claims["cpu0"] == judged(tree).claims["cpu0"]


def bundled(provider: Provider, der: bytes, key: bytes = TLS, **options: Any) -> AttestationResult:
    """Judge a bundle that brings a certificate, and binds a key that need not be the certificate's."""
    cert = f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE-----\n"
    bundle = {"enclaveAttestationReport": provider.tinfoil_v2(key + HPKE), "enclaveCert": cert}
    options |= {"nonce": None, "collateral_json": provider.intel.collateral()}
    return provider.judge_tinfoil(bundle, **options)


def test_a_bundles_certificate_is_compared_with_the_bound_key(provider: Provider) -> None:
    """It says nothing of a connection: only what the caller saw makes the check pass."""
    der = provider.intel.root
    spki = x509.load_der_x509_certificate(der).public_key().public_bytes(ENCODING, SPKI)
    key = hashlib.sha256(spki).digest()
    assert failed(bundled(provider, der)) == {"provider_tls_key"}
    unseen = bundled(provider, der, key)
    assert (unseen.verdict, outcome(unseen, "provider_tls_key")) == (Verdict.AUTHENTIC, Outcome.SKIP)
    seen = bundled(provider, der, key, tls_fingerprint=key)
    assert (seen.verdict, outcome(seen, "provider_tls_key")) == (Verdict.AUTHENTIC, Outcome.PASS)
    assert failed(bundled(provider, der, key, tls_fingerprint=OTHER)) == {"provider_tls_key"}
    assert failed(bundled(provider, der, tls_fingerprint=TLS)) == {"provider_tls_key"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("06072a8648ce3d0201", "06072a8648ce3d0277"),
        ("06082a8648ce3d030107", "06082a8648ce3d030177"),
        ("a003020102", "a003020107"),
    ],
    ids=["algorithm", "curve", "version"],
)
def test_a_certificate_that_cannot_be_read_refuses(provider: Provider, old: str, new: str) -> None:
    """Whatever in it is unknown to the library, and whatever else holds."""
    der = provider.intel.root.replace(bytes.fromhex(old), bytes.fromhex(new), 1)
    assert der != provider.intel.root
    assert failed(bundled(provider, der)) == {"provider_tls_key"}


def test_intels_answers_must_be_of_the_quote(provider: Provider) -> None:
    """A document changed after Intel signed it, or left out, is refused."""
    pcs = provider.intel_pcs()
    answers = pcs["data"]["responses"]
    body = base64.b64decode(answers[0]["body_base64"]).replace(b'"version":3', b'"version":4')
    answers[0]["body_base64"] = base64.b64encode(body).decode()
    assert "tcb_info_signature" in failed(provider.judge_tinfoil(provider.tinfoil(collateral=[pcs])))
    del answers[1:]
    result = provider.judge_tinfoil(provider.tinfoil(collateral=[pcs]))
    assert (result.verdict, failed(result) & {"collateral_format"}) == (Verdict.UNREADABLE, {"collateral_format"})
