"""Read NVIDIA's reference integrity manifests (RIM): authenticated first, their values read afterwards.

Source: ISO/IEC 19770-2 (SWID), TCG RIM Information Model 1.01, NVIDIA/nvtrust `rim/`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from lxml import etree

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.nvidia.certificates import Path, judge_path, load_certificate
from confide_attestation.nvidia.ids import NvidiaCheck
from confide_attestation.nvidia.xmldsig import MAX_DOCUMENT_BYTES, parse_strict, split_signed
from confide_attestation.snp.certificates import library_warnings_ignored

CHAIN_LENGTH = 4
VALUES = 64
MAX_ALTERNATIVES = 16
DIGEST_BYTES = 48
_SWID = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
_RIM = "{https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/}"
_HASH = "{http://www.w3.org/2001/04/xmlenc#sha384}Hash"
_MANIFEST = re.compile(rb"<(?:[A-Za-z0-9_.-]+:)?(?:SoftwareIdentity|ReferenceIntegrityManifest)[\s/>]")
_FIRMWARE_VERSION = re.compile(r"[0-9A-F]{2}(?:\.[0-9A-F]{2}){4}")
_DRIVER_VERSION = re.compile(r"\d{3}(?:\.\d{2,3}){1,2}")
_HEX_DIGEST = re.compile(r"[0-9a-fA-F]{96}")
# Numbers are written in one way only, so they are looked up.
_INDICES = {str(number): number for number in range(VALUES)}
_COUNTS = {str(number): number for number in range(1, MAX_ALTERNATIVES + 1)}
_RESOURCE = {"type", "index", "active", "alternatives", "name", "size"}
_ATTRIBUTES = {count: _RESOURCE | {f"{_HASH}{n}" for n in range(count)} for count in _COUNTS.values()}


class RimKind(StrEnum):
    DRIVER = "driver"
    VBIOS = "VBIOS"
    SWITCH_BIOS = "switch BIOS"


@dataclass(frozen=True)
class Rim:
    """What a manifest says, read from the canonical bytes that its signature covers; indices from 0."""

    kind: RimKind
    version: str
    product: str
    oemid: str
    golden: Mapping[int, tuple[bytes, ...]]


@dataclass(frozen=True)
class JudgedRim:
    """A manifest that was read; `faults` names what is wrong with it, and `rim` is None unless nothing is.

    `path` is None if the certificates could not be read.
    """

    faults: Mapping[NvidiaCheck, str]
    path: Path | None
    rim: Rim | None


def looks_like_rim(data: bytes) -> bool:
    """Say whether a file is of the kind at all, well-formed or not: XML with a manifest's root."""
    return data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and bool(_MANIFEST.search(data[:8192]))


