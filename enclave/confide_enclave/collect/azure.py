"""An Azure confidential VM's evidence: HCL report, the vTPM's quote and PCRs, and on TDX the quote of the TDREPORT.

Source: Microsoft, "Azure confidential VM guest attestation". What we bind is the quote's nonce. NV index 0x01400002
(user data) is neither written nor read: its owner may be anybody in the machine, and nothing here relies on it.
"""

import json
from collections.abc import Callable
from typing import Final

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import CpuEvidence, CpuKind, VtpmEvidence
from confide_attestation.tdx.abi import parse_quote
from confide_attestation.vtpm.hcl import HclReport, Tee, parse_hcl, tdreport_differences
from confide_attestation.vtpm.tpm import parse_attest, pcr_digest, selected_pcrs

from confide_enclave.collect.tpm import Tpm
from confide_enclave.errors import DeviceUnavailable

HCL_REPORT_INDEX: Final = 0x0140_0001
AK_HANDLE: Final = 0x8100_0003
MAX_ATTEMPTS: Final = 3
_TEES: Final = {CpuKind.AZURE_SEV_SNP: Tee.SNP, CpuKind.AZURE_TDX: Tee.TDX}


def collect_azure(nonce: bytes, kind: CpuKind, tpm: Tpm, quote_tdreport: Callable[[bytes], bytes]) -> CpuEvidence:
    """Collect everything that one quote over `nonce` (32 bytes) needs. Raises: DeviceUnavailable.

    Does not check: signatures and the runtime data, which are the verifier's.
    """
    data = tpm.read_nv(HCL_REPORT_INDEX)
    try:
        report = parse_hcl(data)
    except EvidenceMalformed as fault:
        raise DeviceUnavailable(
            f"{tpm.path}: NV index {HCL_REPORT_INDEX:#010x} holds no HCL report: {fault}"
        ) from None
    if report.tee is not _TEES[kind]:
        raise DeviceUnavailable(
            f"{tpm.path}: the HCL report is of {report.tee.name}, not {_TEES[kind].name}; correct `platform`"
        )
    attest, signature, pcrs = _quote(tpm, nonce)
    td_quote = _td_quote(report, quote_tdreport) if kind is CpuKind.AZURE_TDX else b""
    values = json.dumps([value.hex() for value in pcrs]).encode()
    return CpuEvidence(kind, data, VtpmEvidence(attest, signature, values, td_quote))


def _quote(tpm: Tpm, nonce: bytes) -> tuple[bytes, bytes, tuple[bytes, ...]]:
    """Return a quote, its signature and the PCRs that it is over."""
    for _ in range(MAX_ATTEMPTS):
        attest, signature = tpm.quote(AK_HANDLE, nonce)
        pcrs = tpm.read_pcrs()
        try:
            quote = parse_attest(attest)
        except EvidenceMalformed as fault:
            raise DeviceUnavailable(f"{tpm.path}: what the TPM signed is no quote: {fault}") from None
        if quote.extra_data != nonce:
            raise DeviceUnavailable(f"{tpm.path}: the quote answers another question")
        # A PCR may have been extended between the two commands.
        if pcr_digest(pcrs, selected_pcrs(quote)) == quote.pcr_digest:
            return attest, signature, pcrs
    raise DeviceUnavailable(
        f"{tpm.path}: the PCRs are not those of the quote, {MAX_ATTEMPTS} times; something extends them"
    )


def _td_quote(report: HclReport, quote_tdreport: Callable[[bytes], bytes]) -> bytes:
    quote = quote_tdreport(report.hardware)
    try:
        differences = tdreport_differences(report.hardware, parse_quote(quote))
    except EvidenceMalformed as fault:
        raise DeviceUnavailable(f"the metadata service's quote cannot be read: {fault}") from None
    if differences:
        raise DeviceUnavailable(f"the metadata service's quote is of another TD: {', '.join(differences)}")
    return quote
