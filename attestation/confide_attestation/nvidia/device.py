"""Read what a report says of its device: versions, product, mode; makes no trust claim."""

from dataclasses import dataclass
from enum import StrEnum

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.nvidia.certificates import PDI_BYTES
from confide_attestation.nvidia.spdm import Opaque, SpdmReport

NO_PDI = bytes(PDI_BYTES)
ENABLED, DISABLED = b"\xaa", b"\x55"
_MODES = {b"\0\0": "SPT", b"\1\0": "MPT", b"\2\0": "PPCIE"}
_SWITCH_PRODUCT = "5612_0002_890"


class Arch(StrEnum):
    HOPPER = "HOPPER"
    BLACKWELL = "BLACKWELL"
    LS10 = "LS10"


@dataclass(frozen=True)
class DeviceFields:
    """A report's own words of its device. PDIs are in the order of bytes that switches use for themselves."""

    arch: Arch
    chip: str
    driver: str | None
    firmware: str
    firmware_rim_id: str
    driver_rim_id: str | None
    mode: str | None
    nvdec0: bytes | None
    switch_pdis: tuple[bytes, ...]
    gpu_pdis: tuple[bytes, ...]
    locked: bool | None

    @property
    def is_switch(self) -> bool:
        return self.arch is Arch.LS10


def read_fields(report: SpdmReport, arch: Arch, chip: str) -> DeviceFields:
    """Read the fields that a report of `arch` must have; `chip` is the certificate's word for it.

    Raises: EvidenceMalformed naming the field.
    """
    return _switch(report, chip) if arch is Arch.LS10 else _gpu(report, arch, chip)


def _gpu(report: SpdmReport, arch: Arch, chip: str) -> DeviceFields:
    raw = _field(report, Opaque.VBIOS_VERSION)
    if len(raw) != 8:
        raise EvidenceMalformed("VBIOS_VERSION has not 8 bytes")
    digits = raw[::-1].hex().upper()
    vbios = ".".join((digits[8:10], digits[10:12], digits[12:14], digits[14:16], digits[6:8]))
    driver = _text(report, Opaque.DRIVER_VERSION)
    product = [_text(report, kind) for kind in (Opaque.PROJECT, Opaque.PROJECT_SKU, Opaque.CHIP_SKU)]
    if Opaque.CHIP_INFO in report.opaque:
        chip = _text(report, Opaque.CHIP_INFO)
    prefix = "NV_GPU_DRIVER_GH100" if arch is Arch.HOPPER else f"NV_GPU_CC_DRIVER_{chip}"
    return DeviceFields(
        arch=arch,
        chip=chip,
        driver=driver,
        firmware=vbios,
        firmware_rim_id="_".join(("NV_GPU_VBIOS", *product, vbios.replace(".", ""))),
        driver_rim_id=f"{prefix}_{driver}",
        mode=_mode(report, arch),
        nvdec0=report.opaque.get(Opaque.NVDEC0_STATUS),
        # GPUs name switches in the reverse of the order in which switches name themselves.
        switch_pdis=tuple(pdi[::-1] for pdi in _pdis(report, Opaque.SWITCH_PDI)),
        gpu_pdis=(),
        locked=None,
    )


def _switch(report: SpdmReport, chip: str) -> DeviceFields:
    bios = _text(report, Opaque.VBIOS_VERSION).upper()
    locked = report.opaque.get(Opaque.LOCK_SWITCH_STATUS)
    # The first half of the 16 places names GPUs, the second half the ports that lead to them.
    half = 8 * PDI_BYTES
    return DeviceFields(
        arch=Arch.LS10,
        chip=chip,
        driver=None,
        firmware=bios,
        firmware_rim_id=f"NV_SWITCH_BIOS_{_SWITCH_PRODUCT}_{bios.replace('.', '')}",
        driver_rim_id=None,
        mode=None,
        nvdec0=None,
        switch_pdis=_pdis(report, Opaque.SWITCH_PDI),
        gpu_pdis=_pdis(report, Opaque.SWITCH_GPU_PDIS, half),
        locked=None if locked is None else any(locked),
    )


def _field(report: SpdmReport, kind: Opaque) -> bytes:
    try:
        return report.opaque[kind]
    except KeyError:
        raise EvidenceMalformed(f"{kind.name} is missing") from None


def _text(report: SpdmReport, kind: Opaque) -> str:
    text = _field(report, kind).rstrip(b"\0").decode("ascii", "replace")
    if not text or not all(each.isascii() and (each.isalnum() or each in ".-_") for each in text):
        raise EvidenceMalformed(f"{kind.name} is not text")
    return text


def _mode(report: SpdmReport, arch: Arch) -> str | None:
    """Return the mode that a GPU reports, "unknown" if its words contradict one another; None if it names none and
    could be in either of two.

    Drivers before 580 report no flag. A Hopper is then in single-GPU mode unless it reports protected PCIe: it has
    no third, its NVLink is never encrypted. A Blackwell without the flag could be in single- or multi-GPU mode.
    """
    flag, protected = (report.opaque.get(kind) for kind in (Opaque.FEATURE_FLAG, Opaque.PROTECTED_PCIE_STATUS))
    if protected not in (None, ENABLED, DISABLED):
        return "unknown"
    if flag is None:
        return "PPCIE" if protected == ENABLED else "SPT" if arch is Arch.HOPPER else None
    mode = _MODES.get(flag, "unknown")
    return mode if protected is None or (mode == "PPCIE") == (protected == ENABLED) else "unknown"


def _pdis(report: SpdmReport, kind: Opaque, limit: int | None = None) -> tuple[bytes, ...]:
    data = report.opaque.get(kind, b"")
    if len(data) % PDI_BYTES:
        raise EvidenceMalformed(f"{kind.name} is cut off")
    places = data[:limit]
    return tuple(places[at : at + PDI_BYTES] for at in range(0, len(places), PDI_BYTES))
