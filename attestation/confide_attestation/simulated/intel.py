"""A SIMULATED Intel: certificates, lists, TCB info, QE identity and quotes in the real formats.

Keys are made by OpenSSL's own generator and live in memory only. Every document can be signed with a lie in it.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from confide_attestation.tdx import abi

LIFETIME_S = 30 * 86_400
PLATFORM_CA = "Intel SGX PCK Platform CA"
PROCESSOR_CA = "Intel SGX PCK Processor CA"
ROOT_CA = "Intel SGX Root CA"
TCB_SIGNING = "Intel SGX TCB Signing"
PCK = "Intel SGX PCK Certificate"
_SGX = (1, 2, 840, 113741, 1, 13, 1)
OID_SGX = x509.ObjectIdentifier(".".join(map(str, _SGX)))
QE_MRSIGNER = "DC9E2A7C6F948F17474E34A7FC43ED030F7C1563F1BABDDF6340C82E0E54A8C5"
SGX_SVNS = (3, 3, 2, 2, 4, 1, 0, 5) + (0,) * 8
TDX_SVNS = (5, 1, 3) + (0,) * 13
PCE_SVN = 13
TREE = dict[str, Any]


@dataclass(frozen=True)
class SimulatedKeys:
    """The private keys of one hierarchy."""

    root: ec.EllipticCurvePrivateKey = field(repr=False)
    ca: ec.EllipticCurvePrivateKey = field(repr=False)
    pck: ec.EllipticCurvePrivateKey = field(repr=False)
    tcb: ec.EllipticCurvePrivateKey = field(repr=False)
    attestation: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> "SimulatedKeys":
        return cls(*(ec.generate_private_key(ec.SECP256R1()) for _ in range(5)))


@dataclass(frozen=True)
class SimulatedIntel:
    """One simulated platform and the hierarchy above it. Every field can be replaced to make it lie.

    `configuration` is what the PCK certificate says: dynamic platform, cached keys, SMT; None says nothing.
    """

    keys: SimulatedKeys
    not_before_unix_s: int
    not_after_unix_s: int
    ca_name: str = PLATFORM_CA
    ppid: bytes = hashlib.sha256(b"simulated ppid").digest()[:16]
    fmspc: bytes = bytes.fromhex("90c06f000000")
    pce_id: bytes = b"\0\0"
    sgx_svns: Sequence[int] = SGX_SVNS
    pce_svn: int = PCE_SVN
    configuration: Sequence[bool] | None = (True, True, True)
    mr_td: bytes = hashlib.sha384(b"simulated mrtd").digest()
    mr_seam: bytes = hashlib.sha384(b"simulated mrseam").digest()

    @classmethod
    def make(cls, now_unix_s: int, *, keys: SimulatedKeys | None = None, **fields: Any) -> "SimulatedIntel":  # noqa: ANN401 - any field of the class
        """Make a platform whose documents are good from an hour ago for 30 days."""
        window = {"not_before_unix_s": now_unix_s - 3600, "not_after_unix_s": now_unix_s + LIFETIME_S}
        return cls(**{"keys": keys or SimulatedKeys.generate(), **window, **fields})

    @cached_property
    def root(self) -> bytes:
        return self.certificate(ROOT_CA, ROOT_CA, self.keys.root, self.keys.root)

    @cached_property
    def ca(self) -> bytes:
        return self.certificate(self.ca_name, ROOT_CA, self.keys.ca, self.keys.root)

    @cached_property
    def pck(self) -> bytes:
        return self.certificate(PCK, self.ca_name, self.keys.pck, self.keys.ca)

    @cached_property
    def tcb_signing(self) -> bytes:
        return self.certificate(TCB_SIGNING, ROOT_CA, self.keys.tcb, self.keys.root)

    def certificate(
        self,
        subject: str,
        issuer: str,
        key: ec.EllipticCurvePrivateKey,
        signed_by: ec.EllipticCurvePrivateKey,
        *,
        window: tuple[int, int] | None = None,
    ) -> bytes:
        """Issue one certificate; its extensions follow from its subject."""
        start, end = window or (self.not_before_unix_s, self.not_after_unix_s)
        is_ca = subject.endswith("CA")
        usage = dict.fromkeys(
            ("key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"), False
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name(issuer))
            .public_key(key.public_key())
            .serial_number(serial_of(subject))
            .not_valid_before(datetime.fromtimestamp(start, UTC))
            .not_valid_after(datetime.fromtimestamp(end, UTC))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_key_id(signed_by), critical=False)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=not is_ca,
                    content_commitment=not is_ca,
                    key_cert_sign=is_ca,
                    crl_sign=is_ca,
                    **usage,
                ),
                critical=True,
            )
        )
        if subject == PCK:
            value = x509.UnrecognizedExtension(OID_SGX, self._sgx_extension())
            builder = builder.add_extension(value, critical=False)
        return builder.sign(signed_by, SHA256()).public_bytes(Encoding.DER)

    def crl(
        self,
        issuer: str,
        signed_by: ec.EllipticCurvePrivateKey,
        *,
        revoked: Collection[int] = (),
        window: tuple[int, int] | None = None,
    ) -> bytes:
        """Issue a revocation list; Intel's carry a number and the issuer's key id, and so do these."""
        start, end = window or (self.not_before_unix_s, self.not_after_unix_s)
        issued = datetime.fromtimestamp(start, UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name(issuer))
            .last_update(issued)
            .next_update(datetime.fromtimestamp(end, UTC))
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(_key_id(signed_by), critical=False)
        )
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(issued).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(signed_by, SHA256()).public_bytes(Encoding.DER)

    def tcb_info(self, **fields: Any) -> TREE:  # noqa: ANN401 - any field of the document
        """Return the TCB info, to be changed and signed; `level` makes the levels in it."""
        module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
        module_levels = [
            {"tcb": {"isvsvn": 5}, "tcbDate": "2024-11-13T00:00:00Z", "tcbStatus": "UpToDate"},
            {"tcb": {"isvsvn": 2}, "tcbDate": "2023-08-09T00:00:00Z", "tcbStatus": "OutOfDate"},
        ]
        return {
            "id": "TDX",
            "version": 3,
            **self._window(),
            "fmspc": self.fmspc.hex(),
            "pceId": self.pce_id.hex(),
            "tcbType": 0,
            "tcbEvaluationDataNumber": 18,
            "tdxModule": module,
            "tdxModuleIdentities": [{"id": "TDX_01", **module, "tcbLevels": module_levels}],
            "tcbLevels": [level()],
            **fields,
        }

    def qe_identity(self, **fields: Any) -> TREE:  # noqa: ANN401 - any field of the document
        """Return the identity of the quoting enclave, to be changed and signed."""
        return {
            "id": "TD_QE",
            "version": 2,
            **self._window(),
            "tcbEvaluationDataNumber": 18,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": "11000000000000000000000000000000",
            "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
            "mrsigner": QE_MRSIGNER,
            "isvprodid": 2,
            "tcbLevels": [{"tcb": {"isvsvn": 4}, "tcbDate": "2024-11-13T00:00:00Z", "tcbStatus": "UpToDate"}],
            **fields,
        }

    def collateral(self, *, tcb_info: TREE | None = None, qe_identity: TREE | None = None, **parts: str) -> bytes:
        """Sign both documents and return the collateral as JSON; `parts` replaces whole parts of it."""
        tcb = json.dumps(tcb_info or self.tcb_info(), separators=(",", ":"))
        qe = json.dumps(qe_identity or self.qe_identity(), separators=(",", ":"))
        tree = {
            "pck_crl_issuer_chain": pem(self.ca, self.root),
            "root_ca_crl": self.crl(ROOT_CA, self.keys.root).hex(),
            "pck_crl": self.crl(self.ca_name, self.keys.ca).hex(),
            "tcb_info_issuer_chain": pem(self.tcb_signing, self.root),
            "tcb_info": tcb,
            "tcb_info_signature": sign(self.keys.tcb, tcb.encode()).hex(),
            "qe_identity_issuer_chain": pem(self.tcb_signing, self.root),
            "qe_identity": qe,
            "qe_identity_signature": sign(self.keys.tcb, qe.encode()).hex(),
            **parts,
        }
        return json.dumps(tree).encode()

    def sign_quote(
        self,
        report_data: bytes,
        *,
        body_type: abi.BodyType | None = None,
        header: Mapping[int, bytes] | None = None,
        qe_report: Mapping[int, bytes] | None = None,
        chain: bytes | None = None,
        **fields: bytes,
    ) -> bytes:
        """Sign a quote: of version 5 if a `body_type` is given, else 4.

        `fields` replaces fields of the body by their names, `header` and `qe_report` bytes by their offsets,
        `chain` the certificates.
        """
        kind = body_type or abi.BodyType.TD10
        body = bytearray(abi.BODY_BYTES[kind])
        values = {
            "tee_tcb_svn": bytes(TDX_SVNS),
            "tee_tcb_svn2": bytes(TDX_SVNS),
            "mr_seam": self.mr_seam,
            "td_attributes": abi.TdBit.SEPT_VE_DISABLE.to_bytes(8, "little"),
            "xfam": (0x602E7).to_bytes(8, "little"),
            "mr_td": self.mr_td,
            "report_data": report_data,
            **fields,
        }
        layout = {**abi.FIELDS, **(abi.TD15_FIELDS if kind is abi.BodyType.TD15 else {})}
        for name, (at, size) in layout.items():
            body[at : at + size] = values.get(name, bytes(size))
        head = bytearray((4 if body_type is None else 5).to_bytes(2, "little") + b"\x02\0")
        head += abi.TEE_TDX.to_bytes(4, "little") + bytes(4) + abi.INTEL_QE_VENDOR + bytes(20)
        _patch(head, header)
        if body_type is not None:
            head += body_type.to_bytes(2, "little") + len(body).to_bytes(4, "little")
        signed = bytes(head + body)
        key = self.keys.attestation.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
        auth = bytes(range(32))
        report = self._qe_report(key, auth)
        _patch(report, qe_report)
        certificates = pem(self.pck, self.ca, self.root).encode() + b"\0" if chain is None else chain
        inner = (
            bytes(report)
            + sign(self.keys.pck, bytes(report))
            + len(auth).to_bytes(2, "little")
            + auth
            + _sized(abi.CERT_PEM_CHAIN, certificates)
        )
        signature = sign(self.keys.attestation, signed) + key + _sized(abi.CERT_QE_REPORT, inner)
        return signed + len(signature).to_bytes(4, "little") + signature

    def _qe_report(self, key: bytes, auth: bytes) -> bytearray:
        report = bytearray(abi.QE_REPORT_BYTES)
        for at, value in (
            (0, bytes(self.sgx_svns)),
            (48, bytes.fromhex("1500000000000000e700000000000000")),
            (64, hashlib.sha256(b"simulated quoting enclave").digest()),
            (128, bytes.fromhex(QE_MRSIGNER)),
            (256, (2).to_bytes(2, "little") + (7).to_bytes(2, "little")),
            (320, hashlib.sha256(key + auth).digest()),
        ):
            report[at : at + len(value)] = value
        return report

    def _window(self) -> TREE:
        def text(unix_s: int) -> str:
            return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%dT%H:%M:%SZ}"

        return {"issueDate": text(self.not_before_unix_s), "nextUpdate": text(self.not_after_unix_s)}

    def _sgx_extension(self) -> bytes:
        svns = [_field((2, at), _integer(svn)) for at, svn in enumerate(self.sgx_svns, 1)]
        svns += [
            _field((2, 17), _integer(self.pce_svn)),
            _field((2, 18), _der(0x04, bytes(self.sgx_svns).ljust(16, b"\0"))),
        ]
        said = [
            _field((7, at), _der(0x01, b"\xff" if is_on else b"\0"))
            for at, is_on in enumerate(self.configuration or (), 1)
        ]
        configuration = _field((7,), _der(0x30, b"".join(said))) if said else b""
        return _der(
            0x30,
            _field((1,), _der(0x04, self.ppid))
            + _field((2,), _der(0x30, b"".join(svns)))
            + _field((3,), _der(0x04, self.pce_id))
            + _field((4,), _der(0x04, self.fmspc))
            + _field((5,), _der(0x0A, b"\x01"))
            + _field((6,), _der(0x04, bytes(range(16))))
            + configuration,
        )


def level(
    status: str = "UpToDate",
    *,
    sgx: Sequence[int] = SGX_SVNS,
    tdx: Sequence[int] = TDX_SVNS,
    pce_svn: int = PCE_SVN,
    advisories: Sequence[str] = (),
    date: str = "2024-11-13T00:00:00Z",
) -> TREE:
    """Return one TCB level, as TCB info lists them."""
    return {
        "tcb": {
            "sgxtcbcomponents": [{"svn": svn} for svn in sgx],
            "pcesvn": pce_svn,
            "tdxtcbcomponents": [{"svn": svn} for svn in tdx],
        },
        "tcbDate": date,
        "tcbStatus": status,
        **({"advisoryIDs": list(advisories)} if advisories else {}),
    }


def pem(*certificates: bytes) -> str:
    """Return DER certificates as the text that Intel publishes them in."""
    loaded = (x509.load_der_x509_certificate(der) for der in certificates)
    return "".join(each.public_bytes(Encoding.PEM).decode() for each in loaded)


def sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """Sign as Intel does: r and s, 32 bytes each."""
    r, s = utils.decode_dss_signature(key.sign(data, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def serial_of(subject: str) -> int:
    """Return the serial number of a certificate, by which a list revokes it."""
    return 1 + int.from_bytes(hashlib.sha256(subject.encode()).digest()[:4], "big")


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SIMULATED HARDWARE"),
        ]
    )


def _key_id(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _patch(data: bytearray, patches: Mapping[int, bytes] | None) -> None:
    for at, patch in (patches or {}).items():
        data[at : at + len(patch)] = patch


def _sized(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2, "little") + len(data).to_bytes(4, "little") + data


def _field(path: tuple[int, ...], value: bytes) -> bytes:
    first, second, *rest = (*_SGX, *path)
    body = bytes((40 * first + second,)) + b"".join(_base128(number) for number in rest)
    return _der(0x30, _der(0x06, body) + value)


def _base128(number: int) -> bytes:
    digits = [number & 0x7F]
    while number := number >> 7:
        digits.append(number & 0x7F | 0x80)
    return bytes(reversed(digits))


def _integer(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _der(tag: int, value: bytes) -> bytes:
    size = len(value)
    length = bytes((size,)) if size < 0x80 else bytes((0x82,)) + size.to_bytes(2, "big")
    if 0x80 <= size < 0x100:
        length = bytes((0x81, size))
    return bytes((tag,)) + length + value
