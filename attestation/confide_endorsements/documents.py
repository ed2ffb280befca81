"""Kinds of documents, what names one, and when each ends by its own words. Reads bytes alone; judges nothing."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.evidence import Endorsements
from confide_attestation.nvidia.ocsp import read_answer
from confide_attestation.nvidia.rim import judge_rim, looks_like_rim
from confide_attestation.pem import pem_blocks
from confide_attestation.snp.certificates import library_warnings_ignored, load_certificate, load_crl
from confide_attestation.strict_json import load_json
from confide_attestation.tdx.collateral import Collateral, QeIdentity, TcbInfo, parse_collateral
from cryptography.x509 import ocsp
from pydantic import ValidationError

MAX_DOCUMENT_BYTES = 1 << 20


class Kind(StrEnum):
    """What a document is. Intel's four are the parts of its collateral that come in one answer, as JSON."""

    AMD_VCEK = "amd-vcek"
    AMD_CERT_CHAIN = "amd-cert-chain"
    AMD_CRL = "amd-crl"
    INTEL_TCB_INFO = "intel-tcb-info"
    INTEL_QE_IDENTITY = "intel-qe-identity"
    INTEL_PCK_CRL = "intel-pck-crl"
    INTEL_ROOT_CRL = "intel-root-crl"
    NVIDIA_RIM = "nvidia-rim"
    NVIDIA_OCSP = "nvidia-ocsp"


TITLES: Final[Mapping[Kind, str]] = {
    Kind.AMD_VCEK: "AMD's certificate of the chip (VCEK)",
    Kind.AMD_CERT_CHAIN: "AMD's certificate chain",
    Kind.AMD_CRL: "AMD's revocation list",
    Kind.INTEL_TCB_INFO: "Intel's TDX TCB info",
    Kind.INTEL_QE_IDENTITY: "Intel's identity of the quoting enclave",
    Kind.INTEL_PCK_CRL: "Intel's PCK revocation list",
    Kind.INTEL_ROOT_CRL: "Intel's root revocation list",
    Kind.NVIDIA_RIM: "NVIDIA's manifest (RIM)",
    Kind.NVIDIA_OCSP: "NVIDIA's OCSP answer",
}
# What a vendor issues once for ever; everything else is asked for again when it has aged.
LASTING: Final = frozenset({Kind.AMD_VCEK, Kind.AMD_CERT_CHAIN})


@dataclass(frozen=True)
class Name:
    """Which document: its kind, its id among them, and where its vendor publishes it."""

    kind: Kind
    id: str
    url: str

    @property
    def title(self) -> str:
        return TITLES[self.kind]


@dataclass(frozen=True)
class Ending:
    """When a document ends; None if it cannot be read."""

    title: str
    not_after_unix_s: int | None


def document_end(kind: Kind, data: bytes) -> int:
    """Return when a document ends, in Unix seconds, by what stands in it.

    Raises: EvidenceMalformed if it is none of its kind. Does not check: any signature, whose it is.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise EvidenceMalformed(f"a document of {len(data)} bytes is too large")
    return _ENDS[kind](data)


def endings(endorsements: Endorsements) -> tuple[Ending, ...]:
    """Return when each document of a machine's endorsements ends; never raises for bad ones."""
    found: list[Ending] = []
    if endorsements.snp is not None:
        snp = endorsements.snp
        parts = {"VCEK or VLEK": snp.vek, "ASK": snp.ask, "ARK": snp.ark}
        found += [_ending(title, _certificate, der) for title, der in parts.items() if der is not None]
        if snp.crl is not None:
            found.append(_ending(TITLES[Kind.AMD_CRL], _crl, snp.crl))
    if endorsements.tdx is not None:
        found += _collateral_endings(endorsements.tdx.collateral)
    if endorsements.nvidia is not None:
        nvidia = endorsements.nvidia
        found += [_ending(f"NVIDIA's manifest {n}", _rim, rim) for n, rim in enumerate(nvidia.rims, 1)]
        answers = enumerate(nvidia.ocsp or (), 1)
        found += [_ending(f"NVIDIA's OCSP answer {n}", _ocsp, each.der) for n, each in answers]
    return tuple(found)


def intel_parts(data: bytes) -> dict[str, str]:
    """Read the parts of Intel's collateral that one document holds. Raises: EvidenceMalformed."""
    tree = load_json(data, "format")
    if not isinstance(tree, dict) or not tree or not all(isinstance(each, str) for each in tree.values()):
        raise EvidenceMalformed("expected parts of Intel's collateral")
    return tree


