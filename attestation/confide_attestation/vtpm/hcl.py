"""Parse Azure's HCL report and the runtime data in it; makes no trust claim.

Source: Microsoft, "Azure confidential VM guest attestation", "Attestation report" and "Runtime data"; integers are
little-endian. The report lies in the vTPM's NV index 0x01400001: a header of 32 bytes, the hardware's own report in
a place of 1,184 bytes, a header of 20 bytes, the runtime data (JSON), zero bytes up to the index's size.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.snp.abi import REPORT_BYTES
from confide_attestation.strict_json import load_json
from confide_attestation.tdx.abi import TdxQuote
from confide_attestation.vtpm.ids import VtpmCheck

MAX_HCL_BYTES = 8 * 1024
MAGIC = b"HCLA"
VERSIONS = (1, 2)
TYPE_ATTESTATION = 2
HASH_SHA256 = 1
HEADER_BYTES = 32
RUNTIME_HEADER_AT = HEADER_BYTES + REPORT_BYTES
RUNTIME_AT = RUNTIME_HEADER_AT + 20
TDREPORT_BYTES = 1024
AK_KID = "HCLAkPub"


class Tee(IntEnum):
    """The hardware whose report the HCL report carries."""

    SNP = 2
    TDX = 4


# Where a TDREPORT (Intel TDX Module ABI, "TDREPORT_STRUCT") has what a quote's body has: offset and size.
TDREPORT_FIELDS: Mapping[str, tuple[int, int]] = {
    "report_data": (128, 64),
    "tee_tcb_svn": (264, 16),
    "mr_seam": (280, 48),
    "mr_signer_seam": (328, 48),
    "seam_attributes": (376, 8),
    "td_attributes": (512, 8),
    "xfam": (520, 8),
    "mr_td": (528, 48),
    "mr_config_id": (576, 48),
    "mr_owner": (624, 48),
    "mr_owner_config": (672, 48),
    "rtmr0": (720, 48),
    "rtmr1": (768, 48),
    "rtmr2": (816, 48),
    "rtmr3": (864, 48),
}
# Each digest in a TDREPORT and what it is of. MAC and CPUSVN are for the same machine alone and prove nothing.
_TDREPORT_DIGESTS = ((32, 256, 495), (80, 512, 1024))


@dataclass(frozen=True)
class HclReport:
    """The report's parts as they lie; nothing is judged."""

    version: int
    tee: Tee
    hardware: bytes
    hash_algorithm: int
    runtime: bytes


@dataclass(frozen=True)
class Runtime:
    """What the paravisor says of the machine: public keys by their order, and its configuration."""

    keys: tuple[Mapping[str, Any], ...]
    secure_boot: bool
    console_enabled: bool
    tpm_enabled: bool
    vm_id: str
    user_data: bytes


def parse_hcl(data: bytes) -> HclReport:
    """Parse an HCL report, with the index's zero bytes after it or without.

    Raises: EvidenceMalformed with one of `HCL_CHECKS`.
    Does not check: the hardware's report, the hash algorithm's number, the runtime data.
    """
    if not RUNTIME_AT < len(data) <= MAX_HCL_BYTES:
        limits = f"expected an HCL report of {RUNTIME_AT + 1} to {MAX_HCL_BYTES} bytes"
        raise EvidenceMalformed(f"{limits}, found {len(data)} bytes", VtpmCheck.HCL_SIZE)
    if data[:4] != MAGIC:
        raise EvidenceMalformed(
            f"expected an HCL report (HCLA), found bytes that begin {data[:4].hex()}", VtpmCheck.HCL_MAGIC
        )
    version, size, kind = (_uint(data, at) for at in (4, 8, 12))
    if version not in VERSIONS:
        raise EvidenceMalformed(f"version {version} is unknown; 1 and 2 are known", VtpmCheck.HCL_VERSION)
    if kind != TYPE_ATTESTATION:
        raise EvidenceMalformed(f"request type {kind} is not 2, attestation", VtpmCheck.HCL_TYPE)
    runtime_size, runtime_version, tee, algorithm, length = (
        _uint(data, RUNTIME_HEADER_AT + 4 * i) for i in range(5)
    )
    if tee not in set(Tee):
        raise EvidenceMalformed(f"TEE type {tee} is neither 2 (SEV-SNP) nor 4 (TDX)", VtpmCheck.HCL_TEE_TYPE)
    end = RUNTIME_AT + length
    if end > len(data) or size != end or runtime_size != 20 + length or runtime_version != 1:
        raise EvidenceMalformed(
            f"{len(data)} bytes hold a report that says {size} and runtime data of {length}", VtpmCheck.HCL_LENGTHS
        )
    hardware_size = REPORT_BYTES if tee == Tee.SNP else TDREPORT_BYTES
    if any(data[16:HEADER_BYTES] + data[HEADER_BYTES + hardware_size : RUNTIME_HEADER_AT] + data[end:]):
        raise EvidenceMalformed("a reserved field or the padding is not zero", VtpmCheck.HCL_RESERVED)
    hardware = data[HEADER_BYTES : HEADER_BYTES + hardware_size]
    return HclReport(version, Tee(tee), hardware, algorithm, data[RUNTIME_AT:end])


