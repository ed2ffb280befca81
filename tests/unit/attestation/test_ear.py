"""The export as EAR says neither more nor less than the result."""

import json
from dataclasses import replace

import pytest
from confide_attestation.ear import EAR_PROFILE, export_ear
from confide_attestation.result import AttestationResult, Check, Outcome, Verdict
from confide_attestation.snp.judge import verify_snp

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


IDS = (
    "quote_size",
    "quote_signature",
    "tcb_status_denied",
    "td_debug",
    "rtmr3",
    "tpm_sig",
    "secure_boot",
    "pcr_values",
    "rtmr0_replay_mismatch",
    "compose_hash",
    "device_chain_sig",
    "gpu_measurements",
    "topology",
    "nras_sig",
    "policy_expired",
    "provider_report_data",
)


@pytest.mark.parametrize(
    ("submodule", "broken", "claim", "value"),
    [
        ("cpu0", "quote_signature", "instance-identity", 99),
        ("cpu0", "tcb_status_denied", "hardware", 96),
        ("cpu0", "td_debug", "configuration", 96),
        ("cpu0", "rtmr3", "executables", 33),
        ("nvidia", "device_chain_sig", "instance-identity", 99),
        ("nvidia", "gpu_measurements", "executables", 33),
        ("nvidia", "topology", "configuration", 96),
        ("vtpm", "tpm_sig", "instance-identity", 99),
        ("vtpm", "secure_boot", "configuration", 96),
        ("vtpm", "pcr_values", "executables", 33),
        ("event_log", "rtmr0_replay_mismatch", "instance-identity", 99),
        ("event_log", "compose_hash", "executables", 33),
        ("nras", "nras_sig", "instance-identity", 99),
    ],
)
def test_each_kind_of_evidence_has_its_submodule(submodule: str, broken: str, claim: str, value: int) -> None:
    """The fault stands where AR4SI wants it, and nothing is affirmed of a refusal."""
    checks = tuple(Check(each, Outcome.FAIL if each == broken else Outcome.PASS, "") for each in IDS)
    refused = AttestationResult(Verdict.REFUSED, checks, {"gpu0": {"a": 1}}, False, None, None, NOW)
    ear = export_ear(refused)
    assert list(ear["submods"]) == ["cpu0", "vtpm", "event_log", "nvidia", "nras"]
    assert ear["submods"][submodule]["ear.trustworthiness-vector"][claim] == value
    assert {each["ear.status"] for each in ear["submods"].values()} == {"contraindicated"}
    assert [check[0] for check in ear["confide.checks"]] == ["policy_expired", "provider_report_data"]
    assert ear["confide.claims"] == {"gpu0": {"a": 1}}
    whole = replace(refused, verdict=Verdict.ACCEPTED, checks=tuple(Check(i, Outcome.PASS, "") for i in IDS))
    assert export_ear(whole)["ear.status"] == "affirming"


def test_checks_of_no_evidence_have_a_submodule_too() -> None:
    """EAR wants one: it claims nothing."""
    result = AttestationResult(
        Verdict.AUTHENTIC, (Check("air_parse", Outcome.PASS, ""),), {}, False, None, None, NOW
    )
    ear = export_ear(result)
    assert ear["submods"]["evidence"]["ear.status"] == ear["ear.status"] == "none"
    assert set(ear["submods"]["evidence"]["ear.trustworthiness-vector"].values()) == {0}


@pytest.mark.parametrize("status", ["tcb_status", "tcb_level_status", "qe_tcb_status"])
def test_hardware_under_a_grace_is_a_warning(status: str) -> None:
    """What Intel says is open, a policy may accept for a while; another relying party hears of it."""
    checks = tuple(Check(each, Outcome.PASS, "") for each in IDS)
    up_to_date = dict.fromkeys(("tcb_status", "tcb_level_status", "qe_tcb_status"), "UpToDate")
    for said, hardware, word in ((up_to_date, 2, "affirming"), (up_to_date | {status: "OutOfDate"}, 32, "warning")):
        ear = export_ear(AttestationResult(Verdict.ACCEPTED, checks, {"cpu0": said}, False, "p", bytes(32), NOW))
        assert ear["submods"]["cpu0"]["ear.trustworthiness-vector"]["hardware"] == hardware
        assert ear["submods"]["nvidia"]["ear.trustworthiness-vector"]["hardware"] == 2
        assert ear["ear.status"] == ear["submods"]["cpu0"]["ear.status"] == word
