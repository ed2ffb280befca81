"""Every negative signed afresh and refused by its own name: what the library says, and what it leaves out."""

import json
from collections.abc import Callable

import pytest
from confide_attestation.result import Outcome, Verdict
from confide_attestation.simulated.intel import (
    PCK,
    PLATFORM_CA,
    PROCESSOR_CA,
    ROOT_CA,
    TCB_SIGNING,
    TDX_SVNS,
    TREE,
    level,
    pem,
    serial_of,
)
from confide_attestation.tdx.abi import BodyType
from confide_attestation.tdx.ids import TDX_AUTHENTICITY_CHECKS
from confide_attestation.tdx.library import AFTER_SIGNATURES, CERTIFICATE_FAULTS, FAULTS

from tests.unit.attestation.tdx.support import NOW, REPORT_DATA, failed, flip, genuine, intel, judge, outcome

PAST, FUTURE = (NOW - 9, NOW - 5), (NOW + 9, NOW + 50)
DAY = "2024-11-13T00:00:00Z"


def quote(**fields: object) -> bytes:
    return intel().sign_quote(REPORT_DATA, **fields)  # type: ignore[arg-type]


def attributes(bit: int) -> bytes:
    return quote(td_attributes=(1 << bit ^ 1 << 28).to_bytes(8, "little"))


def svns(*first: int) -> bytes:
    return bytes((*first, *TDX_SVNS[len(first) :]))


def tcb(**fields: object) -> bytes:
    return intel().collateral(tcb_info=intel().tcb_info(**fields))


def qe(**fields: object) -> bytes:
    return intel().collateral(qe_identity=intel().qe_identity(**fields))


def with_part(**parts: str) -> bytes:
    return intel().collateral(**parts)


def reworded(part: str) -> bytes:
    """Add one space to a signed document."""
    tree = json.loads(genuine()[1])
    return json.dumps(tree | {part: tree[part].replace(":", ": ", 1)}).encode()


def components(kind: str) -> bytes:
    short: TREE = level()
    short["tcb"][kind].pop()
    return tcb(tcbLevels=[short])


def qe_levels(svn: int, status: str) -> bytes:
    return qe(tcbLevels=[{"tcb": {"isvsvn": svn}, "tcbDate": DAY, "tcbStatus": status}])


def modules(**fields: object) -> bytes:
    (module,) = intel().tcb_info()["tdxModuleIdentities"]
    return tcb(tdxModuleIdentities=[{**module, **fields}])


def pck_chain(**fields: object) -> bytes:
    by = fields.pop("by", intel().keys.ca)
    leaf = intel().certificate(PCK, PLATFORM_CA, intel().keys.pck, by, **fields)  # type: ignore[arg-type]
    return quote(chain=pem(leaf, intel().ca, intel().root).encode())


def signer(**fields: object) -> str:
    by = fields.pop("by", intel().keys.root)
    leaf = intel().certificate(TCB_SIGNING, ROOT_CA, intel().keys.tcb, by, **fields)  # type: ignore[arg-type]
    return pem(leaf, intel().root)


def pck_crl(**fields: object) -> bytes:
    name, by = fields.pop("name", PLATFORM_CA), fields.pop("by", intel().keys.ca)
    return with_part(pck_crl=intel().crl(name, by, **fields).hex())  # type: ignore[arg-type]


def root_crl(**fields: object) -> bytes:
    by = fields.pop("by", intel().keys.root)
    return with_part(root_ca_crl=intel().crl(ROOT_CA, by, **fields).hex())  # type: ignore[arg-type]


