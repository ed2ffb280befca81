"""Judge one NVIDIA device: certificates, report, manifests, measurements. Verify first, read values after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography import x509

from confide_attestation.checks.ledger import Ledger
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.nvidia.certificates import Path, read_fwid, verify_raw
from confide_attestation.nvidia.chain import CHAIN_LENGTH, DeviceChain, NvidiaRoots, read_chain
from confide_attestation.nvidia.claims import Claims, device_claims
from confide_attestation.nvidia.device import DISABLED, ENABLED, Arch, DeviceFields, read_fields
from confide_attestation.nvidia.evidence import DeviceEvidence, NvidiaEndorsements
from confide_attestation.nvidia.ids import (
    CHAIN_OCSP_CHECKS,
    RIM_OCSP_CHECKS,
    SIGNATURES,
    NvidiaCheck,
)
from confide_attestation.nvidia.measurements import Comparison, compare, conflicts
from confide_attestation.nvidia.ocsp import PathAnswers
from confide_attestation.nvidia.policy import GpuPolicy
from confide_attestation.nvidia.revocation import answers_end, check_age, judge_paths, rim_hold
from confide_attestation.nvidia.rim import JudgedRim, Rim, RimKind, judge_rim
from confide_attestation.nvidia.spdm import Opaque, SpdmReport, parse_spdm
from confide_attestation.nvidia.validate import check_device
from confide_attestation.policy_types import Waived

RIM_SERVICE = "https://rim.attestation.nvidia.com/v1/rim/"
_FILE_CHECKS = (
    (NvidiaCheck.RIM_FORMAT, "strict XML, each signed in NVIDIA's form"),
    (NvidiaCheck.RIM_ROOT_PIN, "the pinned root for manifests, by its key"),
    (NvidiaCheck.RIM_CHAIN, "four certificates each, of their roles, signed by one another"),
    (NvidiaCheck.RIM_SIG, "the leaf's key signed all that is read"),
    (NvidiaCheck.RIM_SCHEMA, "versions and measurements as they should be"),
)


@dataclass(frozen=True)
class JudgedDevice:
    """A device's checks and what was read of it; `claims` and `fields` are None unless its signatures hold.

    `not_after_unix_s` is the first end of a certificate, manifest or OCSP answer that was counted on.
    """

    ledger: Ledger
    is_switch: bool
    ueid: str = ""
    pdi: bytes | None = None
    chip_key: bytes = b""
    fields: DeviceFields | None = None
    claims: Claims | None = None
    not_after_unix_s: int | None = None


def judge_device(
    evidence: DeviceEvidence,
    endorsements: NvidiaEndorsements,
    roots: NvidiaRoots,
    policy: GpuPolicy | None,
    *,
    now_unix_s: int,
    nonce: bytes | None,
) -> JudgedDevice:
    """Judge one device; never raises for bad evidence, whatever its bytes."""
    ledger = Ledger()
    chain = _judge_chain(ledger, evidence, roots, now_unix_s)
    answers = endorsements.ocsp
    revocations: tuple[PathAnswers, ...] = ()
    if chain is not None:
        # The leaf is signed by the device itself: nobody answers for it.
        above = [chain.path.certificates[1:]]
        revocations = judge_paths(ledger, CHAIN_OCSP_CHECKS, above, answers, policy, now_unix_s=now_unix_s)
    report = _judge_report(ledger, evidence, chain, nonce, policy)
    rims = [judge_rim(data, roots.rim_spki_sha256) for data in endorsements.rims]
    _judge_files(ledger, rims)
    is_switch = chain is not None and chain.arch is Arch.LS10
    if chain is None or report is None or chain.arch is None or not ledger.passed(SIGNATURES):
        return JudgedDevice(ledger, is_switch)
    fields, comparison = None, None
    ends = [chain.path.not_after_unix_s]
    used: dict[str, Rim] = {}
    try:
        fields = read_fields(report, chain.arch, chain.chip or "")
        ledger.expect(NvidiaCheck.REPORT_FIELDS, True, _describe(fields), "")
    except EvidenceMalformed as fault:
        ledger.fail(NvidiaCheck.REPORT_FIELDS, str(fault))
    if fields is not None:
        chosen = _choose(ledger, fields, rims, now_unix_s)
        used = {name: each.rim for name, each in chosen.items() if each.rim is not None}
        if len(used) == (1 if is_switch else 2):
            paths = [each.path for each in chosen.values() if each.path is not None]
            ends += [path.not_after_unix_s for path in paths]
            revocations += judge_paths(
                ledger,
                RIM_OCSP_CHECKS,
                [path.certificates for path in paths],
                answers,
                policy,
                now_unix_s=now_unix_s,
                hold=rim_hold(policy),
            )
            comparison = _judge_measurements(ledger, report, fields, used)
        if policy is not None:
            check_device(ledger, fields, chain.ueid, policy)
            check_age(ledger, revocations, policy, now_unix_s)
    return JudgedDevice(
        ledger,
        is_switch,
        chain.ueid,
        chain.pdi,
        chain.chip_key,
        fields,
        device_claims(ledger, chain, report, fields, used, comparison),
        min(ends + answers_end(revocations, policy)),
    )


def _judge_chain(
    ledger: Ledger, evidence: DeviceEvidence, roots: NvidiaRoots, now_unix_s: int
) -> DeviceChain | None:
    try:
        chain = read_chain(evidence.chain)
    except EvidenceMalformed as fault:
        ledger.fail(NvidiaCheck.CHAIN_FORMAT, str(fault))
        return None
    ledger.expect(NvidiaCheck.CHAIN_FORMAT, True, "certificates in PEM", "")
    count = chain if isinstance(chain, int) else CHAIN_LENGTH
    wrong = f"{count} certificates, not {CHAIN_LENGTH}"
    ledger.expect(NvidiaCheck.CHAIN_LENGTH, count == CHAIN_LENGTH, f"{CHAIN_LENGTH} certificates", wrong)
    if isinstance(chain, int):
        return None
    path = chain.path
    whose = "the SIMULATED root's key" if roots.simulated else "NVIDIA's packaged root key"
    for check_id, holds, passed, failed in (
        (NvidiaCheck.CHAIN_ROLES, not path.role_faults, "leaf first, each in its role", path.role_faults),
        (
            NvidiaCheck.ROOT_PIN,
            path.root_spki_sha256 == roots.device_spki_sha256,
            whose,
            f"the chain does not end in {whose}",
        ),
        (
            NvidiaCheck.CHAIN_SIG,
            not path.signature_faults,
            "each certificate is signed by the next",
            f"not signed by the next certificate: {path.signature_faults}",
        ),
        (
            NvidiaCheck.CHAIN_VALIDITY,
            path.not_before_unix_s <= now_unix_s <= path.not_after_unix_s,
            "all certificates are valid at this time",
            "a certificate is not valid at this time",
        ),
        (
            NvidiaCheck.ARCH,
            chain.arch is not None and evidence.arch in (None, chain.arch.value),
            f"{chain.arch}: {chain.hwmodel}",
            f"the evidence says {(evidence.arch or '')[:20]!r}, the certificates are of {chain.arch}"
            if chain.arch is not None
            else "the certificates' names are of no device known here",
        ),
    ):
        ledger.expect(check_id, holds, passed, failed)
    return chain


def _judge_report(
    ledger: Ledger,
    evidence: DeviceEvidence,
    chain: DeviceChain | None,
    nonce: bytes | None,
    policy: GpuPolicy | None,
) -> SpdmReport | None:
    try:
        report = parse_spdm(evidence.report)
    except EvidenceMalformed as fault:
        ledger.fail(NvidiaCheck.REPORT_FORMAT, str(fault))
        return None
    count = len(report.measurements)
    ledger.expect(NvidiaCheck.REPORT_FORMAT, True, f"SPDM 1.1, {count} measurements", "")
    own_word = evidence.claimed_nonce in (None, report.nonce.hex())
    other = (
        "the report does not answer our nonce" if own_word else "the file names another nonce than its report has"
    )
    ledger.expect(
        NvidiaCheck.NONCE,
        report.nonce == nonce and own_word,
        "the report answers our nonce",
        "there is no nonce that it could answer" if nonce is None else other,
    )
    if chain is None or chain.path.role_faults:
        return report
    ledger.expect(
        NvidiaCheck.REPORT_SIG,
        verify_raw(chain.path.leaf_key, report.signature, report.signed),
        "signed by the leaf's key",
        "not signed by the leaf's key",
    )
    if chain.arch is not Arch.LS10:
        _judge_fwid(ledger, report, chain.path.certificates[0], policy)
    return report


def _judge_fwid(ledger: Ledger, report: SpdmReport, leaf: x509.Certificate, policy: GpuPolicy | None) -> None:
    """Compare the firmware's digest in report and leaf. An absent one can be waived, a wrong one cannot."""
    try:
        certified = read_fwid(leaf)
    except EvidenceMalformed as fault:
        ledger.fail(NvidiaCheck.FWID, str(fault))
        return
    reported = report.opaque.get(Opaque.FWID)
    if reported is None and policy is not None and isinstance(policy.fwid, Waived):
        ledger.waive(NvidiaCheck.FWID, policy.fwid.waived)
        return
    if reported is None:
        ledger.fail(NvidiaCheck.FWID, "the report names no firmware digest, as drivers before 550 did not")
        return
    ledger.expect(
        NvidiaCheck.FWID,
        reported == certified,
        "report and leaf name the same firmware",
        "report and leaf name different firmware",
    )


