"""Accepted evidence of real machines, from the folder that CONFIDE_SHARED names; without it there are no cases."""

import json
from collections.abc import Iterator
from pathlib import Path

from confide_attestation.tdx.abi import parse_quote

from tests.conformance import Case, Mutation, checks, judges
from tests.conformance.parts import P256, P384, make, malleable
from tests.shared import ROOT

EVIDENCE = ROOT / "evidence"
_CERTIFICATES = {"vek": "vek.der", "ask": "ask.der", "ark": "ark.der"}
_CCEL = "go_tdx_guest_ccel_cos_113_tdx_quote_dat__20250626"
_DSTACK = "dstack_quote_report_json__20260305"
_TDX = {
    "dcap_qvl_tdx_quote__20250704": "B0C06F",
    "dcap_qvl_near_quote_hex_txt__20250917": "20A06F",
    "go_tdx_guest_quote_v5_sample_dat__20260305": "90C06F",
    _CCEL: "00806F",
    _DSTACK: "90C06F",
}


def cases() -> Iterator[Case]:
    for name in (
        "milan_v2_vcek_trustee",
        "milan_v3_vcek_ms",
        "milan_v3_vlek_aws_trustee",
        "genoa_v3_vcek_ms",
        "turin_v5_vcek_ms",
    ):
        if (folder := EVIDENCE / "snp" / name).exists():
            yield _snp(folder)
    for name in _TDX:
        if (folder := EVIDENCE / "tdx" / name).exists():
            yield _tdx(folder)
    for name in ("snp_milan_live", "tdx_live"):
        if (folder := EVIDENCE / "azure" / name).exists():
            yield _azure(folder)
    for name, log in ((_CCEL, "ccel_data.dat"), (_DSTACK, "getquote.json")):
        if (folder := EVIDENCE / "tdx" / name).exists():
            yield _log(folder, log)
    for name in ("hopper_550.90.07", "switch_96.10.55.00.01"):
        if (folder := EVIDENCE / "nvidia" / name).exists():
            yield _nvidia(folder)


def _read(folder: Path, names: dict[str, str]) -> dict[str, bytes]:
    return {role: (folder / name).read_bytes() for role, name in names.items()}


def _expected(folder: Path) -> dict[str, str | int]:
    tree: dict[str, str | int] = json.loads((folder / "expected.json").read_text())
    return tree


def _now(folder: Path) -> int:
    return int(_expected(folder)["now"])


def _snp(folder: Path) -> Case:
    files = _read(folder, {"report": "report.bin", **_CERTIFICATES})
    more = [malleable("report", files["report"], 0x2E8, 48, P384, "little")]
    if folder.name == "milan_v3_vcek_ms":
        lists = EVIDENCE / "snp" / "roots"
        files["crl"] = (lists / "crl_milan.der").read_bytes()
        more.append(
            Mutation(
                "older", "crl of Genoa", {"crl": (lists / "crl_genoa.der").read_bytes()}, checks("crl_expired")
            )
        )
    return make(f"snp/{folder.name}", "snp", files, judges.snp(), _now(folder), real=True, more=more)


def _tdx(folder: Path) -> Case:
    files = _read(folder, {"quote": "quote.bin", "collateral": "collateral.json"})
    signature_at = len(parse_quote(files["quote"]).signed) + 4
    more = [malleable("quote", files["quote"], signature_at + 32, 32, P256)]
    platform = _TDX[folder.name]
    return make(
        f"tdx/{folder.name}", "tdx", files, judges.tdx(), _now(folder), real=True, platform=platform, more=more
    )


def _azure(folder: Path) -> Case:
    files = _read(
        folder,
        {
            "hcl": "hcl_report.bin",
            "tpm_quote": "tpm_quote.msg",
            "tpm_signature": "tpm_quote.sig",
            "pcrs": "pcrs_sha256.json",
        },
    )
    rest = {"td_quote": "td_quote.bin", "collateral": "collateral.json"}
    if (folder / "vcek.der").exists():
        rest = {**_CERTIFICATES, "vek": "vcek.der"}
    files |= _read(folder, rest)
    nonce = bytes.fromhex(str(_expected(folder)["tpm_nonce"]))
    hcl = files["hcl"]
    other = hcl[:4] + bytes((hcl[4] ^ 3,)) + hcl[5:]
    reason = "the header is not signed, and versions 1 and 2 have one form"
    more = [Mutation("splice", "hcl.version 1 for 2", {"hcl": other}, dont_care=reason)]
    return make(
        f"azure/{folder.name}", "azure", files, judges.azure(), _now(folder), nonce=nonce, real=True, more=more
    )


def _log(folder: Path, log: str) -> Case:
    files = _read(folder, {"log": log, "quote": "quote.bin", "collateral": "collateral.json"})
    return make(f"eventlog/{folder.name}", "eventlog", files, judges.eventlog(), _now(folder), real=True)


def _nvidia(folder: Path) -> Case:
    files = _read(folder, {"report0": "report.bin", "chain0": "chain.pem"})
    manifests = sorted(folder.glob("*_rim.xml"))
    files |= {f"rim{number}": path.read_bytes() for number, path in enumerate(manifests)}
    more = [malleable("report0", files["report0"], len(files["report0"]) - 48, 48, P384)]
    nonce = bytes.fromhex(str(_expected(folder)["nonce"]))
    return make(
        f"nvidia/{folder.name}", "nvidia", files, judges.nvidia(), _now(folder), nonce=nonce, real=True, more=more
    )
