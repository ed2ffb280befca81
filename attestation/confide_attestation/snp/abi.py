"""Parse attestation reports; makes no trust claim.

Source: AMD 56860 (SEV-SNP Firmware ABI), table "ATTESTATION_REPORT Structure", versions 2 to 5.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from confide_attestation.errors import EvidenceMalformed

REPORT_BYTES = 1184
SIGNED_BYTES = 0x2A0
VERSIONS = range(2, 6)
COMPONENT_BYTES = 48


class Product(StrEnum):
    """A line of processors that shares one ARK. Bergamo and Siena belong to Genoa."""

    MILAN = "Milan"
    GENOA = "Genoa"
    TURIN = "Turin"


class Signer(StrEnum):
    VCEK = "VCEK"
    VLEK = "VLEK"


SIGNING_KEYS: Mapping[int, Signer] = {0: Signer.VCEK, 1: Signer.VLEK}

_ZEN3_ZEN4_TCB = {"bl": 0, "tee": 1, "snp": 6, "ucode": 7}
# The byte of each component: the layout changed with Turin, so it is chosen by product, never guessed.
TCB_LAYOUT: Mapping[Product, Mapping[str, int]] = {
    Product.MILAN: _ZEN3_ZEN4_TCB,
    Product.GENOA: _ZEN3_ZEN4_TCB,
    Product.TURIN: {"fmc": 0, "bl": 1, "tee": 2, "snp": 3, "ucode": 7},
}


class PolicyBit:
    """Guest policy, bits 16 and up."""

    SMT = 1 << 16
    MUST_BE_ONE = 1 << 17
    MIGRATE_MA = 1 << 18
    DEBUG = 1 << 19
    SINGLE_SOCKET = 1 << 20
    CXL = 1 << 21
    MEM_AES_256_XTS = 1 << 22
    RAPL_DISABLED = 1 << 23
    CIPHERTEXT_HIDING = 1 << 24
    PAGE_SWAP_DISABLED = 1 << 25
    MUST_BE_ZERO = ~((1 << 26) - 1)


class PlatformBit:
    SMT = 1 << 0
    TSME = 1 << 1
    ECC = 1 << 2
    RAPL_DISABLED = 1 << 3
    CIPHERTEXT_HIDING = 1 << 4
    ALIAS_CHECK_COMPLETE = 1 << 5
    TIO = 1 << 7


@dataclass(frozen=True)
class Firmware:
    """Firmware version, in the order in which versions compare."""

    major: int
    minor: int
    build: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.build}"


@dataclass(frozen=True)
class SnpReport:
    """The report's fields as they lie; nothing is judged. TCBs are raw: their layout depends on the product."""

    raw: bytes
    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    signature_algo: int
    current_tcb: bytes
    platform_info: int
    author_key_enabled: bool
    chip_key_masked: bool
    signing_key: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: bytes
    cpuid: tuple[int, int, int] | None
    chip_id: bytes
    committed_tcb: bytes
    current_firmware: Firmware
    committed_firmware: Firmware
    launch_tcb: bytes
    launch_mit_vector: int | None
    current_mit_vector: int | None
    signature_r: int
    signature_s: int
    signature_padding: bytes
    reserved: bytes

    @property
    def signed(self) -> bytes:
        return self.raw[:SIGNED_BYTES]


def parse_report(data: bytes) -> SnpReport:
    """Parse a report of a known version.

    Raises: EvidenceMalformed with check `report_size` or `report_version`.
    Does not check: any field's value, reserved bytes, the signature.
    """
    if len(data) != REPORT_BYTES:
        raise EvidenceMalformed(f"a report has {REPORT_BYTES} bytes, this input has {len(data)}", "report_size")
    version = _uint(data, 0, 4)
    if version not in VERSIONS:
        raise EvidenceMalformed(f"version {version} is unknown; 2 to 5 are known", "report_version")
    flags = _uint(data, 0x48, 4)
    reserved = (flags >> 5).to_bytes(4, "little") + data[0x4C:0x50] + data[0x18B:0x1A0] + data[0x1EB:0x1EC]
    reserved += data[0x1EF:0x1F0] + data[0x208:SIGNED_BYTES]
    if version < 3:
        reserved += data[0x188:0x18B]
    if version < 5:
        reserved += data[0x1F8:0x208]
    r, s = data[0x2A0:0x2E8], data[0x2E8:0x330]
    return SnpReport(
        raw=data,
        version=version,
        guest_svn=_uint(data, 0x4, 4),
        policy=_uint(data, 0x8, 8),
        family_id=data[0x10:0x20],
        image_id=data[0x20:0x30],
        vmpl=_uint(data, 0x30, 4),
        signature_algo=_uint(data, 0x34, 4),
        current_tcb=data[0x38:0x40],
        platform_info=_uint(data, 0x40, 8),
        author_key_enabled=bool(flags & 1),
        chip_key_masked=bool(flags & 2),
        signing_key=flags >> 2 & 7,
        report_data=data[0x50:0x90],
        measurement=data[0x90:0xC0],
        host_data=data[0xC0:0xE0],
        id_key_digest=data[0xE0:0x110],
        author_key_digest=data[0x110:0x140],
        report_id=data[0x140:0x160],
        report_id_ma=data[0x160:0x180],
        reported_tcb=data[0x180:0x188],
        cpuid=(data[0x188], data[0x189], data[0x18A]) if version >= 3 else None,
        chip_id=data[0x1A0:0x1E0],
        committed_tcb=data[0x1E0:0x1E8],
        current_firmware=Firmware(build=data[0x1E8], minor=data[0x1E9], major=data[0x1EA]),
        committed_firmware=Firmware(build=data[0x1EC], minor=data[0x1ED], major=data[0x1EE]),
        launch_tcb=data[0x1F0:0x1F8],
        launch_mit_vector=_uint(data, 0x1F8, 8) if version >= 5 else None,
        current_mit_vector=_uint(data, 0x200, 8) if version >= 5 else None,
        signature_r=int.from_bytes(r[:COMPONENT_BYTES], "little"),
        signature_s=int.from_bytes(s[:COMPONENT_BYTES], "little"),
        signature_padding=r[COMPONENT_BYTES:] + s[COMPONENT_BYTES:] + data[0x330:],
        reserved=reserved,
    )


def product_of_cpuid(cpuid: tuple[int, int, int]) -> Product | None:
    """Name the product of a CPUID (family, model, stepping), or None if it is unknown."""
    family, model, _ = cpuid
    if family == 0x19:
        if model < 0x10:
            return Product.MILAN
        if 0x10 <= model < 0x20 or 0xA0 <= model < 0xB0:
            return Product.GENOA
    if family == 0x1A and model < 0x20:
        return Product.TURIN
    return None


def decode_tcb(raw: bytes, product: Product) -> dict[str, int]:
    """Read the components of a TCB version by the product's layout."""
    return {name: raw[at] for name, at in TCB_LAYOUT[product].items()}


def tcb_reserved(raw: bytes, product: Product) -> bytes:
    """Return the bytes of a TCB version that the product's layout leaves unused."""
    used = set(TCB_LAYOUT[product].values())
    return bytes(value for at, value in enumerate(raw) if at not in used)


def _uint(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")
