"""The export as EAR says neither more nor less than the result."""

import json

from confide_attestation.appraise import verify_snp
from confide_attestation.ear import EAR_PROFILE, export_ear

from tests.fakes.scene import NOW, Scene


def test_simulated_hardware_is_never_affirmed() -> None:
    """An accepted result on simulated hardware is contraindicated for any other relying party."""
    result = Scene().appraise()
    ear = export_ear(result)
    cpu0 = ear["submods"]["cpu0"]
    assert ear["eat_profile"] == EAR_PROFILE
    assert cpu0["ear.trustworthiness-vector"]["hardware"] == 97
    assert ear["ear.status"] == cpu0["ear.status"] == "contraindicated"
    assert cpu0["confide.simulated"] is True
    assert result.keyset is not None
    assert ear["exp"] == result.keyset.valid_until_unix_s
    assert cpu0["ear.appraisal-policy-id"].startswith("confide.demo.simulated#sha-256:")
    json.dumps(ear)


def test_broken_signature_is_a_failed_cryptographic_validation() -> None:
    """AR4SI 99, and no claims."""
    scene = Scene()
    scene.after_signing = lambda report: report[:0x90] + b"\xff" + report[0x91:]
    cpu0 = export_ear(scene.appraise())["submods"]["cpu0"]
    assert cpu0["ear.trustworthiness-vector"] == {"instance-identity": 99, "hardware": 99}
    assert cpu0["ear.status"] == "contraindicated"
    assert cpu0["confide.claims"] == {}


def test_debugging_and_foreign_image_have_their_values() -> None:
    """Configuration 96 for a debug guest, executables 33 for an image that is not pinned."""
    scene = Scene(report={"policy": 0xB0000, "measurement": b"\x01" * 48})
    vector = export_ear(scene.appraise())["submods"]["cpu0"]["ear.trustworthiness-vector"]
    assert (vector["configuration"], vector["executables"]) == (96, 33)


def test_without_a_policy_nothing_is_affirmed() -> None:
    """A refused or merely authentic report has no policy id and no affirming status."""
    evidence, endorsements, _ = Scene().build()
    assert endorsements.snp is not None
    ear = export_ear(verify_snp(evidence.cpu.report, endorsements.snp, now_unix_s=NOW))
    assert ear["ear.status"] == "contraindicated"
    assert "ear.appraisal-policy-id" not in ear["submods"]["cpu0"]
    assert "exp" not in ear
