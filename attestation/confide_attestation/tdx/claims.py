"""Name a quote's fields for people and for EAR. Call only for a quote whose signatures hold."""

import hashlib
from typing import Any

from confide_attestation.tdx.abi import TdBit, TdxQuote
from confide_attestation.tdx.collateral import Collateral
from confide_attestation.tdx.library import Pck

Claims = dict[str, str | int | bool]
TCB_STATUSES = ("tcb_status", "tcb_level_status", "qe_tcb_status")
_BITS = {
    "debug": TdBit.DEBUG,
    "migratable": TdBit.MIGRATABLE,
    "sept_ve_disable": TdBit.SEPT_VE_DISABLE,
    "pks": TdBit.PKS,
    "key_locker": TdBit.KEY_LOCKER,
    "perfmon": TdBit.PERFMON,
    "lass": TdBit.LASS,
}


def quote_claims(quote: TdxQuote, pck: Pck, collateral: Collateral) -> Claims:
    """Return what a quote says, and the documents of its platform: bytes as hex, times in seconds."""
    attributes = quote.td_attributes
    claims: Claims = {
        "type": "tdx",
        "quote_version": quote.version,
        "body_type": quote.body_type.name,
        # Header and body alone: the rest of a quote's bytes can be changed without a new signature of the TD's.
        "signed_sha256": hashlib.sha256(quote.signed).hexdigest(),
        **{name: value.hex() for name, value in quote.fields.items()},
        **{name: bool(attributes & bit) for name, bit in _BITS.items()},
        "fmspc": pck.fmspc.hex(),
        "ppid": pck.ppid.hex(),
        "pce_id": pck.pce_id.hex(),
        "pce_svn": pck.pce_svn,
        "cpu_svn": pck.cpu_svn.hex(),
    }
    for name, document in (("tcb_info", collateral.tcb_info), ("qe_identity", collateral.qe_identity)):
        claims[f"{name}_issued"] = document.issued_unix_s
        claims[f"{name}_next_update"] = document.next_update_unix_s
        claims[f"{name}_evaluation_number"] = document.evaluation_number
    return claims


def tcb_claims(tree: dict[str, Any]) -> Claims:
    """Return what `dcap-qvl` found of the platform's TCB."""
    pck, current = tree["platform"]["pck"], tree["platform"]["current_tcb_level"]
    claims: Claims = {
        "tcb_status": tree["tcb"]["status"],
        "tcb_date": tree["platform"]["tcb_level"]["tcbDate"],
        "tcb_level_status": tree["platform"]["tcb_level"]["tcbStatus"],
        "qe_tcb_status": tree["qe"]["tcb_level"]["tcbStatus"],
        "advisory_ids": " ".join(tree["tcb"]["advisory_ids"]),
        "dynamic_platform": str(pck["dynamic_platform"]).lower(),
        "cached_keys": str(pck["cached_keys"]).lower(),
        "smt_enabled": str(pck["smt_enabled"]).lower(),
        "collateral_expires": expires_unix_s(tree),
    }
    if current is not None:
        claims["current_tcb_status"] = current["tcbStatus"]
    return claims


def expires_unix_s(tree: dict[str, Any]) -> int:
    """Return when the first of all documents, lists and certificates ends."""
    return min(int(tree["earliest_expiration_date"]), int(tree["qe_iden_earliest_expiration_date"]))