def parse_runtime(data: bytes) -> Runtime:
    """Parse the runtime data: JSON in which no name is there twice.

    Raises: EvidenceMalformed with check `runtime_format`. Does not check: the keys.
    """
    tree = load_json(data, VtpmCheck.RUNTIME_FORMAT)
    if not isinstance(tree, dict):
        raise _malformed("one JSON object")
    keys, machine, user_data = tree.get("keys"), tree.get("vm-configuration"), tree.get("user-data", "")
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise _malformed("a list of keys")
    if not isinstance(machine, dict):
        raise _malformed("the machine's configuration")
    vm_id = machine.get("vmUniqueId")
    if not isinstance(vm_id, str):
        raise _malformed("vmUniqueId")
    if not isinstance(user_data, str) or len(user_data) not in (0, 128):
        raise _malformed("user data of 64 bytes")
    try:
        data_of_user = binascii.unhexlify(user_data)
    except ValueError:
        raise _malformed("user data in hexadecimal") from None
    return Runtime(
        keys=tuple(keys),
        secure_boot=_switch(machine, "secure-boot"),
        console_enabled=_switch(machine, "console-enabled"),
        tpm_enabled=_switch(machine, "tpm-enabled"),
        vm_id=vm_id,
        user_data=data_of_user,
    )


def rsa_number(key: Mapping[str, Any], name: str) -> int:
    """Read a number of a JWK (RFC 7518 section 6.3.1); 0 if it is not there in that form."""
    text = key.get(name)
    if not isinstance(text, str) or not text or not text.isascii() or "=" in text:
        return 0
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        return 0
    return int.from_bytes(data, "big")


def tdreport_faults(report: bytes) -> str:
    """Name what is wrong with a TDREPORT's form; nothing if all is well."""
    faults = []
    if report[:4] != b"\x81\0\0\0" or any(report[4:16] + report[192:224] + report[495:512]):
        faults.append("its type is not that of a TD, or a reserved field is not zero")
    for at, start, end in _TDREPORT_DIGESTS:
        if hashlib.sha384(report[start:end]).digest() != report[at : at + 48]:
            faults.append(f"the digest of bytes {start} to {end} is not the one at byte {at}")
    return "; ".join(faults)


def tdreport_differences(report: bytes, quote: TdxQuote) -> list[str]:
    """Name the fields in which a TDREPORT and a quote are of different TDs."""
    return [name for name, (at, size) in TDREPORT_FIELDS.items() if report[at : at + size] != quote.field(name)]


def _switch(machine: Mapping[str, Any], name: str) -> bool:
    value = machine.get(name)
    if not isinstance(value, bool):
        raise _malformed(f"the switch {name}")
    return value


def _malformed(lacks: str) -> EvidenceMalformed:
    return EvidenceMalformed(f"the runtime data lack {lacks}", VtpmCheck.RUNTIME_FORMAT)


def _uint(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")
