"""Devices signed afresh with one thing wrong each: the named check fails."""

from dataclasses import replace

import pytest
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.nvidia.certificates import OID_FWID
from confide_attestation.nvidia.chain import nvidia_roots
from confide_attestation.nvidia.device import Arch
from confide_attestation.nvidia.evidence import DeviceEvidence, NvidiaEndorsements
from confide_attestation.nvidia.ids import (
    COUNT_CHECKS,
    DEVICE_POLICY_CHECKS,
    NVIDIA_CHECKS,
    OCSP_CHECKS,
)
from confide_attestation.nvidia.spdm import Opaque
from confide_attestation.nvidia.verify import verify_nvidia
from confide_attestation.result import AttestationResult, Outcome, Verdict
from confide_attestation.simulated.nvidia import SimulatedDevice, SimulatedVendor, new_key, pem
from cryptography import x509

NONCE = b"\x4e" * 32


def judge(
    device: SimulatedDevice,
    report: bytes | None = None,
    chain: bytes | None = None,
    rims: tuple[bytes, ...] | None = None,
    **options: object,
) -> AttestationResult:
    evidence = DeviceEvidence(report or device.report(NONCE), chain or device.chain)
    endorsements = NvidiaEndorsements(device.rims if rims is None else rims)
    arguments = {"now_unix_s": device.vendor.now_unix_s, "nonce": NONCE, "roots": device.vendor.roots, **options}
    return verify_nvidia([evidence], endorsements, **arguments)  # type: ignore[arg-type]


def failed(result: AttestationResult) -> list[str]:
    return [check.id for check in result.failed]


@pytest.fixture(scope="module")
def gpu(vendor: SimulatedVendor) -> SimulatedDevice:
    return SimulatedDevice(vendor)


@pytest.mark.parametrize("arch", list(Arch))
def test_simulated_device_is_authentic_under_its_own_roots_alone(vendor: SimulatedVendor, arch: Arch) -> None:
    """Every architecture passes with answers, says SIMULATED, and is refused under NVIDIA's roots."""
    device = SimulatedDevice(vendor, arch=arch)
    given = NvidiaEndorsements(device.rims, device.answers())
    arguments = {"now_unix_s": vendor.now_unix_s, "nonce": NONCE}
    result = verify_nvidia([device.evidence(NONCE)], given, roots=vendor.roots, **arguments)
    assert (result.verdict, result.simulated) == (Verdict.AUTHENTIC, True)
    assert [check.id for check in result.checks] == list(NVIDIA_CHECKS)
    if arch is not Arch.LS10:
        waiting = [check.id for check in result.checks if check.outcome is not Outcome.PASS]
        assert waiting == [*COUNT_CHECKS, *DEVICE_POLICY_CHECKS]
    real = verify_nvidia([device.evidence(NONCE)], given, roots=nvidia_roots(), **arguments)
    assert {"device_root_pin", "rim_root_pin"} <= set(failed(real))
    assert real.claims == {}


def test_revocation_is_skipped_without_answers(gpu: SimulatedDevice) -> None:
    """SKIP, and authentic all the same."""
    result = judge(gpu)
    outcomes = {check.id: check.outcome for check in result.checks}
    assert result.verdict is Verdict.AUTHENTIC
    assert {outcomes[check] for check in OCSP_CHECKS} == {Outcome.SKIP}


@pytest.mark.parametrize(
    ("opaque", "check"),
    [
        ({Opaque.FWID: b"\1" * 48}, "fwid"),
        ({Opaque.FWID: None}, "fwid"),
        ({Opaque.DRIVER_VERSION: b"550.54.15\0"}, "driver_rim_version"),
        ({Opaque.DRIVER_VERSION: None}, "gpu_report_fields"),
        ({Opaque.DRIVER_VERSION: b"\xff"}, "gpu_report_fields"),
        ({Opaque.PROJECT: b"../x"}, "gpu_report_fields"),
        ({Opaque.VBIOS_VERSION: b"\0" * 8}, "firmware_rim_version"),
        ({Opaque.VBIOS_VERSION: b"\0"}, "gpu_report_fields"),
        ({Opaque.SWITCH_PDI: b"\0"}, "gpu_report_fields"),
        ({Opaque.CHIP_INFO: b"GB100\0"}, "rim_product"),
        ({Opaque.NVDEC0_STATUS: b"\x00"}, "nvdec0_status"),
        ({Opaque.NVDEC0_STATUS: None}, "nvdec0_status"),
        ({Opaque.FEATURE_FLAG: b"\x09\0"}, "mixed_mode"),
    ],
)
def test_opaque_data_counts(gpu: SimulatedDevice, opaque: dict[int, bytes | None], check: str) -> None:
    """A report that the device signed with other opaque data is refused for it."""
    result = judge(gpu, gpu.report(NONCE, opaque=opaque))
    assert check in failed(result)
    assert result.verdict is Verdict.REFUSED


