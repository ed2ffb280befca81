"""A SIMULATED AMD: ARK, ASK (or ASVK), VCEK (or VLEK) and reports in the real formats, each part mendable.

Keys are made by OpenSSL's own generator and live in memory only.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from confide_attestation.evidence import SnpEndorsements
from confide_attestation.snp.abi import (
    REPORT_BYTES,
    SIGNED_BYTES,
    TCB_LAYOUT,
    PlatformBit,
    PolicyBit,
    Product,
    Signer,
)
from confide_attestation.snp.certificates import (
    OID_CSP_ID,
    OID_HWID,
    OID_PRODUCT,
    OID_SPL,
    OID_STRUCT_VERSION,
    PSS_SALT_BYTES,
)

RSA_BITS = 2048
LIFETIME_S = 30 * 86_400
CPUID: Mapping[Product, tuple[int, int, int]] = {
    Product.MILAN: (0x19, 0x01, 0x01),
    Product.GENOA: (0x19, 0x11, 0x01),
    Product.TURIN: (0x1A, 0x02, 0x01),
}
TCB: Mapping[Product, Mapping[str, int]] = {
    Product.MILAN: {"bl": 4, "tee": 0, "snp": 24, "ucode": 219},
    Product.GENOA: {"bl": 10, "tee": 0, "snp": 23, "ucode": 84},
    Product.TURIN: {"fmc": 1, "bl": 1, "tee": 1, "snp": 4, "ucode": 81},
}


@dataclass(frozen=True)
class SimulatedKeys:
    """The private keys of one hierarchy; making RSA keys is the slow part, so tests share them."""

    ark: rsa.RSAPrivateKey = field(repr=False)
    ask: rsa.RSAPrivateKey = field(repr=False)
    vek: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> "SimulatedKeys":
        ark, ask = (rsa.generate_private_key(65537, RSA_BITS) for _ in range(2))
        return cls(ark, ask, ec.generate_private_key(ec.SECP384R1()))


@dataclass(frozen=True)
class SimulatedAmd:
    """One simulated chip and the hierarchy above it. Every field can be replaced to make it lie."""

    keys: SimulatedKeys
    not_before_unix_s: int
    not_after_unix_s: int
    product: Product = Product.GENOA
    signer: Signer = Signer.VCEK
    tcb: Mapping[str, int] = field(default_factory=dict)
    chip_id: bytes = b"\x5a" * 64
    measurement: bytes = bytes(48)
    product_name: str = ""
    csp_id: str = "CN=simulated.invalid"
    omitted: Collection[x509.ObjectIdentifier] = ()

    @classmethod
    def make(
        cls,
        now_unix_s: int,
        *,
        product: str = "Genoa",
        signer: str = "VCEK",
        keys: SimulatedKeys | None = None,
        **fields: Any,  # noqa: ANN401 - any field of the class
    ) -> "SimulatedAmd":
        """Make a chip whose certificates are good from an hour ago for 30 days."""
        line = Product(product)
        chip_id = hashlib.sha512(b"simulated chip").digest()
        return cls(
            **{
                "keys": keys or SimulatedKeys.generate(),
                "not_before_unix_s": now_unix_s - 3600,
                "not_after_unix_s": now_unix_s + LIFETIME_S,
                "product": line,
                "signer": Signer(signer),
                "tcb": TCB[line],
                "chip_id": chip_id[:8] if line is Product.TURIN else chip_id,
                "product_name": line.value,
                **fields,
            }
        )

    @cached_property
    def ark(self) -> bytes:
        return self.certificate("ARK-" + self.product, "ARK-" + self.product, self.keys.ark)

    @cached_property
    def ask(self) -> bytes:
        return self.certificate(self._ask_name, "ARK-" + self.product, self.keys.ask)

    @cached_property
    def vek(self) -> bytes:
        return self.certificate("SEV-" + self.signer, self._ask_name, self.keys.vek)

    @cached_property
    def ark_sha256(self) -> bytes:
        return hashlib.sha256(self.ark).digest()

    @property
    def endorsements(self) -> SnpEndorsements:
        return SnpEndorsements(vek=self.vek, ask=self.ask, ark=self.ark)

    def certificate(
        self,
        subject: str,
        issuer: str,
        key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
        *,
        signed_by: rsa.RSAPrivateKey | None = None,
        window: tuple[int, int] | None = None,
    ) -> bytes:
        """Issue one certificate; its extensions follow from the kind of its key."""
        start, end = window or (self.not_before_unix_s, self.not_after_unix_s)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name(issuer))
            .public_key(key.public_key())
            .serial_number(1 + int.from_bytes(hashlib.sha256(subject.encode()).digest()[:4], "big"))
            .not_valid_before(datetime.fromtimestamp(start, UTC))
            .not_valid_after(datetime.fromtimestamp(end, UTC))
        )
        if isinstance(key, rsa.RSAPrivateKey):
            usage = dict.fromkeys(
                (
                    "digital_signature",
                    "content_commitment",
                    "key_encipherment",
                    "data_encipherment",
                    "key_agreement",
                    "encipher_only",
                    "decipher_only",
                ),
                False,
            )
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            builder = builder.add_extension(
                x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True
            )
        else:
            for oid, value in self._vek_extensions().items():
                if oid not in self.omitted:
                    builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
        by = signed_by or (self.keys.ark if issuer.startswith("ARK-") else self.keys.ask)
        return builder.sign(by, SHA384(), rsa_padding=_pss()).public_bytes(Encoding.DER)

    def crl(
        self,
        *,
        issued_unix_s: int,
        next_update_unix_s: int,
        revoked: Collection[int] = (),
        signed_by: rsa.RSAPrivateKey | None = None,
    ) -> bytes:
        """Issue the ARK's revocation list."""
        issued = datetime.fromtimestamp(issued_unix_s, UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name("ARK-" + self.product))
            .last_update(issued)
            .next_update(datetime.fromtimestamp(next_update_unix_s, UTC))
        )
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(issued).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(signed_by or self.keys.ark, SHA384(), rsa_padding=_pss()).public_bytes(Encoding.DER)

    def sign_report(
        self, report_data: bytes, *, patches: Mapping[int, bytes] | None = None, **fields: int | bytes
    ) -> bytes:
        """Sign a report. `fields` replaces fields by their names, `patches` bytes by their offsets."""
        version = fields.pop("version", 5)
        body = bytearray(REPORT_BYTES)
        tcb = bytearray(8)
        for part, at in TCB_LAYOUT[self.product].items():
            tcb[at] = self.tcb.get(part, 0)
        values: dict[str, int | bytes] = {
            "guest_svn": 0,
            "policy": PolicyBit.MUST_BE_ONE | PolicyBit.SMT,
            "vmpl": 0,
            "signature_algo": 1,
            "platform_info": PlatformBit.SMT | PlatformBit.ECC | PlatformBit.ALIAS_CHECK_COMPLETE,
            "flags": (0 if self.signer is Signer.VCEK else 1) << 2,
            "report_data": report_data,
            "measurement": self.measurement,
            "report_id_ma": b"\xff" * 32,
            "chip_id": self.chip_id.ljust(64, b"\0") if self.signer is Signer.VCEK else bytes(64),
            "firmware": bytes((48, 55, 1, 0)) * 2,
        }
        for name in ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"):
            values[name] = bytes(tcb)
        if version != 2:
            values["cpuid"] = bytes(CPUID[self.product])
        if version == 5:
            values |= {"launch_mit_vector": 0x3F, "current_mit_vector": 0x3F}
        for name, value in {"version": version, **values, **fields}.items():
            at, size = _FIELDS[name]
            body[at : at + size] = value if isinstance(value, bytes) else value.to_bytes(size, "little")
        for at, patch in (patches or {}).items():
            body[at : at + len(patch)] = patch
        signature = self.keys.vek.sign(bytes(body[:SIGNED_BYTES]), ec.ECDSA(SHA384()))
        for at, number in zip((0x2A0, 0x2E8), utils.decode_dss_signature(signature), strict=True):
            body[at : at + 72] = number.to_bytes(72, "little")
        return bytes(body)

    @property
    def _ask_name(self) -> str:
        return ("SEV-VLEK-" if self.signer is Signer.VLEK else "SEV-") + self.product

    def _vek_extensions(self) -> dict[x509.ObjectIdentifier, bytes]:
        extensions = {
            OID_STRUCT_VERSION: b"\x02\x01" + bytes([self.product is Product.TURIN]),
            OID_PRODUCT: _ia5(self.product_name),
            **{OID_SPL[part]: _der_uint8(level) for part, level in self.tcb.items()},
        }
        if self.signer is Signer.VCEK:
            return {**extensions, OID_HWID: self.chip_id}
        return {**extensions, OID_CSP_ID: _ia5(self.csp_id)}


