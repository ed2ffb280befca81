"""Parse TDX quotes of versions 4 and 5; makes no trust claim.

Source: Intel TDX DCAP Quote Generation Library and Quote Verification Library, appendix A.3 (versions 4 and 5);
Intel TDX Module ABI, "TD_ATTRIBUTES", "XFAM".
Strict: every length is the one that its content has, nothing but zero bytes may follow, and certificates are text
in one form only, so no byte can be changed unseen.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.reader import Reader
from confide_attestation.tdx.ids import TdxCheck

MAX_QUOTE_BYTES = 16 * 1024
MAX_PADDED_BYTES = 64 * 1024
HEADER_BYTES = 48
QE_REPORT_BYTES = 384
CHAIN_LENGTH = 3
_REMEMBERED = 64
TEE_TDX = 0x81
ECDSA_P256 = 2
INTEL_QE_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
CERT_PEM_CHAIN = 5
CERT_QE_REPORT = 6


class BodyType(IntEnum):
    """The kinds of body that are judged here. Version 4 knows only the first."""

    TD10 = 2
    TD15 = 3


BODY_BYTES: Mapping[BodyType, int] = {BodyType.TD10: 584, BodyType.TD15: 648}

# Offset in the body and size of each field.
FIELDS: Mapping[str, tuple[int, int]] = {
    "tee_tcb_svn": (0, 16),
    "mr_seam": (16, 48),
    "mr_signer_seam": (64, 48),
    "seam_attributes": (112, 8),
    "td_attributes": (120, 8),
    "xfam": (128, 8),
    "mr_td": (136, 48),
    "mr_config_id": (184, 48),
    "mr_owner": (232, 48),
    "mr_owner_config": (280, 48),
    "rtmr0": (328, 48),
    "rtmr1": (376, 48),
    "rtmr2": (424, 48),
    "rtmr3": (472, 48),
    "report_data": (520, 64),
}
TD15_FIELDS: Mapping[str, tuple[int, int]] = {"tee_tcb_svn2": (584, 16), "mr_service_td": (600, 48)}
LAYOUTS = {BodyType.TD10: FIELDS, BodyType.TD15: {**FIELDS, **TD15_FIELDS}}


class TdBit:
    """TD attributes."""

    DEBUG = 1 << 0
    PROFILING = 0x7 << 4
    LASS = 1 << 27
    SEPT_VE_DISABLE = 1 << 28
    MIGRATABLE = 1 << 29
    PKS = 1 << 30
    KEY_LOCKER = 1 << 31
    PERFMON = 1 << 63
    KNOWN = DEBUG | PROFILING | LASS | SEPT_VE_DISABLE | MIGRATABLE | PKS | KEY_LOCKER | PERFMON


# x87 and SSE state are always there; of the others only those that TDX can give to a TD (go-tdx-guest: xfamFixed0).
XFAM_ALWAYS = 0x3
XFAM_KNOWN = 0x6DBE7


@dataclass(frozen=True)
class TdxQuote:
    """A quote's parts as they lie; nothing is judged. `data` is the quote without the padding after it.

    `signed` is header and body: all that the quote's signature covers, and the only bytes that identify it. The
    rest can be changed by others: an ECDSA signature has two forms, and a key can be certified twice.
    """

    data: bytes
    signed: bytes
    version: int
    attestation_key_type: int
    qe_vendor: bytes
    body_type: BodyType
    fields: Mapping[str, bytes]
    qe_report: bytes
    certificate_types: tuple[int, int]
    chain_text: bytes
    chain: tuple[bytes, ...]

    def field(self, name: str) -> bytes:
        """Return a field of the body; empty if bodies of this type have none of that name."""
        return self.fields.get(name, b"")

    @property
    def td_attributes(self) -> int:
        return int.from_bytes(self.fields["td_attributes"], "little")

    @property
    def xfam(self) -> int:
        return int.from_bytes(self.fields["xfam"], "little")


def parse_quote(data: bytes) -> TdxQuote:
    """Parse a quote, with zero bytes after it or without.

    Raises: EvidenceMalformed with the check that failed: quote_size, quote_version, tee_type, quote_truncated,
    body_type, quote_trailing_data, quote_lengths or pck_chain_format.
    Does not check: any field's value, signatures, certificates.
    """
    if not HEADER_BYTES <= len(data) <= MAX_PADDED_BYTES:
        limits = f"a quote has {HEADER_BYTES} to {MAX_PADDED_BYTES} bytes"
        raise EvidenceMalformed(f"{limits}, this input has {len(data)}", TdxCheck.QUOTE_SIZE)
    reader = Reader(data, what="the quote", check=TdxCheck.QUOTE_TRUNCATED, order="little")
    version, key_type, tee = reader.uint(2), reader.uint(2), reader.uint(4)
    if version not in (4, 5):
        raise EvidenceMalformed(
            f"expected a TDX quote of version 4 or 5, found {_described(data)}", TdxCheck.QUOTE_VERSION
        )
    if tee != TEE_TDX:
        raise EvidenceMalformed(
            f"expected TEE type {TEE_TDX:#x} (TDX), found {tee:#x} in {_described(data)}", TdxCheck.TEE_TYPE
        )
    reader.take(4)
    vendor = reader.take(16)
    reader.take(20)
    body_type = BodyType.TD10
    if version == 5:
        body_type = _body_type(reader.uint(2), reader.uint(4))
    body = reader.take(BODY_BYTES[body_type])
    signed = data[: reader.at]
    auth_size = reader.uint(4)
    end = reader.at + auth_size
    if end > MAX_QUOTE_BYTES:
        limit = f"more than the {MAX_QUOTE_BYTES} bytes that are read"
        raise EvidenceMalformed(f"the quote says that it has {end} bytes, {limit}", TdxCheck.QUOTE_LENGTHS)
    auth = reader.within(auth_size)
    if any(data[end:]):
        raise EvidenceMalformed(
            f"{len(data) - end} bytes follow the quote, not all of them zero", TdxCheck.QUOTE_TRAILING_DATA
        )
    auth.take(64 + 64)
    outer_type, outer_size = auth.uint(2), auth.uint(4)
    _exact("certification data", outer_size, len(auth.data) - auth.at)
    qe_report = auth.take(QE_REPORT_BYTES)
    auth.take(64)
    auth.take(auth.uint(2))
    inner_type, inner_size = auth.uint(2), auth.uint(4)
    _exact("certificates", inner_size, len(auth.data) - auth.at)
    text = auth.take(inner_size)
    return TdxQuote(
        data=data[:end],
        signed=signed,
        version=version,
        attestation_key_type=key_type,
        qe_vendor=vendor,
        body_type=body_type,
        fields={name: body[at : at + size] for name, (at, size) in LAYOUTS[body_type].items()},
        qe_report=qe_report,
        certificate_types=(outer_type, inner_type),
        chain_text=text,
        chain=_chain(text) if inner_type == CERT_PEM_CHAIN else (),
    )


def _described(data: bytes) -> str:
    """Name the likely kind of a file that is no TDX quote."""
    start = data[:64].lstrip()
    if start.startswith((b"{", b"[")):
        return "JSON text"
    if start.startswith(b"-----BEGIN"):
        return "PEM text"
    if start.startswith(b"\x30\x82"):
        return "DER, perhaps a certificate"
    if start and all(byte in b"0123456789abcdefABCDEFx" for byte in start):
        return "hexadecimal text; decode it first"
    if data[:8] == b"\x03\0\x02\0\0\0\0\0":
        return "an SGX quote of version 3"
    if len(data) == 1184 and data[0] <= 5:
        return "what may be an SEV-SNP report"
    return f"a file of {len(data)} bytes that starts with {data[:8].hex()}"


def _body_type(kind: int, size: int) -> BodyType:
    if kind not in set(BodyType):
        raise EvidenceMalformed(
            f"body type {kind} is unknown; 2 (TD 1.0) and 3 (TD 1.5) are known", TdxCheck.BODY_TYPE
        )
    body_type = BodyType(kind)
    if size != BODY_BYTES[body_type]:
        expected = f"a body of type {kind} has {BODY_BYTES[body_type]} bytes"
        raise EvidenceMalformed(f"{expected}, this one says {size}", TdxCheck.BODY_TYPE)
    return body_type


def _exact(what: str, said: int, there: int) -> None:
    if said != there:
        raise EvidenceMalformed(
            f"{what} of {said} bytes in a place of {there}",
            TdxCheck.QUOTE_TRUNCATED if said > there else TdxCheck.QUOTE_LENGTHS,
        )


@lru_cache(maxsize=_REMEMBERED)
def _chain(text: bytes) -> tuple[bytes, ...]:
    """Read certificates as Intel's library writes them: PEM in 64 columns, line feeds, zero bytes after.

    A platform has one chain for months; what is remembered follows from its bytes alone.
    """
    begin, end = b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n"
    stripped = text.rstrip(b"\0")
    chain = []
    for block in stripped.split(begin)[1:]:
        try:
            chain.append(base64.b64decode(block.partition(b"-")[0].replace(b"\n", b""), validate=True))
        except binascii.Error:
            break
    if len(chain) != CHAIN_LENGTH or stripped != b"".join(begin + _columns(der) + end for der in chain):
        raise EvidenceMalformed(
            f"not exactly {CHAIN_LENGTH} certificates as PEM text in its usual form", TdxCheck.PCK_CHAIN_FORMAT
        )
    return tuple(chain)


def _columns(der: bytes) -> bytes:
    text = base64.b64encode(der)
    return b"".join(text[at : at + 64] + b"\n" for at in range(0, len(text), 64))
