"""Parse a TPM's quote and the PCRs beside it; makes no trust claim.

Source: TCG, TPM 2.0 Library, part 2: TPMS_ATTEST (10.12.12), TPMS_QUOTE_INFO, TPML_PCR_SELECTION; big-endian.
"""

import hashlib
import re
from dataclasses import dataclass

from confide_attestation.errors import EvidenceMalformed
from confide_attestation.reader import Reader
from confide_attestation.strict_json import load_json
from confide_attestation.vtpm.ids import VtpmCheck

MAX_ATTEST_BYTES = 1024
GENERATED_BY_TPM = b"\xffTCG"
TYPE_QUOTE = 0x8018
ALG_SHA256 = 0x000B
PCR_COUNT = 24
SIGNATURE_BYTES = (256, 384, 512)
_SHA256_HEX = re.compile("[0-9a-f]{64}", re.IGNORECASE)


@dataclass(frozen=True)
class TpmQuote:
    """A quote's fields as they lie; nothing is judged. `selections` is (hash algorithm, PCRs) of each bank."""

    raw: bytes
    extra_data: bytes
    clock_ms: int
    reset_count: int
    restart_count: int
    clock_safe: bool
    firmware_version: int
    selections: tuple[tuple[int, tuple[int, ...]], ...]
    pcr_digest: bytes


def parse_attest(data: bytes) -> TpmQuote:
    """Parse a quote's TPMS_ATTEST, exact to its last byte.

    Raises: EvidenceMalformed with check `tpm_magic`, `tpm_type` or `tpm_format`.
    Does not check: any field's value, the signature, who the qualified signer is.
    """
    if data[:4] != GENERATED_BY_TPM:
        raise EvidenceMalformed(
            f"expected a TPM's quote (ff544347), found bytes that begin {data[:4].hex()}", VtpmCheck.TPM_MAGIC
        )
    kind = int.from_bytes(data[4:6], "big")
    if kind != TYPE_QUOTE:
        raise EvidenceMalformed(f"type {kind:#06x} is not a quote ({TYPE_QUOTE:#06x})", VtpmCheck.TPM_TYPE)
    if len(data) > MAX_ATTEST_BYTES:
        raise EvidenceMalformed(f"a quote of {len(data)} bytes is too large", VtpmCheck.TPM_FORMAT)
    reader = Reader(data, what="the quote", check=VtpmCheck.TPM_FORMAT, order="big")
    reader.take(6)
    reader.take(reader.uint(2))
    extra_data = reader.take(reader.uint(2))
    clock_ms, reset_count, restart_count, safe = (reader.uint(size) for size in (8, 4, 4, 1))
    if safe > 1:
        raise EvidenceMalformed(f"{safe} is neither yes (1) nor no (0)", VtpmCheck.TPM_FORMAT)
    firmware_version = reader.uint(8)
    selections = []
    for _ in range(reader.uint(4)):
        algorithm = reader.uint(2)
        bits = int.from_bytes(reader.take(reader.uint(1)), "little")
        selections.append((algorithm, tuple(pcr for pcr in range(bits.bit_length()) if bits >> pcr & 1)))
    pcr_digest = reader.take(reader.uint(2))
    if reader.at != len(data):
        raise EvidenceMalformed(f"{len(data) - reader.at} bytes follow the quote", VtpmCheck.TPM_FORMAT)
    return TpmQuote(
        raw=data,
        extra_data=extra_data,
        clock_ms=clock_ms,
        reset_count=reset_count,
        restart_count=restart_count,
        clock_safe=safe == 1,
        firmware_version=firmware_version,
        selections=tuple(selections),
        pcr_digest=pcr_digest,
    )


def parse_pcrs(data: bytes) -> tuple[bytes, ...]:
    """Parse the SHA-256 bank: a JSON list of 24 values in hexadecimal.

    Raises: EvidenceMalformed with check `pcrs_format`.
    """
    tree = load_json(data, VtpmCheck.PCRS_FORMAT)
    if (
        not isinstance(tree, list)
        or len(tree) != PCR_COUNT
        or not all(isinstance(value, str) and _SHA256_HEX.fullmatch(value) for value in tree)
    ):
        raise EvidenceMalformed(
            f"expected a JSON list of {PCR_COUNT} SHA-256 values in hexadecimal, found other JSON",
            VtpmCheck.PCRS_FORMAT,
        )
    return tuple(bytes.fromhex(value) for value in tree)


def selected_pcrs(quote: TpmQuote) -> tuple[int, ...]:
    """Return the PCRs that the quote covers in the one SHA-256 bank; none if it is any other selection."""
    if len(quote.selections) != 1:
        return ()
    algorithm, pcrs = quote.selections[0]
    return pcrs if algorithm == ALG_SHA256 and all(pcr < PCR_COUNT for pcr in pcrs) else ()


def pcr_digest(values: tuple[bytes, ...], pcrs: tuple[int, ...]) -> bytes:
    """Return what a quote over `pcrs` has to commit to (part 2, TPMS_QUOTE_INFO: in ascending order)."""
    return hashlib.sha256(b"".join(values[pcr] for pcr in pcrs)).digest()