def _judge_files(ledger: Ledger, rims: Sequence[JudgedRim]) -> None:
    """Judge each manifest that was given, whether it is needed or not: a changed one is never an accident."""
    for check_id, passed in _FILE_CHECKS:
        faults = [f"RIM {n}: {rim.faults[check_id]}" for n, rim in enumerate(rims, 1) if check_id in rim.faults]
        if faults:
            ledger.fail(check_id, "; ".join(faults))
        elif not rims:
            ledger.skip(check_id, "no manifest was given")
        elif all(rim.rim is not None for rim in rims):
            ledger.expect(check_id, True, passed, "")


def _choose(
    ledger: Ledger, fields: DeviceFields, rims: Sequence[JudgedRim], now_unix_s: int
) -> dict[str, JudgedRim]:
    """Find the manifests of this device's versions, and judge their time; by NVIDIA's names for them."""
    firmware = RimKind.SWITCH_BIOS if fields.is_switch else RimKind.VBIOS
    wanted = [("bios" if fields.is_switch else "vbios", firmware, fields.firmware, fields.firmware_rim_id)]
    if fields.driver is not None:
        wanted.insert(0, ("driver", RimKind.DRIVER, fields.driver, fields.driver_rim_id or ""))
    chosen: dict[str, JudgedRim] = {}
    product = fields.chip.replace("_", "")
    strangers = []
    for name, kind, version, rim_id in wanted:
        missing, other = (
            (NvidiaCheck.DRIVER_RIM_MISSING, NvidiaCheck.DRIVER_RIM_VERSION)
            if name == "driver"
            else (NvidiaCheck.FIRMWARE_RIM_MISSING, NvidiaCheck.FIRMWARE_RIM_VERSION)
        )
        of_kind = [each for each in rims if each.rim is not None and each.rim.kind is kind]
        fetch = f"{rim_id}; fetch {RIM_SERVICE}{rim_id} and give it with --rim"
        if not ledger.expect(missing, bool(of_kind), rim_id, f"no sound {kind} manifest was given for {fetch}"):
            continue
        same = [each for each in of_kind if each.rim is not None and each.rim.version == version.upper()]
        found = ", ".join(sorted({each.rim.version for each in of_kind if each.rim is not None}))
        if not ledger.expect(other, bool(same), version, f"the device runs {version}, the manifest is of {found}"):
            continue
        strangers += [f"{name}: {each.rim.product}" for each in same if each.rim and each.rim.product != product]
        # NVIDIA signs a manifest anew before its signer expires: any that is valid will do.
        chosen[name] = max(same, key=lambda each: _in_time(each.path, now_unix_s))
    if len(chosen) == len(wanted):
        other_product = f"the device is {product}, manifests are of another: {', '.join(strangers)}"
        ledger.expect(NvidiaCheck.RIM_PRODUCT, not strangers, f"for {product}", other_product)
        late = [name for name, each in chosen.items() if not _in_time(each.path, now_unix_s)]
        expired = f"a signer's certificate is not valid at this time: {', '.join(late)}; fetch it again"
        ledger.expect(NvidiaCheck.RIM_VALIDITY, not late, "their signers are valid at this time", expired)
    return chosen


