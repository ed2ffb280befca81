"""Ask `dcap-qvl` about signatures, certificates and TCB levels, and give its prose the names of our checks.

Only `QuotePolicy.claims_only` is asked, so that no status is accepted unseen; `verify()` would accept OutOfDate.
The library stops at its first fault. What it leaves out is judged in `verify`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import dcap_qvl  # type: ignore[import-untyped]
import pydantic_core

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.tdx.collateral import Collateral
from confide_attestation.tdx.ids import TdxCheck

_PCS = "https://api.trustedservices.intel.com"
_PREFIX = "Verification failed: "
_SVN_OID = "1.2.840.113741.1.13.1.2."
_CONFIGURATION_OID = "1.2.840.113741.1.13.1.7."
_SAID = {"True": True, "False": False}
_DER_SAID = {b"\xff": True, b"\0": False}
COMPONENTS = 16

# The library's faults by how they begin. More than one check: it does not say which; ours do.
FAULTS: Mapping[str, tuple[TdxCheck, ...]] = {
    "Unsupported DCAP attestation key type": (TdxCheck.ATT_KEY_TYPE,),
    "Unknown QE vendor ID": (TdxCheck.QE_VENDOR,),
    "Unsupported DCAP PCK cert format": (TdxCheck.CERT_DATA_TYPE,),
    **dict.fromkeys(
        (
            "Intel extension not found",
            "Failed to get",
            "Failed to find",
            "Failed to decode DER",
            "OID is missing",
            "CpuSvn length",
            "PceSvn length",
            "Fmspc length",
        ),
        (TdxCheck.PCK_EXTENSIONS,),
    ),
    "Failed to decode TcbInfo": (TdxCheck.COLLATERAL_FORMAT, TdxCheck.TCB_STATUS_UNKNOWN),
    "Failed to decode QeIdentity": (TdxCheck.COLLATERAL_FORMAT,),
    "TCBInfo expired": (TdxCheck.TCB_INFO_EXPIRED,),
    "TCBInfo issue date is in the future": (TdxCheck.TCB_INFO_NOT_YET_VALID,),
    "QE Identity expired": (TdxCheck.QE_IDENTITY_EXPIRED,),
    "QE Identity issue date is in the future": (TdxCheck.QE_IDENTITY_NOT_YET_VALID,),
    "Certificate chain is too short for TCB Info": (TdxCheck.TCB_SIGNING_CHAIN,),
    "Certificate chain is too short for QE Identity": (TdxCheck.TCB_SIGNING_CHAIN,),
    "Signature is invalid for tcb_info": (TdxCheck.TCB_INFO_SIGNATURE,),
    "Signature is invalid for qe_identity": (TdxCheck.QE_IDENTITY_SIGNATURE,),
    "Unsupported QE Identity id/version": (TdxCheck.QE_IDENTITY_ID,),
    "Signature is invalid for qe_report": (TdxCheck.QE_REPORT_SIGNATURE,),
    "QE report hash mismatch": (TdxCheck.AK_BINDING,),
    "ISV enclave report signature is invalid": (TdxCheck.QUOTE_SIGNATURE,),
    "QE MRSIGNER mismatch": (TdxCheck.QE_MRSIGNER,),
    "QE ISVPRODID mismatch": (TdxCheck.QE_PRODID,),
    "QE MISCSELECT mismatch": (TdxCheck.QE_MISCSELECT,),
    "QE ATTRIBUTES mismatch": (TdxCheck.QE_ATTRIBUTES,),
    "QE report validation failed": (TdxCheck.QE_ATTRIBUTES,),
    "QE ISVSVN ": (TdxCheck.QE_ISVSVN,),
    "No TCB levels found in QE Identity": (TdxCheck.QE_ISVSVN,),
    "TDX quote with non-TDX TCB info": (TdxCheck.TCB_INFO_TYPE,),
    "Fmspc mismatch": (TdxCheck.FMSPC_MISMATCH,),
    "SGX component count mismatch": (TdxCheck.COMPONENT_COUNT,),
    "TDX component count mismatch": (TdxCheck.COMPONENT_COUNT,),
    "TDX module identity check": (
        TdxCheck.TDX_MODULE_ID_UNKNOWN,
        TdxCheck.TDX_MODULE_MRSIGNER,
        TdxCheck.SEAM_ATTRIBUTES,
    ),
    "TDX module TCB level check": (TdxCheck.TDX_MODULE_SVN, TdxCheck.TDX_MODULE_ID_UNKNOWN),
    "No matching TCB level found": (TdxCheck.TCB_NO_LEVEL,),
    "Unrecognized TCB status": (TdxCheck.TCB_STATUS_UNKNOWN,),
    "TCB status is invalid: Revoked": (TdxCheck.TCB_REVOKED,),
    "Failed to evaluate the current TDX TCB": (TdxCheck.CURRENT_TCB,),
    "Debug mode is enabled": (TdxCheck.TD_DEBUG,),
    "TD profiling is enabled": (TdxCheck.TD_PROFILING,),
    "SERVTD_EXT is enabled": (TdxCheck.TD_RESERVED_BITS,),
    "Reserved bits in TD attributes are set": (TdxCheck.TD_RESERVED_BITS,),
    "SEPT_VE_DISABLE is not enabled": (TdxCheck.SEPT_VE_DISABLE,),
    "TD migration is enabled": (TdxCheck.TD_MIGRATABLE,),
    "Invalid MR service TD": (TdxCheck.SERVICE_TD,),
}
# Faults that say only that some certificate or list is wrong: `diagnose` finds which.
CERTIFICATE_FAULTS = (
    "Failed to verify certificate chain",
    "Failed to parse root CA CRL",
    "Failed to parse PCK CRL",
    "Failed to parse PCK certificate",
    "Failed to parse TCB Info leaf certificate",
    "Failed to parse QE Identity leaf certificate",
    "CrlExpired",
)
# Faults that the library looks for only once every signature held; tests pin that order.
AFTER_SIGNATURES = frozenset(
    {
        TdxCheck.TDX_MODULE_ID_UNKNOWN,
        TdxCheck.TDX_MODULE_MRSIGNER,
        TdxCheck.SEAM_ATTRIBUTES,
        TdxCheck.TDX_MODULE_SVN,
        TdxCheck.TCB_NO_LEVEL,
        TdxCheck.TCB_REVOKED,
        TdxCheck.CURRENT_TCB,
        TdxCheck.TD_DEBUG,
        TdxCheck.TD_PROFILING,
        TdxCheck.TD_RESERVED_BITS,
        TdxCheck.SEPT_VE_DISABLE,
        TdxCheck.TD_MIGRATABLE,
        TdxCheck.SERVICE_TD,
    }
)


@dataclass(frozen=True)
class Fault:
    """The library's first fault: its words, and the checks that they may stand for."""

    text: str
    checks: tuple[TdxCheck, ...]
    of_certificates: bool

    @property
    def after_signatures(self) -> bool:
        return bool(self.checks) and AFTER_SIGNATURES.issuperset(self.checks)


