"""Nodes behind TLS: the named CA is the one that is trusted."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from confide_gateway.forward import UpstreamPool, UpstreamRequest, UpstreamUnreachable
from confide_gateway.forward.own import OwnPool
from confide_gateway.forward.reference import HttpxPool
from confide_gateway.serve import targets_of
from confide_gateway.settings import load_settings
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.fakes import upstream as fake
from tests.fakes.gateway import write_files
from tests.fakes.upstream import FakeUpstream

pytestmark = pytest.mark.anyio


def self_signed(folder: Path, name: str) -> Path:
    """Write a certificate for 127.0.0.1 and its key into one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    path = folder / f"{name}.pem"
    pem_key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(certificate.public_bytes(Encoding.PEM) + pem_key)
    return path


@pytest.mark.parametrize("pool_type", [OwnPool, HttpxPool])
async def test_the_named_ca_and_no_other_is_trusted(tmp_path: Path, pool_type: type) -> None:
    """A node with that certificate is reached; with any other it counts as unreachable and sees no request."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(self_signed(tmp_path, "node"))
    self_signed(tmp_path, "other")
    async with FakeUpstream(fake.echo, tls=tls) as node:
        config = write_files(tmp_path, [f"https://127.0.0.1:{node.port}"])
        text = config.read_text()
        for ca_file, reached in (("node.pem", True), ("other.pem", False)):
            config.write_text(f'{text}ca_file = "{ca_file}"\n')
            (target,) = targets_of(load_settings(config), tmp_path)
            pool: UpstreamPool = pool_type(target)
            request = UpstreamRequest("POST", "/ohttp/x", (), b"sealed")
            if reached:
                response = await pool.send(request)
                assert await response.read() == b"sealed"
                await response.close()
            else:
                with pytest.raises(UpstreamUnreachable):
                    await pool.send(request)
            await pool.aclose()
        assert len(node.seen) == 1
