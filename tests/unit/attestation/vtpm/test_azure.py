"""Every way in which a machine's evidence can lie is refused for its own reason, minted afresh."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import VtpmEvidence
from confide_attestation.result import AttestationResult, Outcome, Verdict
from confide_attestation.simulated.amd import SimulatedAmd
from confide_attestation.simulated.azure import SimulatedAzure, encode, jwk, make_ak
from confide_attestation.simulated.intel import SimulatedIntel
from confide_attestation.vtpm.azure import TdxPlatform, verify_azure
from confide_attestation.vtpm.hcl import RUNTIME_AT, RUNTIME_HEADER_AT, parse_hcl
from confide_attestation.vtpm.ids import VTPM_FILES, VtpmCheck

NOW = 1_790_000_000
NONCE = b"a fresh nonce of this verifier.."
# What a simulated AMD fails without a policy that pins its root; everything else of it holds.
FOREIGN_ROOT = {"ark_pin", "ark_sig", "ask_sig", "vek_sig"}


@cache
def tdx() -> SimulatedAzure:
    return SimulatedAzure(SimulatedIntel.make(NOW), make_ak())


@cache
def snp() -> SimulatedAzure:
    return SimulatedAzure(SimulatedAmd.make(NOW), tdx().ak)


def judge(
    azure: SimulatedAzure,
    vtpm: VtpmEvidence | None = None,
    runtime: dict[str, Any] | bytes | None = None,
    nonce: bytes | None = NONCE,
    **lies: Any,
) -> AttestationResult:
    hcl, platform = azure.machine(runtime, **lies)
    return verify_azure(hcl, vtpm or azure.quote(NONCE), platform, now_unix_s=NOW, nonce=nonce)


def failed(result: AttestationResult) -> set[str]:
    return {check.id for check in result.failed} - FOREIGN_ROOT


def u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def keys(*changes: dict[str, Any]) -> dict[str, Any]:
    """Runtime data with one key for each set of changes to the machine's own."""
    own = tdx().runtime()["keys"][0]
    return tdx().runtime(keys=[{**own, **change} for change in changes])


def other_quote(**fields: bytes) -> AttestationResult:
    """The machine's HCL report beside the quote of another TD."""
    hcl, platform = tdx().machine()
    hardware = tdx().hardware
    assert isinstance(platform, TdxPlatform)
    assert isinstance(hardware, SimulatedIntel)
    quote = hardware.sign_quote(fields.pop("report_data", parse_hcl(hcl).hardware[128:192]), **fields)
    return verify_azure(hcl, tdx().quote(NONCE), replace(platform, quote=quote), now_unix_s=NOW, nonce=NONCE)


def test_a_machine_on_tdx_is_authentic() -> None:
    """The whole chain holds, and says what the machine is; the result is marked as simulated."""
    result = judge(tdx())
    assert failed(result) == set()
    assert (result.verdict, result.simulated, result.keyset) == (Verdict.AUTHENTIC, True, None)
    assert result.claims["vtpm"]["secure_boot"] is True
    assert result.claims["vtpm"]["extra_data"] == NONCE.hex()
    assert result.claims["pcrs"] == {f"pcr{i}": value.hex() for i, value in enumerate(tdx().pcrs)}


def test_a_machine_on_snp_fails_only_for_its_root() -> None:
    """Everything but AMD's signature holds, and nothing is shown."""
    result = judge(snp())
    assert {check.id for check in result.failed} == FOREIGN_ROOT
    assert (result.verdict, dict(result.claims)) == (Verdict.REFUSED, {})


def test_ids_are_there_once_and_in_one_order() -> None:
    """Whatever happens, a result has the same checks."""
    for azure in (tdx(), snp()):
        ids = [check.id for check in judge(azure).checks]
        assert len(ids) == len(set(ids))
        for lie in (
            {"patches": {0: b"X"}},
            {"patches": {RUNTIME_HEADER_AT + 12: u32(9)}},
            {"report_data": bytes(64)},
        ):
            assert [check.id for check in judge(azure, **lie).checks] == ids


def test_without_a_nonce_freshness_is_not_judged() -> None:
    """It is SKIP and said in words; the rest is authentic."""
    result = judge(tdx(), nonce=None)
    nonce = next(check for check in result.checks if check.id == VtpmCheck.TPM_NONCE)
    assert (result.verdict, nonce.outcome) == (Verdict.AUTHENTIC, Outcome.SKIP)
    assert "freshness was NOT judged" in nonce.detail


