"""A SIMULATED NVIDIA: hierarchies of devices and manifests, reports, RIMs and OCSP answers in the real formats.

Each part can be mended. Keys are made by OpenSSL's own generator and live in memory only.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from lxml import etree

from confide_attestation.nvidia.certificates import FWID_HEAD, OID_FWID, OID_TCB_INFO, spki_sha256
from confide_attestation.nvidia.chain import NvidiaRoots, simulated_roots
from confide_attestation.nvidia.device import Arch
from confide_attestation.nvidia.evidence import DeviceEvidence
from confide_attestation.nvidia.ocsp import OcspAnswer
from confide_attestation.nvidia.spdm import Opaque

LIFETIME_S = 30 * 86_400
CHIP = {Arch.HOPPER: "GH100 A01 GSP", Arch.BLACKWELL: "GB100 A01 GSP", Arch.LS10: "LS_10 A01 FSP"}
DRIVER_INDICES = (7, *range(21, 41))
VBIOS_INDICES = (*range(7), *range(8, 13))
_BLOCKS = {Arch.HOPPER: 64, Arch.BLACKWELL: 64, Arch.LS10: 31}
_USAGE = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip
Key = ec.EllipticCurvePrivateKey


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP384R1())


@dataclass(frozen=True)
class SimulatedVendor:
    """The roots and authorities above all devices and manifests, good from an hour before `now` for 30 days."""

    now_unix_s: int
    keys: Mapping[str, Key] = field(
        default_factory=lambda: {
            name: new_key() for name in ("root", "identity", "ica", "rim_root", "rim_ca", "rim_l3", "rim_l4")
        },
        repr=False,
    )

    @cached_property
    def root(self) -> x509.Certificate:
        return self.issue("NVIDIA Device Identity CA", "root", None)

    @cached_property
    def identity(self) -> x509.Certificate:
        return self.issue("NVIDIA GH100 Identity", "identity", self.root, by="root")

    @cached_property
    def ica(self) -> x509.Certificate:
        return self.issue("NVIDIA Provisioner ICA 1", "ica", self.identity, by="identity")

    @cached_property
    def rim_chain(self) -> tuple[x509.Certificate, ...]:
        root = self.issue("NVIDIA CoRIM signing Root CA", "rim_root", None)
        ca = self.issue("NVIDIA Reference Value CA", "rim_ca", root, by="rim_root")
        l3 = self.issue("NVIDIA Reference Value L3", "rim_l3", ca, by="rim_ca")
        return self.issue("HCC RIM L4 Signer", "rim_l4", l3, by="rim_l3", authority=False), l3, ca, root

    @cached_property
    def roots(self) -> NvidiaRoots:
        return simulated_roots(spki_sha256(self.root), spki_sha256(self.rim_chain[-1]))

    def issue(
        self,
        subject: str,
        key: str | Key,
        issuer: x509.Certificate | None,
        *,
        by: str | Key | None = None,
        authority: bool = True,
        serial_number: str | None = None,
        extensions: Sequence[x509.ExtensionType] = (),
        window: tuple[int, int] | None = None,
    ) -> x509.Certificate:
        """Issue one certificate; keys are named, or given; without an issuer it signs itself."""
        own, signer = (self.keys[each] if isinstance(each, str) else each for each in (key, by or key))
        names = [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SIMULATED HARDWARE"),
            x509.NameAttribute(NameOID.COMMON_NAME, subject),
        ]
        if serial_number is not None:
            names.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, serial_number))
        start, end = window or (self.now_unix_s - 3600, self.now_unix_s + LIFETIME_S)
        usage = {**dict.fromkeys(_USAGE, False), "key_cert_sign" if authority else "digital_signature": True}
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(names))
            .issuer_name(x509.Name(names) if issuer is None else issuer.subject)
            .public_key(own.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.fromtimestamp(start, UTC))
            .not_valid_after(datetime.fromtimestamp(end, UTC))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
        )
        for each in extensions:
            builder = builder.add_extension(each, critical=False)
        return builder.sign(signer, SHA384())

    def answer(
        self,
        subject: x509.Certificate,
        issuer: x509.Certificate,
        by: Key,
        *,
        status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
        reason: x509.ReasonFlags = x509.ReasonFlags.key_compromise,
        window: tuple[int, int] | None = None,
        responder_window: tuple[int, int] | None = None,
        purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.OCSP_SIGNING,
        nonce: bytes | None = None,
    ) -> OcspAnswer:
        """Answer for `subject` by a responder that `by`, the issuer's key, delegates."""
        key, (start, end) = new_key(), window or (self.now_unix_s - 60, self.now_unix_s + 86_340)
        delegate = self.issue(
            "OCSP Responder",
            key,
            issuer,
            by=by,
            authority=False,
            extensions=(x509.ExtendedKeyUsage([purpose]),),
            window=responder_window,
        )
        revoked = status is ocsp.OCSPCertStatus.REVOKED
        builder = (
            ocsp.OCSPResponseBuilder()
            .add_response(
                subject,
                issuer,
                SHA384(),
                status,
                datetime.fromtimestamp(start, UTC),
                datetime.fromtimestamp(end, UTC),
                datetime.fromtimestamp(start, UTC) if revoked else None,
                reason if revoked else None,
            )
            .responder_id(ocsp.OCSPResponderEncoding.HASH, delegate)
            .certificates([delegate])
        )
        if nonce is not None:
            builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
        return OcspAnswer(builder.sign(key, SHA384()).public_bytes(Encoding.DER))

    def rim(
        self,
        version: str,
        golden: Mapping[int, Sequence[bytes]],
        *,
        edition: str = "GPU",
        product: str = "GH100",
        replacements: Mapping[str, str] | None = None,
        chain: Sequence[x509.Certificate] | None = None,
        key: Key | None = None,
    ) -> bytes:
        """Sign a manifest. `replacements` edit its text before it is signed, signature's form included."""
        resources = "".join(_resource(index, golden.get(index)) for index in range(64))
        text = _RIM.format(version=version, edition=edition, product=product, resources=resources)
        info = _SIGNED_INFO
        for old, new in (replacements or {}).items():
            text, info = text.replace(old, new), info.replace(old, new)
        covered = etree.tostring(etree.fromstring(text.encode()), method="c14n")
        info = info.replace("DIGEST", base64.b64encode(hashlib.sha384(covered).digest()).decode())
        certificates = "".join(
            f"<ds:X509Certificate>{base64.b64encode(each.public_bytes(Encoding.DER)).decode()}</ds:X509Certificate>"
            for each in chain or self.rim_chain
        )
        signature = f'<ds:Signature xmlns:ds="{_DS}">{info}<ds:SignatureValue>SIGNATURE</ds:SignatureValue>'
        signature += f"<ds:KeyInfo><ds:X509Data>{certificates}</ds:X509Data></ds:KeyInfo></ds:Signature>"
        whole = text.replace("</SoftwareIdentity>", f"{signature}</SoftwareIdentity>")
        element = etree.fromstring(whole.encode()).find(f".//{{{_DS}}}SignedInfo")
        assert element is not None  # noqa: S101 - it was just written
        signed = sign_raw(key or self.keys["rim_l4"], etree.tostring(element, method="c14n"))
        return whole.replace("SIGNATURE<", base64.b64encode(signed).decode() + "<").encode()


