"""What each kind of evidence consists of: the fields of each part, and what fails without it or with another."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tests.conformance import Case, Files, Judge, Layout, Mutation, checks
from tests.conformance import formats_cpu as cpu
from tests.conformance import formats_machine as machine
from tests.conformance import formats_nvidia as nvidia
from tests.conformance.formats_collateral import collateral

Checks = frozenset[str]


@dataclass(frozen=True)
class Part:
    """One file's place: `form` fails if what stands there is of no such kind, `foreign` if of another machine.

    `spliced`: each field is also replaced by the same field of other evidence. `optional` says why the part may be
    absent. `root` is the part under which evidence of another machine may have the same.
    """

    layout: Callable[[bytes], Layout]
    form: Checks
    foreign: Checks
    spliced: bool = False
    optional: str = ""
    root: str = ""


_OTHER_CHIP = checks("report_sig", "product_mismatch", "tcb_mismatch", "hwid_mismatch", "signing_key_mismatch")
_REPORT = Part(cpu.snp_report, checks("report_size"), _OTHER_CHIP, spliced=True)
_VEK = Part(cpu.vek, checks("vek_format", "vek_extensions"), _OTHER_CHIP)
_ASK = Part(cpu.ask, checks("ask_format", "vek_sig"), checks("vek_sig", "chain_roles"))
_ARK = Part(cpu.ark, checks("ark_format", "ark_pin"), checks("ark_pin"))
_CRL = Part(
    cpu.crl,
    checks("crl_format"),
    checks("crl_sig"),
    optional="without a policy revocation is judged only where a list is given, and SKIP is shown",
    root="ark",
)
_QUOTE_FORM = checks("quote_size", "quote_version", "quote_truncated", "quote_trailing_data", "tee_type")
_QUOTE = Part(
    cpu.tdx_quote,
    _QUOTE_FORM | checks("quote_lengths"),
    checks("fmspc_mismatch", "root_untrusted", "pck_chain", "pck_expired"),
    spliced=True,
)
_COLLATERAL = Part(
    collateral,
    checks("collateral_format"),
    checks("fmspc_mismatch", "tcb_signing_chain", "tcb_info_not_yet_valid", "tcb_info_expired", "crl_sig"),
)
_DEVICE = Part(nvidia.spdm_report, checks("gpu_report_format"), checks("gpu_report_sig"), spliced=True)
_CHAIN = Part(nvidia.device_chain, checks("device_chain_format"), checks("gpu_report_sig"))
_RIM_MISSING = checks("driver_rim_missing", "firmware_rim_missing")
_RIM = Part(
    nvidia.rim,
    checks("rim_format"),
    _RIM_MISSING | checks("rim_root_pin", "driver_rim_version", "firmware_rim_version", "rim_product"),
)
_UNANSWERED = checks("device_chain_ocsp", "rim_ocsp")
_OCSP = Part(nvidia.OcspLayout(_UNANSWERED), _UNANSWERED, _UNANSWERED)

KINDS: Mapping[str, Mapping[str, Part]] = {
    "snp": {"report": _REPORT, "vek": _VEK, "ask": _ASK, "ark": _ARK, "crl": _CRL},
    "tdx": {"quote": _QUOTE, "collateral": _COLLATERAL},
    "nvidia": {"report": _DEVICE, "chain": _CHAIN, "rim": _RIM, "ocsp": _OCSP},
    "azure": {
        "hcl": Part(
            machine.hcl_report,
            checks("hcl_size", "hcl_magic", "hcl_lengths", "hcl_reserved"),
            checks("tpm_sig", "hcl_foreign", "runtime_digest", "tdreport_mismatch"),
            spliced=True,
        ),
        "tpm_quote": Part(machine.tpm_quote, checks("tpm_magic", "tpm_format"), checks("tpm_sig"), spliced=True),
        "tpm_signature": Part(machine.tpm_signature, checks("tpm_sig_format"), checks("tpm_sig")),
        "pcrs": Part(machine.pcrs, checks("pcrs_format"), checks("pcr_digest")),
        "vek": Part(cpu.vek, checks("vek_format", "vek_extensions", "hcl_foreign"), checks("report_sig")),
        "ask": _ASK,
        "ark": _ARK,
        "td_quote": Part(cpu.tdx_quote, _QUOTE.form, checks("tdreport_mismatch")),
        "collateral": _COLLATERAL,
    },
    "eventlog": {
        "log": Part(
            machine.event_log,
            checks("log_format"),
            checks(*(f"rtmr{number}_replay_mismatch" for number in range(4)), "log_quote_mismatch"),
        ),
        "quote": Part(cpu.tdx_quote, checks("log_quote_format"), checks("rtmr0_replay_mismatch")),
        "collateral": Part(collateral, checks("log_quote_unjudged"), checks("log_quote_unjudged")),
    },
    "nras": {
        "tokens": Part(
            nvidia.nras_tokens, checks("nras_tokens_format"), checks("nras_kid", "nras_sig", "nras_nonce")
        ),
        "jwks": Part(nvidia.jwks, checks("nras_jwks_format"), checks("nras_kid", "nras_sig")),
    },
}
_PACKAGED = "AMD's packaged certificate takes its place"
_CLOCK: Mapping[str, Checks] = {
    "snp": checks("vek_validity"),
    "tdx": checks("tcb_info_expired", "tcb_info_not_yet_valid"),
    "nvidia": checks("rim_validity", "device_chain_validity"),
    "azure": checks("vek_validity", "tcb_info_expired", "tcb_info_not_yet_valid"),
    "eventlog": checks("log_quote_unjudged"),
    "nras": checks("nras_expired", "nras_not_before"),
}
# What may follow quotes, logs and HCL reports.
_PADDING = b"\0\xff"
_YEAR_2000, _YEAR_2099 = 946_684_800, 4_070_908_800


def part_of(kind: str, role: str) -> Part:
    return KINDS[kind][role.rstrip("0123456789")]


def make(
    name: str,
    kind: str,
    files: Files,
    judge: Judge,
    now_unix_s: int,
    *,
    nonce: bytes = b"",
    real: bool = False,
    platform: str = "",
    more: Sequence[Mutation] = (),
    roots: Files | None = None,
) -> Case:
    """Make a case with the mutations that all of its kind have."""
    parts = {role: part_of(kind, role) for role in files}
    common: list[Mutation] = []
    for role, part in parts.items():
        data = files[role]
        named, reason = part.form, part.optional
        if part in (_ASK, _ARK) and real:
            named, reason = frozenset(), _PACKAGED
        if role.startswith("rim"):
            named = _RIM_MISSING
        common.append(Mutation("omit", role, {role: None}, frozenset() if reason else named, reason))
        either = part.form | part.foreign
        half = len(data.rstrip(_PADDING)) // 2
        common.append(Mutation("cut", role, {role: data[:half]}, either))
        common.append(Mutation("longer", role, {role: data + b"\1"}, either))
        for other, given in files.items():
            if part_of(kind, other) is not part:
                common.append(Mutation("misplaced", f"{other} as {role}", {role: given}, either))
    for year, now in (("2000", _YEAR_2000), ("2099", _YEAR_2099)):
        common.append(Mutation("clock", f"in the year {year}", {}, _CLOCK[kind], now_unix_s=now))
    if nonce:
        asked = checks("gpu_nonce", "tpm_nonce", "nras_nonce")
        common.append(Mutation("nonce", "another", {}, asked, nonce=bytes(each ^ 1 for each in nonce)))
    layouts = {role: part.layout(files[role]) for role, part in parts.items()}
    return Case(
        name, kind, dict(files), layouts, now_unix_s, judge, nonce, real, platform, (*common, *more), roots or {}
    )


# The order of the curve, and where s lies: first byte, size, order of bytes.
P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
P384 = int("FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16)


def malleable(
    role: str, data: bytes, at: int, size: int, order: int, endian: Literal["little", "big"] = "big"
) -> Mutation:
    """Replace s of a signature by n - s."""
    s = int.from_bytes(data[at : at + size], endian)
    changed = data[:at] + (order - s).to_bytes(size, endian) + data[at + size :]
    reason = "ECDSA: (r, n - s) signs the same bytes by the same key; nothing is named by a signature's bytes"
    return Mutation("malleable", f"{role}.signature", {role: changed}, dont_care=reason)
