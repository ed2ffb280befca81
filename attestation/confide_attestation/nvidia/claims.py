"""Say what was verified in NVIDIA's own words (claims version 2.0, flat); only from what holds.

Source: NVIDIA's claims guide, `gpu_claims` and `switch_claims`. `secboot` and `dbgstat` follow from `measres`
alone, as with NVIDIA's own verifiers: no report says whether confidential computing or its developer mode is on.
"""

import json
from collections.abc import Mapping

from confide_attestation.checks.ledger import Ledger
from confide_attestation.nvidia.chain import DeviceChain
from confide_attestation.nvidia.device import DeviceFields
from confide_attestation.nvidia.ids import OCSP_CHECKS, NvidiaCheck
from confide_attestation.nvidia.measurements import Comparison
from confide_attestation.nvidia.rim import Rim
from confide_attestation.nvidia.spdm import SpdmReport

Claims = Mapping[str, str | int | bool]
_RIM_BOOLEANS = {
    "schema-validated": (NvidiaCheck.RIM_FORMAT, NvidiaCheck.RIM_SCHEMA),
    "cert-validated": (NvidiaCheck.RIM_ROOT_PIN, NvidiaCheck.RIM_CHAIN, NvidiaCheck.RIM_VALIDITY),
    "signature-verified": (NvidiaCheck.RIM_SIG,),
}


def device_claims(
    ledger: Ledger,
    chain: DeviceChain,
    report: SpdmReport,
    fields: DeviceFields | None,
    rims: Mapping[str, Rim],
    comparison: Comparison | None,
) -> Claims:
    """Return a device's claims; call only if the report's signature holds.

    `rims` are by "driver" and "vbios", or "bios".
    """
    kind = "switch" if fields is not None and fields.is_switch else "gpu"
    prefix = f"x-nvidia-{kind}-"
    report_prefix = f"{prefix}attestation-report-"
    claims: dict[str, str | int | bool] = {
        "x-nvidia-device-type": kind,
        "ueid": chain.ueid,
        "hwmodel": chain.hwmodel,
        "eat_nonce": report.nonce.hex(),
        f"{prefix}arch-check": ledger.passed((NvidiaCheck.ARCH,)),
        f"{report_prefix}parsed": True,
        f"{report_prefix}nonce-match": ledger.passed((NvidiaCheck.NONCE,)),
        f"{report_prefix}signature-verified": True,
        f"{report_prefix}cert-chain-validated": ledger.passed((NvidiaCheck.CHAIN_VALIDITY,))
        and not ledger.failed(OCSP_CHECKS),
    }
    if kind == "gpu":
        claims[f"{report_prefix}cert-chain-fwid-match"] = ledger.passed((NvidiaCheck.FWID,))
    if fields is None:
        return claims
    claims[f"{prefix}vbios-version" if kind == "gpu" else f"{prefix}bios-version"] = fields.firmware
    if fields.driver is not None:
        claims[f"{prefix}driver-version"] = fields.driver
    if fields.mode is not None:
        claims["x-confide-gpu-mode"] = fields.mode
    pdis = "x-nvidia-switch-pdi" if fields.is_switch else "x-nvidia-gpu-switch-pdis"
    for name, found_pdis in ((pdis, fields.switch_pdis), ("x-nvidia-switch-gpu-pdis", fields.gpu_pdis)):
        if found_pdis:
            claims[name] = ",".join(dict.fromkeys(pdi.hex() for pdi in found_pdis))
    for name in ("driver", "vbios") if kind == "gpu" else ("bios",):
        found = name in rims
        missing = NvidiaCheck.DRIVER_RIM_VERSION if name == "driver" else NvidiaCheck.FIRMWARE_RIM_VERSION
        claims[f"{prefix}{name}-rim-fetched"] = found
        claims[f"{prefix}{name}-rim-version-match"] = ledger.passed((missing,))
        claims[f"{prefix}{name}-rim-measurements-available"] = found
        for word, checks in _RIM_BOOLEANS.items():
            claims[f"{prefix}{name}-rim-{word}"] = found and ledger.passed(checks)
    if rims:
        claims["oemid"] = next(iter(rims.values())).oemid
    if kind == "gpu":
        claims[f"{prefix}vbios-index-no-conflict"] = ledger.passed((NvidiaCheck.INDEX_CONFLICT,))
    success = ledger.passed((NvidiaCheck.MEASUREMENTS,))
    claims["measres"] = "success" if success else "fail"
    if comparison is not None:
        claims["x-confide-golden-values"] = comparison.golden
        claims["x-confide-golden-values-matched"] = comparison.matched
        if comparison.mismatches:
            claims["x-nvidia-mismatch-measurement-records"] = _records(comparison)
    if success:
        claims |= {"secboot": True, "dbgstat": "disabled"}
    return claims


def _records(comparison: Comparison) -> str:
    return json.dumps(
        [
            {
                "index": each.index,
                "measurementSource": each.source,
                "goldenSize": len(each.golden),
                "goldenValue": each.golden.hex(),
                "runtimeSize": 0 if each.runtime is None else len(each.runtime),
                "runtimeValue": "" if each.runtime is None else each.runtime.hex(),
            }
            for each in comparison.mismatches
        ],
        separators=(",", ":"),
    )
