"""Authenticate one TDX quote: its form, Intel's documents, signatures and TCB, and the TD that it speaks of.

Source: Intel TDX DCAP Quote Verification Library; Intel TDX Module ABI.
Signatures, chains and TCB levels are `dcap-qvl`'s (`library`); form and all that it leaves out are judged here.
Does not check: claims against a policy (`validate`), event logs, the binding to a keyset.
"""

import base64
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any

from confide_attestation.checks.ledger import Ledger
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.policy import SimulatedRoots
from confide_attestation.roots.intel import SGX_ROOT_CA_PEM, SGX_ROOT_CA_SHA256
from confide_attestation.tdx import abi, library
from confide_attestation.tdx.abi import BodyType, TdBit, TdxQuote
from confide_attestation.tdx.claims import expires_unix_s
from confide_attestation.tdx.collateral import Collateral, TcbInfo, parse_collateral
from confide_attestation.tdx.diagnose import certificate_faults
from confide_attestation.tdx.explain import (
    STATUSES,
    advisories,
    is_as_good,
    lacking,
    module_faults,
    why_no_level,
    why_not_up_to_date,
)
from confide_attestation.tdx.ids import TDX_SIGNATURE_CHECKS, TdxCheck
from confide_attestation.tdx.library import Fault, Pck
from confide_attestation.tdx.policy import TdxPolicy

_MODULE_CHECKS = (
    TdxCheck.TDX_MODULE_ID_UNKNOWN,
    TdxCheck.TDX_MODULE_MRSIGNER,
    TdxCheck.SEAM_ATTRIBUTES,
    TdxCheck.TDX_MODULE_SVN,
)
_OWN = (
    TdxCheck.CRL_NOT_YET_VALID,
    TdxCheck.CRL_EXPIRED,
    TdxCheck.TCB_INFO_NOT_YET_VALID,
    TdxCheck.TCB_INFO_EXPIRED,
    TdxCheck.QE_IDENTITY_NOT_YET_VALID,
    TdxCheck.QE_IDENTITY_EXPIRED,
)
_BY_LIBRARY = tuple(check for check in TDX_SIGNATURE_CHECKS if check not in _OWN)
_LIBRARY_NAMES = {f"rtmr{number}": f"rt_mr{number}" for number in range(4)}
_DAY_S = 86_400


@dataclass(frozen=True)
class Held:
    """What may be believed once every signature holds; `tree` is None if `dcap-qvl` refused what was signed."""

    pck: Pck
    tree: dict[str, Any] | None


@cache
def intel_root() -> bytes:
    """Return Intel's packaged root as DER, after comparing it with its pinned digest."""
    der = base64.b64decode("".join(SGX_ROOT_CA_PEM.split("\n")[1:-2]))
    assert hashlib.sha256(der).hexdigest() == SGX_ROOT_CA_SHA256  # noqa: S101 - the package itself
    return der