def _in_time(path: Path | None, now_unix_s: int) -> bool:
    return path is not None and path.not_before_unix_s <= now_unix_s <= path.not_after_unix_s


def _judge_measurements(
    ledger: Ledger, report: SpdmReport, fields: DeviceFields, rims: Mapping[str, Rim]
) -> Comparison:
    golden = {name: rim.golden for name, rim in rims.items()}
    disabled = False
    if not fields.is_switch:
        twice = conflicts(list(golden.values()))
        ledger.expect(
            NvidiaCheck.INDEX_CONFLICT,
            not twice,
            "each measurement has its value in one manifest",
            f"two manifests have values for: {', '.join(map(str, twice))}",
        )
        disabled = fields.nvdec0 == DISABLED
        ledger.expect(
            NvidiaCheck.NVDEC0,
            fields.nvdec0 in (ENABLED, DISABLED),
            "disabled: measurement 35 need not match" if disabled else "enabled",
            "the state of NVDEC0 is absent or unknown",
        )
    compared = compare(report.measurements, golden, nvdec0_disabled=disabled)
    sources = ", ".join(f"{len(values)} {name}" for name, values in golden.items())
    count = f"{compared.matched} of {compared.golden} golden values match ({sources})"
    hint = (
        "firmware or its state differs from what NVIDIA signed; compare versions, then stop and start the machine"
    )
    shown = "; ".join(
        f"{each.index} ({each.source}): golden {each.golden.hex()[:16]}…, measured "
        + ("nothing" if each.runtime is None else f"{each.runtime.hex()[:16]}…")
        for each in compared.mismatches
    )
    ledger.expect(NvidiaCheck.MEASUREMENTS, not compared.mismatches, count, f"{count}; {hint}: {shown}")
    return compared


def _describe(fields: DeviceFields) -> str:
    if fields.is_switch:
        return f"{fields.chip}, BIOS {fields.firmware}"
    return f"{fields.chip}, driver {fields.driver}, VBIOS {fields.firmware}"
