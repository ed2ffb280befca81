"""NVIDIA's services: manifests (RIM), revocation (OCSP), remote attestation (NRAS).

Source: NVIDIA RIM service v1, NRAS v4 and its JWK set; RFC 6960, RFC 8954 for OCSP.
"""

import base64
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from confide_attestation.errors import EndorsementsUnavailable, EvidenceMalformed
from confide_attestation.nvidia.certificates import strict_base64
from confide_attestation.nvidia.chain import CHAIN_LENGTH, read_chain
from confide_attestation.nvidia.device import Arch, read_fields
from confide_attestation.nvidia.evidence import DeviceEvidence
from confide_attestation.nvidia.jose import parse_jwks
from confide_attestation.nvidia.nras import parse_bundle
from confide_attestation.nvidia.ocsp import read_answer
from confide_attestation.nvidia.rim import judge_rim, looks_like_rim
from confide_attestation.nvidia.spdm import NONCE_BYTES, parse_spdm
from confide_attestation.nvidia.strict_json import parse_json
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from confide_endorsements.documents import MAX_DOCUMENT_BYTES, Kind, Name
from confide_endorsements.http import Http

RIM: Final = "https://rim.attestation.nvidia.com"
OCSP: Final = "https://ocsp.ndis.nvidia.com"
NRAS: Final = "https://nras.attestation.nvidia.com"
_JUDGEMENT, _KEYS = "NVIDIA's judgement (NRAS)", "NVIDIA's keys (JWK set)"


@dataclass(frozen=True)
class Question:
    """A certificate whose revocation is asked, and its issuer."""

    subject: x509.Certificate
    issuer: x509.Certificate

    def name(self, service: str = OCSP) -> Name:
        digest = hashlib.sha256(self.subject.public_bytes(Encoding.DER)).hexdigest()
        return Name(Kind.NVIDIA_OCSP, digest, f"{service}/")