FORM: dict[str, tuple[dict[int, bytes], VtpmCheck]] = {
    "magic": ({0: b"HCLB"}, VtpmCheck.HCL_MAGIC),
    "version": ({4: u32(3)}, VtpmCheck.HCL_VERSION),
    "version zero": ({4: u32(0)}, VtpmCheck.HCL_VERSION),
    "type": ({12: u32(1)}, VtpmCheck.HCL_TYPE),
    "tee": ({RUNTIME_HEADER_AT + 8: u32(3)}, VtpmCheck.HCL_TEE_TYPE),
    "size": ({8: u32(2000)}, VtpmCheck.HCL_LENGTHS),
    "runtime size": ({RUNTIME_HEADER_AT: u32(2000)}, VtpmCheck.HCL_LENGTHS),
    "runtime version": ({RUNTIME_HEADER_AT + 4: u32(2)}, VtpmCheck.HCL_LENGTHS),
    "runtime length": ({RUNTIME_HEADER_AT + 16: u32(1 << 31)}, VtpmCheck.HCL_LENGTHS),
    "status": ({16: u32(1)}, VtpmCheck.HCL_RESERVED),
    "reserved": ({31: b"\1"}, VtpmCheck.HCL_RESERVED),
    "padding": ({2599: b"\1"}, VtpmCheck.HCL_RESERVED),
    "hash": ({RUNTIME_HEADER_AT + 12: u32(2)}, VtpmCheck.HCL_HASH_ALG),
}


@pytest.mark.parametrize("azure", [tdx, snp], ids=["tdx", "snp"])
@pytest.mark.parametrize("name", FORM)
def test_form_of_the_hcl_report(name: str, azure: Callable[[], SimulatedAzure]) -> None:
    """Each field of both headers is looked at."""
    patches, reason = FORM[name]
    result = judge(azure(), patches=patches)
    assert failed(result) == {reason}
    assert result.verdict is (Verdict.UNREADABLE if reason in VTPM_FILES else Verdict.REFUSED)


RUNTIME: dict[str, tuple[Callable[[], dict[str, Any]], VtpmCheck]] = {
    "digest": (lambda: {"report_data": b"\1" * 32 + bytes(32)}, VtpmCheck.RUNTIME_DIGEST),
    "tail": (lambda: {"runtime": b"{}", "report_data": b"\1" * 64}, VtpmCheck.REPORT_DATA_TAIL),
    "edited": (lambda: {"patches": {RUNTIME_AT + 2: b"K"}}, VtpmCheck.RUNTIME_DIGEST),
    "no json": (lambda: {"runtime": b"\xff\xfe"}, VtpmCheck.RUNTIME_FORMAT),
    "twice": (
        lambda: {"runtime": b'{"keys":[],' + encode(tdx().runtime())[1:]},
        VtpmCheck.RUNTIME_FORMAT,
    ),
    "list": (lambda: {"runtime": b"[]"}, VtpmCheck.RUNTIME_FORMAT),
    "keys": (lambda: {"runtime": tdx().runtime(keys={})}, VtpmCheck.RUNTIME_FORMAT),
    "no machine": (lambda: {"runtime": tdx().runtime(**{"vm-configuration": None})}, VtpmCheck.RUNTIME_FORMAT),
    "switch as text": (
        lambda: {
            "runtime": tdx().runtime(
                **{"vm-configuration": {**tdx().runtime()["vm-configuration"], "secure-boot": "true"}}
            )
        },
        VtpmCheck.RUNTIME_FORMAT,
    ),
    "user data": (lambda: {"runtime": tdx().runtime(**{"user-data": "zz" * 64})}, VtpmCheck.RUNTIME_FORMAT),
    "short user data": (lambda: {"runtime": tdx().runtime(**{"user-data": "00"})}, VtpmCheck.RUNTIME_FORMAT),
    "surrogate": (
        lambda: {"runtime": tdx().runtime(**{"user-data": "\ud800" * 128})},
        VtpmCheck.RUNTIME_FORMAT,
    ),
    "no ak": (lambda: {"runtime": tdx().runtime(keys=[])}, VtpmCheck.AK_MISSING),
    "ak by another name": (lambda: {"runtime": keys({"kid": "hclakpub"})}, VtpmCheck.AK_MISSING),
    "two aks": (lambda: {"runtime": keys({}, jwk(make_ak().public_key()))}, VtpmCheck.AK_DUPLICATE),
    "the same ak twice": (lambda: {"runtime": keys({}, {})}, VtpmCheck.AK_DUPLICATE),
    "small": (lambda: {"runtime": keys(jwk(make_ak(1024).public_key()))}, VtpmCheck.AK_WEAK),
    "exponent 3": (lambda: {"runtime": keys(jwk(make_ak(2048, 3).public_key()))}, VtpmCheck.AK_WEAK),
    "even": (lambda: {"runtime": keys({"n": "gA" + "A" * 340})}, VtpmCheck.AK_WEAK),
    "no number": (lambda: {"runtime": keys({"n": "?"})}, VtpmCheck.AK_WEAK),
    "number as number": (lambda: {"runtime": keys({"n": 5})}, VtpmCheck.AK_WEAK),
    "elliptic": (lambda: {"runtime": keys({"kty": "EC"})}, VtpmCheck.AK_WEAK),
    "to encrypt": (lambda: {"runtime": keys({"key_ops": ["encrypt"]})}, VtpmCheck.AK_WEAK),
}