_FIELDS: Mapping[str, tuple[int, int]] = {
    "version": (0x0, 4),
    "guest_svn": (0x4, 4),
    "policy": (0x8, 8),
    "family_id": (0x10, 16),
    "image_id": (0x20, 16),
    "vmpl": (0x30, 4),
    "signature_algo": (0x34, 4),
    "current_tcb": (0x38, 8),
    "platform_info": (0x40, 8),
    "flags": (0x48, 4),
    "report_data": (0x50, 64),
    "measurement": (0x90, 48),
    "host_data": (0xC0, 32),
    "id_key_digest": (0xE0, 48),
    "author_key_digest": (0x110, 48),
    "report_id": (0x140, 32),
    "report_id_ma": (0x160, 32),
    "reported_tcb": (0x180, 8),
    "cpuid": (0x188, 3),
    "chip_id": (0x1A0, 64),
    "committed_tcb": (0x1E0, 8),
    "firmware": (0x1E8, 8),
    "launch_tcb": (0x1F0, 8),
    "launch_mit_vector": (0x1F8, 8),
    "current_mit_vector": (0x200, 8),
}


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SIMULATED HARDWARE"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _pss() -> padding.PSS:
    return padding.PSS(padding.MGF1(SHA384()), PSS_SALT_BYTES)


def _ia5(text: str) -> bytes:
    return bytes((0x16, len(text))) + text.encode("ascii")


def _der_uint8(value: int) -> bytes:
    return bytes((2, 1, value)) if value < 0x80 else bytes((2, 2, 0, value))
