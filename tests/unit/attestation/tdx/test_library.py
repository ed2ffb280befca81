"""What dcap-qvl says in prose, pinned message by message: another version that says otherwise fails here."""

from collections.abc import Iterator

import pytest
from confide_attestation.tdx import library
from confide_attestation.tdx.abi import BodyType, parse_quote
from confide_attestation.tdx.collateral import parse_collateral
from confide_attestation.tdx.ids import TdxCheck
from confide_attestation.tdx.library import CERTIFICATE_FAULTS, FAULTS, Fault, collateral_urls, named

from tests.unit.attestation.tdx.support import NOW, REPORT_DATA, genuine, intel, judge
from tests.unit.attestation.tdx.test_verify_negatives import COLLATERALS, QUOTES, reworded

# Said only of quotes and documents that our own readers refuse before the library sees them, or never seen.
UNPROVOKED = {
    "Failed to decode QeIdentity",
    "Failed to get",
    "Failed to find",
    "Failed to decode DER",
    "OID is missing",
    "CpuSvn length",
    "PceSvn length",
    "Fmspc length",
    "Failed to parse PCK certificate",
    "Failed to parse TCB Info leaf certificate",
    "Failed to parse QE Identity leaf certificate",
}
# What the library lets pass: the reason for checks of our own.
SILENT = {
    "qe-reserved": "qe_report_reserved",
    "qe-data-tail": "qe_report_reserved",
    "outer-type": "cert_data_type",
    "reserved-the-library-takes": "td_reserved_bits",
    "xfam-zero": "xfam_reserved",
    "xfam-unknown": "xfam_reserved",
    "mr-seam-zero": "mr_seam_zero",
    "mr-td-zero": "mr_td_zero",
    "crl-future": "crl_not_yet_valid",
    "tcb-type": "tcb_info_type",
    "pce-id": "pceid_mismatch",
    **dict.fromkeys(
        (
            "qe-out-of-date",
            "SWHardeningNeeded",
            "ConfigurationNeeded",
            "ConfigurationAndSWHardeningNeeded",
            "OutOfDate",
            "OutOfDateConfigurationNeeded",
        ),
        "tcb_status_denied",
    ),
}


def said() -> Iterator[tuple[str, str, Fault | None]]:
    """Yield each negative's name, our check and the library's own fault, if it finds one."""
    cases = [(name, check, make(), genuine()[1]) for name, (make, check) in QUOTES.items()]
    cases += [(name, check, genuine()[0], make()) for name, (make, check) in COLLATERALS.items()]
    for name, check, quote, collateral in cases:
        outcome = library.judge(quote, parse_collateral(collateral), intel().root, NOW)
        yield name, check, outcome if isinstance(outcome, Fault) else None


def test_every_fault_has_the_name_that_we_give_it() -> None:
    """By itself the library's message leads to our check, or to the search among certificates."""
    provoked, silent = set(), {}
    for name, check, fault in said():
        if fault is None:
            silent[name] = check
            continue
        provoked |= {prefix for prefix in (*FAULTS, *CERTIFICATE_FAULTS) if fault.text.startswith(prefix)}
        assert fault.of_certificates or TdxCheck(check) in fault.checks, (name, fault)
    assert silent == SILENT
    assert {*FAULTS, *CERTIFICATE_FAULTS} - provoked == UNPROVOKED


def test_an_unknown_message_is_a_refusal_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its words are shown under the library's own check."""
    monkeypatch.setattr(library, "judge", lambda *_: named("Verification failed: something new"))
    result = judge()
    assert [(check.id, check.detail) for check in result.failed] == [
        ("dcap_qvl", "refused by dcap-qvl: something new")
    ]
    assert result.claims == {}


def test_a_fault_that_our_checks_passed_is_a_refusal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the two disagree, the stricter one counts."""
    monkeypatch.setattr(library, "judge", lambda *_: named("Verification failed: Debug mode is enabled"))
    assert [check.id for check in judge().failed] == ["dcap_qvl"]


def test_a_library_that_read_another_quote_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its body is compared with ours, field by field."""
    for body_type in (None, BodyType.TD15):
        quote = intel().sign_quote(REPORT_DATA, body_type=body_type)
        other = intel().sign_quote(bytes(64), body_type=body_type)
        claims = library.judge(other, parse_collateral(genuine()[1]), intel().root, NOW)
        with monkeypatch.context() as patched:
            patched.setattr(library, "judge", lambda *_, claims=claims: claims)
            result = judge(quote)
        assert [check.id for check in result.failed] == ["dcap_qvl"]
        assert result.claims == {}


def test_a_root_that_is_none_is_refused() -> None:
    """Nothing raises."""
    outcome = library.judge(genuine()[0], parse_collateral(genuine()[1]), b"no certificate", NOW)
    assert isinstance(outcome, Fault)


def test_a_signature_over_other_words_is_refused() -> None:
    """One space more in a signed document, which an eager reader would not notice."""
    outcome = library.judge(genuine()[0], parse_collateral(reworded("tcb_info")), intel().root, NOW)
    assert isinstance(outcome, Fault)
    assert outcome.checks == (TdxCheck.TCB_INFO_SIGNATURE,)


def test_addresses_name_the_platform_and_its_ca() -> None:
    """Where Intel has the documents of a quote."""
    tcb, qe, crl, root = collateral_urls(parse_quote(genuine()[0]).data)
    assert tcb.endswith("/tdx/certification/v4/tcb?fmspc=90C06F000000")
    assert qe.endswith("/tdx/certification/v4/qe/identity")
    assert "ca=platform" in crl
    assert root.endswith("IntelSGXRootCA.der")