@dataclass(frozen=True)
class SimulatedDevice:
    """One GPU or switch under a simulated vendor. Every field can be replaced to make it lie."""

    vendor: SimulatedVendor
    arch: Arch = Arch.HOPPER
    pdi: bytes = b"\x43\x1d\x48\x0f\xe5\xe8\x72\x74"
    driver: str = "550.90.07"
    vbios: bytes = bytes.fromhex("009f009601000000")
    bios: str = "96.10.55.00.01"
    fwid: bytes = b"\x5a" * 48
    brom_key: Key = field(default_factory=new_key, repr=False)
    leaf_key: Key = field(default_factory=new_key, repr=False)

    @property
    def name(self) -> str:
        return CHIP[self.arch]

    @cached_property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        vendor = self.vendor
        serial = "41" + self.pdi.hex().upper()
        brom = vendor.issue(f"{self.name} BROM", self.brom_key, vendor.ica, by="ica", serial_number=serial)
        extension = x509.UnrecognizedExtension(*self.fwid_extension)
        leaf = vendor.issue(
            f"{self.name} FMC LF", self.leaf_key, brom, by=self.brom_key, authority=False, extensions=(extension,)
        )
        return leaf, brom, vendor.ica, vendor.identity, vendor.root

    @property
    def fwid_extension(self) -> tuple[x509.ObjectIdentifier, bytes]:
        """Return the extension of the architecture: Blackwell's has a second FWID of zeros."""
        fwid = FWID_HEAD + self.fwid
        if self.arch is not Arch.BLACKWELL:
            return OID_FWID, b"\x30\x81" + bytes([3 + len(fwid)]) + b"\x02\x01\x01" + fwid
        fwids = fwid + FWID_HEAD + bytes(48)
        inner = b"\x80\x06NVIDIA\xa6" + bytes([len(fwids)]) + fwids
        return OID_TCB_INFO, b"\x30\x81" + bytes([len(inner)]) + inner

    @property
    def chain(self) -> bytes:
        return pem(self.certificates)

    def measurement(self, index: int) -> bytes:
        return hashlib.sha384(f"{self.arch} {index}".encode()).digest()

    def golden(self, indices: Sequence[int]) -> dict[int, tuple[bytes, ...]]:
        return {index: (self.measurement(index),) for index in indices}

    @property
    def rims(self) -> tuple[bytes, ...]:
        """Return the manifests that fit this device."""
        if self.arch is Arch.LS10:
            golden = self.golden(range(31))
            return (self.vendor.rim(self.bios, golden, edition="SWITCH", product="LS10"),)
        chip = self.name.split()[0]
        driver = self.vendor.rim(self.driver, self.golden(DRIVER_INDICES), product=chip)
        return driver, self.vendor.rim("96.00.9F.00.01", self.golden(VBIOS_INDICES), product=chip)

    def opaque(self) -> dict[int, bytes]:
        """Return the opaque data of the architecture, in the order of the wire."""
        if self.arch is Arch.LS10:
            return {
                Opaque.VBIOS_VERSION: self.bios.encode(),
                Opaque.SWITCH_PDI: self.pdi,
                Opaque.SWITCH_GPU_PDIS: b"\xff" * 128,
                Opaque.LOCK_SWITCH_STATUS: b"\x01\0",
            }
        return {
            Opaque.VBIOS_VERSION: self.vbios,
            Opaque.CHIP_SKU: b"882\0\0\0\0\0\0",
            Opaque.PROJECT: b"1010\0",
            Opaque.PROJECT_SKU: b"0200\0",
            Opaque.DRIVER_VERSION: self.driver.encode() + b"\0",
            Opaque.NVDEC0_STATUS: b"\x55",
            Opaque.FWID: self.fwid,
            Opaque.PROTECTED_PCIE_STATUS: b"\x55",
        }

    def report(
        self,
        nonce: bytes,
        *,
        measured: Mapping[int, bytes] | None = None,
        opaque: Mapping[int, bytes | None] | None = None,
        patches: Mapping[int, bytes] | None = None,
        tail: bytes = b"",
    ) -> bytes:
        """Sign a report. `measured`, `opaque` replace values (None leaves one out), `patches` bytes by offset."""
        values = [(measured or {}).get(index, self.measurement(index)) for index in range(_BLOCKS[self.arch])]
        record = b"".join(
            bytes([number, 1]) + _u16(len(value) + 3) + b"\x01" + _u16(len(value)) + value
            for number, value in enumerate(values, 1)
        )
        parts = {**self.opaque(), **(opaque or {})}
        data = b"".join(_u16(kind) + _u16(len(each)) + each for kind, each in parts.items() if each is not None)
        data += tail
        body = bytearray(b"\x11\xe0\x01\xff" + nonce + b"\0" + b"\x11\x60\0\0" + bytes([len(values)]))
        body += len(record).to_bytes(3, "little") + record + b"\x77" * 32 + _u16(len(data)) + data
        for at, patch in (patches or {}).items():
            body[at : at + len(patch)] = patch
        return bytes(body) + sign_raw(self.leaf_key, bytes(body))

    def evidence(self, nonce: bytes, opaque: Mapping[int, bytes | None] | None = None) -> DeviceEvidence:
        return DeviceEvidence(self.report(nonce, opaque=opaque), self.chain)

    def answers(self) -> tuple[OcspAnswer, ...]:
        """Answer GOOD for each certificate of this device and of the manifests."""
        keys = self.vendor.keys
        device = zip(self.certificates[1:], self.certificates[2:], ("ica", "identity", "root"), strict=False)
        chain = self.vendor.rim_chain
        rims = zip(chain, chain[1:], ("rim_l3", "rim_ca", "rim_root"), strict=False)
        return tuple(self.vendor.answer(subject, issuer, keys[by]) for subject, issuer, by in (*device, *rims))