@dataclass(frozen=True)
class Needs:
    """What judging devices takes: the manifests' ids, and the certificates of devices to ask about."""

    rim_ids: tuple[str, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class NrasAnswer:
    """The service's tokens and the keys that it published with them."""

    tokens: bytes
    jwks: bytes


def needs_of(devices: Sequence[DeviceEvidence]) -> Needs:
    """Read from evidence what it takes to judge it. Raises: EvidenceMalformed. Judges nothing."""
    rim_ids: dict[str, None] = {}
    questions: dict[Question, None] = {}
    for device in devices:
        chain = read_chain(device.chain)
        if isinstance(chain, int) or chain.arch is None:
            raise EvidenceMalformed(f"expected the {CHAIN_LENGTH} certificates of a device known here")
        fields = read_fields(parse_spdm(device.report), chain.arch, chain.chip or "")
        rim_ids |= dict.fromkeys(filter(None, (fields.driver_rim_id, fields.firmware_rim_id)))
        # The leaf is signed by the device itself: nobody answers for it.
        questions |= dict.fromkeys(_questions(chain.path.certificates[1:]))
    return Needs(tuple(rim_ids), tuple(questions))


def questions_of_rim(xml: bytes) -> tuple[Question, ...]:
    """Return what to ask about a manifest's signers. Raises: EvidenceMalformed."""
    path = judge_rim(xml, b"").path
    if path is None:
        raise EvidenceMalformed("not a manifest of NVIDIA's (RIM)")
    return tuple(_questions(path.certificates))


def rim_name(rim_id: str, service: str = RIM) -> Name:
    return Name(Kind.NVIDIA_RIM, rim_id, f"{service}/v1/rim/{rim_id}")


async def fetch_rim(http: Http, name: Name) -> bytes:
    """Fetch a manifest as XML. Raises: EvidenceMalformed."""
    return rim_of(name.id, (await http.get(name.url, name.title)).body)


def rim_of(rim_id: str, body: bytes) -> bytes:
    """Read an answer of the RIM service. Raises: EvidenceMalformed. Does not check: the manifest's signature."""
    tree = parse_json(body, 2 * MAX_DOCUMENT_BYTES)
    if not isinstance(tree, dict) or tree.get("id") != rim_id or not isinstance(tree.get("rim"), str):
        raise EvidenceMalformed("no answer of the RIM service about this id")
    xml = strict_base64(tree["rim"].encode())
    digest = hashlib.sha256(xml)
    said = tree.get("sha256")
    # How the service writes its digest has changed; the signature inside is what counts.
    if said is not None and str(said).lower() not in (digest.hexdigest(), _base64(digest.digest()).lower()):
        raise EvidenceMalformed("the manifest was damaged on its way")
    if not looks_like_rim(xml):
        raise EvidenceMalformed("not a manifest of NVIDIA's (RIM)")
    return xml


async def fetch_answer(http: Http, question: Question, name: Name) -> bytes:
    """Ask about a certificate with a fresh nonce, and return the answer in DER. Raises: EvidenceMalformed."""
    nonce = os.urandom(NONCE_BYTES)
    fields = {"content-type": "application/ocsp-request", "accept": "application/ocsp-response"}
    body = (await http.post(name.url, name.title, fields, ocsp_request(question, nonce))).body
    return answer_of(question, nonce, body)


def answer_of(question: Question, nonce: bytes, body: bytes) -> bytes:
    """Read an answer to a question. Raises: EvidenceMalformed. Does not check: its signature."""
    der = read_answer(body).der
    if _nonce(demand_answer(question, der)) != nonce:
        raise EvidenceMalformed("an answer to another request")
    return der


def demand_answer(question: Question, der: bytes) -> ocsp.OCSPResponse:
    """Read an answer, and see that it is about the question's certificate. Raises: EvidenceMalformed."""
    response = ocsp.load_der_ocsp_response(read_answer(der).der)
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise EvidenceMalformed(f"the responder says {response.response_status.name.lower().replace('_', ' ')}")
    if len(list(response.responses)) != 1 or response.serial_number != question.subject.serial_number:
        raise EvidenceMalformed("an answer about another certificate")
    return response


def ocsp_request(question: Question, nonce: bytes) -> bytes:
    """Encode a request for one certificate, named with SHA-384."""
    builder = ocsp.OCSPRequestBuilder().add_certificate(question.subject, question.issuer, SHA384())
    return builder.add_extension(x509.OCSPNonce(nonce), critical=False).build().public_bytes(Encoding.DER)


async def ask_nras(http: Http, devices: Sequence[DeviceEvidence], service: str = NRAS) -> NrasAnswer:
    """Have NVIDIA's service judge devices of one kind that were asked with one nonce; fetch its keys too.

    Raises: EvidenceMalformed for evidence of another kind; EndorsementsUnavailable. Does not check: any signature
    (`verify_nras`).
    """
    reports = [parse_spdm(device.report) for device in devices]
    archs = {chain.arch for device in devices if not isinstance(chain := read_chain(device.chain), int)}
    if len(archs) != 1 or None in archs or len({report.nonce for report in reports}) != 1:
        raise EvidenceMalformed("NRAS judges devices of one architecture that answer one nonce")
    (arch,) = archs
    body: dict[str, Any] = {
        "nonce": reports[0].nonce.hex(),
        "arch": str(arch),
        "evidence_list": [
            {"evidence": _base64(device.report), "certificate": _base64(device.chain), "arch": str(arch)}
            for device in devices
        ],
        "claims_version": "3.0",
    }
    url, keys_url = (
        f"{service}/v4/attest/{'switch' if arch is Arch.LS10 else 'gpu'}",
        f"{service}/.well-known/jwks.json",
    )
    fields = {"content-type": "application/json", "accept": "application/json"}
    tokens = (await http.post(url, _JUDGEMENT, fields, json.dumps(body).encode())).body
    _usable(parse_bundle, tokens, _JUDGEMENT, url)
    jwks = (await http.get(keys_url, _KEYS)).body
    _usable(parse_jwks, jwks, _KEYS, keys_url)
    return NrasAnswer(tokens, jwks)


def _usable(parse: Callable[[bytes], object], data: bytes, title: str, url: str) -> None:
    try:
        parse(data)
    except EvidenceMalformed as fault:
        raise EndorsementsUnavailable(title, url, f"the answer is not usable: {fault}") from None


def _questions(path: Sequence[x509.Certificate]) -> Iterator[Question]:
    return (Question(subject, issuer) for subject, issuer in pairwise(path))


def _nonce(response: ocsp.OCSPResponse) -> bytes | None:
    try:
        return response.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
    except x509.ExtensionNotFound:
        return None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