def verify_quote(
    ledger: Ledger,
    quote: TdxQuote,
    collateral: Collateral | None,
    root: bytes | None,
    now_unix_s: int,
    policy: TdxPolicy | None,
) -> Held | None:
    """Judge a quote and the TD that it speaks of by Intel's documents; None unless every signature holds.

    `policy` says only which TCB status is accepted; without one it is UpToDate alone. `root` None trusts nothing.
    """
    _check_header(ledger, quote, root)
    _check_td(ledger, quote)
    if collateral is None or not quote.chain:
        return None
    if root is None:
        ledger.skip(TdxCheck.DCAP_QVL, "not asked: no root is trusted")
        return None
    outcome = library.judge(quote.data, collateral, root, now_unix_s)
    if isinstance(outcome, Fault):
        held = library.read_pck(quote.data) if outcome.after_signatures else None
        if held is not None:
            _pass_signatures(ledger, None)
            _check_platform(ledger, quote, held, collateral.tcb_info)
        _name_fault(ledger, outcome, quote, held, collateral, root, now_unix_s)
        return None if held is None or not _trusted(ledger) else Held(held, None)
    pck = library.pck_of(outcome)
    _pass_signatures(ledger, (expires_unix_s(outcome) - now_unix_s) // _DAY_S)
    _check_platform(ledger, quote, pck, collateral.tcb_info)
    _check_status(ledger, outcome, quote, pck, collateral.tcb_info, policy)
    agree = _same_body(quote, outcome)
    ledger.expect(
        TdxCheck.DCAP_QVL, agree, "no fault; it read the same quote", "dcap-qvl read another quote than this one"
    )
    return Held(pck, outcome) if agree and _trusted(ledger) else None


def trusted_root(chain: tuple[bytes, ...], simulated: SimulatedRoots | None) -> bytes | None:
    """Return the only root to judge a chain by; None if that is the simulated one and the chain ends in another."""
    if simulated is None:
        return intel_root()
    last = chain[-1] if chain else b""
    return last if hashlib.sha256(last).hexdigest() == simulated.intel_root_sha256 else None


def read_quote(ledger: Ledger, data: bytes) -> TdxQuote | None:
    """Parse a quote and judge its form; None if it is none."""
    try:
        quote = abi.parse_quote(data)
    except EvidenceMalformed as fault:
        ledger.fail(TdxCheck(fault.check), str(fault))
        return None
    padding = len(data) - len(quote.data)
    for check, passed in (
        (TdxCheck.QUOTE_SIZE, f"{len(quote.data)} bytes"),
        (TdxCheck.QUOTE_VERSION, f"version {quote.version}"),
        (TdxCheck.TEE_TYPE, "TDX"),
        (TdxCheck.BODY_TYPE, "TD 1.0" if quote.body_type is BodyType.TD10 else "TD 1.5"),
        (TdxCheck.QUOTE_TRUNCATED, "all parts are there"),
        (TdxCheck.QUOTE_LENGTHS, "every length is that of its content"),
        (TdxCheck.QUOTE_TRAILING_DATA, f"{padding} zero bytes follow" if padding else "nothing follows"),
    ):
        ledger.expect(check, True, passed, "")
    return quote


def read_collateral(ledger: Ledger, data: bytes, now_unix_s: int) -> Collateral | None:
    """Parse Intel's documents and judge their kinds and times; None if they are none. Not their signatures."""
    try:
        collateral = parse_collateral(data)
    except EvidenceMalformed as fault:
        ledger.fail(TdxCheck(fault.check), str(fault))
        return None
    ledger.expect(TdxCheck.COLLATERAL_FORMAT, True, "TCB info, QE identity, two lists and their signers", "")
    info, identity = collateral.tcb_info, collateral.qe_identity
    ledger.expect(
        TdxCheck.TCB_INFO_TYPE,
        (info.id, info.version, info.tcb_type) == ("TDX", 3, 0),
        "TCB info of TDX, version 3",
        f"expected TCB info TDX version 3 of type 0, found {info.id[:16]!r} {info.version} of type {info.tcb_type}",
    )
    fetch = "fetch it anew from api.trustedservices.intel.com"
    for early, late, document in (
        (TdxCheck.TCB_INFO_NOT_YET_VALID, TdxCheck.TCB_INFO_EXPIRED, info),
        (TdxCheck.QE_IDENTITY_NOT_YET_VALID, TdxCheck.QE_IDENTITY_EXPIRED, identity),
    ):
        issued, until = _day(document.issued_unix_s), _day(document.next_update_unix_s)
        left = (document.next_update_unix_s - now_unix_s) // _DAY_S
        started, running = document.issued_unix_s <= now_unix_s, now_unix_s <= document.next_update_unix_s
        ledger.expect(early, started, f"issued {issued}", f"issued only {issued}; compare clocks")
        ledger.expect(late, running, f"good for {left} days more, until {until}", f"ended {until}; {fetch}")
    newest = max(collateral.pck_crl_issued_unix_s, collateral.root_crl_issued_unix_s)
    ledger.expect(
        TdxCheck.CRL_NOT_YET_VALID,
        newest <= now_unix_s,
        f"the newer list was issued {_day(newest)}",
        f"a list was issued only {_day(newest)}; compare clocks",
    )
    unknown = {level.status for level in info.levels}.difference(STATUSES)
    if unknown:
        ledger.fail(
            TdxCheck.TCB_STATUS_UNKNOWN, f"the TCB info has a status that is unknown: {min(unknown)[:40]!r}"
        )
    return collateral


def _check_header(ledger: Ledger, quote: TdxQuote, root: bytes | None) -> None:
    key_type, types, report = quote.attestation_key_type, quote.certificate_types, quote.qe_report
    reserved = report[20:48] + report[96:128] + report[160:256] + report[260:320] + report[352:]
    expected = (abi.CERT_QE_REPORT, abi.CERT_PEM_CHAIN)
    for check, holds, passed, failed in (
        (TdxCheck.ATT_KEY_TYPE, key_type == abi.ECDSA_P256, "ECDSA P-256", f"{key_type} is not 2, ECDSA P-256"),
        (TdxCheck.QE_VENDOR, quote.qe_vendor == abi.INTEL_QE_VENDOR, "Intel's", "not Intel's quoting enclave"),
        (TdxCheck.CERT_DATA_TYPE, types == expected, "6, and 5 in it", f"{types} is not 6, and 5 in it"),
        (TdxCheck.QE_REPORT_RESERVED, not any(reserved), "zero", "a reserved field of the QE's report is not zero"),
    ):
        ledger.expect(check, holds, passed, failed)
    if quote.chain:
        ledger.expect(TdxCheck.PCK_CHAIN_FORMAT, True, "PCK, its CA and the root, as PEM", "")
        named = hashlib.sha256(quote.chain[-1]).hexdigest()[:16]
        ledger.expect(
            TdxCheck.ROOT_UNTRUSTED,
            quote.chain[-1] == root,
            f"the quote's chain ends in the pinned root {named}…",
            f"the quote's chain ends in {named}…, another root than the pinned one",
        )


def _check_td(ledger: Ledger, quote: TdxQuote) -> None:
    bits, xfam = quote.td_attributes, quote.xfam
    unknown, strange = bits & ~TdBit.KNOWN, xfam & ~abi.XFAM_KNOWN
    lacking = abi.XFAM_ALWAYS & ~xfam
    service = any(quote.field("mr_service_td"))
    for check, holds, passed, failed in (
        (TdxCheck.TD_DEBUG, not bits & TdBit.DEBUG, "debugging is off", "the host may debug this TD"),
        (TdxCheck.TD_PROFILING, not bits & TdBit.PROFILING, "profiling is off", "the host may profile this TD"),
        (TdxCheck.TD_RESERVED_BITS, not unknown, "no unknown attribute", f"unknown TD attributes {unknown:#x}"),
        (
            TdxCheck.SEPT_VE_DISABLE,
            bool(bits & TdBit.SEPT_VE_DISABLE),
            "no #VE for pages that the host takes away",
            "SEPT_VE_DISABLE is off: the host can inject exceptions by taking pages away",
        ),
        (TdxCheck.TD_MIGRATABLE, not bits & TdBit.MIGRATABLE, "cannot be migrated", "the TD can be migrated"),
        (TdxCheck.SERVICE_TD, not service, "no service TD", "a service TD is bound, and may act on this TD"),
        (
            TdxCheck.XFAM_RESERVED,
            not strange and not lacking,
            f"XFAM {xfam:#x}",
            f"XFAM {xfam:#x} has unknown bits {strange:#x} or lacks x87 and SSE",
        ),
        (TdxCheck.MR_SEAM_ZERO, any(quote.field("mr_seam")), "the TDX module is measured", "MRSEAM is all zero"),
        (TdxCheck.MR_TD_ZERO, any(quote.field("mr_td")), "the TD is measured", "MRTD is all zero"),
    ):
        ledger.expect(check, holds, passed, failed)


def _pass_signatures(ledger: Ledger, days_left: int | None) -> None:
    """Record that certificates, lists, documents and the quote's signatures hold."""
    for check in _BY_LIBRARY:
        ledger.expect(check, True, "holds (dcap-qvl)", "")
    ends = "" if days_left is None else f"; the first of all ends in {days_left} days"
    ledger.expect(TdxCheck.CRL_EXPIRED, True, f"holds (dcap-qvl){ends}", "")


def _check_platform(ledger: Ledger, quote: TdxQuote, pck: Pck, info: TcbInfo) -> None:
    for check, wanted, found in (
        (TdxCheck.FMSPC_MISMATCH, info.fmspc.lower(), pck.fmspc.hex()),
        (TdxCheck.PCEID_MISMATCH, info.pce_id.lower(), pck.pce_id.hex()),
    ):
        ledger.expect(
            check, wanted == found, found, f"TCB info is of {wanted[:16]}, the PCK certificate of {found}"
        )
    ledger.expect(TdxCheck.COMPONENT_COUNT, True, f"{library.COMPONENTS} of each kind", "")
    faults = module_faults(quote, info)
    svn, version = quote.field("tee_tcb_svn")[:2]
    for check in _MODULE_CHECKS:
        ledger.expect(check, check not in faults, f"TDX_{version:02X}, SVN {svn}", faults.get(check, ""))


def _check_status(
    ledger: Ledger, tree: dict[str, Any], quote: TdxQuote, pck: Pck, info: TcbInfo, policy: TdxPolicy | None
) -> None:
    status, level, qe = tree["tcb"]["status"], tree["platform"]["tcb_level"], tree["qe"]["tcb_level"]["tcbStatus"]
    current = tree["platform"]["current_tcb_level"]
    ledger.expect(TdxCheck.TCB_NO_LEVEL, True, f"the level of {level['tcbDate'][:10]}", "")
    short, still_open = lacking(tree), ", ".join(advisories(tree))
    if not ledger.failed((TdxCheck.TCB_STATUS_UNKNOWN,)):
        unknown = [each for each in short if each not in STATUSES]
        ledger.expect(TdxCheck.TCB_STATUS_UNKNOWN, not unknown, status, f"unknown TCB status {unknown!r:.40}")
    ledger.expect(TdxCheck.TCB_REVOKED, "Revoked" not in short, "not revoked", "a TCB level is revoked")
    why = why_not_up_to_date(status, qe, quote, pck, info) if short else ""
    why += f"; not mended: what Intel published since {level['tcbDate'][:10]}" if short else ""
    why += f"; advisories: {still_open}" if still_open else ""
    graced = () if policy is None or policy.grace is None else policy.grace.statuses
    ledger.expect(
        TdxCheck.TCB_STATUS_DENIED,
        set(short) <= set(graced),
        f"listed in the policy's grace: {why}" if why else f"{status}; evaluation number {info.evaluation_number}",
        why,
    )
    running = None if current is None else current["tcbStatus"]
    # The module that runs now is never older than the one that launched the TD, unless something is wrong.
    ledger.expect(
        TdxCheck.CURRENT_TCB,
        running is None or is_as_good(running, level["tcbStatus"]),
        "a TD 1.0 quote does not say" if running is None else f"the TDX module that runs now is {running}",
        f"the TDX module that runs now is {running}, the one that launched the TD {level['tcbStatus']}",
    )
    ledger.expect(
        TdxCheck.TD_RELAUNCH_ADVISED,
        not status.startswith("TDRelaunchAdvised"),
        "the TD need not be launched anew",
        "the TD was launched by a TDX module that is out of date, and a newer one runs now: launch the TD anew",
    )


def _name_fault(
    ledger: Ledger,
    fault: Fault,
    quote: TdxQuote,
    pck: Pck | None,
    collateral: Collateral,
    root: bytes,
    now_unix_s: int,
) -> None:
    """Record the library's fault under the checks that it stands for, unless ours have found it already."""
    if fault.of_certificates:
        found = certificate_faults(quote, collateral, root, now_unix_s)
        for check, detail in found.items():
            ledger.fail(check, detail)
        named = bool(found) or ledger.failed((TdxCheck.ROOT_UNTRUSTED,))
    else:
        named = ledger.failed(fault.checks)
        if fault.checks and not named and not ledger.passed(fault.checks[:1]):
            detail = fault.text
            if pck is not None and fault.checks == (TdxCheck.TCB_NO_LEVEL,):
                detail = why_no_level(quote, pck, collateral.tcb_info)
            ledger.fail(fault.checks[0], detail)
            named = True
    if named:
        ledger.skip(TdxCheck.DCAP_QVL, f"its first fault is named above: {fault.text[:200]}")
    else:
        ledger.fail(TdxCheck.DCAP_QVL, f"refused by dcap-qvl: {fault.text[:200]}")


def _trusted(ledger: Ledger) -> bool:
    """Say whether the quote's own copy of the root is the pinned one, which the library does not look at."""
    return ledger.passed((TdxCheck.ROOT_UNTRUSTED,))


def _same_body(quote: TdxQuote, tree: dict[str, Any]) -> bool:
    """Say whether the library read what we read; two parsers that differ are how evidence is smuggled."""
    report = tree["report"]
    later = report.get("TD15", {})
    read = later.get("base") or report.get("TD10") or {}
    read |= {name: value for name, value in later.items() if name != "base"}
    return len(read) == len(quote.fields) and all(
        read.get(_LIBRARY_NAMES.get(name, name)) == value.hex() for name, value in quote.fields.items()
    )


@lru_cache(maxsize=256)
def _day(unix_s: int) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d}"