def sign_raw(key: Key, data: bytes) -> bytes:
    """Sign with ECDSA P-384 and SHA-384, as r || s."""
    numbers = utils.decode_dss_signature(key.sign(data, ec.ECDSA(SHA384())))
    return b"".join(number.to_bytes(48, "big") for number in numbers)


def pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "little")


def _resource(index: int, values: Sequence[bytes] | None) -> str:
    listed = [bytes(48)] if values is None else values
    hashes = " ".join(f'ns2:Hash{n}="{value.hex()}"' for n, value in enumerate(listed))
    return (
        f'<ns0:Resource type="Measurement" index="{index}" active="{values is not None}" '
        f'alternatives="{len(listed)}" {hashes} name="Measurement_{index}" size="48"/>\n'
    )


_SWID = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
_DS = "http://www.w3.org/2000/09/xmldsig#"
_MORE = "http://www.w3.org/2001/04/xmldsig-more#"
_C14N11 = "http://www.w3.org/2006/12/xml-c14n11"
_TCG = "https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/"
_RIM = (
    f'<SoftwareIdentity xmlns="{_SWID}" xmlns:ns0="{_SWID}" xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha384"'
    ' corpus="false" name="{product}" patch="false" supplemental="false" tagId="simulated" version="1.0"'
    ' tagVersion="0">\n<ns0:Entity name="SIMULATED HARDWARE" role="softwareCreator tagCreator"/>\n'
    f'<ns0:Meta xmlns:ns1="{_TCG}"'
    ' colloquialVersion="{version}" edition="{edition}" product="{product}" revision="r1" PayloadType="direct"'
    ' ns1:FirmwareManufacturerId="5703"/>\n<ns0:Payload>{resources}</ns0:Payload>\n</SoftwareIdentity>'
)
_SIGNED_INFO = (
    f'<ds:SignedInfo><ds:CanonicalizationMethod Algorithm="{_C14N11}"/>'
    f'<ds:SignatureMethod Algorithm="{_MORE}ecdsa-sha384"/><ds:Reference URI=""><ds:Transforms>'
    f'<ds:Transform Algorithm="{_DS}enveloped-signature"/><ds:Transform Algorithm="{_C14N11}"/></ds:Transforms>'
    f'<ds:DigestMethod Algorithm="{_MORE}sha384"/><ds:DigestValue>DIGEST</ds:DigestValue></ds:Reference>'
    "</ds:SignedInfo>"
)