QUOTES: dict[str, tuple[Callable[[], bytes], str]] = {
    "header": (lambda: flip(genuine()[0], 40), "quote_signature"),
    "mr_td": (lambda: flip(genuine()[0], 48 + 140), "quote_signature"),
    "report_data": (lambda: flip(genuine()[0], 48 + 530), "quote_signature"),
    "signature": (lambda: flip(genuine()[0], 640), "quote_signature"),
    "attestation-key": (lambda: flip(genuine()[0], 710), "ak_binding"),
    "auth-data": (lambda: flip(genuine()[0], 1221), "ak_binding"),
    "qe-report": (lambda: flip(genuine()[0], 780), "qe_report_signature"),
    "qe-report-signature": (lambda: flip(genuine()[0], 1160), "qe_report_signature"),
    "outer-type": (lambda: flip(genuine()[0], 764), "cert_data_type"),
    "inner-type": (lambda: flip(genuine()[0], 1252), "cert_data_type"),
    "qe-signer": (lambda: quote(qe_report={128: b"\1"}), "qe_mrsigner"),
    "qe-product": (lambda: quote(qe_report={256: b"\1"}), "qe_prodid"),
    "qe-version": (lambda: quote(qe_report={258: b"\1"}), "qe_isvsvn"),
    "qe-miscselect": (lambda: quote(qe_report={16: b"\1"}), "qe_miscselect"),
    "qe-debug": (lambda: quote(qe_report={48: b"\x13"}), "qe_attributes"),
    "qe-mode": (lambda: quote(qe_report={48: b"\x35"}), "qe_attributes"),
    "qe-reserved": (lambda: quote(qe_report={300: b"\1"}), "qe_report_reserved"),
    "qe-data-tail": (lambda: quote(qe_report={352: b"\1"}), "qe_report_reserved"),
    "key-type": (lambda: quote(header={2: b"\3"}), "att_key_type"),
    "vendor": (lambda: quote(header={12: b"\0"}), "qe_vendor"),
    "debug": (lambda: attributes(0), "td_debug"),
    "profiling": (lambda: attributes(5), "td_profiling"),
    "servtd": (lambda: attributes(17), "td_reserved_bits"),
    "reserved": (lambda: attributes(40), "td_reserved_bits"),
    "reserved-the-library-takes": (lambda: attributes(18), "td_reserved_bits"),
    "sept-ve": (lambda: attributes(28), "sept_ve_disable"),
    "migratable": (lambda: attributes(29), "td_migratable"),
    "service-td": (lambda: quote(body_type=BodyType.TD15, mr_service_td=b"\1" * 48), "service_td"),
    "xfam-zero": (lambda: quote(xfam=bytes(8)), "xfam_reserved"),
    "xfam-unknown": (lambda: quote(xfam=(1 << 40 | 3).to_bytes(8, "little")), "xfam_reserved"),
    "mr-seam-zero": (lambda: quote(mr_seam=bytes(48)), "mr_seam_zero"),
    "mr-td-zero": (lambda: quote(mr_td=bytes(48)), "mr_td_zero"),
    "module-signer": (lambda: quote(mr_signer_seam=b"\1" * 48), "tdx_module_mrsigner"),
    "module-attributes": (lambda: quote(seam_attributes=b"\1" * 8), "seam_attributes"),
    "module-unknown": (lambda: quote(tee_tcb_svn=svns(5, 7)), "tdx_module_id_unknown"),
    "module-old": (lambda: quote(tee_tcb_svn=svns(1, 1)), "tdx_module_svn"),
    "no-level": (lambda: quote(tee_tcb_svn=svns(5, 1, 0)), "tcb_no_level"),
    "no-current-level": (
        lambda: quote(body_type=BodyType.TD15, tee_tcb_svn2=svns(5, 1, 0)),
        "current_tcb",
    ),
    "pck-chain": (lambda: pck_chain(by=intel().keys.root), "pck_chain"),
    "pck-of-another-kind": (
        lambda: quote(chain=pem(intel().tcb_signing, intel().ca, intel().root).encode()),
        "pck_extensions",
    ),
    "pck-expired": (lambda: pck_chain(window=PAST), "pck_expired"),
    "pck-not-yet": (lambda: pck_chain(window=FUTURE), "pck_expired"),
}