def _ending(title: str, end_of: Callable[[bytes], int], data: bytes) -> Ending:
    try:
        return Ending(title, end_of(data))
    except EvidenceMalformed:
        return Ending(title, None)


def _collateral_endings(data: bytes) -> list[Ending]:
    try:
        collateral = parse_collateral(data)
    except EvidenceMalformed:
        return [Ending("Intel's collateral", None)]
    return [_part_ending(collateral, kind) for kind in _INTEL_PARTS]


def _part_ending(collateral: Collateral, kind: Kind) -> Ending:
    parts = {name: collateral.parts[name] for name in _INTEL_PARTS[kind]}
    texts = {name: value.hex() if isinstance(value, bytes) else value for name, value in parts.items()}
    return _ending(TITLES[kind], _ENDS[kind], json.dumps(texts).encode())


@library_warnings_ignored()
def _certificates(ders: Iterable[bytes]) -> int:
    return min(_unix_s(load_certificate(der, "format").not_valid_after_utc) for der in ders)


def _certificate(der: bytes) -> int:
    return _certificates([der])


def _chain(pem: bytes) -> int:
    return _certificates(pem_blocks(pem, "CERTIFICATE", (2,)))


def _crl(der: bytes) -> int:
    next_update = load_crl(der).next_update_utc
    if next_update is None:
        raise EvidenceMalformed("a revocation list that does not say when the next one comes")
    return _unix_s(next_update)


def _rim(xml: bytes) -> int:
    # Any root does: only the certificates' windows are read here.
    path = judge_rim(xml, b"").path if looks_like_rim(xml) else None
    if path is None:
        raise EvidenceMalformed("not a manifest of NVIDIA's (RIM)")
    return path.not_after_unix_s


def _ocsp(der: bytes) -> int:
    answer = ocsp.load_der_ocsp_response(read_answer(der).der)
    if answer.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL or len(list(answer.responses)) != 1:
        raise EvidenceMalformed("an OCSP answer that answers nothing, or more than one question")
    if answer.next_update_utc is None:
        raise EvidenceMalformed("an OCSP answer that does not say when it ends")
    return _unix_s(answer.next_update_utc)


def _intel(kind: Kind) -> Callable[[bytes], int]:
    """Return the reader of a document of Intel's: the first end of what it says and of its issuers."""

    def end_of(data: bytes) -> int:
        tree = intel_parts(data)
        if set(tree) != set(_INTEL_PARTS[kind]):
            raise EvidenceMalformed(f"expected {', '.join(_INTEL_PARTS[kind])}")
        return min(end for name, text in tree.items() for end in _part_ends(name, text))

    return end_of


def _part_ends(name: str, text: str) -> list[int]:
    try:
        if name == "tcb_info":
            return [TcbInfo.model_validate_json(text).next_update_unix_s]
        if name == "qe_identity":
            return [QeIdentity.model_validate_json(text).next_update_unix_s]
        if name.endswith("_crl"):
            return [_crl(bytes.fromhex(text))]
        if name.endswith("_chain"):
            return [_chain(text.encode())]
        bytes.fromhex(text)
    except ValidationError:
        raise EvidenceMalformed(f"{name} is not Intel's document") from None
    except ValueError:
        raise EvidenceMalformed(f"{name} is not hexadecimal") from None
    return []


def _unix_s(moment: datetime) -> int:
    return int(moment.timestamp())


_INTEL_PARTS: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.INTEL_TCB_INFO: ("tcb_info", "tcb_info_signature", "tcb_info_issuer_chain"),
    Kind.INTEL_QE_IDENTITY: ("qe_identity", "qe_identity_signature", "qe_identity_issuer_chain"),
    Kind.INTEL_PCK_CRL: ("pck_crl", "pck_crl_issuer_chain"),
    Kind.INTEL_ROOT_CRL: ("root_ca_crl",),
}
_ENDS: Final[Mapping[Kind, Callable[[bytes], int]]] = {
    Kind.AMD_VCEK: _certificate,
    Kind.AMD_CERT_CHAIN: _chain,
    Kind.AMD_CRL: _crl,
    **{kind: _intel(kind) for kind in _INTEL_PARTS},
    Kind.NVIDIA_RIM: _rim,
    Kind.NVIDIA_OCSP: _ocsp,
}
