"""Intel's Provisioning Certification Service (PCS), version 4, or a cache that answers like it (PCCS, Azure THIM).

Source: Intel PCS API v4, "Get TDX TCB Info", "Get TDX QE Identity", "Get Revocation List". Issuers' certificates
come percent-encoded in header fields. What Intel signed is kept as the exact text that it sent.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

import dcap_qvl  # type: ignore[import-untyped]
from confide_attestation.errors import EvidenceMalformed
from confide_attestation.pem import pem_blocks, pem_or_der
from confide_attestation.snp.certificates import load_crl
from confide_attestation.tdx.abi import parse_quote
from confide_attestation.tdx.collateral import SIGNATURE_BYTES, TcbInfo
from pydantic import ValidationError

from confide_endorsements.documents import Kind, Name, intel_parts
from confide_endorsements.http import Answer, Http

PCS: Final = "https://api.trustedservices.intel.com"
ROOT_CRL: Final = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
CAS = ("platform", "processor")
MAX_CHAIN_TEXT = 64 * 1024
_WHITE = " \t\r\n"


@dataclass(frozen=True)
class Platform:
    """What names a platform's documents: its FMSPC in hex, and which authority issued its PCK certificate."""

    fmspc: str
    ca: str

    def names(self, pcs: str = PCS, root_crl: str = ROOT_CRL) -> tuple[Name, ...]:
        """Name the four documents whose parts together are the collateral."""
        tdx, sgx = f"{pcs}/tdx/certification/v4", f"{pcs}/sgx/certification/v4"
        return (
            Name(Kind.INTEL_TCB_INFO, self.fmspc, f"{tdx}/tcb?fmspc={self.fmspc}"),
            Name(Kind.INTEL_QE_IDENTITY, "td", f"{tdx}/qe/identity"),
            Name(Kind.INTEL_PCK_CRL, self.ca, f"{sgx}/pckcrl?ca={self.ca}&encoding=der"),
            Name(Kind.INTEL_ROOT_CRL, "sgx", root_crl),
        )


def platform_of(quote: bytes) -> Platform:
    """Read from a quote's PCK certificate whose documents judge it. Raises: EvidenceMalformed. Judges nothing."""
    data = parse_quote(quote).data
    try:
        parsed = dcap_qvl.parse_quote(data)
        fmspc, ca = str(parsed.fmspc()).upper(), str(parsed.ca())
    except ValueError:
        raise EvidenceMalformed("the quote's PCK certificate does not name its platform") from None
    if ca not in CAS:
        raise EvidenceMalformed("the quote's PCK certificate is of no authority known here")
    return Platform(fmspc, ca)


async def fetch(http: Http, platform: Platform, name: Name) -> bytes:
    """Fetch one document and return its parts of the collateral, as JSON. Raises: EvidenceMalformed."""
    return parts_of(platform, name.kind, await http.get(name.url, name.title))


def parts_of(platform: Platform, kind: Kind, answer: Answer) -> bytes:
    """Read an answer of the service. Raises: EvidenceMalformed. Does not check: any signature or time."""
    document = json.dumps(_READERS[kind](answer), sort_keys=True).encode()
    demand_platform(platform, document)
    return document


def demand_platform(platform: Platform, document: bytes) -> None:
    """See that a TCB info is the platform's; other documents are of all platforms. Raises: EvidenceMalformed."""
    tcb_info = intel_parts(document).get("tcb_info")
    if tcb_info is not None and _fmspc(tcb_info) != platform.fmspc:
        raise EvidenceMalformed("a TCB info of another platform")


def collateral(documents: tuple[bytes, ...]) -> bytes:
    """Join documents of `fetch` to the collateral that `confide verify tdx --collateral` takes."""
    parts: dict[str, str] = {}
    for document in documents:
        parts |= intel_parts(document)
    return json.dumps(parts, sort_keys=True).encode()


def members(text: str) -> dict[str, str]:
    """Split a JSON object into its members' exact texts. Raises: EvidenceMalformed."""
    try:
        found = dict(pairs := list(_members(text)))
        whole = len(found) == len(pairs)
    except (ValueError, RecursionError):
        whole = False
    if not whole:
        raise EvidenceMalformed("no JSON object with every name once")
    return found


