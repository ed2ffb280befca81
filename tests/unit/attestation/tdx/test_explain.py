"""Which version is short, by how much, and what to update."""

from confide_attestation.result import AttestationResult
from confide_attestation.simulated.intel import SGX_SVNS, TREE, level
from confide_attestation.tdx.explain import is_as_good

from tests.unit.attestation.tdx.support import REPORT_DATA, detail, intel, judge


def under(*levels: TREE, quote: bytes | None = None, qe_status: str = "UpToDate") -> AttestationResult:
    qe_levels = [{"tcb": {"isvsvn": 4}, "tcbDate": "2024-11-13T00:00:00Z", "tcbStatus": qe_status}]
    documents = {
        "tcb_info": intel().tcb_info(tcbLevels=list(levels)),
        "qe_identity": intel().qe_identity(tcbLevels=qe_levels),
    }
    return judge(quote, intel().collateral(**documents))


def named(short: TREE) -> TREE:
    short["tcb"]["sgxtcbcomponents"][0] |= {"category": "BIOS", "type": "Early Microcode Update"}
    return short


def test_no_level_says_what_is_short_of_the_nearest() -> None:
    """Component by its name in the TCB info, PCE and TDX component by number."""
    far = level(sgx=(99,) * 16, pce_svn=99)
    near = named(level(sgx=(SGX_SVNS[0] + 2, *SGX_SVNS[1:]), pce_svn=15, tdx=(5, 1, 4) + (0,) * 13))
    said = detail(under(far, near), "tcb_no_level")
    assert said.startswith("no TCB level matches: ")
    assert "SGX component 1 (Early Microcode Update, BIOS) has SVN 3, 5 is demanded (2 short)" in said
    assert "PCE has SVN 13, 15 is demanded (2 short)" in said
    assert "TDX component 3 has SVN 3, 4 is demanded (1 short)" in said
    assert said.endswith("update what is named on the host, then have its PCK certificate issued anew")


def test_the_module_s_own_components_are_left_to_its_identity() -> None:
    """The first two count only for the first TDX module, which has no identity."""
    wanted = level(tdx=(9, 1, 3) + (0,) * 13)
    assert under(wanted).verdict == "authentic"
    first = intel().sign_quote(REPORT_DATA, tee_tcb_svn=bytes((5, 0, 3) + (0,) * 13))
    assert "TDX component 1 has SVN 5, 9 is demanded (4 short)" in detail(
        under(wanted, quote=first), "tcb_no_level"
    )


def test_a_status_says_what_would_be_up_to_date() -> None:
    """The nearest level that is UpToDate, with the advisories of the present one."""
    best = level(pce_svn=14)
    said = detail(under(best, level("OutOfDate", advisories=["INTEL-SA-01", "INTEL-SA-02"])), "tcb_status_denied")
    assert said.startswith(
        "the TCB status is OutOfDate; short of UpToDate: PCE has SVN 13, 14 is demanded (1 short)"
    )
    assert said.endswith("advisories: INTEL-SA-01, INTEL-SA-02")


def test_an_old_module_or_quoting_enclave_is_named() -> None:
    """The platform may be current where they are not."""
    old = intel().sign_quote(REPORT_DATA, tee_tcb_svn=bytes((3, 1, 3) + (0,) * 13))
    said = detail(under(level(), quote=old), "tcb_status_denied")
    assert "TDX module TDX_01 has SVN 3, at least 5 is UpToDate" in said
    assert "the quoting enclave is OutOfDate" in detail(under(level(), qe_status="OutOfDate"), "tcb_status_denied")


def test_configuration_needs_no_version() -> None:
    """Where nothing is short, that is said."""
    assert "no version is short" in detail(under(level("ConfigurationNeeded")), "tcb_status_denied")


def test_statuses_have_an_order() -> None:
    """An unknown one is as good as nothing."""
    assert is_as_good("UpToDate", "OutOfDate")
    assert not is_as_good("OutOfDate", "UpToDate")
    assert not is_as_good("Better", "OutOfDate")
    assert not is_as_good("UpToDate", "Better")