@dataclass(frozen=True)
class Pck:
    """What the PCK certificate says of the platform; true only once its chain holds. None: it does not say."""

    ppid: bytes
    fmspc: bytes
    pce_id: bytes
    pce_svn: int
    cpu_svn: bytes
    dynamic_platform: bool | None
    cached_keys: bool | None
    smt: bool | None


def judge(quote: bytes, collateral: Collateral, root_der: bytes, now_unix_s: int) -> dict[str, Any] | Fault:
    """Return the library's claims as its JSON tree, or its first fault. Does not judge the TCB status."""
    try:
        given = _given(collateral)
        policy = dcap_qvl.QuotePolicy.claims_only(now_unix_s)
        claims = _verifier(root_der).verify_with_policy(quote, given, now_unix_s, policy)
        tree: dict[str, Any] = pydantic_core.from_json(claims.to_json())
    except (ValueError, OverflowError) as fault:
        return named(str(fault))
    return tree


def named(text: str) -> Fault:
    """Name a fault of the library by how its text begins; no checks if it is not known here."""
    text = text.removeprefix(_PREFIX)
    for prefix, checks in FAULTS.items():
        if text.startswith(prefix):
            return Fault(text, checks, of_certificates=False)
    return Fault(text, (), of_certificates=text.startswith(CERTIFICATE_FAULTS))


def pck_of(tree: dict[str, Any]) -> Pck:
    """Read from the library's claims what the PCK certificate says."""
    pck = tree["platform"]["pck"]
    ppid, fmspc, pce_id, cpu_svn = (bytes(pck[name]) for name in ("ppid", "fmspc", "pce_id", "cpu_svn"))
    configuration = (_SAID.get(pck[name]) for name in ("dynamic_platform", "cached_keys", "smt_enabled"))
    return Pck(ppid, fmspc, pce_id, pck["pce_svn"], cpu_svn, *configuration)


def read_pck(quote: bytes) -> Pck | None:
    """Read the PCK certificate in the quote itself, or None if its SGX extension is absent or not whole."""
    try:
        extension = dcap_qvl.parse_quote(quote).pck_extension()
    except ValueError:
        return None
    if extension is None:
        return None
    ppid, fmspc, pce_id, cpu_svn = (
        bytes(value) for value in (extension.ppid, extension.fmspc, extension.pce_id, extension.cpu_svn)
    )
    configuration = (_DER_SAID.get(extension.get_value(f"{_CONFIGURATION_OID}{at}")) for at in (1, 2, 3))
    return Pck(ppid, fmspc, pce_id, extension.pce_svn, cpu_svn, *configuration)


def component_svns(quote: bytes) -> tuple[int, ...]:
    """Read the SVNs of the platform's components from the PCK certificate; those that are absent are zero."""
    extension = dcap_qvl.parse_quote(quote).pck_extension()
    values = (extension.get_value(f"{_SVN_OID}{at}") for at in range(1, COMPONENTS + 1))
    return tuple(int.from_bytes(value or b"", "big") for value in values)


def collateral_urls(quote: bytes) -> tuple[str, ...]:
    """Say where Intel publishes the documents of the quote's platform. Raises: EvidenceMalformed."""
    try:
        parsed = dcap_qvl.parse_quote(quote)
        fmspc, ca = parsed.fmspc(), parsed.ca()
    except ValueError:
        detail = "the PCK certificate does not name its platform"
        raise EvidenceMalformed(detail, TdxCheck.PCK_EXTENSIONS) from None
    return (
        f"{_PCS}/tdx/certification/v4/tcb?fmspc={fmspc}",
        f"{_PCS}/tdx/certification/v4/qe/identity",
        f"{_PCS}/sgx/certification/v4/pckcrl?ca={ca}&encoding=der",
        "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der",
    )


@lru_cache(maxsize=4)
def _given(collateral: Collateral) -> Any:  # noqa: ANN401 - the library has no types
    return dcap_qvl.QuoteCollateralV3(**collateral.parts)


@lru_cache(maxsize=4)
def _verifier(root_der: bytes) -> Any:  # noqa: ANN401 - the library has no types
    return dcap_qvl.QuoteVerifier(root_der)