@pytest.mark.parametrize("azure", [tdx, snp], ids=["tdx", "snp"])
@pytest.mark.parametrize("name", RUNTIME)
def test_runtime_data_and_attestation_key(name: str, azure: Callable[[], SimulatedAzure]) -> None:
    """What the hardware's report does not vouch for, or cannot be read in one way only, is refused."""
    lies, reason = RUNTIME[name]
    result = judge(azure(), **lies())
    assert reason in failed(result)
    assert result.verdict is Verdict.REFUSED
    assert "vtpm" not in result.claims


TPM: dict[str, tuple[Callable[[], VtpmEvidence], set[VtpmCheck]]] = {
    "magic": (
        lambda: tdx().sign(tdx().attest(NONCE, magic=b"\xffTCH")),
        {VtpmCheck.TPM_MAGIC},
    ),
    "type": (lambda: tdx().sign(tdx().attest(NONCE, kind=0x8017)), {VtpmCheck.TPM_TYPE}),
    "truncated": (lambda: tdx().sign(tdx().attest(NONCE)[:-1]), {VtpmCheck.TPM_FORMAT}),
    "trailing": (lambda: tdx().sign(tdx().attest(NONCE) + b"\0"), {VtpmCheck.TPM_FORMAT}),
    "other key": (lambda: tdx().sign(tdx().attest(NONCE), make_ak()), {VtpmCheck.TPM_SIG}),
    "signature": (lambda: replace(tdx().quote(NONCE), signature=bytes(256)), {VtpmCheck.TPM_SIG}),
    "signature of another size": (
        lambda: replace(tdx().quote(NONCE), signature=bytes(384)),
        {VtpmCheck.TPM_SIG},
    ),
    "no signature": (lambda: replace(tdx().quote(NONCE), signature=b""), {VtpmCheck.TPM_SIG_FORMAT}),
    "edited quote": (
        lambda: replace(tdx().quote(NONCE), quote=tdx().attest(b"b" * 32)),
        {VtpmCheck.TPM_SIG, VtpmCheck.TPM_NONCE},
    ),
    "nonce": (lambda: tdx().quote(b"an old nonce"), {VtpmCheck.TPM_NONCE}),
    "no pcr": (
        lambda: tdx().sign(tdx().attest(NONCE, selected=())),
        {VtpmCheck.PCR_SELECTION},
    ),
    "sha-1": (lambda: tdx().sign(tdx().attest(NONCE, bank=4)), {VtpmCheck.PCR_SELECTION}),
    "two banks": (lambda: tdx().sign(tdx().attest(NONCE, banks=2)), {VtpmCheck.PCR_SELECTION}),
    "digest": (
        lambda: tdx().sign(tdx().attest(NONCE, pcr_digest=bytes(32))),
        {VtpmCheck.PCR_DIGEST},
    ),
    "other pcrs": (
        lambda: replace(tdx().quote(NONCE), pcrs=replace(tdx(), pcrs=[bytes(32)] * 24).quote(NONCE).pcrs),
        {VtpmCheck.PCR_DIGEST},
    ),
    "pcrs as object": (lambda: replace(tdx().quote(NONCE), pcrs=b"{}"), {VtpmCheck.PCRS_FORMAT}),
    "23 pcrs": (
        lambda: replace(tdx().quote(NONCE), pcrs=b'["' + b'","'.join([b"00" * 32] * 23) + b'"]'),
        {VtpmCheck.PCRS_FORMAT},
    ),
}


@pytest.mark.parametrize("azure", [tdx, snp], ids=["tdx", "snp"])
@pytest.mark.parametrize("name", TPM)
def test_quote_of_the_tpm(name: str, azure: Callable[[], SimulatedAzure]) -> None:
    """Form, signature, PCRs and nonce each have their own reason, and nothing else fails."""
    make, reasons = TPM[name]
    result = judge(azure(), make())
    assert failed(result) == reasons
    assert result.verdict is (Verdict.UNREADABLE if reasons & set(VTPM_FILES) else Verdict.REFUSED)


