"""Say in words which security version is short, by how much, and what to update; judges nothing that Intel signed.

Source: Intel QVL, TcbLevelCheck.cpp and TdxModuleCheck; PCS API v4, "TCB Info V3".
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from confide_attestation.tdx.abi import TdxQuote
from confide_attestation.tdx.collateral import Component, Module, TcbInfo, TcbLevel
from confide_attestation.tdx.ids import TdxCheck
from confide_attestation.tdx.library import Pck, component_svns

UP_TO_DATE = "UpToDate"
# From best to worst.
STATUSES = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "TDRelaunchAdvised",
    "TDRelaunchAdvisedConfigurationNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
)
REMEDY = "update what is named on the host, then have its PCK certificate issued anew"


def is_as_good(status: str, other: str) -> bool:
    """Say whether a TCB status is at least as good as another; an unknown one is not."""
    return status in STATUSES and other in STATUSES and STATUSES.index(status) <= STATUSES.index(other)


def lacking(tree: dict[str, Any]) -> tuple[str, ...]:
    """Return every status that is not UpToDate: the platform's, the quoting enclave's, and `dcap-qvl`'s of both.

    Its own is not enough: it leaves out a quoting enclave that needs configuration.
    """
    levels = tree["platform"]["tcb_level"], tree["qe"]["tcb_level"]
    found = (tree["tcb"]["status"], *(level["tcbStatus"] for level in levels))
    return tuple(dict.fromkeys(status for status in found if status != UP_TO_DATE))


def advisories(tree: dict[str, Any]) -> tuple[str, ...]:
    """Return every advisory that is open on the platform or its quoting enclave."""
    levels = tree["platform"]["tcb_level"], tree["qe"]["tcb_level"]
    return tuple(
        dict.fromkeys((*tree["tcb"]["advisory_ids"], *(a for each in levels for a in each["advisoryIDs"])))
    )


def module_faults(quote: TdxQuote, info: TcbInfo) -> dict[TdxCheck, str]:
    """Compare the TDX module that the quote names with those that Intel signs for; empty if all agree."""
    svn, version = quote.field("tee_tcb_svn")[:2]
    name, module = f"TDX_{version:02X}", module_of(quote, info)
    if module is None:
        known = ", ".join(each.id for each in info.modules) or "none"
        return {TdxCheck.TDX_MODULE_ID_UNKNOWN: f"TDX module {name} is not among those of the TCB info: {known}"}
    faults = {}
    if quote.field("mr_signer_seam") != _hex(module.mr_signer):
        faults[TdxCheck.TDX_MODULE_MRSIGNER] = "the TDX module is signed by another than Intel's TCB info says"
    pairs = zip(quote.field("seam_attributes"), _hex(module.attributes_mask) or b"", strict=False)
    if bytes(value & mask for value, mask in pairs) != _hex(module.attributes):
        faults[TdxCheck.SEAM_ATTRIBUTES] = "the TDX module's attributes are not those that Intel's TCB info says"
    if version and not any(level.tcb.isv_svn <= svn for level in module.levels):
        least = min((level.tcb.isv_svn for level in module.levels), default=0)
        faults[TdxCheck.TDX_MODULE_SVN] = (
            f"TDX module {name} has SVN {svn}, below the least that is known, {least}; update the TDX module"
        )
    return faults


def module_of(quote: TdxQuote, info: TcbInfo) -> Module | None:
    """Find what the TCB info says of the quote's TDX module."""
    version = quote.field("tee_tcb_svn")[1]
    if not version:
        return info.module
    return next((each for each in info.modules if each.id == f"TDX_{version:02X}"), None)


def why_no_level(quote: TdxQuote, pck: Pck, info: TcbInfo) -> str:
    """Say what is short of the nearest level of all."""
    return _nearest("no TCB level matches", quote, pck, info.levels)


def why_not_up_to_date(status: str, qe_status: str, quote: TdxQuote, pck: Pck, info: TcbInfo) -> str:
    """Say what is short of the nearest level that is UpToDate: components, TDX module, quoting enclave."""
    reasons = []
    best = [level for level in info.levels if level.status == UP_TO_DATE]
    if best and all(list(_short(level, quote, pck)) for level in best):
        reasons.append(_nearest(f"short of {UP_TO_DATE}", quote, pck, best))
    svn, version = quote.field("tee_tcb_svn")[:2]
    module = module_of(quote, info)
    wanted = [level.tcb.isv_svn for level in module.levels if level.status == UP_TO_DATE] if module else []
    if version and wanted and svn < min(wanted):
        reasons.append(f"TDX module TDX_{version:02X} has SVN {svn}, at least {min(wanted)} is {UP_TO_DATE}")
    if qe_status != UP_TO_DATE:
        reasons.append(f"the quoting enclave is {qe_status}")
    if not reasons:
        reasons.append(
            "no version is short: the host must be configured, or its software hardened, as Intel advises"
        )
    return "; ".join([f"the TCB status is {status}", *reasons])


def _nearest(what: str, quote: TdxQuote, pck: Pck, levels: Sequence[TcbLevel]) -> str:
    if not levels:
        return f"{what}: the TCB info has none"
    short = min((list(_short(level, quote, pck)) for level in levels), key=len)
    return f"{what}: " + ", ".join(short) + f"; {REMEDY}"


def _short(level: TcbLevel, quote: TdxQuote, pck: Pck) -> Iterator[str]:
    tee = quote.field("tee_tcb_svn")
    yield from _components("SGX", level.tcb.sgx, component_svns(quote.data), 0)
    if pck.pce_svn < level.tcb.pce_svn:
        wanted = level.tcb.pce_svn
        yield f"PCE has SVN {pck.pce_svn}, {wanted} is demanded ({wanted - pck.pce_svn} short)"
    # The first two are the TDX module's own, which its identity judges.
    yield from _components("TDX", level.tcb.tdx, tuple(tee), 2 if tee[1] else 0)


def _components(kind: str, wanted: Sequence[Component], found: Sequence[int], first: int) -> Iterator[str]:
    for at, (component, svn) in enumerate(zip(wanted, found, strict=False)):
        if at >= first and svn < component.svn:
            words = ", ".join(part for part in (component.type, component.category) if part)
            name = f"{kind} component {at + 1}" + (f" ({words})" if words else "")
            yield f"{name} has SVN {svn}, {component.svn} is demanded ({component.svn - svn} short)"


@lru_cache(maxsize=64)
def _hex(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None
