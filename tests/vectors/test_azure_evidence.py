"""Real Azure machines get their known verdicts at their pinned times; what may be changed of them is declared."""

import json
from dataclasses import dataclass, replace
from functools import cache

import pytest
from confide_attestation.checks.ledger import Ledger
from confide_attestation.evidence import SnpEndorsements, VtpmEvidence
from confide_attestation.result import AttestationResult, Verdict
from confide_attestation.vtpm.azure import TdxPlatform, verify_azure
from confide_attestation.vtpm.hcl import parse_hcl, parse_runtime
from confide_attestation.vtpm.ids import TPM_CHECKS, VtpmCheck
from confide_attestation.vtpm.verify import verify_ak, verify_tpm_quote

from tests.shared import ROOT, shared_path

NAMES = sorted(path.parent.name for path in (ROOT / "evidence" / "azure").glob("*/expected.json"))
ACCEPTED = ["snp_milan_live", "tdx_live"]
# CPUSVN and the MAC of a TDREPORT are its own machine's business: the quote stands for the TD.
DONT_CARE = {
    "snp_milan_live": set(),
    "tdx_live": {*range(32 + 16, 32 + 32), *range(32 + 224, 32 + 256)},
}
REASONS = {"SEPT_VE_DISABLE is not enabled": "sept_ve_disable"}


@dataclass(frozen=True)
class Real:
    """One folder of recorded evidence."""

    hcl: bytes
    vtpm: VtpmEvidence
    platform: SnpEndorsements | TdxPlatform
    expected: dict[str, str | int]

    def judge(self, nonce: bytes | None = None, now_unix_s: int | None = None) -> AttestationResult:
        now = int(self.expected["now"]) if now_unix_s is None else now_unix_s
        return verify_azure(self.hcl, self.vtpm, self.platform, now_unix_s=now, nonce=nonce)

    @property
    def nonce(self) -> bytes:
        return bytes.fromhex(str(self.expected["tpm_nonce"]))


@cache
def load(name: str) -> Real:
    folder = shared_path("evidence", "azure", name)

    def read(file: str) -> bytes:
        return (folder / file).read_bytes()

    expected = json.loads(read("expected.json"))
    platform: SnpEndorsements | TdxPlatform
    if expected["tee"] == "snp":
        platform = SnpEndorsements(read("vcek.der"), read("ask.der"), read("ark.der"))
    else:
        platform = TdxPlatform(read("td_quote.bin"), read("collateral.json"))
    vtpm = VtpmEvidence(read("tpm_quote.msg"), read("tpm_quote.sig"), read("pcrs_sha256.json"))
    return Real(read("hcl_report.bin"), vtpm, platform, expected)


def failed(result: AttestationResult) -> list[str]:
    return [check.id for check in result.failed]


def test_the_folder_is_here() -> None:
    """Say so when there is no evidence to judge."""
    shared_path("evidence", "azure")
    assert NAMES


@pytest.mark.parametrize("name", NAMES)
def test_verdict_at_its_pinned_time(name: str) -> None:
    """Accepted evidence is authentic, with its nonce and without; refused evidence fails for its one reason."""
    real = load(name)
    kind, _, reason = str(real.expected["verdict"]).partition(" ")
    for nonce in (None, real.nonce):
        result = real.judge(nonce)
        if kind == "ACCEPT":
            assert (failed(result), result.verdict) == ([], Verdict.AUTHENTIC)
        else:
            assert (failed(result), result.verdict) == ([REASONS[reason]], Verdict.REFUSED)
            assert "vtpm" not in result.claims


@pytest.mark.parametrize("name", ACCEPTED)
def test_claims_are_those_of_the_machine(name: str) -> None:
    """Every recorded value is read, and every PCR."""
    real = load(name)
    claims = real.judge().claims
    machine = real.expected["vm_configuration"]
    assert isinstance(machine, dict)
    assert claims["vtpm"]["console_enabled"] == machine["console-enabled"]
    assert claims["vtpm"]["secure_boot"] == machine["secure-boot"]
    assert claims["vtpm"]["vm_id"] == machine["vmUniqueId"]
    assert claims["vtpm"]["user_data"] == real.expected["user_data"]
    assert claims["vtpm"]["extra_data"] == real.expected["tpm_nonce"]
    assert list(claims["pcrs"].values()) == json.loads(real.vtpm.pcrs)


@pytest.mark.parametrize("name", NAMES)
def test_another_nonce_is_refused(name: str) -> None:
    """Longer, shorter, absent or old."""
    real = load(name)
    for nonce in (real.nonce[:-1], real.nonce + b"\0", b"", real.nonce.upper()):
        assert VtpmCheck.TPM_NONCE in failed(real.judge(nonce))


def test_registers_of_azures_td_are_zero() -> None:
    """The trap: what runs there is in PCRs, and RTMRs prove nothing."""
    claims = load("tdx_live").judge().claims["cpu0"]
    assert [claims[f"rtmr{i}"] for i in range(4)] == ["00" * 48] * 4


@pytest.mark.parametrize("part", ["hcl", "platform", "vtpm"])
@pytest.mark.parametrize("other", NAMES)
@pytest.mark.parametrize("name", ACCEPTED)
def test_parts_of_another_machine_are_refused(name: str, other: str, part: str) -> None:
    """Report, hardware's endorsements and quote all have to be of one machine."""
    if name != other:
        mixed = replace(load(name), **{part: getattr(load(other), part)})
        assert mixed.judge().verdict is Verdict.REFUSED


@pytest.mark.parametrize("part", ["quote", "signature", "pcrs"])
def test_parts_of_another_quote_are_refused(part: str) -> None:
    """Quote, signature and PCRs have to be of one quote."""
    real, other = load("snp_milan_live"), load("tdx_live")
    mixed = replace(real, vtpm=replace(real.vtpm, **{part: getattr(other.vtpm, part)}))
    assert mixed.judge().verdict is Verdict.REFUSED


@pytest.mark.parametrize("name", ACCEPTED)
def test_no_byte_of_an_accepted_hcl_report_can_be_changed(name: str) -> None:
    """A bit of each of the 2,600 bytes is flipped; what may be is declared, byte for byte."""
    real = load(name)
    accepted = set()
    for at in range(len(real.hcl)):
        changed = bytearray(real.hcl)
        changed[at] ^= 1 << at % 8
        if replace(real, hcl=bytes(changed)).judge().verdict is Verdict.AUTHENTIC:
            accepted.add(at)
    assert accepted == DONT_CARE[name]


@pytest.mark.parametrize("name", ACCEPTED)
def test_no_bit_of_an_accepted_quote_can_be_flipped(name: str) -> None:
    """Each bit of quote and signature, and one of each PCR."""
    real = load(name)
    ak = verify_ak(Ledger(), parse_runtime(parse_hcl(real.hcl).runtime))
    accepted = []
    for part in ("quote", "signature", "pcrs"):
        data = getattr(real.vtpm, part)
        for bit in range(8 * len(data)) if part != "pcrs" else range(8, 8 * len(data), 544):
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            ledger = Ledger()
            verify_tpm_quote(ledger, replace(real.vtpm, **{part: bytes(changed)}), ak, real.nonce)
            if ledger.holds(TPM_CHECKS):
                accepted.append((part, bit))
    assert accepted == []