def test_pcrs_that_the_quote_does_not_cover_are_not_shown() -> None:
    """A quote over three PCRs shows three, whatever else is given beside it."""
    result = judge(tdx(), tdx().sign(tdx().attest(NONCE, selected=(0, 4, 7))))
    assert result.verdict is Verdict.AUTHENTIC
    assert list(result.claims["pcrs"]) == ["pcr0", "pcr4", "pcr7"]


@pytest.mark.parametrize("field", ["mr_td", "xfam", "rtmr2", "mr_config_id", "mr_owner", "mr_seam", "tee_tcb_svn"])
def test_a_quote_of_another_td_is_refused(field: str) -> None:
    """Though its report data are the same: every measured field has to be that of the TDREPORT."""
    value = {"xfam": (0x200E7).to_bytes(8, "little"), "tee_tcb_svn": bytes((6, 1, 5)) + bytes(13)}
    assert "tdreport_mismatch" in failed(other_quote(**{field: value.get(field, b"\7" * 48)}))


def test_a_quote_with_other_report_data_is_refused() -> None:
    """Both the TDREPORT and the runtime data then have no one who vouches for them."""
    assert {"tdreport_mismatch", "runtime_digest"} <= failed(other_quote(report_data=b"\1" * 64))


@pytest.mark.parametrize("at", [0, 4, 15, 192, 495])
def test_form_of_the_tdreport(at: int) -> None:
    """Its type and reserved fields are looked at."""
    assert failed(judge(tdx(), tdreport={at: b"\7"})) == {"tdreport_format"}


@pytest.mark.parametrize("at", [32 + 256, 32 + 511, 32 + 1000, 32 + 40, 32 + 90])
def test_digests_in_the_tdreport(at: int) -> None:
    """What a digest in it is of cannot be changed alone, and nor can the digest."""
    assert "tdreport_format" in failed(judge(tdx(), patches={at: b"\7"}))


@pytest.mark.parametrize("at", [32 + 1024, RUNTIME_HEADER_AT - 1])
def test_the_rest_of_the_tdreports_place_is_zero(at: int) -> None:
    """Nothing hides between it and the runtime data."""
    assert failed(judge(tdx(), patches={at: b"\7"})) == {"hcl_reserved"}


def test_mac_and_cpusvn_of_the_tdreport_are_dont_care() -> None:
    """They are the machine's own business; the quote stands for both."""
    patches = dict.fromkeys((32 + 16, 32 + 31, 32 + 224, 32 + 255), b"\7")
    assert judge(tdx(), patches=patches).verdict is Verdict.AUTHENTIC


def test_a_report_that_the_guest_asked_for_is_refused() -> None:
    """At any VMPL but 0 the guest chooses the report data, and so the AK."""
    assert failed(judge(snp(), report={"vmpl": 2})) == {"hcl_vmpl"}


def test_debugging_is_refused_on_both() -> None:
    """The hardware's own checks count."""
    assert failed(judge(snp(), report={"policy": 0xB0000})) == {"debug"}
    bits = ((1 << 28) | 1).to_bytes(8, "little")
    assert "td_debug" in failed(judge(tdx(), report={"td_attributes": bits}))


def test_hardware_of_the_other_kind_is_refused() -> None:
    """An HCL report of TDX beside AMD's certificates, and the reverse."""
    for azure, other in ((tdx(), snp()), (snp(), tdx())):
        hcl, platform = azure.machine()[0], other.machine()[1]
        result = verify_azure(hcl, azure.quote(NONCE), platform, now_unix_s=NOW, nonce=NONCE)
        assert failed(result) == {"hcl_foreign"}
        assert result.verdict is Verdict.REFUSED


@pytest.mark.parametrize("data", [b"", bytes(RUNTIME_AT), bytes(9000)], ids=["empty", "short", "long"])
def test_size_of_the_hcl_report(data: bytes) -> None:
    """What cannot be an HCL report by its size is unreadable, whatever it is."""
    with pytest.raises(EvidenceMalformed) as fault:
        parse_hcl(data)
    assert fault.value.check == "hcl_size"
    result = verify_azure(data, tdx().quote(NONCE), tdx().machine()[1], now_unix_s=NOW)
    assert (failed(result), result.verdict) == ({"hcl_size"}, Verdict.UNREADABLE)
