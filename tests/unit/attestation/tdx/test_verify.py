"""Verdicts, claims and details of genuine simulated quotes, and what a result always holds."""

from dataclasses import replace

import pytest
from confide_attestation.result import Outcome, Verdict
from confide_attestation.simulated.intel import PROCESSOR_CA, SimulatedIntel
from confide_attestation.tdx.abi import BodyType
from confide_attestation.tdx.ids import TDX_POLICY_CHECKS, TdxCheck
from confide_attestation.tdx.judge import verify_tdx

from tests.unit.attestation.tdx.support import NOW, REPORT_DATA, detail, genuine, intel, judge, keys, outcome


@pytest.mark.parametrize("body_type", [None, BodyType.TD10, BodyType.TD15])
def test_genuine_quotes_are_authentic(body_type: BodyType | None) -> None:
    """Version 4, and version 5 with both bodies; every check of authenticity passes."""
    result = judge(intel().sign_quote(REPORT_DATA, body_type=body_type))
    assert result.failed == ()
    assert result.verdict is Verdict.AUTHENTIC
    assert result.simulated
    skipped = {check.id for check in result.checks if check.outcome is Outcome.SKIP}
    assert skipped == {str(check) for check in TDX_POLICY_CHECKS}


def test_every_check_is_in_every_result_in_order() -> None:
    """Good, refused and unreadable input alike; no keyset comes of any."""
    for result in (judge(), judge(b""), judge(collateral=b"{}"), judge(now=0)):
        assert [check.id for check in result.checks] == [str(check) for check in TdxCheck]
        assert (result.keyset, result.policy_id) == (None, None)


def test_intels_root_does_not_vouch_for_simulated_hardware() -> None:
    """Without the second argument the packaged root counts, and nothing simulated passes."""
    result = verify_tdx(*genuine(), now_unix_s=NOW)
    assert result.verdict is Verdict.REFUSED
    assert not result.simulated
    assert outcome(result, "root_untrusted") is Outcome.FAIL
    assert result.claims == {}


def test_zero_padding_changes_nothing() -> None:
    """GCP pads quotes to 8,000 bytes; claims and digest are those of the quote itself."""
    quote, _ = genuine()
    padded = judge(quote.ljust(8000, b"\0"))
    assert padded.verdict is Verdict.AUTHENTIC
    assert padded.claims == judge().claims


def test_claims_name_what_was_signed() -> None:
    """Measurements as hex, platform, documents and TCB."""
    claims = judge(intel().sign_quote(REPORT_DATA, body_type=BodyType.TD15, rtmr2=b"\7" * 48)).claims["cpu0"]
    assert claims["report_data"] == REPORT_DATA.hex()
    assert claims["mr_td"] == intel().mr_td.hex()
    assert claims["rtmr2"] == "07" * 48
    assert claims["ppid"] == intel().ppid.hex()
    assert claims["fmspc"] == "90c06f000000"
    assert (claims["tcb_status"], claims["current_tcb_status"]) == ("UpToDate", "UpToDate")
    assert claims["tcb_info_next_update"] == intel().not_after_unix_s
    assert claims["collateral_expires"] == intel().not_after_unix_s


def test_identity_covers_only_what_the_quoting_enclave_signed() -> None:
    """Two signatures over the same TD are the same identity; another TD is another."""
    first, second = intel().sign_quote(REPORT_DATA), intel().sign_quote(REPORT_DATA)
    assert first != second
    same = {judge(quote).claims["cpu0"]["signed_sha256"] for quote in (first, second)}
    assert len(same) == 1
    assert judge(intel().sign_quote(bytes(64))).claims["cpu0"]["signed_sha256"] not in same


def test_refused_td_shows_its_claims_once_its_signatures_hold() -> None:
    """A debug TD is refused and still described; a debug TD with a wrong signature is not."""
    quote = bytearray(intel().sign_quote(REPORT_DATA, td_attributes=(0x10000001).to_bytes(8, "little")))
    result = judge(bytes(quote))
    assert [check.id for check in result.failed] == ["td_debug"]
    assert result.claims["cpu0"]["debug"] is True
    assert "tcb_status" not in result.claims["cpu0"]
    quote[640] ^= 1
    result = judge(bytes(quote))
    assert [check.id for check in result.failed] == ["quote_signature", "td_debug"]
    assert result.claims == {}


def test_expiry_is_counted_down() -> None:
    """The windows' ends are in the details of passing checks."""
    result = judge()
    assert detail(result, "tcb_info_expired").startswith("good for 30 days more, until 2026-")
    assert detail(result, "crl_expired").endswith("the first of all ends in 30 days")


def test_the_processor_ca_is_as_good() -> None:
    """Both of Intel's PCK CAs are known, each with its own list."""
    other = SimulatedIntel.make(NOW, keys=keys(), ca_name=PROCESSOR_CA)
    quote, collateral = other.sign_quote(REPORT_DATA), other.collateral()
    assert verify_tdx(quote, collateral, now_unix_s=NOW, root_der=other.root).verdict is Verdict.AUTHENTIC


def test_documents_of_another_platform_are_refused() -> None:
    """FMSPC and PCE-ID are those of the certificate; dcap-qvl does not look at the second."""
    for lie, check in (("fmspc", "fmspc_mismatch"), ("pce_id", "pceid_mismatch")):
        other = replace(intel(), **{lie: b"\1" * len(getattr(intel(), lie))})
        assert [each.id for each in judge(collateral=other.collateral()).failed] == [check]