@pytest.mark.parametrize("name", QUOTES)
def test_quote_is_refused_by_name(name: str) -> None:
    """Nothing else is named, and the library's word is never needed."""
    make, check = QUOTES[name]
    assert failed(make()) == [check]


COLLATERALS: dict[str, tuple[Callable[[], bytes], str]] = {
    "tcb-signature": (lambda: with_part(tcb_info_signature="00" * 64), "tcb_info_signature"),
    "tcb-edited": (lambda: reworded("tcb_info"), "tcb_info_signature"),
    "tcb-expired": (lambda: tcb(nextUpdate="2020-01-01T00:00:00Z"), "tcb_info_expired"),
    "tcb-future": (lambda: tcb(issueDate="2030-01-01T00:00:00Z"), "tcb_info_not_yet_valid"),
    "tcb-sgx": (lambda: tcb(id="SGX"), "tcb_info_type"),
    "tcb-type": (lambda: tcb(tcbType=1), "tcb_info_type"),
    "qe-signature": (lambda: with_part(qe_identity_signature="00" * 64), "qe_identity_signature"),
    "qe-edited": (lambda: reworded("qe_identity"), "qe_identity_signature"),
    "qe-expired": (lambda: qe(nextUpdate="2020-01-01T00:00:00Z"), "qe_identity_expired"),
    "qe-future": (lambda: qe(issueDate="2030-01-01T00:00:00Z"), "qe_identity_not_yet_valid"),
    "qe-id": (lambda: qe(id="QE"), "qe_identity_id"),
    "qe-version": (lambda: qe(version=9), "qe_identity_id"),
    "qe-no-levels": (lambda: qe(tcbLevels=[]), "qe_isvsvn"),
    "qe-short": (lambda: qe_levels(9, "UpToDate"), "qe_isvsvn"),
    "qe-out-of-date": (lambda: qe_levels(4, "OutOfDate"), "tcb_status_denied"),
    "qe-revoked": (lambda: qe_levels(4, "Revoked"), "tcb_revoked"),
    "signer-chain": (lambda: with_part(tcb_info_issuer_chain=signer(by=intel().keys.ca)), "tcb_signing_chain"),
    "signer-none": (lambda: with_part(tcb_info_issuer_chain=""), "tcb_signing_chain"),
    "qe-signer-none": (lambda: with_part(qe_identity_issuer_chain=""), "tcb_signing_chain"),
    "signer-old": (lambda: with_part(tcb_info_issuer_chain=signer(window=PAST)), "tcb_signing_cert_expired"),
    "qe-signer-old": (
        lambda: with_part(qe_identity_issuer_chain=signer(window=FUTURE)),
        "tcb_signing_cert_expired",
    ),
    "signer-revoked": (lambda: root_crl(revoked=[serial_of(TCB_SIGNING)]), "tcb_signing_revoked"),
    "pck-revoked": (lambda: pck_crl(revoked=[serial_of(PCK)]), "pck_revoked"),
    "ca-revoked": (lambda: root_crl(revoked=[serial_of(PLATFORM_CA)]), "ca_revoked"),
    "crl-of-another-ca": (lambda: pck_crl(name=PROCESSOR_CA), "crl_missing_for_ca"),
    "crl-signature": (lambda: pck_crl(by=intel().keys.root), "crl_sig"),
    "root-crl-signature": (lambda: root_crl(by=intel().keys.ca), "crl_sig"),
    "crl-old": (lambda: pck_crl(window=PAST), "crl_expired"),
    "root-crl-old": (lambda: root_crl(window=PAST), "crl_expired"),
    "crl-future": (lambda: pck_crl(window=FUTURE), "crl_not_yet_valid"),
    "crl-garbage": (lambda: with_part(pck_crl="00"), "crl_format"),
    "root-crl-garbage": (lambda: with_part(root_ca_crl="00"), "crl_format"),
    "fmspc": (lambda: tcb(fmspc="00" * 6), "fmspc_mismatch"),
    "pce-id": (lambda: tcb(pceId="0001"), "pceid_mismatch"),
    "sgx-components": (lambda: components("sgxtcbcomponents"), "component_count"),
    "tdx-components": (lambda: components("tdxtcbcomponents"), "component_count"),
    "no-levels": (lambda: tcb(tcbLevels=[]), "tcb_no_level"),
    "no-modules": (lambda: tcb(tdxModuleIdentities=[]), "tdx_module_id_unknown"),
    "module-revoked": (
        lambda: modules(tcbLevels=[{"tcb": {"isvsvn": 2}, "tcbDate": DAY, "tcbStatus": "Revoked"}]),
        "tcb_revoked",
    ),
    "module-signer": (lambda: modules(mrsigner="01" * 48), "tdx_module_mrsigner"),
    "status-unknown": (lambda: tcb(tcbLevels=[level("NotSupported")]), "tcb_status_unknown"),
    "status-out-of-place": (lambda: tcb(tcbLevels=[level("TDRelaunchAdvised")]), "tcb_status_unknown"),
    "qe-status-out-of-place": (lambda: qe_levels(4, "SWHardeningNeeded"), "tcb_status_unknown"),
    "revoked": (lambda: tcb(tcbLevels=[level("Revoked")]), "tcb_revoked"),
    **{
        status: (lambda status=status: tcb(tcbLevels=[level(status)]), "tcb_status_denied")  # type: ignore[misc]
        for status in (
            "SWHardeningNeeded",
            "ConfigurationNeeded",
            "ConfigurationAndSWHardeningNeeded",
            "OutOfDate",
            "OutOfDateConfigurationNeeded",
        )
    },
}