def _members(text: str) -> Iterator[tuple[str, str]]:
    decoder, at, mark = json.JSONDecoder(), 0, "{"
    while mark != "}":
        name, at = decoder.raw_decode(text, _skip(text, _skip(text, at, mark), ""))
        start = _skip(text, _skip(text, at, ":"), "")
        _, at = decoder.raw_decode(text, start)
        yield str(name), text[start:at]
        mark = text[_skip(text, at, "") :][:1]
        mark = "," if mark == "," else "}"
    if text[_skip(text, at, "}") :].strip(_WHITE):
        raise ValueError("text follows")


def _skip(text: str, at: int, mark: str) -> int:
    while text[at : at + 1] in tuple(_WHITE):
        at += 1
    if not text.startswith(mark, at):
        raise ValueError(f"no {mark}")
    return at + len(mark)


def _tcb_info(answer: Answer) -> dict[str, str]:
    text, signature = _signed(answer.body, "tcbInfo")
    # Intel's older answers, and caches, name the field with SGX.
    chain = _chain(answer, "tcb-info-issuer-chain", "sgx-tcb-info-issuer-chain")
    return {"tcb_info": text, "tcb_info_signature": signature, "tcb_info_issuer_chain": chain}


def _qe_identity(answer: Answer) -> dict[str, str]:
    text, signature = _signed(answer.body, "enclaveIdentity")
    chain = _chain(answer, "sgx-enclave-identity-issuer-chain")
    return {"qe_identity": text, "qe_identity_signature": signature, "qe_identity_issuer_chain": chain}


def _pck_crl(answer: Answer) -> dict[str, str]:
    return {"pck_crl": _crl(answer.body).hex(), "pck_crl_issuer_chain": _chain(answer, "sgx-pck-crl-issuer-chain")}


def _root_crl(answer: Answer) -> dict[str, str]:
    return {"root_ca_crl": _crl(answer.body).hex()}


def _signed(body: bytes, member: str) -> tuple[str, str]:
    """Return the exact text that was signed, and its signature in hex."""
    try:
        found = members(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise EvidenceMalformed("no JSON text") from None
    if member not in found or "signature" not in found:
        raise EvidenceMalformed(f"expected {member} and its signature")
    signature = found["signature"].strip('"')
    try:
        whole = len(bytes.fromhex(signature)) == SIGNATURE_BYTES
    except ValueError:
        whole = False
    if not whole:
        raise EvidenceMalformed(f"the signature is not {SIGNATURE_BYTES} bytes in hexadecimal")
    return found[member], signature


def _chain(answer: Answer, *fields: str) -> str:
    """Decode issuers' certificates from the first of `fields` that is there."""
    value = next((answer.fields[field] for field in fields if field in answer.fields), None)
    if value is None or len(value) > MAX_CHAIN_TEXT:
        raise EvidenceMalformed(f"the header field {fields[0]} is absent or too long")
    pem = unquote_to_bytes(value)
    pem_blocks(pem, "CERTIFICATE", (2,))
    try:
        return pem.decode("ascii")
    except UnicodeDecodeError:
        raise EvidenceMalformed(f"the header field {fields[0]} is no PEM text") from None


def _crl(body: bytes) -> bytes:
    """Return a list as DER: the service sends DER, caches also hexadecimal or PEM."""
    der = pem_or_der(body, "X509 CRL")
    try:
        der = der if der[:1] == b"\x30" else bytes.fromhex(der.decode("ascii"))
    except ValueError:
        raise EvidenceMalformed("not a revocation list") from None
    load_crl(der)
    return der


def _fmspc(text: str) -> str:
    try:
        return TcbInfo.model_validate_json(text).fmspc.upper()
    except ValidationError:
        raise EvidenceMalformed("not a TCB info of TDX") from None


_READERS: Final[dict[Kind, Callable[[Answer], dict[str, str]]]] = {
    Kind.INTEL_TCB_INFO: _tcb_info,
    Kind.INTEL_QE_IDENTITY: _qe_identity,
    Kind.INTEL_PCK_CRL: _pck_crl,
    Kind.INTEL_ROOT_CRL: _root_crl,
}
