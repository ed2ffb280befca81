"""From a hardware's report to a TPM's quote: HCL report, runtime data, attestation key (AK), quote, PCRs.

The hardware's report on Azure holds no data of the caller's: the paravisor, which the measurement stands for, put
SHA-256 of the runtime data there, and in them the vTPM's AK. What the caller binds is the nonce in the quote by it.
Does not check: the hardware's report or quote (`azure`), that the AK signs only what its TPM made (the measured
paravisor's duty), the certificate that Azure issued for the AK (the hardware's report says more).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from confide_attestation.checks.ledger import Ledger
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import VtpmEvidence
from confide_attestation.policy_types import Waived
from confide_attestation.tdx.abi import TdxQuote
from confide_attestation.vtpm import hcl, tpm
from confide_attestation.vtpm.hcl import HclReport, Runtime
from confide_attestation.vtpm.ids import HCL_CHECKS, TPM_FORM_CHECKS, VtpmCheck
from confide_attestation.vtpm.policy import VtpmPolicy
from confide_attestation.vtpm.tpm import TpmQuote

MIN_AK_BITS, MAX_AK_BITS, AK_EXPONENT = 2048, 4096, 65537


@dataclass(frozen=True)
class QuotedMachine:
    """What a quote covers; to be believed only if every check of it holds."""

    quote: TpmQuote
    pcrs: Mapping[int, bytes]


def verify_hcl(ledger: Ledger, data: bytes) -> HclReport | None:
    """Judge an HCL report's form; None if it cannot be read at all."""
    try:
        report = hcl.parse_hcl(data)
    except EvidenceMalformed as fault:
        _record_fault(ledger, HCL_CHECKS, fault)
        return None
    for check_id, passed in (
        (VtpmCheck.HCL_SIZE, f"{len(data)} bytes"),
        (VtpmCheck.HCL_MAGIC, "HCLA"),
        (VtpmCheck.HCL_VERSION, f"version {report.version}"),
        (VtpmCheck.HCL_TYPE, "an attestation"),
        (VtpmCheck.HCL_TEE_TYPE, report.tee.name),
        (
            VtpmCheck.HCL_LENGTHS,
            f"runtime data of {len(report.runtime)} bytes; every length is that of its content",
        ),
        (VtpmCheck.HCL_RESERVED, "reserved fields and padding are zero"),
    ):
        ledger.expect(check_id, True, passed, "")
    ledger.expect(
        VtpmCheck.HCL_HASH_ALG,
        report.hash_algorithm == hcl.HASH_SHA256,
        "SHA-256",
        f"hash algorithm {report.hash_algorithm} is not 1, SHA-256",
    )
    return report


def verify_runtime(ledger: Ledger, report: HclReport, report_data: bytes) -> Runtime | None:
    """Judge the runtime data against the 64 bytes of data in the hardware's report; None if they cannot be read."""
    digest = hashlib.sha256(report.runtime).digest()
    ledger.expect(
        VtpmCheck.RUNTIME_DIGEST,
        report_data[:32] == digest,
        f"the hardware's report holds SHA-256 of the runtime data, {digest.hex()[:16]}…",
        "the hardware's report holds another digest than that of the runtime data",
    )
    ledger.expect(
        VtpmCheck.REPORT_DATA_TAIL,
        not any(report_data[32:]),
        "the other 32 bytes are zero",
        "bytes follow the digest",
    )
    try:
        runtime = hcl.parse_runtime(report.runtime)
    except EvidenceMalformed as fault:
        ledger.fail(VtpmCheck.RUNTIME_FORMAT, str(fault))
        return None
    ledger.expect(VtpmCheck.RUNTIME_FORMAT, True, f"JSON with {len(runtime.keys)} keys", "")
    return runtime


def verify_tdreport(ledger: Ledger, report: bytes, quote: TdxQuote) -> None:
    """Judge a TDREPORT's form and that it and a quote are of one TD. Its MAC and CPUSVN are not judged."""
    faults = hcl.tdreport_faults(report)
    ledger.expect(VtpmCheck.TDREPORT_FORMAT, not faults, "a TD's report, consistent in itself", faults)
    differing = hcl.tdreport_differences(report, quote)
    ledger.expect(
        VtpmCheck.TDREPORT_MISMATCH,
        not differing,
        "the quote is of the TD whose report this is",
        "report and quote differ in " + ", ".join(differing),
    )