@pytest.mark.parametrize("name", COLLATERALS)
def test_collateral_is_refused_by_name(name: str) -> None:
    """Nothing else is named, and the library's word is never needed."""
    make, check = COLLATERALS[name]
    assert failed(collateral=make()) == [check]


def two_levels() -> bytes:
    return tcb(tcbLevels=[level(), level("OutOfDate", tdx=(5, 1, 2) + (0,) * 13)])


def test_relaunch_is_advised_where_a_newer_module_runs_now() -> None:
    """Launched on an old level, running on a new one: refused, and the remedy is to launch anew."""
    relaunch = quote(body_type=BodyType.TD15, tee_tcb_svn=svns(5, 1, 2))
    assert failed(relaunch, two_levels()) == ["tcb_status_denied", "td_relaunch_advised"]


def test_a_module_that_went_back_is_refused() -> None:
    """Launched on a new level, running on an old one: the library calls that UpToDate."""
    back = quote(body_type=BodyType.TD15, tee_tcb_svn2=svns(5, 1, 2))
    result = judge(back, two_levels())
    assert [check.id for check in result.failed] == ["current_tcb"]
    assert result.claims["cpu0"]["tcb_status"] == "UpToDate"


LATE = {
    "td_debug": lambda: (attributes(0), None),
    "td_profiling": lambda: (attributes(4), None),
    "td_reserved_bits": lambda: (attributes(40), None),
    "sept_ve_disable": lambda: (attributes(28), None),
    "td_migratable": lambda: (attributes(29), None),
    "service_td": lambda: (QUOTES["service-td"][0](), None),
    "current_tcb": lambda: (QUOTES["no-current-level"][0](), None),
    "tcb_no_level": lambda: (QUOTES["no-level"][0](), None),
    "tdx_module_mrsigner": lambda: (QUOTES["module-signer"][0](), None),
    "seam_attributes": lambda: (QUOTES["module-attributes"][0](), None),
    "tdx_module_id_unknown": lambda: (QUOTES["module-unknown"][0](), None),
    "tdx_module_svn": lambda: (QUOTES["module-old"][0](), None),
    "tcb_revoked": lambda: (None, intel().tcb_info(tcbLevels=[level("Revoked")])),
}
EARLY: dict[str, Callable[[bytes, TREE | None], tuple[bytes, bytes]]] = {
    "quote_signature": lambda data, info: (flip(data, data.index(REPORT_DATA) + 3), made(info)),
    "ak_binding": lambda data, info: (flip(data, data.index(bytes(range(32)), 700) + 1), made(info)),
    "qe_report_signature": lambda data, info: (flip(data, len(data) - pem_size() - 100), made(info)),
    "tcb_info_signature": lambda data, info: (data, made(info, tcb_info_signature="00" * 64)),
    "qe_identity_signature": lambda data, info: (data, made(info, qe_identity_signature="00" * 64)),
    "pck_revoked": lambda data, info: (
        data,
        made(info, pck_crl=intel().crl(PLATFORM_CA, intel().keys.ca, revoked=[serial_of(PCK)]).hex()),
    ),
    "ca_revoked": lambda data, info: (
        data,
        made(info, root_ca_crl=intel().crl(ROOT_CA, intel().keys.root, revoked=[serial_of(PLATFORM_CA)]).hex()),
    ),
    "tcb_signing_chain": lambda data, info: (data, made(info, qe_identity_issuer_chain=signer(by=intel().keys.ca))),
    "qe_identity_id": lambda data, info: (
        data,
        intel().collateral(tcb_info=info, qe_identity=intel().qe_identity(id="QE")),
    ),
    "qe_isvsvn": lambda data, info: (
        data,
        intel().collateral(tcb_info=info, qe_identity=intel().qe_identity(tcbLevels=[])),
    ),
}