def judge_rim(data: bytes, root_spki_sha256: bytes) -> JudgedRim:
    """Judge form, certificates and signature, then read; remembered by its bytes, if they are not too many.

    Does not check: validity in time, revocation, that it is meant for a certain device.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        fault = f"a manifest of {len(data)} bytes is too large; at most {MAX_DOCUMENT_BYTES}"
        return JudgedRim({NvidiaCheck.RIM_FORMAT: fault}, None, None)
    return _judge(data, root_spki_sha256)


@lru_cache(maxsize=256)
@library_warnings_ignored()
def _judge(data: bytes, root_spki_sha256: bytes) -> JudgedRim:
    try:
        document = split_signed(parse_strict(data))
        certificates = [load_certificate(der) for der in document.certificates]
    except EvidenceMalformed as fault:
        return JudgedRim({NvidiaCheck.RIM_FORMAT: str(fault)}, None, None)
    if not certificates:
        return JudgedRim({NvidiaCheck.RIM_FORMAT: "the signature has no certificate"}, None, None)
    path = judge_path(certificates)
    faults: dict[NvidiaCheck, str] = {}
    if path.root_spki_sha256 != root_spki_sha256:
        faults[NvidiaCheck.RIM_ROOT_PIN] = "its certificates do not lead to NVIDIA's root for manifests"
    if len(certificates) != CHAIN_LENGTH:
        faults[NvidiaCheck.RIM_CHAIN] = f"it has {len(certificates)} certificates, not {CHAIN_LENGTH}"
    elif path.role_faults or path.signature_faults:
        unsigned = f"not signed by their issuers: {path.signature_faults}" if path.signature_faults else ""
        faults[NvidiaCheck.RIM_CHAIN] = "; ".join(filter(None, (path.role_faults, unsigned)))
    # The key is the judged leaf's, and no other that the document may name.
    if NvidiaCheck.RIM_CHAIN not in faults and not document.holds_under(path.leaf_key):
        faults[NvidiaCheck.RIM_SIG] = "its signature does not hold: it was changed after NVIDIA signed it"
    if faults:
        return JudgedRim(faults, path, None)
    try:
        return JudgedRim({}, path, _read(parse_strict(document.covered)))
    except EvidenceMalformed as fault:
        return JudgedRim({NvidiaCheck.RIM_SCHEMA: str(fault)}, path, None)


def _read(root: etree._Element) -> Rim:
    """Read a manifest. Raises: EvidenceMalformed."""
    if root.tag != f"{_SWID}SoftwareIdentity":
        raise EvidenceMalformed("the root is not SWID's SoftwareIdentity")
    if [child.tag for child in root] != [_SWID + name for name in ("Entity", "Meta", "Payload")]:
        raise EvidenceMalformed("the root does not hold exactly Entity, Meta, Payload and Signature")
    entity, meta, payload = root
    if (
        len(entity)
        or len(meta)
        or any((each.text or "").strip() or (each.tail or "").strip() for each in root.iter())
    ):
        raise EvidenceMalformed("there is text, or an element, where none belongs")
    version, product = _attribute(meta, "colloquialVersion").upper(), _attribute(meta, "product")
    if product != _attribute(root, "name"):
        raise EvidenceMalformed("root and Meta name different products")
    return Rim(
        kind=_kind(_attribute(meta, "edition"), version),
        version=version,
        product=product,
        oemid=_attribute(meta, f"{_RIM}FirmwareManufacturerId"),
        golden=_golden(payload),
    )


def _kind(edition: str, version: str) -> RimKind:
    firmware = bool(_FIRMWARE_VERSION.fullmatch(version))
    if edition == "SWITCH" and firmware:
        return RimKind.SWITCH_BIOS
    if edition == "GPU" and firmware:
        return RimKind.VBIOS
    if edition == "GPU" and _DRIVER_VERSION.fullmatch(version):
        return RimKind.DRIVER
    raise EvidenceMalformed(f"version {version[:40]} of edition {edition[:20]} is of no kind known here")


def _golden(payload: etree._Element) -> dict[int, tuple[bytes, ...]]:
    """Read the active values; inactive ones must have the same form."""
    golden: dict[int, tuple[bytes, ...]] = {}
    seen: set[int] = set()
    for resource in payload:
        words = {str(name): str(value) for name, value in resource.items()}
        if resource.tag != f"{_SWID}Resource" or len(resource) or words.get("type") != "Measurement":
            raise EvidenceMalformed("the payload holds something else than measurements")
        index, count = _INDICES.get(words.get("index", "")), _COUNTS.get(words.get("alternatives", ""))
        if index is None or index in seen:
            raise EvidenceMalformed(
                f"a measurement has no index from 0 to {VALUES - 1}, or one that is there twice"
            )
        seen.add(index)
        if count is None or words.get("size") != str(DIGEST_BYTES):
            raise EvidenceMalformed(
                f"measurement {index} has no alternative, too many, or not {DIGEST_BYTES} bytes"
            )
        if words.keys() != _ATTRIBUTES[count]:
            raise EvidenceMalformed(f"measurement {index} has not exactly its attributes and {count} hashes")
        values = [words[f"{_HASH}{number}"] for number in range(count)]
        if words["active"] not in ("True", "False") or not all(map(_HEX_DIGEST.fullmatch, values)):
            raise EvidenceMalformed(f"measurement {index} is neither active nor inactive, or no SHA-384 digest")
        if words["active"] == "True":
            golden[index] = tuple(map(bytes.fromhex, values))
    if not golden:
        raise EvidenceMalformed("no measurement is active")
    return golden


def _attribute(element: etree._Element, name: str) -> str:
    value = element.get(name)
    if value is None:
        raise EvidenceMalformed(f"{etree.QName(element).localname} has no {etree.QName(name).localname}")
    return value