def test_unknown_opaque_data_is_kept(gpu: SimulatedDevice) -> None:
    """Newer firmware says more; what it says is signed like the rest."""
    assert judge(gpu, gpu.report(NONCE, opaque={99: b"new", 40: b""})).verdict is Verdict.AUTHENTIC


def test_measurements_count(gpu: SimulatedDevice) -> None:
    """Each golden value's measurement is compared; others are not; 35 not where NVDEC0 is disabled."""
    for index in range(64):
        report = gpu.report(NONCE, measured={index: bytes(48)})
        compared = index in range(13) or index in range(21, 41)
        expected = ["gpu_measurements"] if compared and index != 35 else []
        assert failed(judge(gpu, report)) == expected, index
    enabled = gpu.report(NONCE, measured={35: bytes(48)}, opaque={Opaque.NVDEC0_STATUS: b"\xaa"})
    result = judge(gpu, enabled)
    assert failed(result) == ["gpu_measurements"]
    claims = result.claims["gpu0"]
    assert (claims["measres"], "secboot" in claims, "dbgstat" in claims) == ("fail", False, False)
    assert '"index":35' in str(claims["x-nvidia-mismatch-measurement-records"])
    short = gpu.report(NONCE, measured={3: gpu.measurement(3)[:47]})
    assert failed(judge(gpu, short)) == ["gpu_measurements"]


def test_manifests_are_compared_with_the_device(gpu: SimulatedDevice, vendor: SimulatedVendor) -> None:
    """Conflicting, foreign, missing, or beyond what the device measures."""
    driver, vbios = gpu.rims
    both = vendor.rim("96.00.9F.00.01", gpu.golden((0, 7)))
    assert failed(judge(gpu, rims=(driver, both))) == ["golden_index_conflict"]
    blackwell = vendor.rim("550.90.07", gpu.golden((7,)), product="GB100")
    assert failed(judge(gpu, rims=(blackwell, vbios))) == ["rim_product"]
    assert failed(judge(gpu, rims=(vbios,))) == ["driver_rim_missing"]
    assert failed(judge(gpu, rims=(driver,))) == ["firmware_rim_missing"]
    assert failed(judge(gpu, rims=())) == ["driver_rim_missing", "firmware_rim_missing"]
    switch = SimulatedDevice(vendor, arch=Arch.LS10)
    beyond = vendor.rim(switch.bios, switch.golden((0, 40)), edition="SWITCH", product="LS10")
    assert failed(judge(switch, rims=(beyond,))) == ["gpu_measurements"]
    alternatives = vendor.rim("96.00.9F.00.01", {0: (bytes(48), gpu.measurement(0))})
    assert failed(judge(gpu, rims=(driver, alternatives))) == []


def test_chain_must_be_five_in_order_under_the_pinned_root(gpu: SimulatedDevice, vendor: SimulatedVendor) -> None:
    """Reversed, shortened, lengthened, doubled, foreign, or with a look-alike root."""
    leaf, brom, ica, identity, root = gpu.certificates
    for certificates, check in (
        ((root, identity, ica, brom, leaf), "device_chain_roles"),
        ((leaf, ica, brom, identity, root), "device_chain_sig"),
        ((leaf, brom, ica, identity), "device_chain_length"),
        ((leaf, leaf, brom, ica, identity, root), "device_chain_length"),
        ((leaf, leaf, ica, identity, root), "device_chain_roles"),
        ((brom, ica, identity, root, root), "device_chain_roles"),
        ((leaf, brom, ica, identity, identity), "device_root_pin"),
    ):
        result = judge(gpu, chain=pem(certificates))
        assert check in failed(result)
        assert result.claims == {}
    fake = SimulatedDevice(SimulatedVendor(vendor.now_unix_s))
    assert failed(judge(gpu, fake.report(NONCE), fake.chain)) == ["device_root_pin"]
    other = SimulatedDevice(vendor)
    assert failed(judge(gpu, other.report(NONCE))) == ["gpu_report_sig"]