def made(info: TREE | None, **parts: str) -> bytes:
    return intel().collateral(tcb_info=info, **parts)


def pem_size() -> int:
    return len(pem(intel().pck, intel().ca, intel().root)) + 1


def test_every_late_fault_has_a_case() -> None:
    """The table of late faults is the one that the code relies on."""
    assert set(LATE) == {str(check) for check in AFTER_SIGNATURES}


@pytest.mark.parametrize("late", LATE)
def test_late_faults_are_found_only_once_every_signature_held(late: str) -> None:
    """With an early fault beside it the library names the early one: so a late one means that signatures hold."""
    data, info = LATE[late]()
    for early, spoil in EARLY.items():
        result = judge(*spoil(data or genuine()[0], info))
        assert outcome(result, early) is Outcome.FAIL, early
        assert result.verdict is Verdict.REFUSED
        assert result.claims == {}, early


def test_every_message_of_the_library_has_a_name() -> None:
    """No prefix hides another."""
    prefixes = [*FAULTS, *CERTIFICATE_FAULTS]
    assert not [(a, b) for a in prefixes for b in prefixes if a != b and a.startswith(b)]


@pytest.mark.parametrize("name", ["qe-revoked", "module-revoked", "no-levels", "no-modules", "module-signer"])
def test_a_document_that_refuses_hides_no_wrong_signature(name: str) -> None:
    """What is judged after the signatures is not reached before them: header, body, keys and the QE's report."""
    collateral = COLLATERALS[name][0]()
    early = {"quote_signature": (40, 188, 640), "ak_binding": (710, 1221), "qe_report_signature": (780, 1160)}
    for check, places in early.items():
        for at in places:
            assert failed(flip(genuine()[0], at), collateral) == [check]


def test_every_check_of_authenticity_can_fail() -> None:
    """Each has a case here, but the library's own last word."""
    cases = {check for _, check in (*QUOTES.values(), *COLLATERALS.values())}
    form = {"quote_size", "quote_version", "tee_type", "body_type", "quote_truncated", "quote_lengths"}
    elsewhere = form | {"quote_trailing_data", "pck_chain_format", "collateral_format", "root_untrusted"}
    elsewhere |= {"td_relaunch_advised", "dcap_qvl"}
    assert {str(check) for check in TDX_AUTHENTICITY_CHECKS} == cases | elsewhere