def verify_ak(ledger: Ledger, runtime: Runtime) -> rsa.RSAPublicKey | None:
    """Judge the attestation key in the runtime data; None if there is not exactly one that is strong enough."""
    named = [key for key in runtime.keys if key.get("kid") == hcl.AK_KID]
    if not ledger.expect(
        VtpmCheck.AK_MISSING, bool(named), f"there is a {hcl.AK_KID}", f"there is no {hcl.AK_KID}"
    ):
        return None
    if not ledger.expect(VtpmCheck.AK_DUPLICATE, len(named) == 1, "there is one", f"there are {len(named)}"):
        return None
    key = named[0]
    modulus, exponent = hcl.rsa_number(key, "n"), hcl.rsa_number(key, "e")
    bits = modulus.bit_length()
    holds = (
        key.get("kty") == "RSA"
        and key.get("key_ops") == ["sign"]
        and exponent == AK_EXPONENT
        and MIN_AK_BITS <= bits <= MAX_AK_BITS
        and modulus % 2 == 1
    )
    wanted = f"an RSA key to sign with, of {MIN_AK_BITS} to {MAX_AK_BITS} bits and exponent {AK_EXPONENT}"
    if not ledger.expect(VtpmCheck.AK_WEAK, holds, f"RSA, {bits} bits", f"not {wanted}"):
        return None
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def verify_tpm_quote(
    ledger: Ledger, evidence: VtpmEvidence, ak: rsa.RSAPublicKey | None, nonce: bytes | None
) -> QuotedMachine | None:
    """Judge a quote's form, the AK's signature, the PCRs that it covers and its nonce; None if it is no quote."""
    quote = _form(ledger, evidence.quote)
    signature = evidence.signature
    readable = ledger.expect(
        VtpmCheck.TPM_SIG_FORMAT,
        len(signature) in tpm.SIGNATURE_BYTES,
        f"{len(signature)} bytes",
        f"expected an RSA signature of 256, 384 or 512 bytes, found {len(signature)} bytes",
    )
    values: tuple[bytes, ...] = ()
    try:
        values = tpm.parse_pcrs(evidence.pcrs)
        ledger.expect(VtpmCheck.PCRS_FORMAT, True, f"{len(values)} SHA-256 values", "")
    except EvidenceMalformed as fault:
        ledger.fail(VtpmCheck.PCRS_FORMAT, str(fault))
    if quote is None:
        return None
    if ak is not None and readable:
        ledger.expect(
            VtpmCheck.TPM_SIG,
            _signature_holds(ak, signature, quote.raw),
            "signed by the AK (RSASSA-PKCS1-v1_5, SHA-256)",
            "the signature does not verify under the AK",
        )
    selected = tpm.selected_pcrs(quote)
    pcrs = {}
    if ledger.expect(
        VtpmCheck.PCR_SELECTION,
        bool(selected),
        f"{len(selected)} PCRs of the SHA-256 bank",
        "not a selection of PCRs 0 to 23 of the one SHA-256 bank",
    ) and ledger.passed((VtpmCheck.PCRS_FORMAT,)):
        pcrs = {pcr: values[pcr] for pcr in selected}
        ledger.expect(
            VtpmCheck.PCR_DIGEST,
            tpm.pcr_digest(values, selected) == quote.pcr_digest,
            f"the quote commits to the given values of PCRs {_ranges(selected)}",
            "the quote commits to other values than the given ones",
        )
    if nonce is None:
        ledger.skip(VtpmCheck.TPM_NONCE, "no nonce was given: freshness was NOT judged")
    else:
        ledger.expect(
            VtpmCheck.TPM_NONCE,
            quote.extra_data == nonce,
            f"the quote answers the nonce of {len(nonce)} bytes",
            "the quote answers another nonce",
        )
    return QuotedMachine(quote, pcrs)


def check_machine(ledger: Ledger, runtime: Runtime, pcrs: Mapping[int, bytes], policy: VtpmPolicy) -> None:
    """Measure a machine whose evidence is authentic against a policy."""
    pinned = {int(pcr): values for pcr, values in policy.pcrs.items()}
    missing = sorted(set(pinned) - set(pcrs))
    wrong = [pcr for pcr, allowed in sorted(pinned.items()) if pcr in pcrs and pcrs[pcr].hex() not in allowed]
    for check_id, holds, passed, failed in (
        (VtpmCheck.PCR_MISSING, not missing, "every PCR is covered", f"the quote does not cover PCRs {missing}"),
        (VtpmCheck.PCR_VALUES, not wrong, "every PCR is as pinned", f"not pinned: the values of PCRs {wrong}"),
        (VtpmCheck.TPM_DISABLED, runtime.tpm_enabled, "the vTPM is on", "the vTPM is off"),
    ):
        ledger.expect(check_id, holds, passed, failed)
    for check_id, rule, holds, passed, failed in (
        (VtpmCheck.SECURE_BOOT, policy.secure_boot, runtime.secure_boot, "secure boot is on", "secure boot is off"),
        (
            VtpmCheck.CONSOLE_ENABLED,
            policy.console,
            not runtime.console_enabled,
            "the host's console is off",
            "the host's console is on",
        ),
        (
            VtpmCheck.USER_DATA,
            policy.user_data,
            runtime.user_data.hex() == policy.user_data,
            "the user data are the pinned ones",
            "the user data are others than the pinned ones",
        ),
    ):
        if isinstance(rule, Waived):
            ledger.waive(check_id, rule.waived)
        else:
            ledger.expect(check_id, holds, passed, failed)


def _form(ledger: Ledger, data: bytes) -> TpmQuote | None:
    try:
        quote = tpm.parse_attest(data)
    except EvidenceMalformed as fault:
        _record_fault(ledger, TPM_FORM_CHECKS, fault)
        return None
    for check_id, passed in zip(
        TPM_FORM_CHECKS, ("made by a TPM", "a quote", f"{len(data)} bytes, exact to the last"), strict=True
    ):
        ledger.expect(check_id, True, passed, "")
    return quote


def _record_fault(ledger: Ledger, order: tuple[VtpmCheck, ...], fault: EvidenceMalformed) -> None:
    """Record a parser's fault; what it looked at before was in order."""
    for check_id in order[: order.index(VtpmCheck(fault.check))]:
        ledger.expect(check_id, True, "in order", "")
    ledger.fail(VtpmCheck(fault.check), str(fault))


def _signature_holds(ak: rsa.RSAPublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        ak.verify(signature, signed, padding.PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


def _ranges(pcrs: tuple[int, ...]) -> str:
    """Write 0, 1, 2, 7 as "0–2, 7"."""
    parts: list[str] = []
    for pcr in pcrs:
        if pcr - 1 in pcrs:
            parts[-1] = parts[-1].split("–")[0] + f"–{pcr}"
        else:
            parts.append(str(pcr))
    return ", ".join(parts)
