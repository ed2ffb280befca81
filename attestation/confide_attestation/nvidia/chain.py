"""Authenticate a device: five certificates, leaf first, up to NVIDIA's root key.

Does not check: the report (`verify`), revocation (`ocsp`).
"""

import re
from dataclasses import dataclass
from functools import cache, lru_cache

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.nvidia.certificates import (
    Path,
    common_name,
    judge_path,
    load_certificate,
    pdi,
    spki_sha256,
    split_pem,
)
from confide_attestation.nvidia.device import Arch
from confide_attestation.roots import nvidia
from confide_attestation.snp.certificates import library_warnings_ignored

CHAIN_LENGTH = 5
MAX_CHAIN_BYTES = 64 * 1024
_LEAF_NAME = re.compile(r"([A-Z0-9_]+) [A-Z]\d\d (?:GSP|FSP) FMC LF")
_BROM_NAME = re.compile(r"([A-Z0-9_]+) [A-Z]\d\d (?:GSP|FSP) BROM")
_CHIPS = {"GH": Arch.HOPPER, "GB": Arch.BLACKWELL, "LS": Arch.LS10}


@dataclass(frozen=True)
class NvidiaRoots:
    """The keys that are trusted, by SHA-256 of their SubjectPublicKeyInfo."""

    device_spki_sha256: bytes
    rim_spki_sha256: bytes
    simulated: bool


@cache
def nvidia_roots() -> NvidiaRoots:
    """Return NVIDIA's own, packaged with this code."""
    return NvidiaRoots(nvidia.DEVICE_ROOT_SPKI_SHA256, nvidia.RIM_ROOT_SPKI_SHA256, simulated=False)


def simulated_roots(device_spki_sha256: bytes, rim_spki_sha256: bytes) -> NvidiaRoots:
    """Return the roots of simulated hardware that a policy pins."""
    return NvidiaRoots(device_spki_sha256, rim_spki_sha256, simulated=True)


@dataclass(frozen=True)
class DeviceChain:
    """A device's certificates as read; `arch` and `chip` are None if their names are no device's known here.
    `pdi` names the chip, as the provisioner certified it."""

    path: Path
    arch: Arch | None
    chip: str | None
    pdi: bytes | None

    @property
    def ueid(self) -> str:
        """Return the leaf's serial number, which names device and firmware, as NVIDIA writes it."""
        return str(self.path.certificates[0].serial_number)

    @property
    def chip_key(self) -> bytes:
        """Return SHA-256 of the key of the boot ROM, which signs every leaf; a chip without a PDI has one too."""
        return spki_sha256(self.path.certificates[1])

    @property
    def hwmodel(self) -> str:
        return common_name(self.path.certificates[1].subject)


@lru_cache(maxsize=256)
@library_warnings_ignored()
def read_chain(pem: bytes) -> DeviceChain | int:
    """Read a chain, remembered by its bytes, or return how many certificates there are instead of five.

    Raises: EvidenceMalformed if it is no PEM file of certificates.
    """
    if len(pem) > MAX_CHAIN_BYTES:
        raise EvidenceMalformed(f"a certificate chain of {len(pem)} bytes is too large")
    certificates = [load_certificate(der) for der in split_pem(pem)]
    if len(certificates) != CHAIN_LENGTH:
        return len(certificates)
    path = judge_path(certificates)
    leaf = _LEAF_NAME.fullmatch(common_name(certificates[0].subject))
    brom = _BROM_NAME.fullmatch(common_name(certificates[1].subject))
    chip = leaf[1] if leaf and brom and leaf[1] == brom[1] else None
    arch = None if chip is None else _CHIPS.get(chip[:2])
    return DeviceChain(path, arch, chip, pdi(certificates[1]))