def test_certificates_keep_their_roles(gpu: SimulatedDevice, vendor: SimulatedVendor) -> None:
    """A leaf that may issue, an authority that may not, another curve, an expired or future certificate."""
    leaf, brom, *above = gpu.certificates
    fwid = x509.UnrecognizedExtension(*gpu.fwid_extension)
    now = vendor.now_unix_s

    def issue(
        window: tuple[int, int] | None = None, authority: bool = False, name: str = "FMC LF"
    ) -> x509.Certificate:
        return vendor.issue(
            f"{gpu.name} {name}", gpu.leaf_key, brom, by=gpu.brom_key, authority=authority, extensions=(fwid,),
            window=window,
        )  # fmt: skip

    weak_brom = vendor.issue(f"{gpu.name} BROM", gpu.brom_key, above[0], by="ica", authority=False)
    bare = vendor.issue(f"{gpu.name} FMC LF", gpu.leaf_key, brom, by=gpu.brom_key, authority=False)
    odd = x509.UnrecognizedExtension(OID_FWID, b"\x30\x00")
    unread = vendor.issue(
        f"{gpu.name} FMC LF", gpu.leaf_key, brom, by=gpu.brom_key, authority=False, extensions=(odd,)
    )
    for certificates, check in (
        ((issue(authority=True), brom, *above), "device_chain_roles"),
        ((leaf, weak_brom, *above), "device_chain_roles"),
        ((issue((now - 9, now - 1)), brom, *above), "device_chain_validity"),
        ((issue((now + 60, now + 90)), brom, *above), "device_chain_validity"),
        ((issue(name="something else"), brom, *above), "arch"),
        ((bare, brom, *above), "fwid"),
        ((unread, brom, *above), "fwid"),
    ):
        assert failed(judge(gpu, chain=pem(certificates)))[0] == check


def test_report_form_is_exact(gpu: SimulatedDevice) -> None:
    """Header, counts, lengths and blocks, each changed and signed again."""
    good = gpu.report(NONCE)
    opaque_at = 45 + 64 * 55 + 32
    for patches in (
        {1: b"\xe1"}, {2: b"\0"}, {3: b"\1"}, {37: b"\x12"}, {38: b"\x61"}, {41: b"\x3f"}, {41: b"\x41"},
        {42: b"\xbf"}, {42: b"\xc1"}, {45: b"\0"}, {45: b"\2"}, {46: b"\2"}, {47: b"\x32"}, {50: b"\x2f"},
        {opaque_at: b"\0"}, {opaque_at: b"\xff\xff"},
    ):  # fmt: skip
        result = judge(gpu, gpu.report(NONCE, patches=patches))
        assert failed(result)[0] == "gpu_report_format", patches
    for report in (good + b"\0", good[:-1], good[:37], good[:2], gpu.report(NONCE, tail=b"\3\0\1\0x")):
        assert failed(judge(gpu, report))[0] == "gpu_report_format"
    assert judge(gpu, b"PK").verdict is Verdict.UNREADABLE


def test_signature_form_is_exact(gpu: SimulatedDevice) -> None:
    """Zero, too large, little-endian and swapped r and s."""
    good = gpu.report(NONCE)
    r, s = good[-96:-48], good[-48:]
    for signature in (bytes(96), b"\xff" * 96, r[::-1] + s[::-1], s + r, r + bytes(48)):
        assert failed(judge(gpu, good[:-96] + signature)) == ["gpu_report_sig"]
    assert failed(judge(gpu, replace(gpu, leaf_key=new_key()).report(NONCE))) == ["gpu_report_sig"]


def test_inputs_of_the_caller_are_errors(gpu: SimulatedDevice) -> None:
    """No device, or a nonce of another length, is not a verdict."""
    with pytest.raises(EvidenceMalformed):
        judge(gpu, nonce=b"\1" * 31)
    with pytest.raises(EvidenceMalformed):
        verify_nvidia([], NvidiaEndorsements(), now_unix_s=0, nonce=NONCE)
    assert failed(judge(gpu, nonce=b"\1" * 32)) == ["gpu_nonce"]
