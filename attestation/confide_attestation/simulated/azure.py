"""A SIMULATED Azure machine: HCL report, runtime data, AK, TPM quote in the real formats, each part mendable.

Keys are made by OpenSSL's own generator and live in memory only.
"""

import base64
import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from confide_attestation.evidence import SnpEndorsements, VtpmEvidence
from confide_attestation.simulated.amd import SimulatedAmd
from confide_attestation.simulated.intel import SimulatedIntel
from confide_attestation.snp.abi import REPORT_BYTES
from confide_attestation.tdx.abi import parse_quote
from confide_attestation.vtpm.azure import TdxPlatform
from confide_attestation.vtpm.hcl import AK_KID, MAGIC, TDREPORT_BYTES, TDREPORT_FIELDS, Tee
from confide_attestation.vtpm.tpm import ALG_SHA256, GENERATED_BY_TPM, PCR_COUNT, TYPE_QUOTE

NV_INDEX_BYTES = 2600
AK_BITS = 2048
TREE = dict[str, Any]


def make_ak(bits: int = AK_BITS, exponent: int = 65537) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(exponent, bits)


@dataclass(frozen=True)
class SimulatedAzure:
    """One simulated machine on simulated hardware."""

    hardware: SimulatedAmd | SimulatedIntel
    ak: rsa.RSAPrivateKey = field(repr=False)
    pcrs: Sequence[bytes] = tuple(hashlib.sha256(b"simulated PCR %d" % i).digest() for i in range(PCR_COUNT))

    def runtime(self, **fields: Any) -> TREE:  # noqa: ANN401 - any field of the document
        """Return the runtime data, to be changed and encoded."""
        key = {"kid": AK_KID, "key_ops": ["sign"], **jwk(self.ak.public_key())}
        machine = {
            "console-enabled": False,
            "secure-boot": True,
            "tpm-enabled": True,
            "vmUniqueId": "00000000-0000-4000-8000-000000000000",
        }
        return {"keys": [key], "vm-configuration": machine, "user-data": "00" * 64, **fields}

    def machine(
        self,
        runtime: TREE | bytes | None = None,
        *,
        report_data: bytes | None = None,
        patches: Mapping[int, bytes] | None = None,
        report: Mapping[str, int | bytes] | None = None,
        tdreport: Mapping[int, bytes] | None = None,
    ) -> tuple[bytes, SnpEndorsements | TdxPlatform]:
        """Return an HCL report and what vouches for its hardware.

        `report_data` replaces SHA-256 of the runtime data, `patches` bytes of the HCL report by their offsets,
        `report` fields of the SEV-SNP report or of the quote by their names, `tdreport` bytes of the TDREPORT.
        """
        data = runtime if isinstance(runtime, bytes) else encode(runtime or self.runtime())
        bound = report_data if report_data is not None else hashlib.sha256(data).digest().ljust(64, b"\0")
        fields: Mapping[str, Any] = report or {}
        platform: SnpEndorsements | TdxPlatform
        if isinstance(self.hardware, SimulatedAmd):
            tee, hardware = Tee.SNP, self.hardware.sign_report(bound, **fields)
            platform = self.hardware.endorsements
        else:
            quote = self.hardware.sign_quote(bound, **fields)
            tee, hardware = Tee.TDX, _tdreport(quote, tdreport or {})
            platform = TdxPlatform(quote, self.hardware.collateral(), self.hardware.root)
        length = len(data)
        body = bytearray(struct.pack("<4sIII16x", MAGIC, 1, 32 + REPORT_BYTES + 20 + length, 2))
        body += hardware.ljust(REPORT_BYTES, b"\0")
        body += struct.pack("<5I", 20 + length, 1, tee, 1, length) + data
        body = body.ljust(NV_INDEX_BYTES, b"\0")
        for at, patch in (patches or {}).items():
            body[at : at + len(patch)] = patch
        return bytes(body), platform

    def attest(
        self,
        nonce: bytes,
        *,
        selected: Sequence[int] = range(PCR_COUNT),
        bank: int = ALG_SHA256,
        banks: int = 1,
        pcr_digest: bytes | None = None,
        kind: int = TYPE_QUOTE,
        magic: bytes = GENERATED_BY_TPM,
    ) -> bytes:
        """Return a TPMS_ATTEST over the machine's PCRs."""
        digest = pcr_digest or hashlib.sha256(b"".join(self.pcrs[pcr] for pcr in selected)).digest()
        bits = sum(1 << pcr for pcr in selected).to_bytes(3, "little")
        selection = struct.pack(">HB3s", bank, 3, bits)
        name = b"\0\x0b" + hashlib.sha256(b"simulated name").digest()
        clock = struct.pack(">QIIB", 3_600_000, 2, 0, 1)
        return b"".join(
            (
                magic,
                kind.to_bytes(2, "big"),
                _sized(name),
                _sized(nonce),
                clock,
                bytes(8),
                banks.to_bytes(4, "big"),
                selection * banks,
                _sized(digest),
            )
        )

    def sign(self, attest: bytes, key: rsa.RSAPrivateKey | None = None) -> VtpmEvidence:
        """Sign a TPMS_ATTEST as the vTPM does."""
        signature = (key or self.ak).sign(attest, padding.PKCS1v15(), SHA256())
        return VtpmEvidence(attest, signature, json.dumps([value.hex() for value in self.pcrs]).encode())

    def quote(self, nonce: bytes) -> VtpmEvidence:
        """Quote all PCRs."""
        return self.sign(self.attest(nonce))


def jwk(key: rsa.RSAPublicKey) -> TREE:
    """Return an RSA key's numbers as a JWK has them."""
    numbers = key.public_numbers()
    return {"kty": "RSA", "e": _base64url(numbers.e), "n": _base64url(numbers.n)}


def encode(tree: TREE) -> bytes:
    return json.dumps(tree, separators=(",", ":")).encode()


def _tdreport(quote: bytes, patches: Mapping[int, bytes]) -> bytes:
    """Make the TDREPORT that a quote was made from."""
    parsed = parse_quote(quote)
    report = bytearray(TDREPORT_BYTES)
    report[0] = 0x81
    report[256:264] = bytes.fromhex("ff01030000000000")
    for name, (at, size) in TDREPORT_FIELDS.items():
        report[at : at + size] = parsed.field(name)
    for at, patch in patches.items():
        report[at : at + len(patch)] = patch
    for at, start, end in ((32, 256, 495), (80, 512, 1024)):
        report[at : at + 48] = hashlib.sha384(report[start:end]).digest()
    return bytes(report)


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _base64url(number: int) -> str:
    data = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
