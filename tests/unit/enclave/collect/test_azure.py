"""An Azure machine's evidence from a simulated vTPM, judged by the real verifier."""

import hashlib
import json
from pathlib import Path

import pytest
from confide_attestation.evidence import CpuEvidence, CpuKind, Endorsements, SnpEndorsements, TdxEndorsements
from confide_attestation.policy import SimulatedRoots
from confide_attestation.vtpm.azure import TdxPlatform
from confide_attestation.vtpm.judge import judge_azure
from confide_enclave.collect.azure import collect_azure
from confide_enclave.collect.tpm import Tpm
from confide_enclave.errors import DeviceUnavailable

from tests.shared import shared_path
from tests.unit.enclave.collect.conftest import NOW
from tests.unit.enclave.collect.vtpm import QUOTE, Vtpm, with_pcrs

NONCE = hashlib.sha256(b"a statement").digest()


def judged(cpu: CpuEvidence, platform: SnpEndorsements | TdxPlatform, roots: SimulatedRoots) -> None:
    """Hold every check of the real verifier to what was collected."""
    if isinstance(platform, TdxPlatform):
        endorsements = Endorsements(tdx=TdxEndorsements(platform.collateral_json))
    else:
        endorsements = Endorsements(snp=platform)
    part = judge_azure(cpu.report, cpu.vtpm, endorsements, None, roots, now_unix_s=NOW, nonce=NONCE)
    assert part.holds, [check for check in part.checks if check.outcome == "FAIL"]
    assert part.bound == NONCE


def no_quotes(report: bytes) -> bytes:
    raise AssertionError("SEV-SNP needs no TDX quote")


def collect(vtpm: Vtpm, kind=CpuKind.AZURE_SEV_SNP, quote_tdreport=no_quotes):
    return collect_azure(NONCE, kind, Tpm(vtpm, Path("/dev/tpmrm0")), quote_tdreport)


def test_the_verifier_accepts_a_sev_snp_machine(azure_snp, roots):
    """From the hardware's report to our nonce every check holds."""
    hcl, platform = azure_snp.machine()
    cpu = collect(Vtpm(azure_snp, hcl))
    assert (cpu.kind, cpu.report) == (CpuKind.AZURE_SEV_SNP, hcl)
    assert cpu.vtpm is not None
    assert cpu.vtpm.td_quote == b""
    judged(cpu, platform, roots)


def test_the_verifier_accepts_a_tdx_machine(azure_tdx, roots):
    """With the quote that the metadata service made of the TDREPORT, all is authentic."""
    hcl, platform = azure_tdx.machine()
    assert isinstance(platform, TdxPlatform)
    asked = []

    def quote_tdreport(report: bytes) -> bytes:
        asked.append(report)
        return platform.quote

    cpu = collect(Vtpm(azure_tdx, hcl), CpuKind.AZURE_TDX, quote_tdreport)
    assert asked == [hcl[32 : 32 + 1024]]
    assert cpu.vtpm is not None
    assert cpu.vtpm.td_quote == platform.quote
    judged(cpu, platform, roots)


def test_a_recorded_machine_is_read_as_it_lies(azure_snp):
    """A real HCL report comes back byte for byte, the PCRs in the form of the recorded ones."""
    folder = shared_path("evidence", "azure", "snp_milan_live")
    recorded = json.loads((folder / "pcrs_sha256.json").read_text())
    machine = with_pcrs(azure_snp, [bytes.fromhex(value) for value in recorded])
    cpu = collect(Vtpm(machine, (folder / "hcl_report.bin").read_bytes()))
    assert cpu.report == (folder / "hcl_report.bin").read_bytes()
    assert cpu.vtpm is not None
    assert json.loads(cpu.vtpm.pcrs) == recorded


def test_a_pcr_that_changes_in_between_costs_an_attempt(azure_snp, roots):
    """Quote and PCRs are taken again until they fit."""
    hcl, platform = azure_snp.machine()
    vtpm = Vtpm(azure_snp, hcl, extended=1)
    cpu = collect(vtpm)
    assert vtpm.commands.count(QUOTE) == 2
    judged(cpu, platform, roots)


def test_pcrs_that_never_fit_are_a_fault(azure_snp):
    """Three attempts."""
    with pytest.raises(DeviceUnavailable, match="not those of the quote, 3 times"):
        collect(Vtpm(azure_snp, azure_snp.machine()[0], extended=9))


def test_a_quote_of_another_nonce_is_refused(azure_snp):
    """An answer to another question gives no bytes."""
    with pytest.raises(DeviceUnavailable, match="answers another question"):
        collect(Vtpm(azure_snp, azure_snp.machine()[0], nonce=bytes(32)))


def test_what_is_signed_must_be_a_quote(azure_snp):
    """A certificate of the TPM over something else is none."""
    vtpm = Vtpm(azure_snp, azure_snp.machine()[0])
    vtpm.bends[QUOTE] = lambda data: data.replace(b"\xffTCG\x80\x18", b"\xffTCG\x80\x17", 1)
    with pytest.raises(DeviceUnavailable, match="is no quote"):
        collect(vtpm)


def test_an_index_with_something_else_is_refused(azure_snp):
    """The HCL report has its own form."""
    with pytest.raises(DeviceUnavailable, match="0x01400001 holds no HCL report"):
        collect(Vtpm(azure_snp, bytes(2600)))


def test_the_other_hardware_is_named(azure_snp, azure_tdx):
    """The platform that the settings name must be the one that reports."""
    with pytest.raises(DeviceUnavailable, match="is of SNP, not TDX; correct `platform`"):
        collect(Vtpm(azure_snp, azure_snp.machine()[0]), CpuKind.AZURE_TDX)
    with pytest.raises(DeviceUnavailable, match="is of TDX, not SNP"):
        collect(Vtpm(azure_tdx, azure_tdx.machine()[0]))


def test_a_quote_of_another_td_is_refused(azure_tdx, intel):
    """What the metadata service quotes must be what was asked; garbage is none."""
    vtpm = Vtpm(azure_tdx, azure_tdx.machine()[0])
    other = intel.sign_quote(bytes(64))
    with pytest.raises(DeviceUnavailable, match="of another TD: report_data"):
        collect(vtpm, CpuKind.AZURE_TDX, lambda report: other)
    with pytest.raises(DeviceUnavailable, match="cannot be read"):
        collect(vtpm, CpuKind.AZURE_TDX, lambda report: b"garbage")
